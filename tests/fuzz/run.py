"""Read mutated files of every kind, in worker processes with limits of time and memory; report what was not right.

    python tests/fuzz/run.py [--inputs 50000] [--seed 0] [--target NAME] [--from 0]

Input n is a function of the seed and n: `--from n --inputs 1` repeats it. A failure is an exception that is no
`PmpoOfflineError`, the end of the process by a signal (a lack of memory too), or no answer within the time limit.
The damaged files of each failure are left in fuzz-failures/.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from random import Random
from typing import TextIO

SECONDS = 60.0
"""For one input; a sound one takes a tenth of a second."""
MEMORY = 3 * 2**30
"""Bytes of address space beyond what the libraries take."""
HERE = Path(__file__).resolve()


def main() -> int:
    """Run the inputs; return 1 if there was a failure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--target", help="one kind of files alone")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options, sys.stdout)
        return 0
    return supervise(options)


def supervise(options: argparse.Namespace) -> int:
    """Start workers, one after another, each where the last one ended; print the counts."""
    counts: dict[str, Counter[str]] = {}
    failures: list[str] = []
    position, end, began = options.first, options.first + options.inputs, time.monotonic()
    while position < end:
        arguments = ["--worker", f"--seed={options.seed}", f"--from={position}", f"--inputs={end - position}"]
        arguments += [f"--target={options.target}"] if options.target else []
        with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch, Path(scratch, "stderr").open("wb") as log:
            worker = subprocess.Popen(
                [sys.executable, str(HERE), *arguments],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "TMPDIR": scratch, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            )
            position = _follow(worker, position, counts, failures, Path(scratch))
    seconds = time.monotonic() - began
    total = sum(counts.values(), Counter[str]())
    print(f"\n{'files':<28} {'inputs':>7} {'read':>7} {'refused':>8} {'failures':>8}")
    for name, count in sorted(counts.items()):
        print(f"{name:<28} {count.total():>7,} {count['read']:>7,} {count['refused']:>8,} {count['failure']:>8,}")
    print(f"{'all':<28} {total.total():>7,} {total['read']:>7,} {total['refused']:>8,} {total['failure']:>8,}")
    print(f"seed {options.seed}, inputs {options.first} to {end - 1}, {seconds:.0f} s")
    print("\n".join(failures))
    return min(1, total["failure"])


def _follow(
    worker: subprocess.Popen[str], position: int, counts: dict[str, Counter[str]], failures: list[str], scratch: Path
) -> int:
    """Follow a worker to its end; return the number of the next input."""
    assert worker.stdout is not None
    waiting = selectors.DefaultSelector()
    waiting.register(worker.stdout, selectors.EVENT_READ)
    current, name, begun, last_line = position, "", False, time.monotonic()

    def fail(why: str) -> None:
        counts.setdefault(name or "start", Counter())["failure"] += 1
        failures.append(f"input {current} ({name or 'start'}): {why}")
        print(failures[-1], file=sys.stderr, flush=True)
        if worker.poll() is not None and (scratch / "input").is_dir():
            _keep(scratch / "input", current)

    while True:
        if not waiting.select(SECONDS if begun else 60 * SECONDS):
            worker.kill()
            worker.wait()
            fail("no answer in time")
            return current + 1
        line = worker.stdout.readline()
        if not line:
            break
        said = json.loads(line)
        if "begin" in said:
            current, name, begun = said["begin"], said["target"], True
        else:
            if said["outcome"] == "failure":
                fail(said["why"])
            else:
                counts.setdefault(name, Counter())[said["outcome"]] += 1
            begun = False
            if time.monotonic() > last_line + 60:
                last_line = time.monotonic()
                print(f"{current + 1:,} inputs, {len(failures)} failures", file=sys.stderr, flush=True)
    code = worker.wait()
    if code == 0:
        return sys.maxsize
    if not name:
        raise RuntimeError(f"the worker could not start: {(scratch / 'stderr').read_text()[-2000:]}")
    fail(f"the process ended with {code}")
    return current + 1


def work(options: argparse.Namespace, answers: TextIO) -> None:
    """Read inputs one after another and answer a line before and a line after each."""
    sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[2])]
    from fuzz.targets import TARGETS

    warnings.simplefilter("ignore")
    names = [options.target] if options.target else list(TARGETS)
    place = Path(tempfile.gettempdir())
    sound: dict[str, Path] = {}
    for name in names:
        sound[name] = place / "sound" / str(len(sound))
        sound[name].mkdir(parents=True)
        TARGETS[name].make(sound[name])
        TARGETS[name].read(sound[name])  # what is sound is read
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in range(options.first, options.first + options.inputs):
        name = names[number % len(names)]
        target = TARGETS[name]
        print(json.dumps({"begin": number, "target": name}), file=answers, flush=True)
        outcome, why = attempt(target, sound[name], place / "input", f"{options.seed}:{number}")
        if outcome == "failure":
            _keep(place / "input", number)
        print(json.dumps({"outcome": outcome, "why": why}), file=answers, flush=True)


def _keep(folder: Path, number: int) -> None:
    shutil.copytree(folder, Path("fuzz-failures") / str(number), dirs_exist_ok=True)


def attempt(target: object, sound: Path, folder: Path, seed: str) -> tuple[str, str]:
    """Damage one file of a target and read it; return "read", "refused" or "failure", and why."""
    from fuzz.mutations import mutated
    from pmpo_offline.runtime.errors import PmpoOfflineError

    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(sound, folder)
    files = sorted(path for path in folder.glob(target.files) if path.is_file())  # type: ignore[attr-defined]
    path = Random(seed).choice(files)
    path.write_bytes(mutated(path.read_bytes(), seed))
    try:
        target.heal(folder)  # type: ignore[attr-defined]
        target.read(folder)  # type: ignore[attr-defined]
    except PmpoOfflineError as error:
        return ("refused", "") if "\n" not in str(error) else ("failure", f"several lines: {error}")
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)
        ours = [
            f"{frame.filename.rpartition('/')[2]}:{frame.lineno}"
            for frame in where
            if "pmpo_offline/" in frame.filename
        ]
        return (
            "failure",
            f"{path.name}: {type(error).__name__}: {str(error)[:100]!r} in {' < '.join(reversed(ours[-4:]))}",
        )
    return "read", ""


if __name__ == "__main__":
    sys.exit(main())
