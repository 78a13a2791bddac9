"""Read mutated files of every kind, in worker processes with limits of time and memory; report what was not right.

    python tests/fuzz/run.py [--inputs 50000] [--seed 0] [--target NAME] [--from 0] [--journal fuzz-0.jsonl]

Input n is a function of the seed and n: `--from n --inputs 1` repeats it. A failure is an exception that is no
`PmpoOfflineError`, the end of the process by a signal (a lack of memory too), or no answer within the time limit.
The damaged files of each failure are left in fuzz-failures/.

Every outcome is a line of the journal, from which the same command goes on after it was stopped, by whatever signal;
each start adds a line with the commit. Where the journal ends in an input without an outcome, that input was at work.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from fuzz.imports import Target

CPU_SECONDS = 30.0
"""Of a worker and its children for one input; a sound one takes a tenth of a second."""
SECONDS = 3600.0
"""For one input that does not compute, and for the start of a worker, on a busy machine."""
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
    parser.add_argument("--journal", type=Path, help="file of the outcomes; it is gone on with if it exists")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        with os.fdopen(os.dup(1), "w") as answers:
            os.dup2(2, 1)  # what libraries print is no answer
            work(options, answers)
        return 0
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGHUP, _stop)
    return supervise(options)


def _stop(number: int, frame: object) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


def supervise(options: argparse.Namespace) -> int:
    """Start workers, one after another, each where the last one ended; print the counts, when stopped as well."""
    journal = Journal(options)
    end = options.first + options.inputs
    began, stopped = time.monotonic(), ""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        try:
            while journal.position < end:
                _follow(options, journal, Path(scratch))
        except KeyboardInterrupt as stop:
            stopped = f", stopped by {stop or 'SIGINT'}: the same command goes on there"
    journal.print_counts()
    seconds = time.monotonic() - began
    print(f"seed {options.seed}, inputs {options.first} to {journal.position - 1}, {seconds:.0f} s{stopped}")
    print("\n".join(journal.failures))
    return 1 if journal.failures or stopped else 0


class Journal:
    """The outcomes of the inputs, in memory and in a file."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Read what the file holds; `SystemExit` if it is of other inputs."""
        self.path: Path | None = options.journal
        self.position: int = options.first
        self.counts: dict[str, Counter[str]] = {}
        self.failures: list[str] = []
        of = {"seed": options.seed, "from": options.first, "target": options.target}
        lines = self.path.read_text().splitlines() if self.path and self.path.exists() else []
        if lines and any(_parsed(lines[0]).get(key) != value for key, value in of.items()):
            sys.exit(f"{self.path} is of other inputs: {lines[0]}")
        commit = subprocess.run(
            ["git", "-C", str(HERE.parent), "describe", "--always", "--dirty"], capture_output=True, text=True
        )
        for line in lines:
            if "outcome" in (said := _parsed(line)):
                self._count(said)
        self._write(of | {"commit": commit.stdout.strip()})

    def begin(self, number: int, target: str) -> None:
        """Record that an input is at work."""
        self._write({"begin": number, "target": target})

    def end(self, number: int, target: str, outcome: str, why: str = "") -> None:
        """Record an outcome."""
        said = {"input": number, "target": target, "outcome": outcome, "why": why}
        self._write(said)
        self._count(said)
        if outcome == "failure":
            print(self.failures[-1], file=sys.stderr, flush=True)

    def _count(self, said: dict[str, Any]) -> None:
        self.counts.setdefault(said["target"], Counter())[said["outcome"]] += 1
        self.position = said["input"] + 1
        if said["outcome"] == "failure":
            self.failures.append(f"input {said['input']} ({said['target']}): {said['why']}")

    def _write(self, said: dict[str, Any]) -> None:
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as file:
                file.write(json.dumps(said) + "\n")

    def print_counts(self) -> None:
        """Print a table of the outcomes by kind of files."""
        print(f"\n{'files':<28} {'inputs':>7} {'read':>7} {'refused':>8} {'failures':>8}")
        total = sum(self.counts.values(), Counter[str]())
        for name, count in [*sorted(self.counts.items()), ("all", total)]:
            numbers = f"{count['read']:>7,} {count['refused']:>8,} {count['failure']:>8,}"
            print(f"{name:<28} {count.total():>7,} {numbers}")


def _parsed(line: str) -> dict[str, Any]:
    try:
        return dict(json.loads(line))
    except ValueError:  # cut by a kill
        return {}


