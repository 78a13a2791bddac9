"""The command `evaluate`: measure a finished run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pmpo_offline.cli.console import emit, short, working
from pmpo_offline.cli.options import Home, Json, options_of
from pmpo_offline.evaluation.options import EvaluationOptions

MEASURES = {
    "reward": "reward",
    "normalized": "normalized score",
    "success": "would be accepted",
    "kl": "KL to the reference, nats a sample",
    "token_kl": "the same a token, exact",
    "reference_logp": "reference log-probability a token",
    "distinct": "distinct words of all samples",
    "distinct_within": "distinct words within a sample",
    "length": "tokens a sample",
    "perplexity": "perplexity on running text",
}


@options_of(EvaluationOptions)
def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Output directory of a `pmpo-offline train`.")],
    *,
    options: EvaluationOptions,
    home: Home = None,
    json: Json = False,
) -> None:
    """Evaluate a trained run on held-out prompts or episodes: scores, drift from the reference, a judge's verdicts."""
    with working():
        from pmpo_offline.evaluation.runs import evaluate_run

        found = evaluate_run(run, options, home)
    if json:
        emit(found)
    else:
        _show(found)


def _show(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # Piped into a file it is not folded at 80 columns.
    console = Console(width=None if sys.stdout.isatty() else 200)
    settings = ", ".join(f"{name} {short(value)}" for name, value in found["settings"].items())
    print(f"{found['algorithm']}{f' ({settings})' if settings else ''}, seed {found['seed']}, on {found['dataset']}")
    if found["kind"] != "responses":
        print(f"{found['episodes']} episodes: return {short(found['return'])} ± {short(found['return_error'])}", end="")
        print(f", normalized {short(found['normalized'])}, success {short(found['success'])}", end="")
        print(f", length {short(found['length'])}")
        return
    table = Table("", "policy", f"reference ({found['model']})", box=None, pad_edge=False)
    for name, title in MEASURES.items():
        error = f" ± {short(found['policy']['reward_error'])}" if name == "reward" else ""
        ours, theirs = (short(found[side][name]) for side in ("policy", "reference"))
        table.add_row(title, ours + (error if ours != "–" else ""), theirs)
    console.print(table)
    implicit = found["implicit"]
    print(f"{found['prompts']} held-out prompts × {found['samples']}; implicit reward: accuracy ", end="")
    print(f"{short(implicit['accuracy'])} over {implicit['pairs']} pairs, AUC {short(implicit['auc'])}")
    if found["judge"]:
        for line in _verdict(found["judge"]):
            print(line)
    for note in found["notes"]:
        console.print(Text(f"note: {note}"))
    print(f"samples: {found['output']}")


def _verdict(judge: dict[str, Any]) -> list[str]:
    samples, labels = judge["samples"], judge["labels"]
    return [
        f"judge {judge['name']}: win rate over the reference {_rate(samples)}, position bias "
        f"{short(samples['first'])} (0.5 is none); good by themselves {short(samples['accepted'])}, the reference's "
        f"{short(samples['reference_accepted'])} ({samples['unparsed_single']} unreadable)",
        f"judge against the labels: prefers the accepted response {_rate(labels['pairs'])}; single verdicts: accuracy "
        f"{short(labels['single']['accuracy'])}, Cohen's kappa {short(labels['single']['kappa'])} of "
        f"{labels['single']['n']} ({labels['single']['unparsed']} unreadable)",
    ]


def _rate(pairs: dict[str, Any]) -> str:
    rate = pairs["win_rate"]
    counts = f"{pairs['wins']} won, {pairs['losses']} lost, {pairs['ties']} tied of which {pairs['disagreements']} by "
    interval = "–" if rate is None else f"{rate['estimate']:.2f} [{rate['low']:.2f}, {rate['high']:.2f}]"
    return f"{interval} ({counts}disagreement, {pairs['unparsed']} unreadable)"
