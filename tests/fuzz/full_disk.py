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

from scenes import ROOT, SCENES, SECONDS, TOKEN, Scene, running_hub, sources

READING = {"verify", "clean", "delete"}
"""Commands that write nothing."""
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
    for name in [options.scene] if options.scene else sorted(SCENES.keys() - READING):
        for point, problem in fill(SCENES[name], options.points):
            tried += 1
            failures += [f"{name} at {point:,} bytes: {problem}"] if problem else []
        print(f"{name}: {tried} full disks, {len(failures)} failures", flush=True)
    print("\n".join(failures))
    return min(1, len(failures))


def fill(scene: Scene, points: int) -> list[tuple[int, str]]:
    """Return the sizes of the disks on which a command was tried, each with what was wrong there or nothing."""
    program = [sys.executable, "-m", "pmpo_offline"]
    found = []
    with tempfile.TemporaryDirectory(prefix="disk-") as folder, running_hub() as hub:
        hosted = any(command[0] == "push" for command in (scene.command, *scene.before))
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": str(1 - hosted)}
        environment |= {"HF_ENDPOINT": hub.address, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}

        def run(command: list[str], place: Path | None = None, *, check: bool = True) -> str:
            done = subprocess.run(
                command, cwd=place, env=environment, capture_output=True, timeout=2 * SECONDS, check=check
            )
            return done.stderr.decode(errors="replace")

        before, mount, after = (Path(folder, name) for name in ("before", "mount", "after"))
        before.mkdir()
        mount.mkdir()
        sources(before)
        for command in scene.before:
            run([*program, *command], before)
        held = _bytes(before)
        run(["cp", "-a", str(before), str(after)])
        run([*program, *scene.command], after)
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
            said = run([*call, *program, *scene.command], check=False)
            found.append((size, _problem(said, scene.repeatable)))
    return found


def _problem(said: str, repeatable: bool) -> str:
    """Return what was wrong with the run on the full disk, or the one with room; nothing if all was right."""
    first, _, rest = said.partition("--- ")
    code, _, rest = rest.partition("\n")
    again = rest.rpartition("--- ")[2].strip()
    errors = [line for line in first.splitlines() if line.startswith("error:")]
    if "Traceback" in said:
        return f"traceback: {said[said.index('Traceback') :][-400:]}"
    if code != "0" and len(errors) != 1:
        return f"ended with {code} and {len(errors)} lines of error: {first[-300:]}"
    done = again == "0" or (code == "0" and not repeatable)
    return "" if done else f"with room again it ended with {again}: {rest[-300:]}"


def _bytes(folder: Path) -> int:
    """Return the room that a folder takes, in whole pages."""
    return sum(4096 + path.stat().st_size // 4096 * 4096 for path in folder.rglob("*"))


if __name__ == "__main__":
    sys.exit(main())
