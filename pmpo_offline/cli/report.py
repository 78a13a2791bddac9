"""The commands on results: report (the table again, and in other forms) and submit (to the leaderboard)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from pmpo_offline.cli.bench import show_benchmark
from pmpo_offline.cli.console import Home, Json, options_of, show, working
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.files import atomic_file

STDOUT = Path("-")
_form = partial(typer.Option, metavar="FILE|-", show_default=False)


@dataclass(frozen=True)
class Targets:
    """Files that a report is written to, by their forms."""

    html: Annotated[Path | None, _form(help="Write one self-contained page: table, charts, runs, episodes.")] = None
    markdown: Annotated[Path | None, _form(help="Write the report in Markdown.")] = None
    latex: Annotated[Path | None, _form(help="Write the table in LaTeX (booktabs).")] = None
    csv: Annotated[Path | None, _form(help="Write the table as CSV, every number in full.")] = None


@dataclass(frozen=True)
class Entry:
    """What the leaderboard states beside the results."""

    name: Annotated[str, typer.Option(help="Name of the submission: its method, say.")]
    by: Annotated[str, typer.Option(help="Who submits it.")] = ""
    link: Annotated[str, typer.Option(help="Where more is to be read: a paper, a repository.")] = ""


@options_of(Targets)
def report(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Output directory of a benchmark.")],
    *,
    forms: Targets,
    scores: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the run scores by method, runs × tasks, as rliable takes them (.npz or .json)."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Recompute the table from the raw scores in DIR, rewrite report.md, .json and .png there, and print it."""
    targets: dict[str, Path | None] = vars(forms)
    printed = [name for name, target in targets.items() if target == STDOUT]
    if len(printed) + json > 1:
        raise UserError(f"--{printed[0]} - prints the report: leave {'--json' if json else '--' + printed[1]} out")
    if not directory.is_dir():
        raise UserError(f"{directory}: no such folder; name the output directory of a `pmpo-offline bench`")
    texts: dict[str, str] = {}
    with working():
        from pmpo_offline.benchmark import exports, report_on
        from pmpo_offline.benchmark.runner import results_in

        done = report_on(directory)
        raw = results_in(directory).read()
        for name, target in targets.items():
            if target is not None:
                texts[name] = exports.FORMS[name](done, raw)
                if target != STDOUT:
                    _write(target, texts[name])
        if scores is not None:
            exports.write_scores(scores, raw, done.rows)
    show_benchmark(done, json, texts[printed[0]] if printed else None)


def _write(path: Path, text: str) -> None:
    with atomic_file(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


@options_of(Entry)
def submit(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Output directory of a benchmark.")],
    *,
    entry: Entry,
    leaderboard: Annotated[
        Path, typer.Option(metavar="DIR", help="The leaderboard, in a clone of the repository.")
    ] = Path("benchmarks/leaderboard"),
    home: Home = None,
    json: Json = False,
) -> None:
    """Check results (data, versions, runs, control) and add them to the leaderboard, as files of a pull request."""
    if not leaderboard.is_dir():
        raise UserError(f"{leaderboard}: no such folder; run this in a clone of the repository, or give --leaderboard")
    with working():
        from pmpo_offline.benchmark import leaderboard as board

        folder = board.submit(directory, leaderboard, entry.name, {"by": entry.by, "link": entry.link}, home)
    content = {"path": str(folder), "files": sorted(path.name for path in folder.iterdir())}
    show(content, json, lambda _: print(f"{folder}: commit it, and open a pull request"))
