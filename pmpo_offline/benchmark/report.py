"""The table of a benchmark and its report: Markdown in sections, JSON, a picture, and a frame.

`html` makes a page of the same sections, `exports` has further forms, and `cli.bench` prints tables in the terminal.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from html import escape
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from pmpo_offline.benchmark.leaderboard import results_in
from pmpo_offline.benchmark.registries import CHARTS, SECTIONS, Charts
from pmpo_offline.benchmark.results import Results
from pmpo_offline.benchmark.table import CONTROL, Row, table
from pmpo_offline.declarations import catalog
from pmpo_offline.runtime.errors import counted
from pmpo_offline.runtime.files import atomic_file, from_json, write_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEGEND = {
    "IQM": "interquartile mean over training runs of their scores: {metrics}",
    "95 % interval": "t interval of the IQM over training runs",
    "success": "share of evaluation episodes that end in success",
    "P(": "probability that a run beats a run of {meaning} on the same data. * marks a difference of IQMs that is "
    "significant at 5 %, corrected for the number of rows (Holm)",
    "β ≥ bound": "below its bound (!) the loss has no minimum for a policy that can single outcomes out; lower still "
    "(!!) such a policy collapses onto one of them. Both count the labels of all states together: for a policy that "
    "sees the state, `pmpo-offline doctor` says where it collapses",
    "KL": "from the model that learning starts from, nats a sample. ! marks a policy that collapsed: less than half of "
    "the reference row's words, or twice its nats",
    "words": "share of different words in a sample",
    "its logp": "log-probability of samples under the starting model, nats a token",
    "perplexity": "on held-out prose",
}
"""What the columns mean, by the beginning of their names, as far as these do not say it."""
LOCAL = "a critic gave them on the machine that built {}; built elsewhere they may differ, and the scores with them"
SHUFFLED = "the control: whatever does as well has learned nothing from feedback"
TEXT = ("dataset", "algorithm", "settings")
DRIFT = {"KL": "kl", "words": "distinct", "its logp": "reference_logp", "perplexity": "perplexity"}
"""The columns of language models, in tables that have any, and their keys in rows."""
DIVERGED = (
    "a run diverged: its actions went beyond ten times the recorded ones, which the simulator clips, or its loss "
    "beyond a million nats; raw/ has both"
)
CRITICS = "a critic ranks the candidates that {learners} from: it puts {right} (by chance .50)"
SIGNIFICANT = 0.05
METRICS = {
    "normalized_score": "0 is a random policy, 100 the expert",
    "language": "0 is the model that learning starts from, 100 the best of its stored responses to a prompt",
    "return": "returns, because the dataset has no reference scores to normalize with",
}
_CLONE = "#7d828c"
_COLOURS = [f"C{index}" for index in range(10) if index != 7]
"""Matplotlib's, without its grey."""
_ROW, _PANEL, _FRAME = 0.3, 0.55, 1.0
"""Heights in inches: of a row, of what a panel has beside its rows, and of what the picture has beside its panels."""


@dataclass(frozen=True)
class Benchmark:
    """A finished benchmark: the table, and the raw scores that it was computed from."""

    rows: list[Row]
    """The table as dictionaries; the keys are those of `table.table`."""
    title: str
    output: Path
    failures: list[str] = field(default_factory=list)
    """One line for each cell or condition that could not be run, such as DPO where nothing is accepted, and for each
    row with returns that are not numbers."""

    def __repr__(self) -> str:
        failed = f", {counted(len(self.failures), 'failure')}" if self.failures else ""
        return f"Benchmark({self.title}: {counted(len(self.rows), 'row')}{failed}, in {self.output})"

    def _repr_html_(self) -> str:
        return f"<p><b>{escape(self.title)}</b></p>{self.table()._repr_html_()}"

    @property
    def raw(self) -> Path:
        """The directory of Parquet files with one record per evaluation episode."""
        return Results(self.output).raw

    @property
    def has_recorded_failures(self) -> bool:
        """Whether cells failed whose errors are stored, so that they are run again only when asked for."""
        return bool(Results(self.output).failures())

    @property
    def report(self) -> Path:
        """The table as Markdown; report.json and report.png lie beside it."""
        return self.output / "report.md"

    def table(self) -> pl.DataFrame:
        """Return the table's main columns as a frame."""
        return frame(self.rows)


