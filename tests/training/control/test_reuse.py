"""Checkpoints and clones: an interrupted training ends bit for bit alike, and nothing serves another training."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from helpers.quick_training import LEARNERS, QUICK, declared, quick, weights

from pmpo_offline import on_progress
from pmpo_offline.data import Dataset, columns
from pmpo_offline.policies import MixturePolicy
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.training import Trained, config, train


class Interrupted(Exception):
    """What Ctrl-C is here."""


class Stop:
    """Progress that interrupts one stage when it is so far, and remembers the reports."""

    def __init__(self, stage: str = "", at: int = 0) -> None:
        self.stage, self.at, self.reports = stage, at, list[tuple[str, int]]()

    def __call__(self, stage: str, done: int, total: int) -> None:
        self.reports.append((stage, done))
        if stage == self.stage and done >= self.at:
            raise Interrupted


LONGER = {**QUICK, "updates": 30, "checkpoint_every": 20}


@pytest.fixture(scope="module")
def clones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clone that each of the interrupted trainings starts from, which is the same."""
    return tmp_path_factory.mktemp("clones")


@pytest.mark.parametrize(
    ("name", "refresh"), [*((name, 0.0) for name in LEARNERS), ("kto", 0.01), ("mpo-trust-region", 0.01)]
)
def test_interrupted_training_ends_bit_for_bit_alike(
    stacking: Dataset, tmp_path: Path, clones: Path, name: str, refresh: float
) -> None:
    def run(folder: str, progress: Stop) -> Trained:
        overrides = {**LONGER, "refresh": refresh}
        with on_progress(progress):
            return train(
                stacking,
                name,
                seeds=(0, 1),
                overrides=overrides,
                checkpoint=tmp_path / folder / "progress",
                references=clones,
                device="cpu",
            )

    whole = run("whole", Stop())
    with pytest.raises(Interrupted):
        run("cut", Stop(f"train {name}", 25))
    assert (tmp_path / "cut" / "progress").is_file()
    second = Stop()
    resumed = run("cut", second)
    assert second.reports == [(f"train {name}", 25), (f"train {name}", 30)], "from update 20 on"
    assert weights(resumed.policy).equal(weights(whole.policy))
    assert all(resumed.metrics[key].equal(value) for key, value in whole.metrics.items())


def test_interrupted_clone_goes_on_too(stacking: Dataset, tmp_path: Path) -> None:
    def run(folder: str, progress: Stop) -> MixturePolicy:
        with on_progress(progress):
            return train(stacking, "bc", overrides=LONGER, references=tmp_path / folder, device="cpu").policy

    whole = run("whole", Stop())
    with pytest.raises(Interrupted):
        run("cut", Stop("clone the behaviour", 25))
    second = Stop()
    assert weights(run("cut", second)).equal(weights(whole))
    assert second.reports == [("clone the behaviour", 25), ("clone the behaviour", 30)]
    assert {path.suffix for path in (tmp_path / "cut").iterdir()} == {".safetensors", ".csv"}, "no leftovers"


def test_damaged_checkpoint_is_refused(stacking: Dataset, tmp_path: Path) -> None:
    (tmp_path / "progress").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}")
    with pytest.raises(PmpoOfflineError, match=r"progress is damaged .*: delete it and run the same command again"):
        train(stacking, "pmpo", overrides=QUICK, checkpoint=tmp_path / "progress", device="cpu")


