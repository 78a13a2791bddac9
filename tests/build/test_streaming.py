"""Arrays larger than memory is for: read in blocks into unnamed files, with the same datasets as in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.encoded import Store

from pmpo_offline.build import import_dataset
from pmpo_offline.data import Dataset, load_dataset, mapping, verify
from pmpo_offline.data.exchange import export_dataset
from pmpo_offline.data.exchange.exported import MARKER
from pmpo_offline.runtime import arrays

LENGTHS = [3, 1, 4, 7, 2]
FORMS = {"minari": "", "d4rl": "*.hdf5", "d3rlpy": "*.h5", "robomimic": "*.hdf5", "ogbench": "*.npz"}
FORMS |= {"parquet": "", "lerobot": ""}


def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let arrays of more than 40 bytes lie in files, which are written and read some rows at a time."""
    monkeypatch.setattr(mapping, "SPILLED", 40)
    monkeypatch.setattr(mapping, "ROWS", 3)
    monkeypatch.setattr(arrays, "_BLOCK", 64)


def assert_equal(one: Dataset, other: Dataset) -> None:
    assert one.table.equals(other.table)
    assert one.episodes is not None
    assert one.episodes.equals(other.episodes)


@pytest.mark.parametrize(("to", "changed"), [*((to, False) for to in FORMS), ("parquet", True), ("lerobot", True)])
def test_an_import_in_blocks_is_an_import(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str, changed: bool
) -> None:
    folder = export_dataset(store(LENGTHS, "success"), to, tmp_path / to)
    if changed:  # and so read as any other
        (folder / MARKER).unlink()
    source = next(folder.glob(FORMS[to])) if FORMS[to] else folder
    for label in (None, "return:q0.5"):  # as it was exported, and read anew
        whole = import_dataset(source, label=label, home=tmp_path / "whole", overwrite=True)
        with monkeypatch.context() as patch:
            small_blocks(patch)
            home = tmp_path / "blocks"
            streamed = import_dataset(source, label=label, home=home, overwrite=True)
            assert not [path for path in home.rglob("*") if path.name.startswith("tmp")]
        assert_equal(streamed, whole)
        assert streamed.metadata.files == whole.metadata.files


def test_the_hdf5_form_is_read_in_blocks(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = store(LENGTHS, "success", format="hdf5")
    small_blocks(monkeypatch)
    assert_equal(load_dataset(whole.path), whole)
    assert verify(whole.path) == []
