"""Datasets made of stored ones: whole or absent, found again, with their parents in the provenance."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from threading import Event

import pytest
from helpers.aligned import experience
from helpers.encoded import Store
from helpers.foreign import as_d4rl, npz

from pmpo_offline import build, data
from pmpo_offline.build.options import Place
from pmpo_offline.data import load_dataset
from pmpo_offline.data.storage import HISTORY
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError

LENGTHS = [1 + i % 4 for i in range(40)]


@pytest.mark.parametrize("form", ["arrow", "hdf5"])
def test_what_is_made_is_sound_and_found_again(store: Store, home: Path, form: data.Format) -> None:
    store(LENGTHS, candidates=4, format=form)
    experts = build.filter_dataset("test/small-v0", "test/experts-v0", "behavior = 'expert'")
    parts = build.split_dataset("test/small-v0", {"train": 0.75, "test": 0.25})
    both = build.combine_datasets(["test/small-train-v0", "test/small-test-v0"], "test/both-v0")
    noisy = build.relabel_dataset("test/small-v0", None, {"noise": 0.5})
    assert noisy.metadata.id == "test/small-noise50-v0"
    assert experts.metadata.counts.episodes == 20
    assert both.metadata.counts == data.load_dataset("test/small-v0").metadata.counts
    for made in (experts, *parts.values(), both, noisy):
        assert data.verify(made.metadata.id) == []
        assert {path.suffix for path in made.path.glob("*.arrow")} == ({".arrow"} if form == "arrow" else set())
    stamp = experts.path.stat().st_mtime_ns
    again = build.filter_dataset("test/small-v0", "test/experts-v0", "behavior = 'expert'")
    assert again.path.stat().st_mtime_ns == stamp  # opened, not written
    with pytest.raises(UserError, match="was made otherwise"):
        build.filter_dataset("test/small-v0", "test/experts-v0", "length > 1")
    replaced = build.filter_dataset("test/small-v0", "test/experts-v0", "length > 1", build.Place(overwrite=True))
    assert replaced.metadata.counts.episodes == 30


def test_the_provenance_names_the_parents_of_parents(store: Store) -> None:
    whole = store(LENGTHS)
    build.filter_dataset("test/small-v0", "test/long-v0", "length > 1")
    made = build.relabel_dataset("test/long-v0", "test/mine-v0", {"label": "success", "imbalance": 0.3})
    history = made.metadata.provenance.settings[HISTORY]
    assert (history["operation"], history["label"], history["imbalance"]) == ("relabel", "success:0.5", "0.3")
    (parent,) = history["parents"]
    assert parent["id"] == "test/long-v0"
    assert parent["hash"] == data.load_dataset("test/long-v0").fingerprint
    assert parent[HISTORY]["parents"] == [{"id": "test/small-v0", "hash": whole.fingerprint, HISTORY: None}]
    undone = build.relabel_dataset("test/mine-v0", "test/undone-v0", {"imbalance": "collected"})
    assert undone.metadata.imbalance.asked is None


def test_a_renamed_dataset_has_the_same_rows(store: Store, home: Path) -> None:
    was = store(LENGTHS, noise=0.2, imbalance=0.4)
    made = build.rename_dataset("test/small-v0", "mine/other-v1")
    assert made.fingerprint == was.fingerprint
    assert made.metadata.imbalance == was.metadata.imbalance
    assert data.verify("mine/other-v1") == []
    assert data.stored_ids() == ["mine/other-v1"]
    assert "# mine/other-v1" in (made.path / "README.md").read_text()


def test_a_dataset_is_not_replaced_by_its_own_part(store: Store, home: Path) -> None:
    store(LENGTHS)
    for name in ("test/small-v0", str(home / "test/small-v0")):
        with pytest.raises(UserError, match="is the dataset itself"):
            build.filter_dataset(name, "test/small-v0", "length > 1", build.Place(overwrite=True))
    with pytest.raises(UserError, match="no dataset id"):
        build.rename_dataset("test/small-v0", "../outside-v0")


def test_a_split_is_of_all_parts_or_none(store: Store, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(LENGTHS)
    written = data.storage.write

    def fails(directory: Path, *args: object, **kwargs: object) -> data.Metadata:
        if directory.name == "small-test-v0":
            raise PmpoOfflineError("no space")
        return written(directory, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(data, "write", fails, raising=False)
    with pytest.raises(PmpoOfflineError, match="no space"):
        build.split_dataset("test/small-v0", {"train": 0.5, "test": 0.5})
    assert data.stored_ids() == ["test/small-v0"]


def test_an_interrupted_split_removes_nothing_that_another_one_uses(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(LENGTHS)
    written, begun, stop = data.storage.write, Event(), Event()

    def interrupted(directory: Path, *args: object, **kwargs: object) -> data.Metadata:
        if directory.name == "small-test-v0" and not begun.is_set():
            begun.set()
            stop.wait(60)
            raise KeyboardInterrupt
        return written(directory, *args, **kwargs)  # type: ignore[arg-type]

    def split() -> None:
        build.split_dataset("test/small-v0", {"train": 0.5, "test": 0.5})

    monkeypatch.setattr(data, "write", interrupted, raising=False)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(split)
        assert begun.wait(60)
        second = pool.submit(split)
        wait([second], timeout=0.5)
        stop.set()
        assert isinstance(first.exception(), KeyboardInterrupt)
        second.result()
    assert data.stored_ids() == ["test/small-test-v0", "test/small-train-v0", "test/small-v0"]


def test_damaged_datasets_are_deleted_and_not_read(store: Store, home: Path) -> None:
    dataset = store(LENGTHS)
    path = dataset.path / "transitions.arrow"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(PmpoOfflineError, match="edited after it was written"):
        build.filter_dataset("test/small-v0", "test/part-v0", "length > 1")
    assert build.delete_dataset("test/small-v0") == dataset.path
    assert list(home.rglob("*.arrow")) == []
    with pytest.raises(UserError, match="unknown dataset"):
        build.delete_dataset("test/small-v0")


def test_two_that_make_the_same_at_once_both_have_it(store: Store, home: Path) -> None:
    store(LENGTHS)
    call = ("test/small-v0", "test/long-v0", "length > 1")
    with ThreadPoolExecutor(4) as pool:
        made = [future.result() for future in [pool.submit(build.filter_dataset, *call) for _ in range(4)]]
    assert len({dataset.fingerprint for dataset in made}) == 1
    assert data.verify("test/long-v0") == []


@pytest.mark.parametrize(
    ("made", "remedy"),
    [
        ("built", "build it again with --overwrite, or copy or pull it from where you have it"),
        ("imported", r"import it (d4rl: log) again with --overwrite, or copy or pull it"),
        ("renamed", "make it from its parents again with --overwrite, or copy or pull it"),
        ("unreadable", "build or import it again with --overwrite, or copy or pull it"),
    ],
)
def test_a_damaged_dataset_says_what_fits_its_source(tmp_path: Path, made: str, remedy: str) -> None:
    if made == "imported":
        dataset = build.import_dataset(npz(tmp_path / "log.npz", as_d4rl(experience([3, 2]))), home=tmp_path)
    else:
        dataset = build.build_dataset("bandit/sphere-v0", episodes=40, home=tmp_path, workers=1)
    if made == "renamed":
        dataset = build.rename_dataset(dataset.metadata.id, "my/other-v0", Place(tmp_path))
    broken = dataset.path / ("dataset.json" if made == "unreadable" else "episodes.arrow")
    os.truncate(broken, 100)
    for opened in (load_dataset, build.show):
        with pytest.raises(PmpoOfflineError, match=re.escape(remedy)):
            opened(dataset.path)
