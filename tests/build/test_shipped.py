"""Labels that are shipped: the same on every machine, for the same recorded experience only."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from pmpo_offline.build import build_dataset, shipped
from pmpo_offline.data import columns
from pmpo_offline.runtime.arrays import load_arrays, save_arrays
from pmpo_offline.runtime.errors import Notice, PmpoOfflineError, UserError

RECIPE = """
id = "test/cartpole-v0"
kind = "transitions"
task = "dm_control/cartpole-swingup"
title = "a few episodes"
licence = "CC0-1.0"
episodes = 2
label = "advantage"
critic = { updates = 20, sweeps = 1, hidden = [8] }
behavior = [{ name = "medium", policy = "medium", weight = 1 }]
"""


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    (tmp_path / "cartpole.toml").write_text(RECIPE)
    return str(tmp_path / "cartpole.toml")


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor whose critic comes out differently, by a little, and differently labelled."""
    from pmpo_offline.training import Advantages

    of = Advantages.of

    def other(*arguments: object) -> Advantages:
        found = of(*arguments)  # type: ignore[arg-type]
        found.advantage[:] += 0.3 * found.advantage.std()
        return found

    monkeypatch.setattr(Advantages, "of", other)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(shipped, "folder", lambda: tmp_path / "labels")
    return tmp_path / "labels"


def test_a_machine_whose_critic_differs_builds_the_shipped_labels(
    recipe: str, place: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    made = build_dataset(recipe, home=tmp_path / "here", workers=1)
    assert made.metadata.score.is_local
    path = shipped.save_labels(made)
    assert path.parent == place
    assert path.stat().st_size < 1_500
    request.getfixturevalue("elsewhere")
    built = build_dataset(recipe, home=tmp_path / "elsewhere", workers=1)
    assert not built.metadata.score.is_local
    assert built.labels_hash == made.labels_hash
    assert built.fingerprint != made.fingerprint, "the scores are this machine's"
    noisy = {"noise": 0.1, "imbalance": 0.2}
    assert built.relabelled(**noisy).labels_hash == made.relabelled(**noisy).labels_hash
    path.unlink()
    assert build_dataset(recipe, home=tmp_path / "third", workers=1).labels_hash != made.labels_hash


def test_labels_of_other_experience_are_not_taken_and_damaged_ones_are_an_error(
    recipe: str, place: Path, tmp_path: Path
) -> None:
    made = build_dataset(recipe, home=tmp_path / "here", workers=1)
    path = shipped.save_labels(made)
    stored = load_arrays(path, ("accepted", "ties", "experience"))
    save_arrays(path, {**stored, "experience": np.array("0" * 64)})
    with pytest.warns(Notice, match="are of other episodes than this processor records"):
        other = build_dataset(recipe, home=tmp_path / "other", workers=1)
    assert other.metadata.score.is_local
    assert other.fingerprint == made.fingerprint
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(PmpoOfflineError, match="is damaged"):
        build_dataset(recipe, home=tmp_path / "third", workers=1)


def test_only_plain_labels_are_shipped(recipe: str, place: Path, tmp_path: Path) -> None:
    made = build_dataset(recipe, home=tmp_path, workers=1)
    assert (columns.labels(made.table) == np.sign(columns.vector(made.table, "score"))).all()
    with pytest.raises(UserError, match="only labels 'advantage:sign' without noise and balance"):
        shipped.save_labels(made.relabelled(noise=0.1))


def test_shipped_files_are_sound_and_small() -> None:
    files = sorted(shipped.folder().glob("*.npz"))
    assert files
    for file in files:
        stored = load_arrays(file, ("accepted", "ties", "experience"))
        assert len(str(stored["experience"])) == 64
        assert 0.3 < np.unpackbits(stored["accepted"]).mean() < 0.7
        assert file.stat().st_size < 30_000


@pytest.mark.parametrize("change", [{"accepted": np.zeros(1, np.uint8)}, {"ties": np.array([99], np.int32)}])
def test_labels_of_another_number_of_rows_are_refused(tmp_path: Path, change: dict[str, np.ndarray]) -> None:
    rows = pa.table({"reward": list(range(10))})
    whole = {"accepted": np.zeros(2, np.uint8), "ties": np.zeros(0, np.int32)}
    stored = {**whole, "experience": np.array(shipped.experience_hash(rows, None)), **change}
    save_arrays(tmp_path / "a.npz", stored)
    content = SimpleNamespace(table=rows, episodes=None)
    with pytest.raises(PmpoOfflineError, match=r"a.npz is damaged: it is not of 10 rows"):
        shipped.with_shipped_labels(np.zeros(10, np.float32), tmp_path / "a.npz", content)
