"""Show the table: in the terminal, as Markdown, JSON, a frame and a picture. Every number is a row's, none is new."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from pmpo_offline.benchmark.report import Row
from pmpo_offline.runtime.files import atomic_file
from pmpo_offline.runtime.json_files import write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

NOTES = (
    "Scores: {metrics}. IQM: interquartile mean over training runs, with its 95 % bootstrap interval over runs "
    "(one run has none). P(better): probability that a run beats one of the reference on the same data. "
    "β ≥ bound: below it (marked !) the loss has no minimum for a policy that can single outcomes out. "
    "Shuffled labels are the control: whoever does as well there has learned nothing from feedback."
)
DRIFT = ("KL", "words", "its logp", "perplexity")
"""The columns of language models, in tables that have any."""
_ALGORITHM, _TEXT, _DESCRIPTIVE = 1, 3, 6
"""The column of the algorithm, the number of columns of text, and of columns that say what was run."""
DRIFT_NOTES = (
    " For language models 0 is the model that learning starts from and 100 the best of its stored responses to a "
    "prompt. KL: from that model, nats a sample; words: share of different ones in a sample; its logp: nats a token; "
    "perplexity: on held-out prose. "
    "Marked ! is a policy that collapsed: less than half of the reference row's words, or twice its nats."
)
METRICS = {
    "normalized_score": "normalized, 0 = random policy, 100 = the expert reference",
    "return": "returns, because the dataset has no reference scores to normalize with",
}


def write(output: Path, title: str, rows: Sequence[Row]) -> None:
    """Write report.md, report.json and report.png to the output directory, each whole or not at all.

    In JSON an infinite number is null: `report.table` says which null means what.
    """
    write_json(output / "report.json", {"rows": list(rows), "raw": "raw"})
    with atomic_file(output / "report.md") as scratch:
        scratch.write_text(markdown(title, rows), encoding="utf-8")
    with atomic_file(output / "report.png") as scratch:
        figure(title, rows).savefig(scratch, format="png", dpi=150)


def markdown(title: str, rows: Sequence[Row]) -> str:
    """Return the table with its notes and the versions that it was made with."""
    header, *lines = _cells(rows)
    body = [header, [*["---"] * _TEXT, *["---:"] * (len(header) - _TEXT)], *lines]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in body)
    made = sorted({", ".join(f"{name} {version}" for name, version in row["versions"].items()) for row in rows})
    parts = [f"# {title}", table, _notes(rows), "![Scores with intervals](report.png)", f"Made with {'; '.join(made)}."]
    return "\n\n".join(parts) + "\n"


def terminal(title: str, rows: Sequence[Row]) -> Table:
    """Return the table for a rich console; what all rows share stands in its title, to fit narrow terminals."""
    from rich.markup import escape
    from rich.table import Table

    header, *lines = _cells(rows)
    shared = [i for i in range(_DESCRIPTIVE) if i != _ALGORITHM and len({cells[i] for cells in lines}) == 1]
    facts = [f"{header[i]} {lines[0][i]}" for i in shared if lines[0][i]]
    table = Table(title=escape(", ".join([title, *facts])), caption=_notes(rows), caption_justify="left")
    kept = [i for i in range(len(header)) if i not in shared]
    for i in kept:
        table.add_column(header[i], justify="left" if i < _TEXT else "right")
    for row, cells in zip(rows, lines, strict=True):
        table.add_row(*(escape(cells[i]) for i in kept), style="dim" if row["shuffled"] else None)
    return table


def frame(rows: Sequence[Row]) -> pl.DataFrame:
    """Return the rows as a frame; settings as JSON, the probability of improvement without its interval."""
    plain = ["dataset", "algo", "settings", "imbalance", "noise", "seeds", "metric", "iqm", "low", "high", "mean"]
    plain += ["success", "improvement", "beta", "beta_min", "bounded", "share", "episodes", "shuffled"]
    plain += ["kl", "distinct", "reference_logp", "perplexity", "collapsed"]
    flat = [
        {**row, "settings": json.dumps(row["settings"]), "improvement": row["improvement"] and row["improvement"][0]}
        for row in rows
    ]
    return pl.DataFrame([{name: row[name] for name in plain} for row in flat], infer_schema_length=None)


def figure(title: str, rows: Sequence[Row]) -> Figure:
    """Return the picture: each row's interquartile mean with its interval, one colour a condition, controls hollow."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(9, 1.6 + 0.32 * len(rows)), layout="constrained")
    axes = picture.add_subplot()
    conditions = list(dict.fromkeys(_condition(row) for row in rows))
    for height, row in enumerate(rows):
        colour = f"C{conditions.index(_condition(row)) % 10}"
        arms = [[row["iqm"] - row["low"]], [row["high"] - row["iqm"]]]
        fill = "white" if row["shuffled"] else colour
        axes.errorbar([row["iqm"]], [height], xerr=arms, fmt="o", capsize=3, color=colour, markerfacecolor=fill)
    labels = [" ".join(filter(None, (row["algo"], text))) for row, text in zip(rows, _varying(rows), strict=True)]
    axes.set_yticks(range(len(rows)), labels)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel(f"{' / '.join(_metrics(rows))}, interquartile mean over runs with 95 % interval".replace("_", " "))
    axes.set_title(title)
    for index, condition in enumerate(conditions):
        axes.plot([], [], "o", color=f"C{index % 10}", label=condition)
    axes.legend(loc="best", fontsize="small")
    return picture


