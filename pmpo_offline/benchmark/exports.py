"""A benchmark's results in other forms: one HTML page, LaTeX, CSV, and the matrix of run scores that rliable takes."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pmpo_offline.benchmark import report
from pmpo_offline.benchmark.leaderboard import Leaderboard, results_in
from pmpo_offline.benchmark.methods import methods, shared
from pmpo_offline.benchmark.report import Benchmark
from pmpo_offline.benchmark.table import Row
from pmpo_offline.runtime.arrays import save_arrays
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.files import write_json

LATEX = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "–": "--",
        "−": "$-$",
        "≥": r"$\geq$",
        "<": "$<$",
        ">": "$>$",
        "β": r"$\beta$",
        "α": r"$\alpha$",
        "τ": r"$\tau$",
    }
)


def html(done: Benchmark, raw: pl.DataFrame) -> str:
    """Return the page of a benchmark, with the provenance in its folder."""
    from pmpo_offline.benchmark import curves, episodes  # with torch and altair, for two seconds
    from pmpo_offline.benchmark.html.report_page import Made, report_page

    results = results_in(done.output)
    entries = listed(results) if isinstance(results, Leaderboard) else ""
    made = Made(
        results.commands(),
        results.machines(),
        answers=episodes.load_answers(results, raw),
        episodes=episodes.load(results, raw),
        curves=curves.load(results, [row["key"] for row in done.rows]),
        entries=entries,
    )
    return report_page(done.title, raw, done.rows, made)


def listed(leaderboard: Leaderboard) -> str:
    """Return the submissions as a Markdown table."""
    lines = ["| date | submission | by | algorithms |", "|---|---|---|---|"]
    for entry in leaderboard.entries.values():
        about = (entry["date"], entry["name"], entry["by"], entry["link"], ", ".join(entry["algorithms"]))
        date, name, by, link, algorithms = map(report.literal, about)
        page = f"[{name}]({link})" if link else name
        lines.append(f"| {date} | {page} | {by} | {algorithms} |")
    return "\n".join(lines)


def latex(rows: Sequence[Row]) -> str:
    """Return the table in LaTeX, for the packages booktabs and inputenc; columns of dashes are left out."""
    lines = report.cells(rows)
    shown = [name for name in lines[0] if any(line[name] not in ("–", "") for line in lines)]
    align = "".join("l" if name in report.TEXT else "r" for name in shown)
    written = [" & ".join(line[name].translate(LATEX) for name in shown) for line in lines]
    # A rule between conditions, as between the datasets of the terminal.
    body = []
    for number, (row, line) in enumerate(zip(rows, written, strict=True)):
        if number and report.condition(row) != report.condition(rows[number - 1]):
            body.append(r"\midrule")
        body.append(rf"{re.sub(r'(?<=[ &])-(?=[0-9])', '$-$', line)} \\")
    header = " & ".join(name.translate(LATEX) for name in shown)
    top = [rf"\begin{{tabular}}{{{align}}}", r"\toprule", rf"{header} \\", r"\midrule"]
    return "\n".join([*top, *body, r"\bottomrule", r"\end{tabular}"]) + "\n"


def csv(rows: Sequence[Row]) -> str:
    """Return the table as CSV, every number in full: `report.frame` with the ends of P(better)'s interval."""
    ends = {
        name: pl.Series([row["improvement"] and row["improvement"][end] for row in rows], dtype=pl.Float64)
        for end, name in ((1, "improvement_low"), (2, "improvement_high"))
    }
    return report.frame(rows).with_columns(**ends).write_csv()


FORMS: Mapping[str, Callable[[Benchmark, pl.DataFrame], str]] = {
    "html": html,
    "markdown": lambda done, raw: report.markdown(done.title, raw, done.rows),
    "latex": lambda done, _: latex(done.rows),
    "csv": lambda done, _: csv(done.rows),
}
"""What `report --FORM FILE` writes, from a benchmark and its raw scores."""


def score_matrix(raw: pl.DataFrame, rows: Sequence[Row]) -> tuple[list[str], dict[str, NDArray[np.float64]]]:
    """Return the conditions, and by method the normalized run scores `(runs, conditions)`, which rliable calls tasks.

    Methods without scores in all of the conditions that most share are left out with a warning, and so are those with
    another number of runs somewhere. Of these scores 1 is the expert, as rliable's optimality gap expects.

    Raises:
        UserError: nothing is normalized, or no method has equally many runs in all conditions.
    """
    conditions, compared = shared(raw, rows)
    matrix = {
        name: np.stack(tasks, axis=1) / 100
        for name, tasks in compared.items()
        if len({len(runs) for runs in tasks}) == 1
    }
    if not matrix:
        raise UserError("no method has equally many normalized runs in all conditions: there is no matrix of scores")
    left_out = sorted({name for name in methods(rows) if name not in matrix})
    if left_out:
        warnings.warn(
            f"not in the matrix, for lack of runs in one of the {len(conditions)} conditions: {', '.join(left_out)}",
            stacklevel=2,
        )
    return conditions, matrix


def write_scores(path: Path, raw: pl.DataFrame, rows: Sequence[Row]) -> None:
    """Write `score_matrix` as .npz (an array a method, and `tasks`) or .json (`tasks` and `scores`).

    Raises `UserError` for another ending.
    """
    if path.suffix not in (".npz", ".json"):
        raise UserError(f"{path}: the matrix of scores is written as .npz or .json")
    tasks, matrix = score_matrix(raw, rows)
    if path.suffix == ".npz":
        save_arrays(path, {**matrix, "tasks": np.array(tasks)})
    else:
        write_json(path, {"tasks": tasks, "scores": {name: scores.tolist() for name, scores in matrix.items()}})
