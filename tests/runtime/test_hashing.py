"""Hashes are what they were when the first dataset was stored."""

from __future__ import annotations

from pathlib import Path

import pytest

from pmpo_offline.runtime.hashing import hash_bytes, hash_file, hash_json, identity

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_bytes_and_files_have_the_sha256_of_their_content(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert hash_bytes([b"abc"]) == hash_bytes(iter([b"a", b"", b"bc"])) == hash_file(tmp_path / "file") == ABC


def test_json_is_hashed_as_it_is_written() -> None:
    assert hash_json({"b": 1, "a": [1.5, None]}) == hash_bytes([b'{"a": [1.5, null], "b": 1}'])
    assert hash_json({"b": 1, "a": 2}, sort_keys=False) == hash_bytes([b'{"b": 1, "a": 2}'])
    with pytest.raises(TypeError):
        hash_json(object())


def test_an_identity_depends_on_every_ingredient_and_its_name() -> None:
    assert identity(data="x", seed=1) == identity(seed=1, data="x")
    different = [identity(data="x", seed=1), identity(data="x", seed=2), identity(data="y", seed=1), identity(data="x")]
    assert len({*different, identity(other="x", seed=1)}) == 5
