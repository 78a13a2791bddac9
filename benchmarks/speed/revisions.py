"""Compare two revisions of this repository, side by side: starts of three commands, a training step, a language step.

    python -m benchmarks.speed.revisions 997eb25            # this working tree beside that commit; about five minutes

Every measurement is a process of its own on one thread; the two revisions take turns, round after round, so that
whatever else the machine does hits both alike. Figures are medians of CPU-seconds, ratios are taken pair by pair.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

from benchmarks.experiments import shared

START = """
import resource, subprocess, sys
subprocess.run([sys.executable, "-m", sys.argv[1], "--help"], check=True, stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime)
"""
TRAIN = """
import resource, subprocess, sys, tempfile
def train():
    output = tempfile.mkdtemp(dir=sys.argv[2]) + "/run"
    chosen = ["--dataset", "bandit/sphere-v0", "--algo", "pmpo", "--steps", "2", "--output", output]
    run = [sys.executable, "-m", sys.argv[1], "train", *chosen, "--home", sys.argv[2]]
    subprocess.run(run, check=True, stdout=subprocess.DEVNULL)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
first = train()  # builds the dataset, once
print(train() - first)
"""
SHOW = """
import resource, subprocess, sys
def cpu_of(*command):
    run = [sys.executable, "-m", sys.argv[1], *command, "bandit/sphere-v0", "--home", sys.argv[2]]
    subprocess.run(run, check=True, stdout=subprocess.DEVNULL)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
built = cpu_of("build-dataset")
print(cpu_of("show") - built)
"""
CONTROL = """
import sys, time, warnings
warnings.simplefilter("ignore")
import torch
from pmpo_offline import build_dataset, train
torch.set_num_threads(1)
dataset = build_dataset("bandit/sphere-v0", home=__import__("pathlib").Path(sys.argv[2]))
train(dataset, "pmpo", seeds=range(5), overrides={"updates": 50, "hidden": (256, 256)}, device="cpu")
began = time.process_time()
train(dataset, "pmpo", seeds=range(5), overrides={"updates": 400, "hidden": (256, 256)}, device="cpu")
print((time.process_time() - began) / 400)
"""
LANGUAGE = """
import sys, tempfile, time, warnings
from pathlib import Path
warnings.simplefilter("ignore")
import torch
from pmpo_offline import build_dataset, train_language
torch.set_num_threads(1)
home = Path(sys.argv[2])
dataset = build_dataset("language/tiny-v0", home=home)
def run(steps):
    began = time.process_time()
    train_language(dataset, "pmpo", output=Path(tempfile.mkdtemp(dir=home)), home=home, overrides={"steps": steps})
    return time.process_time() - began
run(2)
print((run(42) - run(2)) / 40)
"""
MEASURES = {
    "pmpo-offline --help": START,
    "pmpo-offline show": SHOW,
    "pmpo-offline train, two updates": TRAIN,
    "update of five stacked PMPO runs": CONTROL,
    "update of PMPO on the tiny language": LANGUAGE,
}


def measure(tree: Path, script: str, home: Path) -> float:
    """Return the CPU-seconds that a script prints with the code of a tree."""
    module = "pmpo_offline" if (tree / "pmpo_offline/__main__.py").exists() else "pmpo_offline.cli"
    single = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(tree), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", script, module, str(home)]
    done = subprocess.run(command, env=os.environ | single, cwd=home, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def worktree(*arguments: str | Path) -> None:
    """Run `git worktree`."""
    subprocess.run(["git", "worktree", *arguments], cwd=shared.ROOT, check=True)


def page(found: dict[str, object], rows: list[dict[str, object]]) -> str:
    """Return the figures as Markdown."""
    lines = [
        f"# This revision beside {found['base']}",
        "",
        f"`python -m benchmarks.speed.revisions {found['base']}`, {found['date']}, {found['rounds']} rounds; "
        f"{found['processor']}, {found['cores']} cores; Python {found['python']}, torch {found['torch']}. "
        "Medians of CPU-seconds, one thread.",
        "",
    ]
    cells = [
        (
            str(row["what"]),
            f"{row['before']:.4g}",
            f"{row['after']:.4g}",
            f"{row['ratio']:.3f} ({row['least']:.3f} – {row['greatest']:.3f})",
        )
        for row in rows
    ]
    lines += shared.table(("", "before", "after", "after / before (least – greatest)"), cells)
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print the page, and write it beside the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="a commit to compare with")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=shared.RESULTS / "speed")
    arguments = parser.parse_args()
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as scratch:
        before = Path(scratch) / "before"
        worktree("add", "--quiet", "--detach", before, arguments.base)
        try:
            homes = {tree: Path(tempfile.mkdtemp(dir=scratch)) for tree in (before, shared.ROOT)}
            for what, script in MEASURES.items():
                for tree, home in homes.items():
                    measure(tree, script, home)  # builds what it needs, and warms the file cache
                pairs = [[measure(tree, script, home) for tree, home in homes.items()] for _ in range(arguments.rounds)]
                ratios = [after / earlier for earlier, after in pairs]
                rows.append(
                    {
                        "what": what,
                        "before": statistics.median(earlier for earlier, _ in pairs),
                        "after": statistics.median(after for _, after in pairs),
                        "ratio": statistics.median(ratios),
                        "least": min(ratios),
                        "greatest": max(ratios),
                    }
                )
        finally:
            worktree("remove", "--force", before)
    found: dict[str, object] = {
        "base": arguments.base,
        "date": date.today().isoformat(),
        "rounds": arguments.rounds,
        **shared.machine("torch"),
    }
    shared.publish(arguments.out / "revisions", {**found, "rows": rows}, page(found, rows))


if __name__ == "__main__":
    main()
