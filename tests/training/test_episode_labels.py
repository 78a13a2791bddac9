"""A user's own robot episodes, labelled as wholes: the defaults are those that such labels need."""

from __future__ import annotations

import warnings

import pytest
from helpers import reaching

from pmpo_offline.build import import_dataset
from pmpo_offline.data import Dataset
from pmpo_offline.declarations import catalog
from pmpo_offline.training import train
from pmpo_offline.training.config import algorithm_for
from pmpo_offline.training.control.config import FARTHEST
from pmpo_offline.training.doctor import doctor

QUICK = {"updates": 300, "batch": 128, "hidden": [64], "learning_rate": 5e-3}


@pytest.fixture(scope="module")
def reach(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("reach")
    success = reaching.record(folder / "log.npz", 150)
    with pytest.warns(UserWarning, match="dropped 150 rows: the last row of an episode"):
        dataset = import_dataset(folder / "log.npz", home=folder)
    assert dataset.metadata.counts.accepted == success.sum()
    assert 0.3 < success.mean() < 0.6
    return dataset


def test_the_family_follows_the_labels_not_the_task(reach: Dataset) -> None:
    pmpo, bc = algorithm_for("pmpo", reach), algorithm_for("bc", reach)
    assert (pmpo.family, pmpo.settings["beta"]) == ("episodes", "1.05x")
    assert bc == catalog.algorithm("bc", "control"), "what is not declared for episodes is as for control"
    assert catalog.family(reach.metadata.task) == "control"
    assert catalog.family("rgb-stacking/proxy", by_step=False) == "rgb-stacking"


def test_the_default_reaches_and_half_the_bound_runs_away_and_is_said(reach: Dataset) -> None:
    trained = train(reach, "pmpo", overrides=QUICK, device="cpu")
    assert trained.strayed == [False]
    assert (
        reaching.succeed(trained.policy)[0]
        > 0.7
        > 0.5
        > reaching.succeed(train(reach, "bc", overrides=QUICK, device="cpu").policy)[0]
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        lost = train(reach, "pmpo", settings=[{"beta": "0.5x"}], overrides=QUICK, device="cpu")
    assert lost.strayed == [True]
    assert lost.metrics["reach"][0] > FARTHEST
    assert reaching.succeed(lost.policy)[0] < 0.1
    assert any("left all bounds" in str(warning.message) for warning in caught)
    assert doctor(reach, algorithm_for("pmpo", reach)).verdict == "bounded"
    assert doctor(reach, algorithm_for("pmpo", reach), {"beta": "0.5x"}).verdict == "collapse"
