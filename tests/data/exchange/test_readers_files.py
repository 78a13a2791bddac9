"""Files of arrays: damaged ones, what is never opened, and what every reader says of itself."""

from __future__ import annotations

import pickle
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.aligned import experience
from helpers.foreign import (
    as_d4rl,
    as_states,
    hdf5,
    npz,
    read,
)
from helpers.imports import refused

from pmpo_offline.data.exchange.readers import READERS, holds_arrays

refusal = partial(refused, read)


@pytest.mark.parametrize("suffix", ["hdf5", "npz", "parquet"])
def test_missing_empty_and_damaged_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"set.{suffix}"
    assert "there is no such file or folder; known are minari, lerobot" in refusal(path)
    path.touch()
    assert refusal(path) == f"{path} is empty"
    path.write_bytes(b"not at all" * 100)
    assert f"{path} cannot be read, it is damaged or no .{suffix} file" in refusal(path)


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_truncated_files(tmp_path: Path, share: float) -> None:
    written = experience([300])
    states = as_states(written)
    table = pa.table({name: list(values) for name, values in states.items()})
    whole = [hdf5(tmp_path / "a.hdf5", as_d4rl(written)), npz(tmp_path / "b.npz", states), tmp_path / "c.parquet"]
    pq.write_table(table, whole[2])
    for path in whole:
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
        assert "cannot be read, it is damaged" in refusal(path)


def test_a_damaged_byte_inside_is_noticed(tmp_path: Path) -> None:
    path = npz(tmp_path / "set.npz", as_states(experience([300])))
    content = bytearray(path.read_bytes())
    content[400:440] = b"x" * 40
    path.write_bytes(content)
    assert "cannot be read, it is damaged" in refusal(path)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    states = as_states(experience([2]))
    states["action"] = np.array([Trap(), Trap(), Trap()], object)
    np.savez(tmp_path / "set.npz", allow_pickle=True, **states)
    assert "cannot be read" in refusal(tmp_path / "set.npz")
    (tmp_path / "set.pkl").write_bytes(pickle.dumps(Trap()))
    assert "is no file of arrays: they end in .npz, .hdf5, .h5, .parquet" in refusal(tmp_path / "set.pkl")
    assert not (tmp_path / "sprung").exists()


def test_folders_and_names_that_are_neither(tmp_path: Path) -> None:
    assert "holds no Minari data set and no files of arrays; known are minari, lerobot" in refusal(tmp_path)
    assert "gcs: is no place to import from" in refusal("gcs:bucket/set")
    (inside := tmp_path / "exported" / "bandit" / "sphere-v0" / "data").mkdir(parents=True)
    (inside / "metadata.json").write_text("{}")
    assert holds_arrays(tmp_path / "exported"), "JSON of a Minari data set is no text"
    assert f"give one of them, as {inside.parent}" in refusal(tmp_path / "exported")
    hdf5(tmp_path / "main_data.hdf5", {"episode_0/observations": np.zeros((2, 3))})
    told = refusal(tmp_path / "main_data.hdf5")
    assert "is the inside of a Minari data set, give the folder that holds data/metadata.json" in told
    assert "else write one array for all episodes together, as D4RL does" in told
    np.savez(tmp_path / "part-0.npz", observations=np.zeros((2, 3)))
    assert "holds .npz and .hdf5 files: give one of them" in refusal(tmp_path)


def test_junk_is_no_npz_file(tmp_path: Path) -> None:
    (tmp_path / "set.npz").write_bytes(b"junk")
    assert "damaged or no .npz file: it is no archive of arrays; get it again" in refusal(tmp_path / "set.npz")


@pytest.mark.parametrize("name", READERS)
def test_every_reader_has_an_example_and_says_what_it_reads(name: str) -> None:
    reader = READERS[name]
    assert reader.name == name
    assert reader.reads
    assert reader.example


def test_names_that_are_not_text_are_left_out(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "hopper.hdf5", as_d4rl(experience([3, 2])))
    with h5py.File(path, "r+") as file:
        file[b"\xff\xfe"] = np.zeros(5)
    assert read(path).experience.length.tolist() == [3, 2]


@pytest.mark.parametrize("name", ["a.npz", "a.hdf5", "a.parquet"])
def test_pointers_of_git_lfs_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n")
    assert "is a pointer of Git LFS and no data: get the file itself" in refused(read, tmp_path / name)
