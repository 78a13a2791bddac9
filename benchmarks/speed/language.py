"""How fast our trainers of language models take a step, and how much memory it needs, beside TRL's.

    python benchmarks/speed/language.py                  # `make peers smollm2` first; ten minutes on an idle machine
    python benchmarks/speed/language.py --device cuda

The same SmolLM2-135M-Instruct, rows, LoRA (rank 8 on q, k, v, o) and optimizer for everyone; a step is 8 rows of about
64 tokens. Each contender runs in a process of its own, in the peers' environment, on one thread: `Trainer.train()` for
a warm-up step and a few more. They take turns, round after round, so that whatever else the machine does hits all
alike; figures are medians over all steps. Runs that are on record are not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from language_contenders import CONTENDERS
from language_page import markdown

REPOSITORY = Path(__file__).parents[2]
PACKAGES = ("torch", "transformers", "peft", "accelerate", "trl")


def main() -> None:
    """Measure, print the page, and write it and its JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a directory; default SmolLM2-135M-Instruct, converted if need be")
    parser.add_argument("--contenders", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each contender")
    parser.add_argument("--steps", type=int, default=4, help="of a process, the warm-up included")
    parser.add_argument("--peers", type=Path, default=REPOSITORY / ".venv-peers/bin/python", help="TRL's Python")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks/results/speed")
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
    """Return what one process of a contender says."""
    script = Path(__file__).with_name("language_steps.py")
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    hidden = {} if device == "cuda" else {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [str(python), str(script), name, str(model), str(scratch), "--steps", str(steps)],
        env={**os.environ, **threads, **hidden, "PYTHONPATH": str(REPOSITORY)},
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
    """Return what the figures hold for."""
    listed = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in listed if line.startswith("model name")]
    ask = f"from importlib.metadata import version; print(*map(version, {PACKAGES}))"
    versions = subprocess.run([str(python), "-c", ask], capture_output=True, text=True, check=True).stdout.split()
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "gpu": gpu,
        "python": platform.python_version(),
        **dict(zip(PACKAGES, versions, strict=True)),
    }


if __name__ == "__main__":
    main()
