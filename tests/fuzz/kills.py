"""Kill every command at random moments, run it again, and compare with what an undisturbed run leaves.

    python tests/fuzz/kills.py [--kills 300] [--seed 0] [--signal KILL|INT] [--scene NAME]

After each kill nothing half-written may be visible: every dataset that is listed is sound, every raw score is readable.
After the last one the command is run to its end and must, once `clean` has removed scratch files, leave the same
datasets, scores and policies as an undisturbed run. A failure is anything else, a traceback, or a command that does not
end. Commands are forked from a process that has imported the libraries, so that kills hit their work; `interrupts.py`
has whole processes.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

from scenes import HOME, SCENES, Command, Scene, contents, differences, leftovers, running_hub, sources, visible

OFTEN = 12
"""Kills of one command before it is run to its end."""


def main() -> int:
    """Run the scenes in turn until there are enough kills; return 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", choices=("KILL", "INT"), default="KILL")
    parser.add_argument("--scene", choices=sorted(SCENES), help="one command alone")
    options = parser.parse_args()
    scenes = {options.scene: SCENES[options.scene]} if options.scene else SCENES
    failures: list[str] = []
    landed = 0
    while landed < options.kills:
        for name, scene in scenes.items():
            often = min(OFTEN, options.kills - landed)
            if often <= 0:
                break
            rng = Random(f"{options.seed}:{name}:{landed}")
            hits, problems = play(scene, often, rng, getattr(signal, f"SIG{options.signal}"))
            landed += hits
            failures += [f"{name}: {problem}" for problem in problems]
            print(f"{name:<26} {hits:>4} kills by SIG{options.signal}, {len(problems)} failures", flush=True)
            print(*problems, sep="\n", end="\n" * bool(problems), flush=True)
    print(f"{'all':<26} {landed:>4} kills by SIG{options.signal}, {len(failures)} failures, seed {options.seed}")
    return min(1, len(failures))


def play(scene: Scene, often: int, rng: Random, by: signal.Signals) -> tuple[int, list[str]]:
    """Kill a command up to `often` times; return how many kills hit it at work, and what was wrong."""
    problems: list[str] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kills-")))
        undisturbed, place = folder / "undisturbed", folder / "place"
        hubs: dict[Path, Any] = {}
        for path in (undisturbed, place):
            path.mkdir()
            sources(path)
            hubs[path] = stack.enter_context(running_hub())
            for command in scene.before:
                problems += Command(command, path, hubs[path].address).ended()
        began = time.monotonic()
        problems += Command(scene.command, undisturbed, hubs[undisturbed].address).ended()
        usual = time.monotonic() - began
        hits = 0
        for _ in range(often):
            began = time.monotonic()
            process = Command(scene.command, place, hubs[place].address)
            if process.wait(rng.random() * usual):
                usual = min(usual, time.monotonic() - began)  # what is cached by now is not read again
            else:
                hits += 1
                process.kill(by)
            codes = (0, -by, 130) if scene.repeatable else (0, -by, 130, 1, 2)
            problems += process.ended(codes)
            problems += [f"visible after a kill: {problem}" for problem in visible(place)]
        problems += Command(scene.command, place, hubs[place].address).ended((0,) if scene.repeatable else (0, 1, 2))
        if scene.repeatable:
            problems += [f"left behind: {path}" for path in leftovers(place)]
        for path in place.rglob(".*.tmp"):
            os.utime(path, (0, 0))  # `clean` leaves scratch files alone that are younger than an hour
        written = [folder.name for folder in place.iterdir() if folder.is_dir() and folder.name != "home"]
        problems += Command(("clean", *written, *HOME), place, "").ended()
        problems += [f"left by clean: {path}" for path in leftovers(place)]
        problems += differences(contents(place), contents(undisturbed))
        pushed = [{name: commits[-1] for name, commits in hub.repositories.items()} for hub in hubs.values()]
        problems += ["the hub holds something else"] if pushed[0] != pushed[1] else []
    return hits, problems


if __name__ == "__main__":
    sys.exit(main())
