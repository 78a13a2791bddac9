"""The commands on results: report (the table again, and in other forms) and submit (to the leaderboard)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from pmpo_offline.cli.bench import shown
from pmpo_offline.cli.console import Home, Json, Result, command
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.files import write_text
from pmpo_offline.runtime.options import option

STDOUT = Path("-")
_form = partial(option, metavar="FILE|-", show_default=False)


@dataclass(frozen=True)
class Targets:
    """Files that a report is written to, by their forms."""

    html: Path | None = _form("Write one self-contained page: table, charts, runs, episodes.")
    markdown: Path | None = _form("Write the report in Markdown.")
    latex: Path | None = _form("Write the table in LaTeX (booktabs).")
    csv: Path | None = _form("Write the table as CSV, every number in full.")


@dataclass(frozen=True)
class Entry:
    """What the leaderboard states beside the results."""

    name: Annotated[str, typer.Option(help="Name of the submission: its method, say.")]
    by: str = option("Who submits it.", "")
    link: str = option("Address of a paper or a repository.", "")


@command(Targets)
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
) -> Result[Any]:
    """Recompute the table from the raw scores in DIR, rewrite report.md, .json and .png there, and print it."""
    targets: dict[str, Path | None] = vars(forms)
    printed = [name for name, target in targets.items() if target == STDOUT]
    if len(printed) + json > 1:
        raise UserError(f"--{printed[0]} - prints the report: leave {'--json' if json else '--' + printed[1]} out")
    if not directory.is_dir():
        raise UserError(f"{directory}: no such folder; name the output directory of a `pmpo-offline bench`")
    from pmpo_offline.benchmark import exports, report_on
    from pmpo_offline.benchmark.leaderboard import results_in

    done = report_on(directory)
    raw = results_in(directory).read()
    texts = {name: exports.FORMS[name](done, raw) for name, target in targets.items() if target is not None}
    for name, text in texts.items():
        if name not in printed:
            write_text(cast(Path, targets[name]), text)
    if scores is not None:
        exports.write_scores(scores, raw, done.rows)
    files = {
        name: str(target) for name, target in {**targets, "scores": scores}.items() if target not in (None, STDOUT)
    }
    return shown(done, texts[printed[0]] if printed else None, files)


@command(Entry)
def submit(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Output directory of a benchmark.")],
    *,
    entry: Entry,
    leaderboard: Annotated[
        Path, typer.Option(metavar="DIR", help="The leaderboard, in a clone of the repository.")
    ] = Path("benchmarks/leaderboard"),
    home: Home = None,
) -> Result[Any]:
    """Check results (data, versions, runs, control) and add them to the leaderboard, as files of a pull request."""
    if not leaderboard.is_dir():
        raise UserError(f"{leaderboard}: no such folder; run this in a clone of the repository, or give --leaderboard")
    from pmpo_offline.benchmark import leaderboard as board

    folder = board.submit(directory, leaderboard, entry.name, {"by": entry.by, "link": entry.link}, home)
    content = {"path": str(folder), "files": sorted(path.name for path in folder.iterdir())}
    return Result(content, lambda _: print(f"{folder}: commit it, and open a pull request"))
