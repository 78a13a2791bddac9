"""Arrays and tensors in files."""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from pmpo_offline.runtime.arrays import load_arrays, load_tensors, save_arrays, save_tensors
from pmpo_offline.runtime.errors import PmpoOfflineError


def test_arrays_come_back_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "some.npz"
    save_arrays(path, {"a": np.arange(3), "words": np.array(["x", "yy"])})
    found = load_arrays(path, ["a", "words"])
    assert found["a"].tolist() == [0, 1, 2]
    assert found["words"].tolist() == ["x", "yy"]
    with pytest.raises(PmpoOfflineError, match=r"some\.npz is damaged .*: delete it and run the same command again"):
        load_arrays(path, ["missing"])
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(PmpoOfflineError, match=r"some\.npz is damaged"):
        load_arrays(path, ["a"])


def test_damaged_headers_of_arrays_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "arrays.npz"
    save_arrays(path, {"x": np.arange(30_000, dtype=np.float32)})
    content = path.read_bytes()
    for old, new in ((b"(30000,)", b"(10000,)"), (b"'<f4'", b"'<i4'"), (b"{'descr'", b"z'descr'")):
        path.write_bytes(content.replace(old, new))
        with pytest.raises(PmpoOfflineError, match=r"arrays\.npz is damaged .*: delete it"):
            load_arrays(path, ["x"])


def test_an_array_that_declares_more_than_is_stored_allocates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "arrays.npz"
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (68719476736,), }"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(64))
        archive.writestr("y.npy", b"")
    with pytest.raises(PmpoOfflineError, match="x declares 274,877,906,944 bytes, and 64 are stored"):
        load_arrays(path, ["x"])
    for name in ("y", "z"):
        with pytest.raises(PmpoOfflineError, match="is damaged"):
            load_arrays(path, [name])


def test_arrays_of_every_kind_come_back(tmp_path: Path) -> None:
    kinds = {
        "empty": np.zeros((0, 3), np.float32),
        "number": np.array(3.5),
        "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big endian": np.arange(4, dtype=">i8"),
        "words": np.array(["", "é"]),
        "none": np.array([], "<U1"),
    }
    save_arrays(tmp_path / "a.npz", kinds)
    np.savez_compressed(tmp_path / "b.npz", **kinds)
    for file in ("a.npz", "b.npz"):
        for name, found in load_arrays(tmp_path / file, kinds).items():
            assert found.dtype == kinds[name].dtype
            assert np.array_equal(found, kinds[name])
            assert found.shape == kinds[name].shape


def test_objects_are_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="words holds objects"):
        save_arrays(tmp_path / "a.npz", {"words": np.array(["a", None])})
    assert not list(tmp_path.iterdir())


def test_tensors_are_readable_as_the_umask_says(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    before = os.umask(0o022)
    try:
        save_tensors(path, {"x": torch.zeros(2)})
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_equal_tensors_and_facts_are_equal_bytes(tmp_path: Path) -> None:
    tensors, facts = (
        {"x": torch.zeros(2), "é": torch.ones(1)},
        {"a": "\n\x1f\x7f", "b": '"ü"', "c": "\\", "d": "", "e": ""},
    )
    for number in range(8):  # safetensors has the facts in a random order
        save_tensors(tmp_path / f"{number}", tensors, **facts)
    assert len({(tmp_path / f"{number}").read_bytes() for number in range(8)}) == 1
    read, found = load_tensors(tmp_path / "0")
    assert found == facts
    assert {name: tensor.tolist() for name, tensor in read.items()} == {"x": [0, 0], "é": [1]}
