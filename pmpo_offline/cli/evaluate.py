"""The command `evaluate`: measure a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pmpo_offline.cli.console import Home, Result, command, print_columns, readable
from pmpo_offline.evaluation.options import EvaluationOptions
from pmpo_offline.runtime.errors import UserError

MEASURES = {
    "reward": "reward",
    "normalized": "normalized score",
    "success": "would be accepted",
    "kl": "KL to the reference, nats per sample",
    "token_kl": "the same per token, exact",
    "reference_logp": "reference log-probability per token",
    "distinct": "distinct words of all samples",
    "distinct_within": "distinct words within a sample",
    "length": "tokens per sample",
    "perplexity": "perplexity on running text",
}


@command(EvaluationOptions)
def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Output directory of a `pmpo-offline train`.")],
    *,
    options: EvaluationOptions,
    home: Home = None,
) -> Result[Any]:
    """Evaluate a trained run on held-out episodes or prompts: scores, drift from the reference, a judge's verdicts."""
    if not run.is_dir():
        raise UserError(f"{run}: no such directory; name the output directory of a `pmpo-offline train`")
    from pmpo_offline.evaluation.runs import evaluate_run

    return Result(evaluate_run(run, options, home), _print)


def _print(found: dict[str, Any]) -> None:
    settings = f" ({readable(found['settings'])})" if found["settings"] else ""
    _print_line(f"{found['algorithm']}{settings}, seed {found['seed']}, on {found['dataset']}")
    if found["kind"] != "responses":
        scores = {name: readable(found[name]) for name in ("normalized", "success", "length")}
        score = f"return {readable(found['return'])} ± {readable(found['return_error'])}, {readable(scores)}"
        _print_line(f"{found['episodes']} episodes: {score}")
        return
    rows = [("", "policy", f"reference ({found['model']})")]
    for name, title in MEASURES.items():
        ours, theirs = found["policy"][name], found["reference"][name]
        error = f" ± {readable(found['policy']['reward_error'])}" if name == "reward" and ours is not None else ""
        rows.append((title, readable(ours) + error, readable(theirs)))
    print_columns(rows)
    implicit = found["implicit"]
    _print_line(
        f"{found['prompts']} held-out prompts × {found['samples']}; implicit reward: accuracy "
        f"{readable(implicit['accuracy'])} over {implicit['pairs']} pairs, AUC {readable(implicit['auc'])}"
    )
    if found["judge"]:
        _print_judge(found["judge"])
    for note in found["notes"]:
        _print_line(f"note: {note}")
    print(f"samples: {found['output']}")


def _print_line(text: str) -> None:
    """Print a text, in lines that fit where it is a terminal that shows them."""
    print_columns([(text,)])


def _print_judge(judge: dict[str, Any]) -> None:
    samples, pairs, single = judge["samples"], judge["labels"]["pairs"], judge["labels"]["single"]
    _print_line(
        f"judge {judge['name']}: win rate over the reference {_rate(samples)}, position bias "
        f"{readable(samples['first'])} (0.5 is none); good by themselves {readable(samples['accepted'])}, the "
        f"reference's {readable(samples['reference_accepted'])} ({samples['unparsed_single']} unreadable)"
    )
    _print_line(
        f"judge against the labels: prefers the accepted response {_rate(pairs)}; single verdicts: accuracy "
        f"{readable(single['accuracy'])}, Cohen's kappa {readable(single['kappa'])} of {single['n']} "
        f"({single['unparsed']} unreadable)"
    )


def _rate(pairs: dict[str, Any]) -> str:
    rate = pairs["win_rate"]
    counts = f"{pairs['wins']} won, {pairs['losses']} lost, {pairs['ties']} tied of which {pairs['disagreements']} by "
    interval = "–" if rate is None else f"{rate['estimate']:.2f} [{rate['low']:.2f}, {rate['high']:.2f}]"
    return f"{interval} ({counts}disagreement, {pairs['unparsed']} unreadable)"
