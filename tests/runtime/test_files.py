"""Files and folders that are whole or absent, the lock of a folder, and claims on a path."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.runtime.files import (
    atomic_directory,
    atomic_file,
    claim,
    file_lock,
    finite,
    from_json,
    from_toml,
    read_json,
    read_toml,
    recover,
    remove_directory,
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


def test_a_removed_folder_is_not_brought_back_as_it_was_before_it_was_replaced(tmp_path: Path) -> None:
    folder, replaced = tmp_path / "thing", tmp_path / ".thing.replaced"  # of a writer that was killed at its very end
    folder.mkdir()
    replaced.mkdir()
    remove_directory(folder)
    recover(folder)
    assert list(tmp_path.iterdir()) == []


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


WAITING = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # which what runs in the background ignores
import polars  # whose own handler lets system calls go on
try:
    print('waiting', flush=True)
    with file_lock(Path(sys.argv[1])): print('held', flush=True)
except KeyboardInterrupt:
    print('interrupted', flush=True)
with file_lock(Path(sys.argv[1])): print('held', flush=True)
"""


def test_a_lock_excludes_other_processes_and_dies_with_its_holder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)  # a folder that may only be read is locked too
    holder = elsewhere("with file_lock(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()", tmp_path)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    waiter = elsewhere(WAITING, tmp_path)
    assert waiter.stdout is not None
    assert waiter.stdout.readline() == "waiting\n"
    with pytest.raises(subprocess.TimeoutExpired):
        waiter.wait(timeout=1)
    waiter.send_signal(signal.SIGINT)
    assert waiter.stdout.readline() == "interrupted\n"
    holder.kill()
    assert waiter.communicate(timeout=60)[0] == "held\n"
    with file_lock(tmp_path):
        assert list(tmp_path.iterdir()) == []


def test_a_claim_is_of_one_process_leaves_nothing_and_dies_with_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "result"
    code = "with claim(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    holder = elsewhere(code, path)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with claim(path, wait=False) as held:
        assert not held
    holder.kill()
    holder.wait()
    with claim(path) as held, claim(path, wait=False) as again:
        assert held
        assert not again
    assert list(path.parent.iterdir()) == []


def test_a_claim_that_was_waited_for_is_of_one_process_too(tmp_path: Path) -> None:
    path = tmp_path / "result"
    with claim(path):
        code = (
            "print('waiting', flush=True)\nwith claim(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
        )
        waiter = elsewhere(code, path)
        assert waiter.stdout is not None
        assert waiter.stdout.readline() == "waiting\n"
        with pytest.raises(subprocess.TimeoutExpired):
            waiter.wait(timeout=1)
    assert waiter.stdout.readline() == "held\n"
    with claim(path, wait=False) as held:
        assert not held, "the folder whose lock was waited for was removed, and another one made"
    waiter.communicate("")
    with claim(path, wait=False) as held:
        assert held


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="Linux has a folder in which none can be made")
def test_a_claim_where_no_folder_can_be_made_ends() -> None:
    refused = pytest.raises(PmpoOfflineError, match=r"^cannot write /proc: No such file or directory; check the perm")
    with refused, claim(Path("/proc/run")):
        pass
