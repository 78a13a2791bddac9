"""What is removed by `clean`, and what is not."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from helpers import foreign
from helpers.aligned import experience

from pmpo_offline import data
from pmpo_offline.build import build_dataset, clean, cleaning, import_dataset
from pmpo_offline.build.pipeline import raw_folder
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.files import atomic_file, file_lock


def test_leftovers_and_orphans_are_removed_and_all_else_is_kept(tmp_path: Path) -> None:
    home, results = tmp_path / "home", tmp_path / "results"
    build_dataset("bandit/sphere-v0", episodes=50, workers=1, home=home)
    source = foreign.npz(tmp_path / "cube-single-play-v0.npz", foreign.as_d4rl(experience([3, 4])))
    imported = import_dataset(source, home=home)
    before = sorted(home.rglob("*"))
    assert clean(home=home) == []
    partial, orphan, scratch = home / "bandit/.other-v0.partial", home / ".raw/0123456789abcdef", results / "raw"
    for folder in (partial, orphan, scratch):
        folder.mkdir(parents=True)
        (folder / "x").write_bytes(bytes(100))
    with atomic_file(scratch / "a.parquet") as path:
        path.touch()
        running = path.name
    (scratch / "a.parquet").unlink()
    old, new = (
        scratch / running.replace(f"-{os.getpid()}-", f"-{2**22 + 1}-").replace(".a.", at) for at in (".a.", ".b.")
    )
    for path in (old, new, scratch / running):
        path.write_bytes(bytes(7))
    for path in (old, scratch / running):
        os.utime(path, (time.time() - 7200,) * 2)
    found = clean([results], home=home, dry_run=True)
    assert {left.path: left.bytes for left in found} == {partial: 100, orphan: 100, old: 7}
    assert partial.exists()
    with file_lock(partial.parent), file_lock(orphan):  # somebody writes there
        assert [left.path for left in clean([results], home=home, dry_run=True)] == [old]
    assert clean([results], home=home) == found
    assert sorted(home.rglob("*")) == before
    assert {path.name for path in scratch.iterdir()} == {running, new.name, "x"}
    assert data.verify(imported.metadata.id, home) == []


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nofolder: no such folder"):
        clean([tmp_path, tmp_path / "nofolder"], home=tmp_path)


def test_a_dataset_between_two_renames_is_brought_back(tmp_path: Path) -> None:
    dataset = build_dataset("bandit/sphere-v0", episodes=50, workers=1, home=tmp_path)
    dataset.path.rename(dataset.path.with_name(f".{dataset.path.name}.replaced"))
    assert clean(home=tmp_path) == []
    assert data.verify(dataset.path) == []


def test_what_another_process_takes_meanwhile_is_not_removed(tmp_path: Path) -> None:
    partial, raw = tmp_path / "bandit/.other-v0.partial", tmp_path / ".raw/0123456789abcdef"
    for folder in (partial, raw):
        folder.mkdir(parents=True)
    assert not cleaning._remove(partial / "gone")
    with file_lock(raw):
        assert not cleaning._remove(raw)
    assert raw.is_dir()
    assert cleaning._remove(raw)
    with raw_folder(tmp_path, raw.name) as made:
        assert made.is_dir()
