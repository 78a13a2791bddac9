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
    LANGUAGE_RUN,
    MADE,
    PUSH,
    ROWS,
    SCENES,
    SPHERE,
    SPHERE_ID,
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
    """Whether one may be refused, in one line, because the other has taken what it needs."""


_RUN = (*TRAIN, "--output", "run")
_DELETE = ("delete", SPHERE_ID, "--yes", *HOME)
_RENAME = ("rename", SPHERE_ID, MADE, *HOME)
_TUNED = SCENES["tune"].command
_OVER = (*SPHERE, "--overwrite")
PAIRS = {
    "build and build": Pair(SPHERE, SPHERE),
    "build and build of other labels": Pair(SPHERE, (*SPHERE, "--noise", "0.1")),
    "overwrite and overwrite": Pair(_OVER, _OVER, (SPHERE,)),
    "import of texts and the same": Pair(ROWS, ROWS),
    "import of steps and the same": Pair(STEPS, STEPS),
    "train and train": Pair(_RUN, _RUN, (SPHERE,), may_fail=True),
    "train and another train": Pair(_RUN, (*_RUN, "--seed", "1"), (SPHERE,), may_fail=True),
    "language train and the same": Pair(
        (*LANGUAGE_RUN, "--output", "run"), (*LANGUAGE_RUN, "--output", "run"), (LANGUAGE,), may_fail=True
    ),
    "evaluate and evaluate": Pair(*[SCENES["evaluate"].command] * 2, SCENES["evaluate"].before),
    "bench and bench": Pair(BENCH, BENCH, (SPHERE,)),
    "bench and report": Pair((*BENCH, "--seeds", "6"), SCENES["report"].command, (SPHERE, BENCH)),
    "tune and tune": Pair(_TUNED, _TUNED),
    "push and push": Pair(PUSH, PUSH, (SPHERE,)),
    "push and rename": Pair(PUSH, _RENAME, (SPHERE,), may_fail=True),
    "pull and pull": Pair(*[SCENES["pull"].command] * 2, (SPHERE, PUSH)),
    "build and clean": Pair(SPHERE, ("clean", *HOME)),
    "overwrite and clean": Pair(_OVER, ("clean", *HOME), (SPHERE,)),
    "train and clean": Pair(_RUN, ("clean", "run", *HOME), (SPHERE,)),
    "bench and delete": Pair(BENCH, _DELETE, (SPHERE,), may_fail=True),
    "train and delete": Pair(_RUN, _DELETE, (SPHERE,), may_fail=True),
    "train and overwrite": Pair(_RUN, _OVER, (SPHERE,), may_fail=True),
    "verify and delete": Pair(("verify", SPHERE_ID, *HOME), _DELETE, (SPHERE,), may_fail=True),
    "verify and overwrite": Pair(("verify", SPHERE_ID, *HOME), _OVER, (SPHERE,), may_fail=True),
    "export and export": Pair(SCENES["export"].command, SCENES["export"].command, (SPHERE,)),
    "delete and delete": Pair(_DELETE, _DELETE, (SPHERE,), may_fail=True),
    "rename and rename": Pair(_RENAME, _RENAME, (SPHERE,), may_fail=True),
    "rename and delete": Pair(_RENAME, _DELETE, (SPHERE,), may_fail=True),
    "filter and filter": Pair(*[SCENES["filter"].command] * 2, (SPHERE,)),
    "split and split": Pair(*[SCENES["split"].command] * 2, (SPHERE,)),
    "split and delete": Pair(SCENES["split"].command, _DELETE, (SPHERE,), may_fail=True),
    "relabel and rename": Pair(SCENES["relabel"].command, _RENAME, (SPHERE,), may_fail=True),
    "submit and submit": Pair(*[SCENES["submit"].command] * 2, SCENES["submit"].before, may_fail=True),
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
    return problems


if __name__ == "__main__":
    sys.exit(main())