def test_labels_share_one_clone(stacking: Dataset, tmp_path: Path) -> None:
    clone = quick(stacking, "bc", tmp_path, (0, 1))
    [file] = tmp_path.glob("*.safetensors")
    stamp = file.stat().st_mtime_ns
    other = stacking.relabelled("return:q0.7", imbalance=0.3, noise=0.1)
    assert weights(quick(other, "bc", tmp_path, (0, 1)).policy).equal(weights(clone.policy))
    for name in ("dpo", "kto"):
        quick(other, name, tmp_path, (0, 1))
    assert [path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")] == [stamp]
    quick(stacking, "bc", tmp_path, (1, 0))  # other runs are other clones
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


ALONE: dict[str, Any] = {"algorithm": "pmpo", "seeds": (0, 1), "settings": ({},), "shuffle_labels": False}
SHORT = {**QUICK, "updates": 26, "checkpoint_every": 20}


@pytest.fixture(scope="module")
def half_way(stacking: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a training that was stopped after its update 20; tests change a copy."""
    path = tmp_path_factory.mktemp("half") / "progress"
    with pytest.raises(Interrupted), on_progress(Stop("train pmpo", 25)):
        train(stacking, **ALONE, overrides=SHORT, checkpoint=path, device="cpu")
    return path


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": "other actions"},
        {"dataset": "other labels"},
        {"seeds": (0, 2)},
        {"seeds": (1, 0)},
        {"seeds": (0,)},
        {"settings": ({"alpha": 0.4},)},
        {"settings": ({"divergence": "forward"},)},
        {"shuffle_labels": True},
        {"overrides": {**SHORT, "batch": 31}},
        {"algorithm": "declared otherwise"},
        {"version": "9.9.9"},
        {"revision": 2},
    ],
    ids=str,
)
def test_a_checkpoint_serves_its_own_training_alone(
    stacking: Dataset, half_way: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    path = shutil.copy(half_way, tmp_path / "progress")
    asked = {"dataset": stacking, **ALONE, "overrides": SHORT} | change
    if change.get("dataset") == "other labels":
        asked["dataset"] = stacking.relabelled(noise=0.1)
    elif "dataset" in change:
        asked["dataset"] = replace(stacking, table=with_action(stacking.table, 0.5))
    if "algorithm" in change:
        asked["algorithm"] = declared(name="pmpo", description="another declaration")
    if version := asked.pop("version", None):
        monkeypatch.setattr(config, "__version__", version)
    if revision := asked.pop("revision", None):
        monkeypatch.setattr(config, "REVISION", revision)
    with pytest.raises(UserError, match="progress is the checkpoint of another training: name another path, or delete"):
        train(**asked, checkpoint=path, device="cpu")


def with_action(table: pa.Table, first: float) -> pa.Table:
    """Replace the first number of the first action."""
    action = columns.matrix(table, "action").copy()
    action[0, 0] = first
    return table.set_column(table.schema.get_field_index("action"), "action", columns.list_array(action))


def test_a_finished_training_is_not_repeated_and_gives_way_to_another(stacking: Dataset, tmp_path: Path) -> None:
    path, listener = tmp_path / "progress", Stop()
    first = train(stacking, **ALONE, overrides=SHORT, checkpoint=path, device="cpu")
    with on_progress(listener):
        again = train(stacking, **ALONE, overrides=SHORT, checkpoint=path, device="cpu")
    assert not listener.reports
    assert weights(again.policy).equal(weights(first.policy))
    assert all(again.metrics[name].equal(value) for name, value in first.metrics.items())
    other = stacking.relabelled(noise=0.1)
    replaced = train(other, **ALONE, overrides=SHORT, checkpoint=path, device="cpu").policy
    assert weights(replaced).equal(weights(train(other, **ALONE, overrides=SHORT, device="cpu").policy))


def test_clones_of_other_content_or_settings_are_other_clones(stacking: Dataset, tmp_path: Path) -> None:
    quick(stacking, "bc", tmp_path, (0,))
    other = replace(stacking, table=with_action(stacking.table, 0.5))
    clone = quick(other, "bc", tmp_path, (0,)).policy
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    assert weights(clone).equal(weights(train(other, "bc", overrides=QUICK, device="cpu").policy))
    train(stacking, "bc", overrides={**QUICK, "batch": 31}, references=tmp_path, device="cpu")
    assert len(list(tmp_path.glob("*.safetensors"))) == 3


@pytest.mark.parametrize("place", ["references", "checkpoint"])
def test_a_flipped_bit_is_noticed(stacking: Dataset, half_way: Path, tmp_path: Path, place: str) -> None:
    if place == "references":
        quick(stacking, "bc", tmp_path, (0,))
        (path,) = tmp_path.glob("*.safetensors")
    else:
        path = shutil.copy(half_way, tmp_path / "progress")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    again = {
        "references": {"algorithm": "kto", "overrides": QUICK, "references": tmp_path},
        "checkpoint": {**ALONE, "overrides": SHORT, "checkpoint": path},
    }[place]
    with pytest.raises(PmpoOfflineError, match=r"damaged \(its checksum is wrong\): delete it"):
        train(stacking, **again, device="cpu")


@pytest.mark.parametrize(("old", "new"), [(b'"step":"', b'"stfp":"'), (b'"finished":"False"', b'"finished":"Galse"')])
def test_damaged_facts_of_a_checkpoint_are_noticed(
    stacking: Dataset, half_way: Path, tmp_path: Path, old: bytes, new: bytes
) -> None:
    path = tmp_path / "progress"
    path.write_bytes(half_way.read_bytes().replace(old, new))
    with pytest.raises(PmpoOfflineError, match=r"damaged \(its checksum is wrong\): delete it"):
        train(stacking, **ALONE, overrides=SHORT, checkpoint=path, device="cpu")
