"""Kill every command at random moments, run it again, and compare with what an undisturbed run leaves.

    python tests/fuzz/kills.py [--kills 300] [--seed 0] [--signal KILL|INT]

After each kill nothing half-written may be visible: every dataset that is listed is sound, every raw score is readable.
After the last one the command is run to its end and must leave the same datasets, scores and policies as an undisturbed
run. A failure is anything else, a traceback, or a command that does not end.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 900
"""For a command that is not killed, on a busy machine."""
OFTEN = 12
"""Kills of one command before it is run to its end."""
VOLATILE = {"README.md", "report.png", "report.html", "report.json", "report.md", ".begun"}
"""Files that hold a time, or pictures."""


@dataclass(frozen=True)
class Scene:
    """A command, and what has to be there before it."""

    command: tuple[str, ...]
    before: tuple[tuple[str, ...], ...] = ()


_SPHERE = ("build-dataset", "bandit/sphere-v0", "--episodes", "300", "--workers", "2", "--home", "home")
_ROWS = ("import", "rows.jsonl", "--home", "home")
_STEPS = ("import", "cube-single-play-v0.npz", "--home", "home")
_TRAIN = ("train", "--dataset", "bandit/sphere-episodes300-v0", "--algo", "bc", "--steps", "300", "--home", "home")
SCENES = {
    "build": Scene(_SPHERE),
    "build, overwriting": Scene((*_SPHERE, "--overwrite"), (_SPHERE,)),
    "build in HDF5": Scene((*_SPHERE, "--format", "hdf5")),
    "import of texts": Scene(_ROWS),
    "import of steps": Scene(_STEPS),
    "export": Scene(
        ("export", "bandit/sphere-episodes300-v0", "out", "--to", "parquet", "--overwrite", "--home", "home"),
        (_SPHERE,),
    ),
    "train": Scene((*_TRAIN, "--set", "checkpoint_every=50", "--output", "run"), (_SPHERE,)),
    "evaluate": Scene(
        ("evaluate", "run", "--episodes", "20", "--workers", "1", "--home", "home"),
        (_SPHERE, (*_TRAIN, "--output", "run")),
    ),
    "bench": Scene(
        (
            *("bench", "bandit", "--datasets", "bandit/sphere-episodes300-v0", "--algos", "pmpo", "--seeds", "2"),
            *("--updates", "200", "--episodes", "20", "--output", "results", "--workers", "1", "--home", "home"),
        ),
        (_SPHERE,),
    ),
}


def main() -> int:
    """Run the scenes in turn until there are enough kills; return 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", choices=("KILL", "INT"), default="KILL")
    options = parser.parse_args()
    rng, failures, counts = Random(options.seed), [], dict.fromkeys(SCENES, 0)
    landed = 0
    while landed < options.kills:
        for name, scene in SCENES.items():
            often = min(OFTEN, options.kills - landed)
            if often <= 0:
                break
            hits, problems = play(scene, often, rng, getattr(signal, f"SIG{options.signal}"))
            landed, counts[name] = landed + hits, counts[name] + hits
            failures += [f"{name}: {problem}" for problem in problems]
            print(*problems, sep="\n", end="\n" * bool(problems), file=sys.stderr)
            print(f"{landed} kills, {len(failures)} failures", file=sys.stderr, flush=True)
    print("\n".join(f"{name:<24} {count:>4} kills" for name, count in counts.items()))
    print(f"{'all':<24} {landed:>4} kills by SIG{options.signal}, {len(failures)} failures, seed {options.seed}")
    print("\n".join(failures))
    return min(1, len(failures))