def report_on(output: str | Path) -> Benchmark:
    """Compute the table again from all raw scores in a directory, whatever their suite, and rewrite it there.

    Its title is that of the report that is there, if any.

    Raises `UserError` where there are none.
    """
    results = results_in(Path(output))
    title = title_of(results.output) or f"Results in {results.output.resolve().name}"
    return publish(results, title, None, [*dict.fromkeys(map(str, results.failures()))])


def publish(results: Results, title: str, keys: Sequence[str] | None, failures: list[str]) -> Benchmark:
    """Write the report; rows of the table with returns that are not finite are failures too."""
    raw = results.read(keys)
    rows = table(raw)
    write(results.output, title, raw, rows)
    wrong = raw.filter(~pl.col("return").is_finite().fill_null(False))
    counts = wrong.group_by("algo", "dataset", "shuffled", "key", maintain_order=True).len()
    failures += [
        f"{algo}{' on shuffled labels' if shuffled else ''}, {dataset}: {count} returns are not numbers: its score "
        f"means nothing (raw/{key}.parquet)"
        for algo, dataset, shuffled, key, count in counts.iter_rows()
    ]
    return Benchmark(rows, title, results.output, failures)


def write(output: Path, title: str, raw: pl.DataFrame, rows: Sequence[Row]) -> None:
    """Write report.md, report.json and report.png to the output directory, each whole or absent.

    In JSON an infinite number is null: `table.table` says which null means what.
    """
    write_json(output / "report.json", {"title": title, "rows": list(rows), "raw": "raw"})
    with atomic_file(output / "report.md") as scratch:
        scratch.write_text(markdown(title, raw, rows), encoding="utf-8")
    with atomic_file(output / "report.png") as scratch:
        picture(title, _panels(rows)).savefig(scratch, format="png", dpi=150)


def _panels(rows: Sequence[Row]) -> dict[str, list[tuple[str, Row]]]:
    """Return the rows of each condition with their labels: the algorithm, and the settings that distinguish it.

    β is a multiple of its bound where it has one, and is thus the same in every condition.
    """
    panels: dict[str, list[tuple[str, Row]]] = {}
    for row, text in zip(rows, varying(rows), strict=True):
        if row["beta"] is not None and row["beta_min"] and math.isfinite(row["beta_min"]):
            text = re.sub(r"\bbeta=\S+", f"β {row['beta'] / row['beta_min']:.3g}x", text)
        panels.setdefault(condition(row), []).append((f"{row['algo']} {text}".rstrip(), row))
    return panels


