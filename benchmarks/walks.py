"""Count the package files that a reader enters on seven walks: `python -m benchmarks.walks [WALK] [-v]`.

A file is entered when one of its functions runs in the process of the command; what worker processes would do is done
here and not counted. Every walk runs twice, and the second time counts: what runs only while modules are imported is
not part of the walk. The control step is what the training loop runs. `build` trains critics and a clone that draws
candidates, briefly, and so contains the walk of a control training; `build-bandit`, whose task knows all values, does
not.
"""

from __future__ import annotations

import inspect
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pmpo_offline
from pmpo_offline.cli.main import run
from pmpo_offline.declarations.catalog import root
from pmpo_offline.runtime import processes
from pmpo_offline.training.control.fit import fit

PACKAGE = Path(pmpo_offline.__file__).parent
LIMITS = {
    "build": 28,
    "build-bandit": 28,
    "bench": 32,
    "import": 20,
    "train-language": 36,
    "control-step": 12,
    "evaluate": None,
}
TEXTS = '{"prompt": "a", "completion": " b", "label": true}\n{"prompt": "c", "completion": " d", "label": false}\n'


@contextmanager
def inline() -> Iterator[processes.Submit]:
    """Do the work of other processes in this one, unseen: a stand-in for `processes.process`."""

    def submit(function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        look, done = sys.getprofile(), Future[Any]()
        sys.setprofile(None)
        done.set_result(function(*arguments))
        sys.setprofile(look)
        return done

    yield submit


def command(*arguments: str) -> None:
    """Run a command of the command line, silently."""
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()) as said:
        code = run(arguments)
    if code:
        raise SystemExit(f"{' '.join(arguments)}: {said.getvalue()}")


def entered(walk: Callable[[int], None], within: CodeType | None) -> list[str]:
    """Return the files whose functions run during a walk, sorted; only within the function of this code, if given."""
    files: set[str] = set()
    inside = 0 if within else 1

    def look(frame: FrameType, event: str, _: Any) -> None:
        nonlocal inside
        code = frame.f_code
        if code is within and event in ("call", "return"):
            inside += 1 if event == "call" else -1
        if event == "call" and inside and code.co_flags & inspect.CO_OPTIMIZED:
            files.add(code.co_filename)

    threading.setprofile(look)
    sys.setprofile(look)
    try:
        walk(1)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    return sorted(Path(name).relative_to(PACKAGE).as_posix() for name in files if name.startswith(f"{PACKAGE}/"))


def walks(home: Path) -> dict[str, Callable[[int], None]]:
    """Return the walks by name, functions of a seed; `home` is where they find and leave datasets."""
    texts = home / "texts.jsonl"
    texts.write_text(TEXTS, encoding="utf-8")
    recipe = home / "stacking.toml"
    declared = (root("datasets") / "rgb-stacking/proxy-v0.toml").read_text(encoding="utf-8")
    recipe.write_text(re.sub(r"updates = \d+", "updates = 2", declared), encoding="utf-8")
    stored = ["--home", str(home)]
    small = ["--overwrite", "--workers", "1", *stored]
    stacking = ["build-dataset", str(recipe), "--episodes", "60", "--imbalance", "0.1", *small]
    bandit = ["bandit", "--datasets", "bandit/sphere-v0", "--algos", "pmpo", "--seeds", "1", "--updates", "2"]

    def control_step(seed: int) -> None:
        from pmpo_offline.data import load_dataset
        from pmpo_offline.training import train

        dataset = load_dataset("bandit/sphere-v0", home=home)
        train(dataset, "pmpo", seeds=[seed], overrides={"updates": 1})

    return {
        "build": lambda seed: command(*stacking, "--seed", str(seed)),
        "build-bandit": lambda seed: command("build-dataset", "bandit/sphere-v0", *small, "--seed", str(seed)),
        "bench": lambda seed: command("bench", *bandit, "--output", str(home / "results"), "--fresh", *stored),
        "import": lambda seed: command("import", str(texts), "--overwrite", *stored),
        "train-language": lambda seed: command(
            *("train", "--dataset", "language/tiny-v0", "--algo", "pmpo", "--steps", "1"),
            *("--output", tempfile.mkdtemp(dir=home), *stored),
        ),
        "control-step": control_step,
        "evaluate": lambda seed: command("evaluate", str(home / "run"), "--episodes", "1", *stored),
    }


def main() -> None:
    """Print how many files each walk enters, beside its limit; with -v, which."""
    names = [name for name in sys.argv[1:] if not name.startswith("-")] or [*LIMITS]
    processes.process = inline
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        if {"bench", "control-step", "evaluate"} & {*names}:
            command("build-dataset", "bandit/sphere-v0", "--home", str(home))
        if "train-language" in names:
            command("build-dataset", "language/tiny-v0", "--episodes", "16", "--home", str(home))
        if "evaluate" in names:
            run_at = ("--output", str(home / "run"), "--home", str(home))
            command("train", "--dataset", "bandit/sphere-v0", "--algo", "pmpo", "--steps", "2", *run_at)
        known = walks(home)
        for name in names:
            walk = known[name]
            walk(0)
            files = entered(walk, fit.__code__ if name == "control-step" else None)
            limit = LIMITS[name]
            print(f"{name:<16}{len(files):>4}{'' if limit is None else f'  (at most {limit})'}")
            if "-v" in sys.argv:
                print("".join(f"    {file}\n" for file in files), end="")


if __name__ == "__main__":
    main()