def _cells(rows: Sequence[Row]) -> list[list[str]]:
    """Return the table as text, its header first."""
    header = ["dataset", "algorithm", "settings", "accepted", "noise", "seeds", "IQM", "95 % interval", "mean"]
    drifts = any(row["kl"] is not None for row in rows)
    table = [[*header, "success", "P(better)", "β ≥ bound", *(DRIFT if drifts else ())]]
    for row, settings in zip(rows, _varying(rows), strict=True):
        interval = f"{row['low']:.1f} – {row['high']:.1f}" if row["seeds"] > 1 else "–"
        better = "–" if row["improvement"] is None else f"{row['improvement'][0]:.2f}"
        success = "–" if row["success"] is None else f"{row['success']:.2f}"
        scores = [f"{row['iqm']:.1f}", interval, f"{row['mean']:.1f}", success, better, _bound(row)]
        share = "–" if row["share"] is None else f"{row['share']:.2f}"
        data = [row["dataset"], row["algo"], settings, share, f"{row['noise']:g}", str(row["seeds"])]
        table.append([*data, *scores, *(_drift(row) if drifts else ())])
    return table


def _bound(row: Row) -> str:
    if row["beta"] is None or row["beta_min"] is None:
        return "–"
    return f"{row['beta']:.3g} {'≥' if row['bounded'] else '<'} {row['beta_min']:.3g}{'' if row['bounded'] else ' !'}"


def _drift(row: Row) -> list[str]:
    if row["kl"] is None:
        return ["–"] * len(DRIFT)
    kl = f"{row['kl']:.2f}{' !' if row['collapsed'] else ''}"
    # A policy that only ever ends at once says no words, and some models cannot write prose.
    others = (row[name] for name in ("distinct", "reference_logp", "perplexity"))
    return [kl, *("–" if value is None else number(value) for value in others)]


def number(value: float) -> str:
    """Return a measure of drift with two decimals, and where a policy collapsed its size: perplexities have no end."""
    return f"{value:.2f}" if abs(value) < 1e4 else f"{value:.0e}"


def _varying(rows: Sequence[Row]) -> list[str]:
    """Return, a row, the settings that tell it from the other rows of its algorithm on its condition."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    everything = []
    for row in rows:
        sizes = {"seeds": row["seeds"], "episodes": row["episodes"], "data": row["dataset_sha"][:8]}
        everything.append({**row["settings"], **row["training"], **sizes})
        groups.setdefault((_condition(row), row["algo"]), []).append(everything[-1])
    texts = []
    for row, own in zip(rows, everything, strict=True):
        others = groups[_condition(row), row["algo"]]
        varying = [name for name, value in own.items() if any(other.get(name) != value for other in others)]
        texts.append(" ".join(f"{name}={_short(own[name])}" for name in varying))
    return texts


def _condition(row: Row) -> str:
    share = "as collected" if row["imbalance"] is None else f"{row['imbalance']:g} accepted"
    return f"{row['dataset']}, {share}" + (f", noise {row['noise']:g}" if row["noise"] else "")


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _metrics(rows: Sequence[Row]) -> list[str]:
    return sorted({row["metric"] for row in rows})


def _notes(rows: Sequence[Row]) -> str:
    notes = NOTES.format(metrics="; ".join(METRICS[metric] for metric in _metrics(rows)))
    return notes + (DRIFT_NOTES if any(row["kl"] is not None for row in rows) else "")
