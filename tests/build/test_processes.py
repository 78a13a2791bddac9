"""Builds as real processes: killed, interrupted, out of disk, and called from any script."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from functools import partial
from multiprocessing.context import BaseContext
from pathlib import Path

import pytest
from helpers.forked import Forked
from helpers.gated import CHUNK, GATE

from pmpo_offline import data
from pmpo_offline.build import build_dataset
from pmpo_offline.data import Dataset
from pmpo_offline.tasks import simulated


@pytest.fixture(scope="module")
def recipe(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe without critics and candidates, which are trained and drawn after all of this."""
    text = recipe.read_text()
    path = tmp_path_factory.mktemp("recipe") / "collected.toml"
    path.write_text(text[: text.index("[critic]")] + text[text.index("[[behavior]]") :])
    return path


def assert_equal(one: Dataset, other: Dataset) -> None:
    for name in ("table", "episodes"):
        assert getattr(one, name).equals(getattr(other, name))


EPISODES = CHUNK + 1  # a long chunk, and one of a single episode


def arguments(recipe: Path, home: Path, episodes: int = EPISODES, workers: int = 2) -> list[str]:
    numbers = ["--episodes", str(episodes), "--workers", str(workers)]
    return ["build-dataset", str(recipe), "--home", str(home), *numbers]


def gate(home: Path) -> Path:
    return home.with_name(f"{home.name}.gate")


def start(recipe: Path, home: Path) -> subprocess.Popen[str]:
    """Start a build in a session of its own, as a terminal would have it; its long chunk waits for the gate."""
    code = "from helpers.gated import build; build()"
    paths = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments(recipe, home)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, GATE: str(gate(home))},
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which what runs in the background ignores
    )


def group(leader: int) -> list[int]:
    """The living processes of a session, read from /proc."""
    alive = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == leader and fields[0] not in "ZX":
            alive.append(int(stat.parent.name))
    return alive


def workers(leader: int) -> list[int]:
    """The processes of a session that collect."""
    found = []
    for pid in group(leader):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def wait_until(condition, process: subprocess.Popen[str], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "gave up waiting"
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def wait_for_silence(leader: int, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while group(leader):
        assert time.monotonic() < end, f"processes {group(leader)} outlive their build"
        time.sleep(0.02)


def chunks(home: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (home / ".raw").rglob("chunk-*.npz")}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulated, "collect", partial(simulated.collect, chunk=CHUNK))


@pytest.fixture(scope="module")
def uninterrupted(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    home = tmp_path_factory.mktemp("uninterrupted")
    return build_dataset(str(recipe), home=home, episodes=EPISODES, workers=1)


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")


@needs_proc
def test_killed_build_leaves_nothing_visible_and_the_next_goes_on(
    recipe: Path, tmp_path: Path, uninterrupted: Dataset
) -> None:
    process = start(recipe, tmp_path)
    wait_until(lambda: len(chunks(tmp_path)) == 1, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_for_silence(process.pid)
    kept = chunks(tmp_path)
    assert list(kept) == [f"chunk-{CHUNK:07d}.npz"], "the short chunk was done, the long one was not"
    assert data.stored_ids(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == [".raw"]

    resumed = build_dataset(str(recipe), home=tmp_path, episodes=EPISODES, workers=1)
    assert kept.items() <= chunks(tmp_path).items(), "the finished chunk was reused"
    assert_equal(resumed, uninterrupted)
    assert resumed.metadata.files == uninterrupted.metadata.files
    assert not list((tmp_path / ".raw").rglob("*.tmp"))


@needs_proc
@pytest.mark.parametrize("when", ["workers start", "workers work"])
def test_interrupted_build_says_one_line_and_leaves_no_process(recipe: Path, tmp_path: Path, when: str) -> None:
    process = start(recipe, tmp_path)
    if when == "workers start":
        wait_until(lambda: workers(process.pid), process)
    else:
        wait_until(lambda: chunks(tmp_path), process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: everybody in the group hears it
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert out == ""
    lines = [line for line in err.splitlines() if not line.startswith("collect episodes: ")]
    assert lines == ["error: interrupted: what was finished is kept; run the same command again to go on"]
    wait_for_silence(process.pid)
    assert data.stored_ids(tmp_path) == []
    assert not list((tmp_path / ".raw").rglob("*.tmp"))


@needs_proc
def test_a_killed_worker_costs_only_its_chunk(recipe: Path, tmp_path: Path, uninterrupted: Dataset) -> None:
    process = start(recipe, tmp_path)
    wait_until(lambda: len(chunks(tmp_path)) == 1, process)
    kept = chunks(tmp_path)
    for pid in workers(process.pid):  # one of them collects the other chunk
        os.kill(pid, signal.SIGKILL)
    gate(tmp_path).touch()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert kept.items() <= chunks(tmp_path).items()
    assert_equal(
        next(iter(data.load_dataset(name, home=tmp_path) for name in data.stored_ids(tmp_path))), uninterrupted
    )


def test_ray_collects_what_one_process_collects(recipe: Path, tmp_path: Path, uninterrupted: Dataset) -> None:
    built = build_dataset(str(recipe), home=tmp_path, episodes=EPISODES, workers=2, executor="ray")
    assert built.metadata.files == uninterrupted.metadata.files


LIMITED = """
import resource, sys
from pmpo_offline.cli.main import run

resource.setrlimit(resource.RLIMIT_FSIZE, (2**14, 2**14))
sys.exit(run(sys.argv[1:]))
"""


def test_full_disk_is_one_line_and_leaves_nothing_half_written(
    recipe: Path, tmp_path: Path, forkserver: BaseContext
) -> None:
    """A limit on the size of a file stands in for the disk."""
    process = Forked(forkserver, LIMITED, *arguments(recipe, tmp_path, episodes=2, workers=1))
    _, error = process.communicate()
    assert process.returncode == 1
    lines = [line for line in error.splitlines() if not line.startswith("collect episodes: ")]
    assert len(lines) == 1, error
    assert lines[0].startswith(f"error: cannot write {tmp_path}: ")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("how", ["file", "stdin"])
def test_script_without_a_main_guard_starts_processes(tmp_path: Path, how: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os\n"
        "from pmpo_offline.runtime.processes import process\n"
        "with process() as submit:\n"
        "    print(submit(os.getppid).result() == os.getpid(), __name__)\n"
        "    print(submit(os.getenv, 'OMP_WAIT_POLICY').result())  # threads of torch sleep while they wait\n"
    )
    command = [sys.executable, str(script)] if how == "file" else [sys.executable, "-"]
    given = None if how == "file" else script.read_text()
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=120)
    assert done.stdout == "True __main__\npassive\n", done.stderr
