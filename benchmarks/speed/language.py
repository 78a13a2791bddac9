"""How fast our trainers of language models take a step, and how much memory it needs, beside TRL's.

    python -m benchmarks.speed.language                  # `make peers smollm2` first; ten minutes on an idle machine
    python -m benchmarks.speed.language --device cuda

The same SmolLM2-135M-Instruct, rows, LoRA (rank 8 on q, k, v, o) and optimizer for everyone; a step is 8 rows of about
64 tokens. Each contender runs in a process of its own, in the peers' environment, on one thread: `Trainer.train()` for
a warm-up step and a few more. They take turns, round after round, so that whatever else the machine does hits all
alike; figures are medians over all steps. Runs that are on record are not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.experiments import shared

PACKAGES = ("torch", "transformers", "peft", "accelerate", "trl")
TOP = 6
"""Layers that have LoRA where not all have."""


@dataclass(frozen=True)
class Contender:
    """Who trains what."""

    title: str
    theirs: bool
    algorithm: str
    top: int | None = None
    """LoRA on this many upper layers alone; ours then caches what lies below."""
    precomputed: bool = False
    """TRL's own cache of the reference's log-probabilities."""
    mismatched: bool = False
    """KTO's reference point as TRL computes it, for a forward pass more."""


CONTENDERS = {
    "trl-dpo": Contender("TRL DPO", True, "dpo"),
    "trl-dpo-precomputed": Contender("TRL DPO, precomputed reference", True, "dpo", precomputed=True),
    "trl-dpo-top": Contender(f"TRL DPO, precomputed, top {TOP}", True, "dpo", TOP, precomputed=True),
    "trl-kto": Contender("TRL KTO", True, "kto"),
    "dpo": Contender("DPO", False, "dpo"),
    "kto-mismatched": Contender("KTO, TRL's reference point", False, "kto", mismatched=True),
    "kto": Contender("KTO, exact reference point", False, "kto"),
    "pmpo": Contender("PMPO, exact KL", False, "pmpo"),
    "dpo-top": Contender(f"DPO, cached trunk, top {TOP}", False, "dpo", TOP),
    "pmpo-top": Contender(f"PMPO, exact KL, cached trunk, top {TOP}", False, "pmpo", TOP),
}
GOALS = (
    ("dpo", "trl-dpo", 2.5),
    ("dpo", "trl-dpo-precomputed", 2.0),
    ("kto", "trl-kto", 3.0),
    ("pmpo", "trl-dpo-precomputed", 1.0),
    ("dpo-top", "trl-dpo", 8.0),
)
"""Ours, theirs, and how many times as fast a step of ours should be."""
EQUAL = (
    ("dpo", "trl-dpo"),
    ("dpo", "trl-dpo-precomputed"),
    ("kto-mismatched", "trl-kto"),
    ("dpo-top", "trl-dpo-top"),
)
"""The same objective on the same rows and adapter: ours, theirs."""

SMALLER = (
    ("dpo", "trl-dpo"),
    ("kto", "trl-kto"),
    ("pmpo", "trl-dpo"),
    ("dpo-top", "trl-dpo-top"),
    ("pmpo-top", "trl-dpo-top"),
)
"""Of which memory is compared; the goal is no more than theirs."""


