"""Every command that writes, with what has to be there before it; how it is started, and what has to hold after it."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
TOKEN = "hf_test"
SECONDS = 1800
"""For a command that is not killed, on a busy machine."""
VOLATILE = {"README.md", "report.png", "report.html", "report.json", "report.md", "tune.md", "page.html", ".begun"}
"""Files that hold a time, or pictures."""
PRELOADED = ["numpy", "torch", "pyarrow.parquet", "scipy.stats", "pmpo_offline.cli.main", "pmpo_offline.training"]
"""Imported once, before processes are forked; they start no threads by being imported."""
TINY_SUITE = """
title = "Small"
datasets = ["bandit/sphere-v0"]
imbalance = [0.5]
algorithms = ["pmpo"]
updates = 20
episodes = 5
"""


@dataclass(frozen=True)
class Scene:
    """A command, and what has to be there before it."""

    command: tuple[str, ...]
    before: tuple[tuple[str, ...], ...] = ()
    repeatable: bool = True
    """Whether it succeeds again after it has succeeded."""


HOME = ("--home", "home")
SPHERE_ID, MADE = "bandit/sphere-episodes300-v0", "my/made-v0"
SPHERE = ("build-dataset", "bandit/sphere-v0", "--episodes", "300", "--workers", "1", *HOME)
ROWS = ("import", "rows.jsonl", *HOME)
STEPS = ("import", "cube-single-play-v0.npz", *HOME)
TRAIN = ("train", "--dataset", SPHERE_ID, "--algo", "bc", "--steps", "300", *HOME)
BENCH = (
    *("bench", "bandit", "--datasets", SPHERE_ID, "--algos", "pmpo", "--imbalance", "collected", "--seeds", "5"),
    *("--updates", "100", "--episodes", "10", "--output", "results", "--workers", "1", *HOME),
)
LANGUAGE = ("build-dataset", "language/tiny-v0", "--episodes", "40", *HOME)
LANGUAGE_RUN = ("train", "--dataset", "language/tiny-episodes40-v0", "--algo", "bc", "--steps", "6", *HOME)
SPLIT = ("split", SPHERE_ID, "--shares", "a=0.5,b=0.5", *HOME)
PARTS = ("bandit/sphere-episodes300-a-v0", "bandit/sphere-episodes300-b-v0")
PUSH = ("push", SPHERE_ID, "me/sphere", *HOME)
SCENES = {
    "build": Scene(SPHERE),
    "build, two workers": Scene((*SPHERE, "--workers", "2")),
    "build, overwriting": Scene((*SPHERE, "--overwrite"), (SPHERE,)),
    "build in HDF5": Scene((*SPHERE, "--format", "hdf5")),
    "build of responses": Scene(LANGUAGE),
    "import of texts": Scene(ROWS),
    "import of steps": Scene(STEPS),
    "export": Scene(("export", SPHERE_ID, "out", "--to", "parquet", "--overwrite", *HOME), (SPHERE,)),
    "train": Scene((*TRAIN, "--set", "checkpoint_every=50", "--output", "run"), (SPHERE,)),
    "train a language model": Scene((*LANGUAGE_RUN, "--set", "checkpoint_every=2", "--output", "run"), (LANGUAGE,)),
    "evaluate": Scene(
        ("evaluate", "run", "--episodes", "20", "--workers", "1", *HOME), (SPHERE, (*TRAIN, "--output", "run"))
    ),
    "evaluate a language model": Scene(
        ("evaluate", "run", "--prompts", "8", *HOME), (LANGUAGE, (*LANGUAGE_RUN, "--output", "run"))
    ),
    "bench": Scene(BENCH, (SPHERE,)),
    "tune": Scene(("tune", "tiny.toml", "--output", "results", "--workers", "1", *HOME)),
    "filter": Scene(("filter", SPHERE_ID, MADE, "--where", "return > -0.5", *HOME), (SPHERE,)),
    "split": Scene(SPLIT, (SPHERE,)),
    "combine": Scene(("combine", MADE, *PARTS, *HOME), (SPHERE, SPLIT)),
    "relabel": Scene(("relabel", SPHERE_ID, MADE, "--noise", "0.1", *HOME), (SPHERE,)),
    "rename": Scene(("rename", SPHERE_ID, MADE, *HOME), (SPHERE,), repeatable=False),
    "delete": Scene(("delete", SPHERE_ID, "--yes", *HOME), (SPHERE,), repeatable=False),
    "push": Scene(PUSH, (SPHERE,)),
    "pull": Scene(("pull", "hf:me/sphere", "--home", "other"), (SPHERE, PUSH)),
    "verify": Scene(("verify", SPHERE_ID, *HOME), (SPHERE,)),
    "clean": Scene(("clean", *HOME), (SPHERE, ("delete", SPHERE_ID, "--yes", *HOME))),
    "report": Scene(("report", "results", "--html", "page.html", "--csv", "table.csv"), (SPHERE, BENCH)),
    "submit": Scene(
        ("submit", "results", "--name", "mine", "--leaderboard", "board", *HOME), (SPHERE, BENCH), repeatable=False
    ),
}


def sources(folder: Path) -> None:
    """Write the files that commands are given."""
    import numpy as np

    rows = [{"prompt": f"p{i % 40}", "completion": f"c{i}", "label": bool(i % 3)} for i in range(4_000)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rng, last = np.random.default_rng(0), np.arange(20_000) % 50 == 49
    steps = {"observations": rng.normal(size=(20_000, 8)), "actions": rng.normal(size=(20_000, 2)).clip(-1, 1)}
    np.savez(folder / "cube-single-play-v0.npz", rewards=rng.normal(size=20_000), masks=~last, terminals=last, **steps)
    (folder / "tiny.toml").write_text(TINY_SUITE)
    (folder / "board").mkdir()


def running_hub() -> Any:
    """Return a context with a hub on this machine, see `helpers.hub`."""
    from helpers.hub import running

    return running()


class Command:
    """A command in a process of its own, forked from one that has imported the libraries."""

    context: ForkServerContext = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)

    def __init__(self, arguments: tuple[str, ...], folder: Path, hub: str) -> None:
        self.arguments, self.log = arguments, folder.parent / f"{folder.name}-{time.monotonic_ns()}.log"
        call = (arguments, str(folder), str(self.log), hub)
        self.process: ForkServerProcess = self.context.Process(target=_run, args=call)
        self.process.start()

    def wait(self, seconds: float) -> bool:
        """Wait for its end at most so long; return whether it has ended."""
        self.process.join(seconds)
        return self.process.exitcode is not None

    def kill(self, by: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to this process alone: what it started has to notice by itself."""
        assert self.process.pid is not None
        os.kill(self.process.pid, by)

    @property
    def code(self) -> int | None:
        """The exit code, negative for a signal."""
        return self.process.exitcode

    def errors(self) -> str:
        """Return what it wrote to stderr."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def ended(self, codes: tuple[int, ...] = (0,)) -> list[str]:
        """Wait for its end; return what was wrong with it."""
        name = " ".join(self.arguments[:2])
        if not self.wait(SECONDS):
            self.kill()
            return [f"{name} does not end"]
        said = self.errors()
        wrong = [f"{name} ended with {self.code}: {said[-300:]!r}"] if self.code not in codes else []
        return wrong + ([f"{name}: traceback: {said[-400:]!r}"] if "Traceback" in said else [])


def _run(arguments: tuple[str, ...], folder: str, log: str, hub: str) -> None:
    """Run a command in this process, as `pmpo-offline` does."""
    os.chdir(folder)
    for number, target in ((1, os.devnull), (2, log)):
        os.dup2(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_ENDPOINT": hub, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
    os.environ["HF_HUB_OFFLINE"] = "0" if arguments[0] in ("push", "pull") else "1"
    import torch

    from pmpo_offline.cli.main import run

    torch.set_num_threads(1)
    code = run(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def visible(folder: Path) -> Iterator[str]:
    """Yield what is wrong with what is there: datasets that are not sound, raw scores that cannot be read."""
    from pmpo_offline import data
    from pmpo_offline.benchmark.leaderboard import Leaderboard
    from pmpo_offline.benchmark.results import Results
    from pmpo_offline.runtime.errors import PmpoOfflineError

    for home in (folder / "home", folder / "other"):
        for name in data.stored_ids(home):
            yield from (f"{name}: {problem}" for problem in data.verify(name, home))
    try:
        if any((folder / "results/raw").glob("*.parquet")):
            Results(folder / "results").read()
        if any((folder / "board").glob("*/entry.json")):
            Leaderboard(folder / "board").read()
    except PmpoOfflineError as error:
        yield str(error)
    if (folder / "run/run.json").is_file():
        json.loads((folder / "run/run.json").read_bytes())


def contents(folder: Path) -> dict[str, str]:
    """Return a hash of every file that a command leaves, but for caches and those that hold a time."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(_timeless(path)).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in VOLATILE and not {".raw", ".hub", "references"} & {*path.parts}
    }


