"""The collapse threshold by state: on states that say nothing of their labels, and on such as say all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pmpo_offline.data import Dataset, columns
from pmpo_offline.declarations import catalog
from pmpo_offline.training import Setup, config, states
from pmpo_offline.training.doctor import doctor
from pmpo_offline.training.states import collapse_by_state, cross_fitted, label_chances
from pmpo_offline.training.suggestion import MARGIN

PMPO = catalog.algorithm("pmpo", "rgb-stacking")
SETTINGS = {"alpha": 0.4, "beta": 1.0}


@pytest.fixture(autouse=True)
def quick_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of the updates: these datasets are small, and their observations plain."""
    monkeypatch.setattr(states, "_UPDATES", 130)
    label_chances.cache_clear()


def seen(dataset: Dataset, observation: np.ndarray) -> Dataset:
    """Return the dataset with other observations."""
    place = dataset.table.schema.get_field_index("observation")
    column = columns.list_array(observation.astype(np.float32))
    return replace(dataset, table=dataset.table.set_column(place, "observation", column))


def thresholds(dataset: Dataset, **changes: object) -> tuple[float, float, float]:
    setup = Setup(PMPO, {**SETTINGS, **changes}, dataset).settled()
    found, over_all, bound = collapse_by_state(setup), setup.collapse, setup.bound
    assert found is not None
    assert over_all is not None
    assert bound is not None
    return over_all, found, bound


def test_labels_are_predicted_from_states_of_other_episodes() -> None:
    generator = torch.Generator().manual_seed(0)
    episode = torch.arange(40).repeat_interleave(50)
    label = torch.where(episode % 4 < 2, 1.0, -1.0)
    telling = torch.stack([label, torch.randn(len(label), generator=generator)], 1)
    mute = torch.randn(len(label), 2, generator=generator)
    known = cross_fitted(telling, label, episode)
    assert known[label < 0, 0].min() > 0.9
    assert known[label > 0, 2].min() > 0.9
    guessed = cross_fitted(mute, label, episode)
    assert guessed[:, 0].mean().item() == pytest.approx(0.5, abs=0.05)


def test_between_the_collapse_threshold_and_the_bound(stacking: Dataset) -> None:
    label = columns.labels(stacking.table)
    chance = np.random.default_rng(0).normal(size=(len(label), 2))
    mute, telling = seen(stacking, chance), seen(stacking, chance + 5 * label[:, None])
    for normalize in ("joint", "set"):
        over_all, found, bound = thresholds(mute, normalize=normalize)
        assert found < over_all + 0.3 * (bound - over_all), "noise tells little"
        over_all, found, bound = thresholds(telling, normalize=normalize)
        assert found == pytest.approx(bound, rel=0.05)


def test_it_leaves_the_global_random_state_and_other_labels_alone(stacking: Dataset) -> None:
    torch.manual_seed(0)
    first = torch.rand(3)
    torch.manual_seed(0)
    chances = label_chances(stacking)
    assert torch.equal(first, torch.rand(3))
    torch.testing.assert_close(chances.sum(1), torch.ones(len(stacking)))
    assert not torch.equal(chances, label_chances(stacking.relabelled(imbalance=0.1)))


def test_the_doctor_prints_it_and_suggests_half_way_to_the_bound(stacking: Dataset) -> None:
    setup = Setup(PMPO, SETTINGS, stacking, config.rows_drawn(PMPO, {}, stacking)).settled()
    found = doctor(stacking, PMPO, SETTINGS)
    by_state = collapse_by_state(setup)
    assert by_state is not None
    assert found.collapse_by_state == by_state
    assert found.suggested_beta == pytest.approx((by_state + MARGIN * found.bound) / 2)
    below = doctor(stacking, PMPO, {**SETTINGS, "beta": 0.95 * by_state})
    assert below.verdict == "collapse"
    assert any("in a tenth of the states rejects outweigh" in note for note in below.notes)
