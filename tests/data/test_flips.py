"""The rate of flipped labels: closed forms, and labels that were flipped at a known rate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pmpo_offline.build import build_dataset
from pmpo_offline.data import flips
from pmpo_offline.runtime.errors import UserError


def test_duplicates_by_hand():
    """Groups of three and of one: of the three's pairs, 2 in 3 contradict each other where one label differs."""
    content, label = np.repeat(np.arange(400), 3), np.tile([1, 1, 1], 400)
    assert flips.from_duplicates(content, label).rate == 0
    label[::6] = -1  # one of the three in every second group: 200 x 2 of 1,200 pairs disagree
    found = flips.from_duplicates(content, label)
    assert found.rate == pytest.approx((1 - np.sqrt(1 - 2 / 3)) / 2)
    assert (found.source, found.count) == ("duplicates", 1200)
    assert flips.from_duplicates(np.arange(1200), label) is None


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.3])
def test_duplicates_whose_labels_were_flipped(rate: float):
    rng = np.random.default_rng(0)
    content = rng.integers(0, 2000, 10_000)
    truth = np.where(content % 3 == 0, 1, -1)
    label = np.where(rng.random(10_000) < rate, -truth, truth)
    assert flips.from_duplicates(content, label).rate == pytest.approx(rate, abs=0.015)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.3])
def test_agreement_of_neighbours_is_the_rate_where_labels_can_be_predicted(rate: float):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(3000, 3)) * [1, 10, 0.1]
    truth = np.where(features[:, 0] + features[:, 1] / 10 > 0.3, 1, -1)
    label = np.where(rng.random(3000) < rate, -truth, truth)
    assert rate - 0.02 < flips.from_agreement(features, label).rate < rate + 0.05


def test_labels_without_a_pattern_are_half_flipped():
    rng = np.random.default_rng(0)
    rate = flips.from_agreement(rng.normal(size=(2000, 3)), rng.choice([-1, 1], 2000)).rate
    assert rate == pytest.approx(0.49, abs=0.02)


def test_a_dataset_that_was_built_with_noise(tmp_path: Path):
    noisy = build_dataset("bandit/sphere-v0", noise=0.2, home=tmp_path)
    found = flips.estimate(noisy)
    assert found.source == "agreement"
    assert 0.2 < found.rate < 0.32  # an upper estimate


def test_what_cannot_be_compared_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="5 labels are too few"):
        flips.from_agreement(np.zeros((5, 2)), np.ones(5))
