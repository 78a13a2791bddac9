"""The ring: what was written is read at its place, neighbours stay neighbours, and the oldest is overwritten."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pmpo_offline.online.replay import Replay, ReplayRows

RUNS, ENVIRONMENTS, TICKS = 2, 3, 7


def written(ticks: int) -> Replay:
    """Return a ring whose every number says where it belongs: 10,000 run + 1,000 environment + tick."""
    replay = Replay(TICKS, RUNS, ENVIRONMENTS, observation_dim=2, action_dim=1)
    for tick in range(ticks):
        code = 10_000.0 * torch.arange(RUNS)[:, None] + 1_000 * torch.arange(ENVIRONMENTS) + tick
        pair = torch.stack([code, -code], -1)
        replay.add(ReplayRows(pair, code.unsqueeze(-1), code / 2, code / 4, torch.full(code.shape, tick % 3).byte()))
    return replay


def everywhere(states: int) -> Tensor:
    return torch.rand(RUNS, states, 2, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("ticks", [5, 7, 8, 20, 21])
def test_stretches_are_consecutive_rows_of_one_environment(ticks: int) -> None:
    replay = written(ticks)
    assert len(replay) == min(ticks, TICKS)
    rows = replay.sample(everywhere(500), 3)
    code = rows.action.squeeze(-1)
    assert code.shape == (RUNS, 500, 3)
    assert torch.equal(code[..., 1:] - code[..., :-1], torch.ones(RUNS, 500, 2))
    assert torch.equal(rows.observation, torch.stack([code, -code], -1))
    assert torch.equal(rows.logp, code / 2)
    assert torch.equal(rows.reward, code / 4)
    assert torch.equal(rows.end, (code % 1000 % 3).byte())
    for run in range(RUNS):
        assert (code[run] // 10_000 == run).all()
    # All environments, and from the oldest row held to the newest.
    assert code.flatten().remainder(10_000).div(1_000).floor().unique().tolist() == [0, 1, 2]
    assert code.remainder(1_000).unique().tolist() == list(range(max(0, ticks - TICKS), ticks))


def test_the_ends_of_the_draw_are_the_oldest_and_the_newest_stretch() -> None:
    replay = written(9)
    uniform = torch.tensor([0.0, 1 - 2**-24]).view(1, 2, 1).expand(RUNS, 2, 2)
    rows = replay.sample(uniform, 4)
    assert rows.action[0, :, :, 0].tolist() == [[2, 3, 4, 5], [2_005, 2_006, 2_007, 2_008]]


def test_too_long_a_stretch_is_refused() -> None:
    with pytest.raises(ValueError, match="stretches of 4 rows need as many ticks, and 3 are held"):
        written(3).sample(everywhere(1), 4)


@pytest.mark.parametrize("ticks", [4, 10])
def test_what_was_saved_is_what_comes_back(ticks: int) -> None:
    replay, other = written(ticks), written(2)
    other.load_state_dict(replay.state_dict())
    for one, two in zip(replay.sample(everywhere(50), 3), other.sample(everywhere(50), 3), strict=True):
        assert torch.equal(one, two)