def main() -> None:
    """Measure, print the page, and write it and its JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a directory; default SmolLM2-135M-Instruct, converted if need be")
    parser.add_argument("--contenders", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each contender")
    parser.add_argument("--steps", type=int, default=4, help="of a process, the warm-up included")
    parser.add_argument("--peers", type=Path, default=shared.ROOT / ".venv-peers/bin/python", help="TRL's Python")
    parser.add_argument("--out", type=Path, default=shared.RESULTS / "speed")
    arguments = parser.parse_args()
    model = arguments.model or smollm2()
    arguments.out.mkdir(parents=True, exist_ok=True)
    stem = arguments.out / f"language-{arguments.device}"
    record = stem.with_suffix(".jsonl")
    with tempfile.TemporaryDirectory() as scratch:
        for turn in range(arguments.rounds):
            for name in arguments.contenders:
                if not any((each["round"], each["name"]) == (turn, name) for each in read(record)):
                    found = run(arguments.peers, name, model, Path(scratch), arguments.steps, arguments.device)
                    line = {"round": turn, "name": name, "load": round(os.getloadavg()[0], 1), **found}
                    with record.open("a") as file:
                        file.write(json.dumps(line) + "\n")
                    print(f"round {turn + 1} of {arguments.rounds}, {name}: {found['cpu']}", file=sys.stderr)
    found = summary(read(record), "wall" if arguments.device == "cuda" else "cpu")
    found["machine"] = machine(arguments.peers, found.pop("gpu"))
    stem.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    stem.with_suffix(".md").write_text(markdown(found))
    print(markdown(found))


def smollm2() -> Path:
    """Return the directory of the converted model."""
    from pmpo_offline.tasks.language import model_directory

    return model_directory("smollm2-135m-instruct")


def read(record: Path) -> list[dict[str, Any]]:
    """Return the runs on record."""
    return [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []


def run(python: Path, name: str, model: Path, scratch: Path, steps: int, device: str) -> dict[str, Any]:
    """Return the figures of one process of a contender."""
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    hidden = {} if device == "cuda" else {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [str(python), "-m", "benchmarks.speed.language_steps", name, str(model), str(scratch), "--steps", str(steps)],
        env={**os.environ, **threads, **hidden, "PYTHONPATH": str(shared.ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{name} ended with code {done.returncode}:\n{done.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def summary(runs: list[dict[str, Any]], clock: str) -> dict[str, Any]:
    """Return the figures of each contender: seconds a step of `clock`, MB, and the loss of the first rows."""
    table = {}
    for name, contender in CONTENDERS.items():
        mine = [run for run in runs if run["name"] == name]
        if mine:
            seconds = [second for run in mine for second in run[clock]]
            table[name] = {
                "title": contender.title,
                "seconds": statistics.median(seconds),
                "min": min(seconds),
                "max": max(seconds),
                "steps": len(seconds),
                "peak_mb": statistics.median(run["peak"] for run in mine),
                "loss": mine[0]["loss"],
            }
    loads = [run["load"] for run in runs]
    return {"clock": clock, "contenders": table, "load": [min(loads), max(loads)], "gpu": runs[0]["gpu"]}


def machine(python: Path, gpu: str | None) -> dict[str, Any]:
    """Return what the figures hold for; the packages are those of the peers' environment."""
    ask = f"from importlib.metadata import version; print(*map(version, {PACKAGES}))"
    found = subprocess.run([str(python), "-c", ask], capture_output=True, text=True, check=True).stdout.split()
    return {**shared.machine(gpu=gpu), **dict(zip(PACKAGES, found, strict=True))}


def markdown(found: dict[str, Any]) -> str:
    """Return the page that is committed."""
    here, table, load = found["machine"], found["contenders"], found["load"]
    where = here["gpu"] or f"{here['processor']}, one thread of {here['cores']} cores, load {load[0]} to {load[1]}"
    clock = "Seconds" if found["clock"] == "wall" else "Seconds of the processor"
    lines = [
        "# Speed of the language models' trainers",
        "",
        f"{where}; Python {here['python']}, torch {here['torch']}, transformers {here['transformers']}, peft "
        f"{here['peft']}, TRL {here['trl']}. Written by `python -m benchmarks.speed.language`.",
        "",
        f"{clock} a step of 8 rows of about 64 tokens, half of them the prompt's, of SmolLM2-135M-Instruct in float32 "
        "with LoRA of rank 8 on q, k, v, o: medians of whole steps of `Trainer.train()`, processes in turns. Memory is "
        "the largest resident size of a process after its first step. *Top 6*: LoRA on the upper 6 of 30 layers alone. "
        "Losses are of the same rows before the first step, with an adapter of random numbers.",
        "",
    ]
    base = table["trl-dpo"]["seconds"] if "trl-dpo" in table else None
    rows = []
    for row in table.values():
        times = f"{base / row['seconds']:.2f}" if base else ""
        rows.append([row["title"], f"{row['seconds']:.2f}", f"{row['min']:.2f} to {row['max']:.2f}", f"{row['steps']}"])
        rows[-1] += [times, f"{row['peak_mb']:,.0f}", f"{row['loss']:.6f}"]
    header = ("", "s a step", "min to max", "steps", "times TRL DPO", "peak, MB", "loss")
    lines += [*shared.table(header, rows, "lr"), ""]
    goals = []
    for ours, theirs, goal in GOALS:
        if ours in table and theirs in table:
            times = table[theirs]["seconds"] / table[ours]["seconds"]
            met = "met" if times >= goal else "missed"
            goals.append([table[ours]["title"], table[theirs]["title"], f"{goal:g}", f"{times:.2f}", met])
    lines += shared.table(("ours", "theirs", "goal", "found", ""), goals, "llrrl")
    pairs = [(a, b) for a, b in EQUAL if a in table and b in table]
    apart = max((abs(table[a]["loss"] - table[b]["loss"]) for a, b in pairs), default=0.0)
    memory = [table[a]["peak_mb"] / table[b]["peak_mb"] for a, b in SMALLER if a in table and b in table]
    lines += ["", f"Losses of the same objective differ by at most {apart:.1e}."]
    if memory:
        lines[-1] += (
            f" Ours needs {min(memory):.2f} to {max(memory):.2f} of the memory of TRL's trainer of the same layers."
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
