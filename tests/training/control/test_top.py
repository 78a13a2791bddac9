"""10 % BC learns from exactly the best episodes, cut where they ended."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.recorded import recorded

from pmpo_offline.data import Dataset
from pmpo_offline.declarations import catalog
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.training import train
from pmpo_offline.training.control.sampler import Sampler, top_rows

LENGTHS = [1, 3, 2, 1, 4]
REWARD = [5, 1, 1, 1, 3, 3, 4, 0.5, 1, 1, 1]  # returns 5, 3, 6, 4, 3.5; the best reward a step is the first episode's


def episodes() -> Dataset:
    """Five episodes; the action of a row is its number."""
    row = np.arange(11.0)[:, None]
    return recorded(row, row, REWARD, LENGTHS, [True, False] * 2 + [True], np.zeros((5, 1)))


@pytest.mark.parametrize(
    ("share", "rows"),
    [
        (0.01, [4, 5]),  # one episode at least
        (0.2, [4, 5]),
        (0.39, [4, 5]),  # rounded down
        (0.4, [0, 4, 5]),
        (0.6, [0, 4, 5, 6]),
        (0.8, [0, 4, 5, 6, 7, 8, 9, 10]),
        (1.0, list(range(11))),
    ],
)
def test_the_rows_of_the_best_episodes_by_hand(share: float, rows: list[int]) -> None:
    assert top_rows(episodes(), share).tolist() == rows


def test_of_equal_returns_the_earlier_episode() -> None:
    equal = recorded(np.zeros((6, 1)), np.zeros((6, 1)), [1, 1, 2, 1, 1, 0], [2, 1, 3], [False] * 3, np.zeros((3, 1)))
    assert top_rows(equal, 0.4).tolist() == [0, 1]


@pytest.mark.parametrize("count", [10, 30, 70, 200])
def test_a_tenth_is_a_tenth(count: int) -> None:
    many = recorded(np.zeros((count, 1)), np.zeros((count, 1)), np.arange(count), [1] * count, [True] * count,
                    np.zeros((count, 1)))  # fmt: skip
    assert top_rows(many, 0.1).tolist() == list(range(count - count // 10, count))


def test_minibatches_hold_those_rows_and_no_others() -> None:
    algorithm = catalog.algorithm("top-bc").model_copy(update={"top": 0.4})
    sampler = Sampler(episodes(), algorithm, [0, 1], shuffle=False, device=torch.device("cpu"))
    drawn = torch.cat([sampler.batch(step, 32, None).index for step in range(5)], dim=1)  # type: ignore[arg-type, union-attr]
    assert {int(each) for each in drawn.unique()} == {0, 4, 5}


def test_the_policy_acts_as_the_best_episodes_did() -> None:
    action = np.full((11, 1), -0.5)
    action[4:6] = 0.5
    dataset = recorded(np.zeros((11, 1)), action, REWARD, LENGTHS, [True] * 5, np.zeros((5, 1)))
    overrides = {"updates": 200, "batch": 16, "hidden": [8], "learning_rate": 0.02, "averaging": 0.9}
    policy = train(dataset, "top-bc", overrides=overrides, device="cpu").policy
    assert policy(torch.zeros(1, 1, 1)).mode().item() == pytest.approx(0.5, abs=0.02)


def test_what_has_no_episodes_is_refused() -> None:
    with pytest.raises(UserError, match="test/recorded-v0 holds responses"):
        top_rows(replace(episodes(), episodes=None), 0.1)
