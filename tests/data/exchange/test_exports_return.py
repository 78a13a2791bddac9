"""Exports of this package come back whole: labels, rule, noise, share, success, behaviours, candidates, provenance."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import polars as pl
import pytest
from helpers.encoded import Store

from pmpo_offline import data
from pmpo_offline.build.read import import_dataset
from pmpo_offline.data import Dataset, columns
from pmpo_offline.data.exchange import export_dataset
from pmpo_offline.runtime.errors import UserError

FORMATS = ["minari", "d4rl", "d3rlpy", "robomimic", "ogbench", "lerobot", "huggingface", "parquet"]
every = pytest.mark.parametrize("to", FORMATS)
LABELS = {
    "episodes": ("return:q0.7", {"imbalance": 0.25, "noise": 0.2, "seed": 3}),
    "steps": ("advantage:0.1:0.05", {"noise": 0.1, "seed": 1}),
    "success": ("success", {}),
}
REFERENCES = data.References(min=-1.5, max=20.0, how="by hand", versions={"mujoco": "3.17.0"})
LENGTHS = [3, 1, 4, 2, 5, 2, 7, 1, 1, 6]


def source_of(folder: Path) -> Path:
    """What is given to `import`: the file of an export that is one, else its folder."""
    if (folder / "data").exists() or (folder / "transitions").exists():
        return folder
    return next(path for path in folder.iterdir() if path.suffix in (".hdf5", ".h5", ".npz"))


def assert_whole(after: Dataset, before: Dataset) -> None:
    assert after.table.equals(before.table)
    assert after.episodes is not None
    assert after.episodes.equals(before.episodes)
    said, was = after.metadata, before.metadata
    same = set(data.Metadata.model_fields) - {"id", "files", "provenance", "candidates"}
    assert {name: getattr(said, name) for name in same} == {name: getattr(was, name) for name in same}
    exported = {"id": was.id, "recipe": "abc", "derivable": True}
    assert set(said.provenance.sources) > set(was.provenance.sources)
    assert said.provenance.settings == {**was.provenance.settings, "exported": exported}
    assert set(was.provenance.packages.items()) <= set(said.provenance.packages.items())
    assert set(was.provenance.hashes) <= set(said.provenance.hashes)


def provided(store: Store, label: str, candidates: int = 0, **settings: object) -> Dataset:
    """A dataset with references and provenance, as builds have them."""
    dataset = store(LENGTHS, label, candidates=candidates, references=REFERENCES, **settings)
    provenance = data.Provenance(
        sources=["simulated"],
        hashes={"recipe": "abc", "weights": "def"},
        packages={"mujoco": "3.17.0"},
        settings={"critic": {"folds": 5}, "success": True},
    )
    metadata = dataset.metadata.model_copy(update={"provenance": provenance, "licence": "CC-BY-4.0"})
    return Dataset(metadata, dataset.path, dataset.table, dataset.episodes, dataset.candidates)


@every
@pytest.mark.parametrize("labels", LABELS)
def test_an_export_comes_back_as_it_was(store: Store, tmp_path: Path, to: str, labels: str) -> None:
    label, settings = LABELS[labels]
    before = provided(store, label, **settings)
    source = source_of(export_dataset(before, to, tmp_path / "out"))
    after = import_dataset(source, id="test/back-v0", home=tmp_path / "back")
    assert_whole(after, before)
    assert data.verify(after.path) == []
    assert import_dataset(source, id="test/back-v0", home=tmp_path / "back").path == after.path  # and is found again


@pytest.mark.parametrize("to", [to for to in FORMATS if to != "lerobot"])
def test_candidates_come_back(store: Store, tmp_path: Path, to: str) -> None:
    before = provided(store, "success", candidates=4)
    after = import_dataset(source_of(export_dataset(before, to, tmp_path / "out")), home=tmp_path / "back")
    assert_whole(after, before)
    assert after.candidates is not None
    assert after.candidates.equals(before.candidates)
    assert after.metadata.candidates == before.metadata.candidates


@pytest.mark.parametrize("to", ["d4rl", "d3rlpy", "robomimic", "ogbench"])
def test_a_file_of_arrays_may_be_moved(store: Store, tmp_path: Path, to: str) -> None:
    before = provided(store, "return")
    source = source_of(export_dataset(before, to, tmp_path / "out"))
    moved = source.rename(tmp_path / f"somewhere{source.suffix}")
    assert_whole(import_dataset(moved, home=tmp_path / "back"), before)


@every
def test_an_export_is_labelled_anew_when_asked(store: Store, tmp_path: Path, to: str) -> None:
    before = provided(store, "success", noise=0.3)
    source = source_of(export_dataset(before, to, tmp_path / "out"))
    after = import_dataset(source, label="return:q0.7", home=tmp_path / "back")
    same = before.relabelled("return:q0.7", noise=0.0)
    assert after.metadata.task == before.metadata.task
    assert after.table.equals(same.table)
    assert after.episodes is not None
    for name in ("behavior", "seed", "success", "terminated", "final_observation"):
        assert after.episodes[name].equals(before.episodes[name]), name


@every
def test_unknown_success_stays_unknown(store: Store, tmp_path: Path, to: str) -> None:
    known = provided(store, "return")
    settings = {**known.metadata.provenance.settings, "success": False}
    provenance = known.metadata.provenance.model_copy(update={"settings": settings})
    metadata = known.metadata.model_copy(update={"provenance": provenance})
    unknown = columns.replace(known.episodes, success=np.zeros(len(LENGTHS), bool))
    before = Dataset(metadata, known.path, known.table, unknown)
    source = source_of(export_dataset(before, to, tmp_path / "out"))
    assert_whole(import_dataset(source, home=tmp_path / "back"), before)
    with pytest.raises(UserError, match="does not say which episodes succeeded"):
        import_dataset(source, label="success", home=tmp_path / "other")
    for path in (tmp_path / "out").rglob("*.parquet"):  # nor do other readers of the tables read that it is false
        frame = pl.read_parquet(path)
        assert "success" not in frame.columns or frame["success"].null_count() == len(frame)


@every
def test_labels_of_a_column_come_back(store: Store, tmp_path: Path, to: str) -> None:
    """And may be labelled by another threshold of the same column."""
    scores = np.arange(len(LENGTHS), dtype=np.float64) % 4
    plain = provided(store, "return")
    given = columns.replace(plain.episodes, score=scores)
    done = data.label_tables(plain.table, given, data.Labelling(data.LabelRule.parse("column:1.5")))
    update = {"label": data.LabelRule.parse("column:1.5"), "score": data.ScoreRule(name="column"), **done.described}
    before = Dataset(plain.metadata.model_copy(update=update), plain.path, done.table, done.episodes)
    assert before.metadata.unit == "episode"
    source = source_of(export_dataset(before, to, tmp_path / "out"))
    assert_whole(import_dataset(source, home=tmp_path / "back"), before)
    other = import_dataset(source, label="column:2.5", home=tmp_path / "other")
    assert columns.labels(other.episodes).tolist() == [1 if score > 2.5 else -1 for score in scores]


def test_the_hdf5_form_of_a_dataset_comes_back_too(store: Store, tmp_path: Path) -> None:
    before = provided(store, "return", format="hdf5")
    after = import_dataset(before.path, home=tmp_path / "back")
    assert after.table.equals(before.table)
    assert after.metadata.label == before.metadata.label


def test_a_minari_export_that_was_changed_keeps_its_labels_but_not_its_rule(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import minari

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "out"))
    before = provided(store, "return:q0.5")
    export_dataset(before, "minari", tmp_path / "out")
    minari.load_dataset("test/small-v0").storage.update_episode_metadata([{"note": "x"}] * len(LENGTHS))
    after = import_dataset("minari:test/small-v0", home=tmp_path / "back")
    assert after.table["label"].equals(before.table["label"])
    assert (str(after.metadata.label), after.metadata.unit) == ("column:sign", "episode")
    assert after.metadata.provenance.settings["feedback"] == {"column": "infos/label", "of": "episode", "labels": True}


def test_a_parquet_export_whose_labels_a_person_changed(store: Store, tmp_path: Path) -> None:
    before = provided(store, "advantage")
    folder = export_dataset(before, "parquet", tmp_path / "out")
    (path,) = (folder / "transitions").iterdir()
    frame = pl.read_parquet(path)
    mine = [None, True, False] * 11
    frame.with_columns(pl.Series("label", mine[: len(frame)])).write_parquet(path)
    after = import_dataset(folder, home=tmp_path / "back")
    assert after.table["label"].to_pylist() == mine[: len(frame)]
    assert (str(after.metadata.label), after.metadata.unit) == ("column:sign", "step")
    assert after.table["observation"].equals(before.table["observation"])


def test_a_moved_file_that_contradicts_its_metadata_is_refused(store: Store, tmp_path: Path) -> None:
    import h5py

    source = source_of(export_dataset(provided(store, "success"), "d4rl", tmp_path / "out"))
    with h5py.File(source, "a") as file:
        file["labels"][:] = -file["labels"][:]
    with pytest.raises(UserError, match=r"was changed after its export: .*; label it again with label"):
        import_dataset(source, home=tmp_path / "back")
    with h5py.File(source, "a") as file:
        del file["metadata/dataset"]
        file["metadata/dataset"] = json.dumps({"schema_version": 1, "id": "x"})
    with pytest.raises(UserError, match="holds no metadata that this pmpo-offline can read"):
        import_dataset(source, home=tmp_path / "back")


def test_a_copy_of_an_export_comes_back(store: Store, tmp_path: Path) -> None:
    before = provided(store, "success")
    folder = export_dataset(before, "huggingface", tmp_path / "out")
    copied = shutil.copytree(folder, tmp_path / "copied")
    (copied / ".cache/huggingface").mkdir(parents=True)  # as a download has it
    (copied / ".cache/huggingface/x.lock").touch()
    assert_whole(import_dataset(copied, home=tmp_path / "back"), before)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("seed", lambda values: values[:-1], "metadata/episodes is damaged"),
        ("final_observation", lambda values: values[:, :1], "metadata/episodes is damaged"),
        ("terminated", lambda values: values[:, None], "metadata/episodes is damaged"),
        ("score", None, "lacks metadata/episodes"),
    ],
)
@pytest.mark.parametrize("to", ["d4rl", "d3rlpy"])
def test_damaged_metadata_of_episodes_is_refused_by_name(
    store: Store, tmp_path: Path, to: str, name: str, change: Callable[[Any], Any] | None, said: str
) -> None:
    source = source_of(export_dataset(provided(store, "return:q0.7"), to, tmp_path / "out"))
    with h5py.File(source, "r+") as file:
        place = f"metadata/episodes/{name}"
        values = file[place][()]
        del file[place]
        if change is not None:
            file[place] = change(values)
    with pytest.raises(UserError, match=said):
        import_dataset(source, id="test/again-v0", home=tmp_path / "back")


def test_metadata_of_fewer_episodes_than_the_file_has_are_refused(store: Store, tmp_path: Path) -> None:
    source = source_of(export_dataset(provided(store, "return:q0.7"), "d4rl", tmp_path / "out"))
    with h5py.File(source, "r+") as file:
        for name, held in [*file["metadata/episodes"].items()]:
            values = held[()][:-1]
            del file[f"metadata/episodes/{name}"]
            file[f"metadata/episodes/{name}"] = values
    with pytest.raises(UserError, match="has 10 episodes and metadata/episodes 9"):
        import_dataset(source, id="test/again-v0", home=tmp_path / "back")
