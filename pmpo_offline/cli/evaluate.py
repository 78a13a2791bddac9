"""The command `evaluate`: measure a finished run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pmpo_offline.cli.console import emit, working
from pmpo_offline.cli.options import Home, Json

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


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Output directory of a `pmpo-offline train`.")],
    samples: Annotated[
        int | None, typer.Option(min=1, help="Completions a prompt, of a language model.", show_default="1")
    ] = None,
    prompts: Annotated[
        int | None, typer.Option(min=0, help="Held-out prompts, of a language model; 0: all.", show_default="100")
    ] = None,
    episodes: Annotated[
        int | None, typer.Option(min=1, help="Episodes, of a control policy.", show_default="100")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**31 - 1, help="Of a language model's sampling.", show_default="0")
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL|URL",
            help="A language model that judges samples: a name, a directory, or the URL of an OpenAI-compatible server "
            "up to /v1 (its key in $PMPO_OFFLINE_JUDGE_KEY).",
            show_default="none",
        ),
    ] = None,
    judge_model: Annotated[
        str | None, typer.Option(help="Which of the models behind the URL.", show_default="the only one")
    ] = None,
    judge_questions: Annotated[
        Path | None, typer.Option(metavar="TOML", help="Questions to the judge.", show_default="the shipped ones")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads of the simulator.", show_default="one a core")
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Evaluate a trained run on held-out prompts or episodes: scores, drift from the reference, a judge's verdicts."""
    given = {"samples": samples, "prompts": prompts, "seed": seed, "episodes": episodes, "workers": workers}
    given |= {"judge": judge, "judge_model": judge_model, "judge_questions": judge_questions}
    with working():
        from pmpo_offline.evaluation.runs import EvaluationOptions, evaluate_run

        found = evaluate_run(run, EvaluationOptions(**given), home)
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
    settings = ", ".join(f"{name} {_text(value)}" for name, value in found["settings"].items())
    print(f"{found['algorithm']}{f' ({settings})' if settings else ''}, seed {found['seed']}, on {found['dataset']}")
    if found["kind"] != "responses":
        print(f"{found['episodes']} episodes: return {_text(found['return'])} ± {_text(found['return_error'])}", end="")
        print(f", normalized {_text(found['normalized'])}, success {_text(found['success'])}", end="")
        print(f", length {_text(found['length'])}")
        return
    table = Table("", "policy", f"reference ({found['model']})", box=None, pad_edge=False)
    for name, title in MEASURES.items():
        error = f" ± {_text(found['policy']['reward_error'])}" if name == "reward" else ""
        ours, theirs = (_text(found[side][name]) for side in ("policy", "reference"))
        table.add_row(title, ours + (error if ours != "–" else ""), theirs)
    console.print(table)
    implicit = found["implicit"]
    print(f"{found['prompts']} held-out prompts × {found['samples']}; implicit reward: accuracy ", end="")
    print(f"{_text(implicit['accuracy'])} over {implicit['pairs']} pairs, AUC {_text(implicit['auc'])}")
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
        f"{_text(samples['first'])} (0.5 is none); good by themselves {_text(samples['accepted'])}, the reference's "
        f"{_text(samples['reference_accepted'])} ({samples['unparsed_single']} unreadable)",
        f"judge against the labels: prefers the accepted response {_rate(labels['pairs'])}; single verdicts: accuracy "
        f"{_text(labels['single']['accuracy'])}, Cohen's kappa {_text(labels['single']['kappa'])} of "
        f"{labels['single']['n']} ({labels['single']['unparsed']} unreadable)",
    ]


def _rate(pairs: dict[str, Any]) -> str:
    rate = pairs["win_rate"]
    counts = f"{pairs['wins']} won, {pairs['losses']} lost, {pairs['ties']} tied of which {pairs['disagreements']} by "
    interval = "–" if rate is None else f"{rate['estimate']:.2f} [{rate['low']:.2f}, {rate['high']:.2f}]"
    return f"{interval} ({counts}disagreement, {pairs['unparsed']} unreadable)"


def _text(value: Any) -> str:
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