def play(scene: Scene, often: int, rng: Random, by: signal.Signals) -> tuple[int, list[str]]:
    """Kill a command up to `often` times; return how many kills hit it at work, and what was wrong."""
    problems: list[str] = []
    with (
        tempfile.TemporaryDirectory(prefix="kills-") as undisturbed,
        tempfile.TemporaryDirectory(prefix="kills-") as place,
    ):
        for folder in (undisturbed, place):
            sources(Path(folder))
            for command in scene.before:
                problems += ended(start(command, folder), command)
        began = time.monotonic()
        problems += ended(start(scene.command, undisturbed), scene.command)
        usual = time.monotonic() - began
        hits = 0
        for _ in range(often):
            process = start(scene.command, place)
            try:
                process.wait(rng.random() * usual)
            except subprocess.TimeoutExpired:
                hits += 1
                # Only this process: what it started has to notice by itself.
                process.send_signal(by)
            _, errors = process.communicate(timeout=SECONDS)
            if b"Traceback" in errors:
                problems.append(f"traceback: {errors[-300:]!r}")
            problems += [f"visible after a kill: {problem}" for problem in visible(Path(place))]
        problems += ended(start(scene.command, place), scene.command)
        left, right = contents(Path(place)), contents(Path(undisturbed))
        problems += [
            f"{name} differs from the undisturbed run's"
            for name in left.keys() | right.keys()
            if left.get(name) != right.get(name)
        ]
        problems += [f"left behind: {path}" for path in leftovers(Path(place))]
    return hits, problems


def start(command: tuple[str, ...], folder: str) -> subprocess.Popen[bytes]:
    """Start a command in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    arguments = [sys.executable, "-m", "pmpo_offline", *command]
    return subprocess.Popen(arguments, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def ended(process: subprocess.Popen[bytes], command: tuple[str, ...]) -> list[str]:
    """Wait for a command; return what was wrong with its end."""
    try:
        _, errors = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return [f"{command[0]} does not end"]
    return [] if process.returncode == 0 else [f"{command[0]} ended with {process.returncode}: {errors[-300:]!r}"]


def sources(folder: Path) -> None:
    """Write the files that are imported."""
    import numpy as np

    rows = [{"prompt": f"p{i % 40}", "completion": f"c{i}", "label": bool(i % 3)} for i in range(4_000)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rng, last = np.random.default_rng(0), np.arange(20_000) % 50 == 49
    steps = {"observations": rng.normal(size=(20_000, 8)), "actions": rng.normal(size=(20_000, 2)).clip(-1, 1)}
    np.savez(folder / "cube-single-play-v0.npz", rewards=rng.normal(size=20_000), masks=~last, terminals=last, **steps)


def visible(folder: Path) -> Iterator[str]:
    """Yield what is wrong with what is there: datasets that are not sound, raw scores that cannot be read."""
    from pmpo_offline import data
    from pmpo_offline.benchmark.results import Results
    from pmpo_offline.runtime.errors import PmpoOfflineError

    for name in data.stored_ids(folder / "home"):
        yield from (f"{name}: {problem}" for problem in data.verify(name, folder / "home"))
    if any((folder / "results/raw").glob("*.parquet")):
        try:
            Results(folder / "results").read()
        except PmpoOfflineError as error:
            yield str(error)
    if (folder / "run/run.json").is_file():
        json.loads((folder / "run/run.json").read_bytes())


def contents(folder: Path) -> dict[str, str]:
    """Return a hash of every file that a command leaves, but for caches and those that hold a time."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(_timeless(path)).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in VOLATILE and ".raw" not in path.parts and "references" not in path.parts
    }


def _timeless(path: Path) -> bytes:
    """Return a file's content without the folder that it was made in."""
    if path.parent.name == "raw":
        import pyarrow.parquet as pq

        return str(pq.read_table(path).to_pydict()).encode()
    if path.name == "run.json":
        return json.dumps(json.loads(path.read_bytes()) | {"dataset_path": ""}).encode()
    return path.read_bytes()


def leftovers(folder: Path) -> Iterator[str]:
    """Yield what a finished command should have tidied: unfinished folders beside what it wrote."""
    for path in folder.rglob(".*"):
        if path.name.endswith((".partial", ".replaced")):
            yield path.relative_to(folder).as_posix()


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
