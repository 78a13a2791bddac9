"""λ-returns by hand, at their two ends, and beside the recursion that defines them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pmpo_offline.data import Rows
from pmpo_offline.training.critics.cross_fitted import returns_to_go


def episodes(reward: list[list[float]], truncated: list[bool]) -> Rows:
    """Episodes of these rewards; states and actions do not matter."""
    lengths = [len(each) for each in reward]
    n, episode = sum(lengths), torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    last = torch.cat([episode[1:] != episode[:-1], torch.tensor([True])])
    cut = torch.tensor(truncated)[episode]
    following = torch.arange(1, n + 1)
    following[last] = n + torch.arange(len(lengths))
    return Rows(
        states=torch.zeros(n + len(lengths), 1),
        next_row=following,
        action=torch.zeros(n, 1),
        reward=torch.tensor([each for one in reward for each in one]),
        terminated=last & ~cut,
        truncated=last & cut,
        episode=episode,
        score=torch.full((n,), torch.nan),
        label=torch.zeros(n),
    )


BOTH = episodes([[1, 2, 3], [10, 20]], [False, True])
NEXT = torch.tensor([4.0, 8, 99, 16, 100])  # V of each step's next state; the 99 stands after the end


def test_whole_returns_by_hand() -> None:
    # terminated: 3; 2 + 3/2; 1 + 3.5/2.  truncated: 20 + 100/2; 10 + 70/2.
    assert returns_to_go(BOTH, 0.5, NEXT).tolist() == [2.75, 3.5, 3.0, 45.0, 70.0]
    assert returns_to_go(BOTH, 0.0, NEXT).tolist() == BOTH.reward.tolist()


def test_mixed_returns_by_hand() -> None:
    # γ = λ = 1/2, G = r + (V + G')/4.  3; 2 + (8 + 3)/4; 1 + (4 + 4.75)/4.  20 + 100/2; 10 + (16 + 70)/4.
    assert returns_to_go(BOTH, 0.5, NEXT, 0.5).tolist() == [3.1875, 4.75, 3.0, 31.5, 70.0]


def test_without_a_trace_one_step_and_then_the_critic() -> None:
    one_step = BOTH.reward + 0.5 * torch.where(BOTH.terminated, 0, NEXT)
    assert returns_to_go(BOTH, 0.5, NEXT, 0.0).equal(one_step)


def recursion(rows: Rows, discount: float, bootstrap: Tensor, trace: float) -> list[float]:
    """G_t = r_t + γ ((1 - λ) V_t+1 + λ G_t+1), one step after another."""
    found, following = [0.0] * len(rows), 0.0
    for t in range(len(rows) - 1, -1, -1):
        value = float(bootstrap[t])
        if rows.terminated[t]:
            following = float(rows.reward[t])
        elif rows.truncated[t]:
            following = float(rows.reward[t]) + discount * value
        else:
            following = float(rows.reward[t]) + discount * ((1 - trace) * value + trace * following)
        found[t] = following
    return found


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=6),
    st.floats(0, 0.999),
    st.sampled_from([0.0, 0.3, 0.95, 1.0]),
    st.integers(0, 2**32 - 1),
)
def test_as_the_recursion_has_it(ends: list[tuple[int, bool]], discount: float, trace: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = episodes([rng.normal(size=length).tolist() for length, _ in ends], [cut for _, cut in ends])
    values = torch.from_numpy(rng.normal(size=(2, len(rows)))).float()
    found = returns_to_go(rows, discount, values, trace)
    for one, value in zip(found, values, strict=True):
        assert one.tolist() == pytest.approx(recursion(rows, discount, value, trace), rel=1e-6, abs=1e-6)
        # The critics' stack changes nothing, to the bit.
        assert one.equal(returns_to_go(rows, discount, value, trace))


def test_whole_returns_are_the_plain_sum_to_the_bit() -> None:
    """The whole return is what it was before there was a trace: no dataset's scores changed."""
    rng = np.random.default_rng(0)
    rows = episodes([rng.normal(size=length).tolist() for length in (1, 300, 50)], [True, False, True])
    value = torch.from_numpy(rng.normal(size=len(rows))).float()
    plain, following = [0.0] * len(rows), 0.0
    for t in range(len(rows) - 1, -1, -1):
        end = 0.0 if rows.terminated[t] else float(value[t])
        following = float(rows.reward[t]) + 0.97 * (end if rows.terminated[t] | rows.truncated[t] else following)
        plain[t] = following
    assert returns_to_go(rows, 0.97, value).equal(torch.tensor(plain, dtype=torch.float64).float())


def test_exact_values_return_themselves_at_every_trace() -> None:
    # Where V is exact and nothing is random every trace returns the same: V itself.
    rows = replace(episodes([[1.0] * 50], [True]), reward=torch.ones(50))
    exact = torch.full((50,), 1 / (1 - 0.9))
    for trace in (0.0, 0.5, 1.0):
        torch.testing.assert_close(returns_to_go(rows, 0.9, exact, trace), exact)
