"""The command that trains one run: train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pmpo_offline.cli.console import assignments, emit, print_lines, short, working
from pmpo_offline.cli.options import Home, Json

SHOWN = ("loss", "kl", "rewards/margins", "rewards/accuracies", "logps/chosen", "logps/rejected", "logp", "accept_logp")
"""Metrics that are printed; run.json has all."""


def train(
    name: Annotated[str, typer.Option("--dataset", metavar="ID", help="Id or path of a dataset, or a declared one.")],
    algo: Annotated[str, typer.Option(help="Name of an algorithm, or its .toml.")] = "pmpo",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="SETTING=VALUE",
            help="Of the objective or of its training, as in beta=0.5 or learning_rate=1e-4; repeatable.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="A language model: its name, directory or hub id.", show_default="the responses' own"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of all chance.")] = 0,
    steps: Annotated[
        int | None, typer.Option("--steps", "--updates", min=1, help="Gradient steps.", show_default="the algorithm's")
    ] = None,
    shuffle_labels: Annotated[
        bool, typer.Option("--shuffle-labels", help="Permute the labels: a control with nothing to learn from.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option(help="Directory of the run.", show_default="runs/DATASET/ALGO-…-seedS")
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Train an algorithm on a dataset once; the same command resumes where it was stopped, and repeats nothing."""
    chosen = assignments(settings, "beta=0.5")
    with working():
        from pmpo_offline.build import build_dataset, is_built
        from pmpo_offline.data import load_dataset
        from pmpo_offline.training.run import Run, train_run

        dataset = load_dataset(name, home=home) if is_built(name, home) else build_dataset(name, home=home)
        place = output or _place(dataset.metadata.id, algo, chosen, seed, steps, shuffle_labels)
        run = Run(dataset, algo, chosen, seed, steps, model, shuffle_labels)
        record = train_run(run, place, home)
    if json:
        emit({**{key: value for key, value in record.items() if key != "history"}, "output": str(place)})
    else:
        _show(record, place)


def _place(dataset: str, algo: str, settings: dict[str, Any], seed: int, steps: int | None, shuffled: bool) -> Path:
    """Return the default directory of a run, named by its settings."""
    parts = [Path(algo).stem, *(f"{name}={settings[name]}" for name in sorted(settings))]
    parts += [f"steps={steps}"] * (steps is not None) + ["shuffled"] * shuffled + [f"seed{seed}"]
    return Path("runs") / dataset.replace("/", "-") / "-".join(parts)


def _show(record: dict[str, Any], output: Path) -> None:
    metrics = record["metrics"]
    beta, bound = record["settings"].get("beta"), None if record["bound"] is None else float(record["bound"])
    lines = {
        "dataset": record["dataset"],
        "algorithm": record["algorithm"] + (" (shuffled labels)" if record["shuffle_labels"] else ""),
        "settings": ", ".join(f"{name} {short(value)}" for name, value in record["settings"].items()) or "–",
        **({"model": record["model"]} if "model" in record else {}),
        "seed": str(record["seed"]),
        "steps": f"{record['training'].get('steps', record['training'].get('updates')):,}",
        **({"β ≥ bound": f"{short(beta)} {'≥' if beta >= bound else '<'} {short(bound)}"} if bound is not None else {}),
        **{metric: short(metrics[metric]) for metric in SHOWN if metric in metrics},
        "learned": str(output / record.get("adapter", record.get("policy", ""))),
    }
    print_lines(lines)