def _follow(options: argparse.Namespace, journal: Journal, scratch: Path) -> None:
    """Follow a worker to its end, which is that of the inputs or its own."""
    left = options.first + options.inputs - journal.position
    command = [sys.executable, str(HERE), f"--worker={scratch}", f"--seed={options.seed}"]
    command += [f"--from={journal.position}", f"--inputs={left}"]
    command += [f"--target={options.target}"] if options.target else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    (scratch / "tmp").mkdir(exist_ok=True)
    environment["TMPDIR"] = str(scratch / "tmp")
    current, name, begun, last_line = journal.position, "start", False, time.monotonic()
    with (scratch / "stderr").open("wb") as log:
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
    answers = lines_of(worker)
    try:
        while line := next_line(answers, SECONDS, worker.pid if begun else None):
            said = json.loads(line)
            if begun := "begin" in said:
                current, name = said["begin"], said["target"]
                journal.begin(current, name)
                continue
            journal.end(current, name, said["outcome"], said["why"])
            if time.monotonic() > last_line + 60:
                last_line = time.monotonic()
                print(f"{current + 1:,} inputs, {len(journal.failures)} failures", file=sys.stderr, flush=True)
        if line is None:
            why = f"no answer in {CPU_SECONDS:.0f} s of the processor, or an hour"
        else:
            why = f"the process ended with {worker.wait()}: {(scratch / 'stderr').read_text(errors='replace')[-300:]!r}"
        if name == "start":
            raise KeyboardInterrupt(f"a worker that could not start ({why})")
        if begun or worker.poll() != 0:
            _keep(scratch / "input", current)
            journal.end(current, name, "failure", why)
    finally:
        worker.kill()
        worker.wait()


def lines_of(worker: subprocess.Popen[str]) -> queue.Queue[str]:
    """Return the lines that a worker writes, as they come, and "" at its end."""
    assert worker.stdout is not None
    written: queue.Queue[str] = queue.Queue()

    def read(stream: TextIO) -> None:
        for line in stream:
            written.put(line)
        written.put("")

    threading.Thread(target=read, args=(worker.stdout,), daemon=True).start()
    return written


def next_line(answers: queue.Queue[str], seconds: float, computing: int | None = None) -> str | None:
    """Return the next line, "" at the end, None if there is none in time or a process computes for too long."""
    ends, used = time.monotonic() + seconds, _used(computing)
    while time.monotonic() < ends and _used(computing) - used < CPU_SECONDS:
        with suppress(queue.Empty):
            return answers.get(timeout=min(1.0, seconds))
    return None


def _used(process: int | None) -> float:
    """Return the seconds of the processor that a process and its children, as far as they ended, have used."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # None, or it has ended
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def work(options: argparse.Namespace, answers: TextIO) -> None:
    """Read inputs one after another and answer a line before and a line after each."""
    sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[2])]
    from fuzz.targets import TARGETS

    warnings.simplefilter("ignore")
    scratch: Path = options.worker
    names = [options.target] if options.target else list(TARGETS)
    sound = dict(zip(names, _sound(names, scratch), strict=True))
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in range(options.first, options.first + options.inputs):
        name = names[number % len(names)]
        print(json.dumps({"begin": number, "target": name}), file=answers, flush=True)
        outcome, why = attempt(TARGETS[name], *sound[name], scratch / "input", f"{options.seed}:{number}")
        if outcome == "failure":
            _keep(scratch / "input", number)
        print(json.dumps({"outcome": outcome, "why": why}), file=answers, flush=True)


def _sound(names: list[str], scratch: Path) -> Iterator[tuple[Path, str | None]]:
    """Yield the folder of sound files of each kind, made by the first worker, and what is read from a copy of it."""
    from fuzz.targets import TARGETS

    for number, name in enumerate(names):
        folder, copy = scratch / "sound" / str(number), scratch / "read"
        if not folder.exists():
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            TARGETS[name].make(partial)
            partial.rename(folder)
        shutil.rmtree(copy, ignore_errors=True)  # a killed worker's
        shutil.copytree(folder, copy)
        yield folder, TARGETS[name].read(copy)
        shutil.rmtree(copy)


def _keep(folder: Path, number: int) -> None:
    if folder.is_dir():
        shutil.copytree(folder, Path("fuzz-failures") / str(number), dirs_exist_ok=True)


def attempt(target: Target, sound: Path, right: str | None, folder: Path, seed: str) -> tuple[str, str]:
    """Damage one file of a target and read it; return "read", "refused" or "failure", and why.

    `right` is what is read where there is no damage, None for files that another content may be in.
    """
    from fuzz.mutations import mutated
    from pmpo_offline.runtime.errors import PmpoOfflineError

    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(sound, folder)
    files = sorted(path for path in folder.glob(target.files) if path.is_file())
    path = Random(seed).choice(files)
    path.write_bytes(mutated(path.read_bytes(), seed))
    try:
        target.heal(folder)
        read = target.read(folder)
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
    return ("read", "") if read == right else ("failure", f"{path.name}: another content is read without a word")


if __name__ == "__main__":
    sys.exit(main())
