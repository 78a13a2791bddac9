"""The lock of a folder, and claims on a path."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pmpo_offline.runtime.errors import PmpoOfflineError
from pmpo_offline.runtime.locks import claim, file_lock


def elsewhere(code: str, *args: Path) -> subprocess.Popen[str]:
    """Run code in a process of its own."""
    head = "import sys; from pathlib import Path; from pmpo_offline.runtime.locks import claim, file_lock\n"
    return subprocess.Popen(
        [sys.executable, "-c", head + code, *map(str, args)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


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


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="Linux has a folder in which none can be made")
def test_a_claim_where_no_folder_can_be_made_ends() -> None:
    refused = pytest.raises(PmpoOfflineError, match=r"^cannot write /proc: No such file or directory; check the perm")
    with refused, claim(Path("/proc/run")):
        pass
