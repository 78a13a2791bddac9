"""Out and in again: what an export wrote, the reader of that format makes the same experience of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from aligned import LENGTHS, assert_aligned, stored

from pmpo_offline.data import columns
from pmpo_offline.data.exchange import export_dataset
from pmpo_offline.importing import import_dataset


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
@pytest.mark.parametrize("to", ["minari", "d4rl"])
def test_an_export_comes_back_as_it_was(tmp_path: Path, to: str, lengths: list[int]) -> None:
    before = stored(tmp_path / "before", lengths)
    folder = export_dataset(before, to, tmp_path / "out")
    source = next(folder.glob("*.hdf5")) if to == "d4rl" else folder
    after = import_dataset(source, label="reward:q0.5", home=tmp_path / "after")
    found = {"next_observation": after.next_observation(np.arange(len(after)))}
    found |= {name: columns.matrix(after.table, name) for name in ("observation", "action")}
    found |= {name: columns.vector(after.table, name) for name in ("reward", "terminated", "truncated")}
    assert_aligned(found, lengths)
    assert after.table["label"].equals(before.table["label"])
    for name in ("start", "length", "return", "terminated", "final_observation"):
        assert after.episodes[name].equals(before.episodes[name])
