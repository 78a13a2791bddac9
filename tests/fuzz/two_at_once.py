"""Run two commands on the same target at the same time; both must end in success or one line, with everything sound.

    python tests/fuzz/two_at_once.py [--rounds 4] [--seed 0] [--pair NAME]

The second starts at a random moment of the first. Where both do the same, both must succeed and leave what one leaves.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random

from scenes import (
    BENCH,
    HOME,
    LANGUAGE,
    PARTS,
    PUSH,
    ROWS,
    SCENES,
    SPHERE,
    STEPS,
    TRAIN,
    Command,
    contents,
    differences,
    leftovers,
    running_hub,
    sources,
    visible,
)


@dataclass(frozen=True)
class Pair:
    """Two commands, and what has to be there before them."""

    first: tuple[str, ...]
    second: tuple[str, ...]
    before: tuple[tuple[str, ...], ...] = ()
    may_fail: bool = False
    """Whether one may be refused, in one line, because the other has taken, or not yet made, what it needs."""


_BUILT = (SPHERE,)
_RUN = SCENES["train"].command
_DELETE, _RENAME, _CLEAN = (SCENES[name].command for name in ("delete", "rename", "clean"))
_OVER = (*SPHERE, "--overwrite")
_USERS = ("train", "evaluate", "bench", "export", "filter", "split", "relabel", "push", "verify")
"""Commands that read the dataset which the others replace or remove."""
PAIRS = {
    **{
        f"{name}, twice": Pair(scene.command, scene.command, scene.before, not scene.repeatable or "train" in name)
        for name, scene in SCENES.items()
    },
    **{
        f"{name} and {other}": Pair(SCENES[name].command, command, SCENES[name].before, may_fail=other != "clean")
        for name in _USERS
        for other, command in {"delete": _DELETE, "rename": _RENAME, "overwrite": _OVER, "clean": _CLEAN}.items()
    },
    "build and build of other labels": Pair(SPHERE, (*SPHERE, "--noise", "0.1")),
    "build and build in HDF5": Pair(SPHERE, (*SPHERE, "--format", "hdf5"), may_fail=True),
    "build and clean": Pair(SPHERE, _CLEAN),
    "overwrite and clean": Pair(_OVER, _CLEAN, _BUILT),
    "overwrite and delete": Pair(_OVER, _DELETE, _BUILT, may_fail=True),
    "import of texts and clean": Pair(ROWS, _CLEAN),
    "import of steps and clean": Pair(STEPS, _CLEAN),
    "rename and delete": Pair(_RENAME, _DELETE, _BUILT, may_fail=True),
    "combine and delete": Pair(
        SCENES["combine"].command, ("delete", PARTS[0], "--yes", *HOME), SCENES["combine"].before, may_fail=True
    ),
    "pull and build": Pair(SCENES["pull"].command, (*SPHERE, "--home", "other"), (SPHERE, PUSH)),
    "train and another train": Pair(_RUN, (*_RUN, "--seed", "1"), _BUILT, may_fail=True),
    "train and evaluate": Pair((*TRAIN, "--output", "run"), SCENES["evaluate"].command, _BUILT, may_fail=True),
    # `clean` of a folder that is not there yet is refused.
    "language train and clean": Pair(
        SCENES["train a language model"].command, ("clean", "run", *HOME), (LANGUAGE,), may_fail=True
    ),
    "bench and bench of another algorithm": Pair(BENCH, (*BENCH, "--algos", "bc"), _BUILT),
    "bench and report": Pair((*BENCH, "--seeds", "6"), SCENES["report"].command, (SPHERE, BENCH)),
    "bench and submit": Pair((*BENCH, "--seeds", "6"), SCENES["submit"].command, (SPHERE, BENCH), may_fail=True),
    "report and clean": Pair(SCENES["report"].command, ("clean", "results", *HOME), (SPHERE, BENCH)),
}


def main() -> int:
    """Run the pairs; return 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pair", choices=sorted(PAIRS), help="one pair alone")
    options = parser.parse_args()
    failures = 0
    for name in [options.pair] if options.pair else PAIRS:
        problems = play(PAIRS[name], options.rounds, Random(f"{options.seed}:{name}"))
        failures += len(problems)
        print(f"{name:<34} {options.rounds:>3} rounds, {len(problems)} failures", *problems, sep="\n  ", flush=True)
    print(f"all: {failures} failures")
    return min(1, failures)


def play(pair: Pair, rounds: int, rng: Random) -> list[str]:
    """Run a pair several times; return what was wrong."""
    problems: list[str] = []
    usual = 0.0
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="two-")))
        hub = stack.enter_context(running_hub())
        alone: dict[str, str] | None = None
        for number in range(rounds + 1):  # the first one alone, undisturbed
            place = folder / str(number)
            place.mkdir()
            sources(place)
            for command in pair.before:
                problems += Command(command, place, hub.address).ended()
            began = time.monotonic()
            first = Command(pair.first, place, hub.address)
            if number == 0:
                problems += first.ended()
                usual = time.monotonic() - began
                alone = contents(place)
                continue
            time.sleep(rng.random() ** 2 * usual)
            second = Command(pair.second, place, hub.address)
            codes = (0, 1, 2) if pair.may_fail else (0,)
            problems += first.ended(codes) + second.ended(codes)
            if first.code and second.code:
                problems.append(f"both failed: {first.errors()[-200:]!r} {second.errors()[-200:]!r}")
            problems += [f"not sound: {problem}" for problem in visible(place)]
            problems += [f"left behind: {path}" for path in leftovers(place)]
            if pair.first == pair.second:
                problems += differences(contents(place), alone or {})
            print(f"  round {number} of {rounds}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return problems


if __name__ == "__main__":
    sys.exit(main())