def _timeless(path: Path) -> bytes:
    """Return a file's content without the folder that it was made in, times, and the order of facts about tensors."""
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        table = pq.read_table(path)
        return str(
            table.drop_columns([name for name in table.column_names if "time" in name or "seconds" in name]).to_pydict()
        ).encode()
    if path.name in ("run.json", "entry.json", "dataset.json"):
        content = json.loads(path.read_bytes())
        return json.dumps(content | dict.fromkeys(("dataset_path", "date", "sha256", "created"), "")).encode()
    if path.suffix == ".safetensors":  # the order of its facts is another one each time
        content = path.read_bytes()
        end = 8 + int.from_bytes(content[:8], "little")
        return json.dumps(json.loads(content[8:end]), sort_keys=True).encode() + content[end:]
    return path.read_bytes()


def leftovers(folder: Path) -> Iterator[str]:
    """Yield what a finished command should have tidied: unfinished folders beside what it wrote."""
    for path in folder.rglob(".*"):
        if path.name.endswith((".partial", ".replaced")):
            yield path.relative_to(folder).as_posix()


def differences(left: Mapping[str, str], right: Mapping[str, str]) -> list[str]:
    """Return the names of files that differ."""
    return [
        f"{name} differs from the undisturbed run's"
        for name in sorted(left.keys() | right.keys())
        if left.get(name) != right.get(name)
    ]