def picture(title: str, panels: dict[str, list[tuple[str, Row]]]) -> Figure:
    """Return the picture of a table, given the rows of each condition with their labels.

    A colour is an algorithm; clones are grey, controls hollow. A dashed line, with its interval as a band, is what the
    rows of a panel are compared with: the better filtered clone, else the reference.
    """
    from matplotlib.figure import Figure

    heights = [_ROW * len(rows) + _PANEL for rows in panels.values()]
    figure = Figure(figsize=(9, _FRAME + sum(heights)), layout="constrained")
    axes = figure.subplots(len(panels), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    rows = [row for labelled in panels.values() for _, row in labelled]
    names = dict.fromkeys(_algorithm(row) for row in rows if not _is_clone(row))
    colours = dict(zip(names, cycle(_COLOURS), strict=False))
    for each, (condition, labelled) in zip(axes, panels.items(), strict=True):
        each.set_title(condition, loc="left", fontsize="medium")
        _draw(each, labelled, colours)
    metrics = " / ".join(sorted({row["metric"] for row in rows}))
    axes[-1].set_xlabel(f"{metrics}, interquartile mean over runs with 95 % interval".replace("_", " "))
    figure.suptitle(title, fontweight="bold")
    return figure


def error_bar(row: Row) -> list[list[float]]:
    """Return the interval of a row's score as matplotlib's `xerr` or `yerr`, (2, 1)."""
    return [[row["iqm"] - row["low"]], [row["high"] - row["iqm"]]]


def _draw(axes: Axes, labelled: Sequence[tuple[str, Row]], colours: dict[str, str]) -> None:
    compared = {row["compared"] for _, row in labelled} - {None}
    for height, (_, row) in enumerate(labelled):
        colour = colours.get(_algorithm(row), _CLONE)
        fill = "white" if row["shuffled"] else colour
        axes.errorbar(
            [row["iqm"]], [height], xerr=error_bar(row), fmt="o", capsize=3, color=colour, markerfacecolor=fill
        )
        if row["compared"] is None and row["algo"] in compared:
            axes.axvspan(row["low"], row["high"], color=_CLONE, alpha=0.12, linewidth=0)
            axes.axvline(row["iqm"], color=_CLONE, linestyle="--", linewidth=1)
    axes.set_yticks(range(len(labelled)), [label for label, _ in labelled])
    axes.set_ylim(len(labelled) - 0.5, -0.5)
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _is_clone(row: Row) -> bool:
    return bool(row["reference"] or row["filtered"]) and not row["shuffled"]


def _algorithm(row: Row) -> str:
    """Return the name under which a row and its control share a colour."""
    return str(row["algo"]).removesuffix(CONTROL)


def title_of(output: Path) -> str | None:
    """Return the title of the report in a directory, None without one."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return str(from_json((output / "report.json").read_bytes())["title"])
    return None


def markdown(title: str, raw: pl.DataFrame, rows: Sequence[Row]) -> str:
    """Return report.md: the title, and the sections in the order of their registry."""
    sections = [SECTIONS[name] for name in SECTIONS if name not in CHARTS]
    texts = (section(raw, rows) for section in sections if not isinstance(section, Charts))
    return "\n\n".join([f"# {title}", *filter(None, texts)]) + "\n"


def table_section(_: pl.DataFrame, rows: Sequence[Row]) -> str:
    """Return the table."""
    lines = cells(rows)
    header = list(lines[0])
    rule = ["---" if name in TEXT else "---:" for name in header]
    body = [header, rule, *(line.values() for line in lines)]
    return "\n".join(f"| {' | '.join(map(literal, line))} |" for line in body)


def literal(text: str) -> str:
    """Return a cell of a Markdown table that shows a text as it is: names are no markup."""
    return re.sub("<(?=[A-Za-z/!?])", "&lt;", text.replace("|", "\\|").replace("[", "\\[").replace("\n", " "))


def notes_section(_: pl.DataFrame, rows: Sequence[Row]) -> str:
    """Return what the columns and marks mean, as a list."""
    return "\n".join(f"- **{name}**: {meaning}." for name, meaning in legend(rows))


def legend(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Return the columns and marks that the table of these rows has, and what they mean."""
    lines = cells(rows)
    shown = [name for name in lines[0] if any(line[name] != "–" for line in lines)]
    scales = {row["metric"] if row["kl"] is None or row["metric"] == "return" else "language" for row in rows}
    metrics = "; ".join(METRICS[scale] for scale in sorted(scales))
    against = _against(rows)
    meaning = "the better filtered clone (marked filter)" if against == "filter" else f"the reference {against}"
    found = [
        (column, text.format(metrics=metrics, meaning=meaning))
        for name, text in LEGEND.items()
        for column in shown
        if column == name or (name == "P(" and column.startswith(name))
    ]
    local = {f"{row['dataset']} (hash {row['labels_sha'][:12]})": None for row in rows if row["labels_here"]}
    found += [("labels", LOCAL.format(", ".join(local)))] if local else []
    found += [("(shuffled)", SHUFFLED)] if any(row["shuffled"] for row in rows) else []
    found += [("†", DIVERGED)] if any(row["diverged"] for row in rows) else []
    critics = _critics(rows)
    return found + ([("critic", critics)] if critics else [])


def _critics(rows: Sequence[Row]) -> str:
    """Return how far the critic can be trusted from which some learners take their pairs and groups."""
    critics = {name: critic for name in {row["dataset"]: None for row in rows} if (critic := catalog.critic(name))}
    if not critics:
        return ""
    told = {"candidates", "pairs"}
    taught = {each.name for family in catalog.families() for each in catalog.algorithms(family) if each.rows in told}
    shown = [name for name in dict.fromkeys(row["algo"] for row in rows) if name in taught]
    known = dict.fromkeys(row["dataset"] for row in rows if row["algo"] in taught)
    right = [
        f"{each['right']:.2f} ({each['low']:.2f} – {each['high']:.2f}) of them on the right side of top 2 and bottom 2 "
        f"on {dataset}"
        for dataset in known
        if (each := critics.get(dataset))
    ]
    learners = f"{', '.join(shown)} {'learns' if len(shown) == 1 else 'learn'}"
    return CRITICS.format(learners=learners, right="; ".join(right)) if right else ""


def figure_section(_: pl.DataFrame, __: Sequence[Row]) -> str:
    """Return the picture, which `write` draws."""
    return "![Scores with intervals](report.png)"


def versions_section(_: pl.DataFrame, rows: Sequence[Row]) -> str:
    """Return the versions that the scores were made with."""
    made = {", ".join(f"{name} {version}" for name, version in row["versions"].items()) for row in rows}
    return f"Made with {'; '.join(sorted(made))}."


def frame(rows: Sequence[Row]) -> pl.DataFrame:
    """Return the rows as a frame; settings as JSON, the probability of improvement without its interval."""
    omitted = {"return", "reference", "filtered", "margin", "training", "versions", "dataset_sha", "key"}
    omitted |= {"labels_sha", "labels_here"}
    flat = [
        {name: value for name, value in row.items() if name not in omitted}
        | {"settings": json.dumps(row["settings"]), "improvement": row["improvement"] and row["improvement"][0]}
        for row in rows
    ]
    return pl.DataFrame(flat, infer_schema_length=None)


def cells(rows: Sequence[Row]) -> list[dict[str, str]]:
    """Return the text of the table's cells, a dictionary a row, by column in their order."""
    drifts, against = any(row["kl"] is not None for row in rows), _against(rows)
    return [
        {
            "dataset": row["dataset"],
            "algorithm": row["algo"] + (" †" if row["diverged"] else ""),
            "settings": settings,
            "accepted": number(row["share"]) + (" (rows)" if row["balance"] == "rows" else ""),
            "noise": f"{row['noise']:g}",
            "seeds": str(row["seeds"]),
            "IQM": f"{row['iqm']:.1f}",
            "95 % interval": f"{_end(row['low'])} – {_end(row['high'])}" if row["seeds"] > 1 else "–",
            "mean": f"{row['mean']:.1f}",
            "success": number(row["success"]),
            f"P(>{against})" if against else "P(better)": _improvement(row),
            "β ≥ bound": _bound(row),
            # A policy that always ends at once writes no words, and some models cannot write prose.
            **({name: number(row[key]) for name, key in DRIFT.items()} if drifts else {}),
            **({"KL": f"{number(row['kl'])} !"} if row["collapsed"] else {}),
        }
        for row, settings in zip(rows, varying(rows), strict=True)
    ]


def _against(rows: Sequence[Row]) -> str:
    """Return the word for what rows are compared with: "filter", the reference's name, or nothing."""
    filtered = any(row["filtered"] for row in rows)
    return "filter" if filtered else next((row["algo"] for row in rows if row["reference"]), "")


def _improvement(row: Row) -> str:
    """Return the probability of improvement, with a star where the difference is significant."""
    if row["improvement"] is None:
        return "filter" if row["filtered"] else row["algo"] if row["reference"] else "–"
    significant = row["p_value"] is not None and row["p_value"] < SIGNIFICANT
    return number(row["improvement"][0]) + (" *" if significant else "")


def _end(value: float) -> str:
    return f"{value:.1f}" if abs(value) < 1e3 else f"{value:.0f}"


def _bound(row: Row) -> str:
    if row["bounded"] is None:
        return "–"
    sign, mark = ("≥", "") if row["bounded"] else ("<", " !!" if row["regime"] == "collapse" else " !")
    return f"{row['beta']:.3g} {sign} {row['beta_min']:.3g}{mark}"


def number(value: float | None) -> str:
    """Return two decimals, or the magnitude of a large number, such as the perplexity of a policy that collapsed."""
    return "–" if value is None else f"{value:.2f}" if abs(value) < 1e4 else f"{value:.0e}"


def labelling(row: Row) -> str:
    """Return the accepted share and the noise of a row's labels in a few words."""
    share = "as collected" if row["imbalance"] is None else f"{row['imbalance']:g} accepted"
    share += " by dropping rows" if row["balance"] == "rows" else ""
    return share + (f", noise {row['noise']:g}" if row["noise"] else "")


def condition(row: Row) -> str:
    """Return the data of a row in a few words."""
    return f"{row['dataset']}, {labelling(row)}"


def varying(rows: Sequence[Row]) -> list[str]:
    """Return, a row, the settings that distinguish it from the other rows of its algorithm on its condition."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        sizes = {"seeds": row["seeds"], "episodes": row["episodes"], "data": row["dataset_sha"][:8]}
        groups.setdefault((condition(row), row["algo"]), []).append(row["settings"] | row["training"] | sizes)
    members = {name: iter(group) for name, group in groups.items()}
    texts = []
    for name in ((condition(row), row["algo"]) for row in rows):
        own = next(members[name])
        shown = [key for key, value in own.items() if any(other.get(key) != value for other in groups[name])]
        texts.append(
            " ".join(f"{key}={own[key]:g}" if isinstance(own[key], float) else f"{key}={own[key]}" for key in shown)
        )
    return texts
