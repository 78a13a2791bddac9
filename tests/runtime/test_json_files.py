"""JSON files that other programs can read."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from pmpo_offline.runtime.errors import PmpoOfflineError
from pmpo_offline.runtime.json_files import finite, read_json, write_json


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
