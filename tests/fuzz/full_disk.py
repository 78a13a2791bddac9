"""Run every command that writes on a file system that fills up at every point of it; each must end in one line.

    python tests/fuzz/full_disk.py [--points 8]

A command runs undisturbed first, to measure what it writes; then with a tmpfs of a fraction of that (in a mount
namespace of its own, which needs `unshare`), and there again with room enough, which must succeed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from kills import ROOT, SCENES, SECONDS, Scene, sources

LANGUAGE = ("build-dataset", "language/tiny-v0", "--episodes", "40", "--home", "home")
_RUN = ("train", "--dataset", "language/tiny-episodes40-v0", "--algo", "bc", "--steps", "6", "--home", "home")
SCENES_OF_LANGUAGE = {
    "build of responses": Scene(LANGUAGE),
    "train a language model": Scene((*_RUN, "--set", "checkpoint_every=2", "--output", "run"), (LANGUAGE,)),
    "evaluate a language model": Scene(
        ("evaluate", "run", "--prompts", "8", "--home", "home"), (LANGUAGE, (*_RUN, "--output", "run"))
    ),
}
SCRIPT = """
set -e
mount -t tmpfs -o size=$1 none "$2"
cp -a "$3/." "$2/"
cd "$2"
shift 3
set +e
"$@" > /dev/null
code=$?
mount -o remount,size=2g "$PWD"
echo "--- $code" >&2
"$@" > /dev/null
echo "--- $?" >&2
"""


def main() -> int:
    """Run all commands at all points; return 1 if one did not end in one line, or did not succeed with room."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--points", type=int, default=8)
    parser.add_argument("--scene")
    options = parser.parse_args()
    failures = []
    tried = 0
    for name, scene in (SCENES | SCENES_OF_LANGUAGE).items():
        if options.scene in (None, name):
            for point, problem in fill(scene, options.points):
                tried += 1
                failures += [f"{name} at {point:,} bytes: {problem}"] if problem else []
            print(f"{name}: {tried} full disks, {len(failures)} failures", flush=True)
    print("\n".join(failures))
    return min(1, len(failures))


def fill(scene: Scene, points: int) -> list[tuple[int, str]]:
    """Return the sizes of the disks on which a command was tried, each with what was wrong there or nothing."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    program = [sys.executable, "-m", "pmpo_offline"]
    found = []
    with tempfile.TemporaryDirectory(prefix="disk-") as folder:
        before, mount = Path(folder, "before"), Path(folder, "mount")
        before.mkdir()
        mount.mkdir()
        sources(before)
        for command in scene.before:
            subprocess.run([*program, *command], cwd=before, env=environment, capture_output=True, check=True)
        held = _bytes(before)
        after = Path(folder, "after")
        subprocess.run(["cp", "-a", str(before), str(after)], check=True)
        subprocess.run([*program, *scene.command], cwd=after, env=environment, capture_output=True, check=True)
        grown = max(1, _bytes(after) - held)
        for point in range(points):
            size = held + 65536 + grown * point // points
            call = [
                "unshare",
                "--map-root-user",
                "--mount",
                "sh",
                "-c",
                SCRIPT,
                "sh",
                str(size),
                str(mount),
                str(before),
            ]
            done = subprocess.run(
                [*call, *program, *scene.command],
                env=environment,
                capture_output=True,
                timeout=2 * SECONDS,
                check=False,
            )
            found.append((size, _problem(done.stderr.decode(errors="replace"))))
    return found


def _problem(said: str) -> str:
    """Return what was wrong with the run on the full disk, or the one with room; nothing if all was right."""
    first, _, rest = said.partition("--- ")
    code, _, rest = rest.partition("\n")
    again = rest.rpartition("--- ")[2].strip()
    errors = [line for line in first.splitlines() if line.startswith("error:")]
    if "Traceback" in said:
        return f"traceback: {said[said.index('Traceback') :][-400:]}"
    if code != "0" and len(errors) != 1:
        return f"ended with {code} and {len(errors)} lines of error: {first[-300:]}"
    return "" if again == "0" else f"with room again it ended with {again}: {rest[-300:]}"


def _bytes(folder: Path) -> int:
    """Return the room that a folder takes, in whole pages."""
    return sum(4096 + path.stat().st_size // 4096 * 4096 for path in folder.rglob("*"))


if __name__ == "__main__":
    sys.exit(main())
