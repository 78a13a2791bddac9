"""The command that trains one run: train."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pmpo_offline.cli.bench import value as parsed
from pmpo_offline.cli.console import emit, working
from pmpo_offline.cli.options import Home, Json
from pmpo_offline.runtime.errors import UserError

SHOWN = ("loss", "kl", "rewards/margins", "rewards/accuracies", "logps/chosen", "logps/rejected", "logp", "accept_logp")
"""Metrics that people get to see; run.json has all."""


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
    """Train an algorithm on a dataset once; the same command goes on where it was stopped, and repeats nothing."""
    chosen: dict[str, Any] = {}
    for option in settings or []:
        setting, equals, text = option.partition("=")
        if not (setting and equals and text):
            raise UserError(f"--set {option}: write SETTING=VALUE, as in beta=0.5")
        chosen[setting] = parsed(text)
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
    """Return where a run is kept by default: what tells it from others is in its name."""
    parts = [Path(algo).stem, *(f"{name}={settings[name]}" for name in sorted(settings))]
    parts += [f"steps={steps}"] * (steps is not None) + ["shuffled"] * shuffled + [f"seed{seed}"]
    return Path("runs") / dataset.replace("/", "-") / "-".join(parts)


def _show(record: dict[str, Any], output: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    metrics = record["metrics"]
    beta, bound = record["settings"].get("beta"), None if record["bound"] is None else float(record["bound"])
    lines = {
        "dataset": record["dataset"],
        "algorithm": record["algorithm"] + (" (shuffled labels)" if record["shuffle_labels"] else ""),
        "settings": ", ".join(f"{name} {_text(value)}" for name, value in record["settings"].items()) or "–",
        **({"model": record["model"]} if "model" in record else {}),
        "seed": str(record["seed"]),
        "steps": f"{record['training'].get('steps', record['training'].get('updates')):,}",
        **({"β ≥ bound": f"{_text(beta)} {'≥' if beta >= bound else '<'} {_text(bound)}"} if bound is not None else {}),
        **{metric: _text(metrics[metric]) for metric in SHOWN if metric in metrics},
        "learned": str(output / record.get("adapter", record.get("policy", ""))),
    }
    table = Table.grid(padding=(0, 2))
    for name, value in lines.items():
        table.add_row(name, value)
    # Piped into a file it is not folded at 80 columns.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "–" if value is None else str(value)
