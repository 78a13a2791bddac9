"""A stack of transformers is the separate transformers, and none of them sees what comes later."""

from __future__ import annotations

import itertools

import pytest
import torch

from benchmarks.experiments.stability.sequence import SequencePolicy

V, T = 5, 6


def policies(*seeds: int) -> SequencePolicy:
    return SequencePolicy(seeds, V, T, width=8, heads=2)


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(V, (7, T), generator=torch.Generator().manual_seed(0))


def test_log_probabilities_are_normalised(tokens: torch.Tensor) -> None:
    found = policies(0, 1)(tokens)
    assert found.shape == (2, 7, T, V)
    torch.testing.assert_close(found.exp().sum(-1), torch.ones(2, 7, T))


def test_a_run_alone_equals_the_run_in_a_stack(tokens: torch.Tensor) -> None:
    together = policies(3, 4, 5)
    for run, seed in enumerate((3, 4, 5)):
        torch.testing.assert_close(policies(seed)(tokens)[0], together(tokens)[run])
    # Runs with sequences of their own find their own embeddings.
    own = torch.stack([tokens, tokens.flip(0), tokens.flip(1)])
    torch.testing.assert_close(together(own)[1], policies(4)(tokens.flip(0))[0])
    assert not torch.allclose(together(tokens)[0], together(tokens)[1])


def test_a_run_learns_alone(tokens: torch.Tensor) -> None:
    stack = policies(0, 1, 2)
    stack.log_prob(tokens, 2)[1].sum().backward()
    for name, weight in stack.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad[1].any(), name
        assert not weight.grad[[0, 2]].any(), name


def test_what_comes_later_does_not_matter(tokens: torch.Tensor) -> None:
    policy = policies(0)
    before = policy(tokens)
    for place in range(1, T):
        changed = tokens.clone()
        changed[:, place] = (changed[:, place] + 1) % V
        after = policy(changed)
        assert after[:, :, :place].equal(before[:, :, :place])
        assert not torch.allclose(after[:, :, place], before[:, :, place])


def test_log_prob_of_all_continuations_adds_up_to_one() -> None:
    policy = policies(0, 1)
    prompt = torch.tensor([1, 4, 2])
    every = torch.tensor([[*prompt, *rest] for rest in itertools.product(range(V), repeat=3)])
    torch.testing.assert_close(policy.log_prob(every, 3).exp().sum(-1), torch.ones(2))


def test_samples_follow_the_probabilities() -> None:
    policy = policies(0)
    with torch.no_grad():
        policy.head.weight.mul_(20)  # far from uniform
    prompt = torch.tensor([[1, 3]]).expand(20_000, -1)
    uniform = torch.rand(20_000, 2, generator=torch.Generator().manual_seed(1))
    drawn = policy.sample(prompt, uniform)[0]
    assert drawn[:, :2].equal(prompt)
    every = torch.tensor([[1, 3, *rest] for rest in itertools.product(range(V), repeat=2)])
    frequency = torch.bincount(drawn[:, 2] * V + drawn[:, 3], minlength=V * V) / len(drawn)
    torch.testing.assert_close(frequency, policy.log_prob(every, 2).exp()[0], atol=0.015, rtol=0)


def test_sequences_that_are_too_long_and_heads_that_do_not_fit(tokens: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="sequences of 7 tokens, but there are positions for 6"):
        policies(0)(torch.zeros(1, 7, dtype=torch.long))
    with pytest.raises(ValueError, match="width 10 is not a multiple of 4 heads"):
        SequencePolicy([0], V, T, width=10)
