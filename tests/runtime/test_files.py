"""Files and folders that are whole or absent."""

from __future__ import annotations

import json
import math
import os
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.runtime.files import (
    atomic_directory,
    atomic_file,
    finite,
    from_json,
    from_toml,
    load_arrays,
    load_tensors,
    read_json,
    read_toml,
    save_arrays,
    save_tensors,
    write_json,
)


def elsewhere(code: str, *args: Path) -> subprocess.Popen[str]:
    """Run code in a process of its own."""
    head = "import os, sys; from pathlib import Path; from pmpo_offline.runtime.files import *\n"
    return subprocess.Popen(
        [sys.executable, "-c", head + code, *map(str, args)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    with atomic_file(path) as scratch:
        scratch.write_text("first")
        assert not path.exists()
        assert scratch not in set(path.parent.glob("*.txt")), "a scratch file has another ending"
    with pytest.raises(FileNotFoundError), atomic_file(path):
        pass
    assert path.read_text() == "first"
    assert list(path.parent.iterdir()) == [path]


def test_two_processes_may_write_one_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "report.md"
    with atomic_file(path) as scratch:
        scratch.write_text("ours")
        code = "with atomic_file(Path(sys.argv[1])) as scratch: scratch.write_text('theirs')"
        assert elsewhere(code, path).wait() == 0
        assert path.read_text() == "theirs"
    assert path.read_text() == "ours"
    assert list(tmp_path.iterdir()) == [path]


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


def test_a_folder_appears_when_it_is_whole_and_only_its_kind_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "thing"
    with atomic_directory(folder, "marker", "thing", overwrite=False) as partial:
        (partial / "marker").write_text("1")
        assert not folder.exists()
    refused = pytest.raises(UserError, match="exists already: use --overwrite")
    with refused, atomic_directory(folder, "marker", "thing", overwrite=False):
        pass
    with atomic_directory(folder, "marker", "thing", overwrite=True) as partial:
        (partial / "marker").write_text("2")
        assert (folder / "marker").read_text() == "1"
    assert (folder / "marker").read_text() == "2"
    with pytest.raises(UserError, match="is no thong"), atomic_directory(folder, "other", "thong", overwrite=True):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thing"]


def test_numbers_that_json_does_not_know_become_null() -> None:
    content = {"a": [1.5, math.inf, {"b": (math.nan, "x", None, True)}], 3: -math.inf}
    assert finite(content) == {"a": [1.5, None, {"b": [None, "x", None, True]}], "3": None}


def test_a_file_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "some.json"
    write_json(path, {"a": math.inf, "é": [1]})
    assert json.loads(path.read_bytes()) == read_json(path, "delete it") == {"a": None, "é": [1]}
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert read_json(path, "delete it") == {"a": None, "é": [1]}
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff", None])
def test_a_damaged_or_missing_file_is_one_line_with_a_remedy(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "some.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PmpoOfflineError, match=r"some\.json is damaged \(.*\): delete it") as caught:
        read_json(path, "delete it")
    assert "\n" not in str(caught.value)


def test_damaged_headers_of_arrays_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "arrays.npz"
    save_arrays(path, {"x": np.arange(30_000, dtype=np.float32)})
    content = path.read_bytes()
    for old, new in ((b"(30000,)", b"(10000,)"), (b"'<f4'", b"'<i4'"), (b"{'descr'", b"z'descr'")):
        path.write_bytes(content.replace(old, new))
        with pytest.raises(PmpoOfflineError, match=r"arrays\.npz is damaged .*: delete it"):
            load_arrays(path, ["x"])


def test_tensors_are_readable_as_the_umask_says(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    before = os.umask(0o022)
    try:
        save_tensors(path, {"x": torch.zeros(2)})
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_json_that_is_nested_too_deeply_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}")
    with pytest.raises(PmpoOfflineError, match="nested too deeply"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("value", ["[" * 20_000, "9" * 5_000, "[", "\x00"])
@pytest.mark.parametrize("parse", [from_json, from_toml])
def test_what_python_does_not_parse_is_a_value_error(parse: Callable[[str], Any], value: str) -> None:
    """Beside malformed text, deep nesting and numbers of many digits: the parsers' own errors are of other types."""
    with pytest.raises(ValueError, match=r"\w"):
        parse(value if parse is from_json else f"a = {value}")


def test_what_is_read_of_a_toml_file_belongs_to_the_caller(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("a = {b = [1]}")
    read_toml(path)["a"]["b"].append(2)
    assert read_toml(path) == {"a": {"b": [1]}}
    path.write_text("a = {b = [3]}")
    assert read_toml(path) == {"a": {"b": [3]}}


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
