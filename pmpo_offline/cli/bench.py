"""The command bench: train and evaluate the cells of a suite, print the table."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pmpo_offline.cli import names
from pmpo_offline.cli.console import PROSE, Home, Result, Watch, command, parse_value, wrapped
from pmpo_offline.cli.watch import watching
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.options import option

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from pmpo_offline.benchmark import Benchmark
    from pmpo_offline.benchmark.table import Row

DESCRIPTION = ("dataset", "accepted", "noise", "seeds")
"""Columns that the terminal puts into a table's title, if all rows agree."""
NARROWEST = 9
"""Width of the column of algorithms where the terminal is narrow: longer names are folded."""

_suites = partial(option, show_default="the suite's")
_SUITE = typer.Argument(metavar="SUITE", help="Name of a suite, or its .toml.", autocompletion=names.suites)


@dataclass(frozen=True)
class Grid:
    """What a run of a suite changes of it."""

    algos: str | None = _suites("Algorithms to run, e.g. pmpo,dpo.")
    datasets: str | None = _suites("Ids or paths, separated by commas.")
    imbalance: str | None = _suites("Accepted shares, e.g. 0.1,0.5,collected.")
    balance: str | None = _suites("What is dropped for a share: labels, rows, or labels,rows.")
    noise: str | None = _suites("Rates of flipped labels, e.g. 0,0.2.")
    seeds: int | None = _suites("Training runs (seeds) per row of the table.", min=1)
    episodes: int | None = _suites("Evaluation episodes per run.", min=1)
    updates: int | None = option("Gradient steps per run.", show_default="the algorithm's", min=1)
    settings: list[str] | None = option(
        "Values to try, e.g. pmpo.beta=0.5,1,2; repeatable.", names=("--set",), metavar="ALGO.SETTING=VALUES"
    )


@dataclass(frozen=True)
class Executed:
    """Where and how cells run."""

    executor: str = option("Where cells run: local, ray, submitit, or a package's own.", "local", metavar="NAME")
    workers: int | None = option(
        "Processes at once (tasks, jobs), with a thread each.", show_default="one per core", min=1
    )
    home: Home = None


@dataclass(frozen=True)
class Running(Executed):
    """Which cells run, and where their results are."""

    output: Path | None = option("Directory of results.", show_default="results/SUITE")
    fresh: bool = option("Run everything again, or only what is missing.", False, names=("--fresh/--resume",))
    retry_failed: bool = option("Run again what failed; its errors are in failed/ of the results.", False)
    shard: str | None = option("Run the I-th of N parts of the suite.", metavar="I/N", show_default=False)
    watch: Watch = False


@command(Grid, Running)
def bench(suite: Annotated[str, _SUITE] = "quick", *, grid: Grid, running: Running) -> Result[Any]:
    """Train and evaluate algorithms on datasets, building what is missing, and print the table of scores."""
    from pmpo_offline.declarations import catalog

    request: dict[str, Any] = vars(grid) | {
        "algos": _list(grid.algos, str, "--algos", "names"),
        "datasets": _list(grid.datasets, str, "--datasets", "ids or paths"),
        "imbalance": _list(grid.imbalance, catalog.Share, "--imbalance", "numbers from 0 to 1, or collected"),
        "balance": _list(grid.balance, catalog.Balance, "--balance", "labels or rows"),
        "noise": _list(grid.noise, catalog.Rate, "--noise", "numbers from 0 to 1"),
        "settings": _sweep(grid.settings or []),
    }
    request |= vars(running) | {"shard": None if running.shard is None else _shard(running.shard)}
    del request["watch"]
    from pmpo_offline.build.known import check_declared
    from pmpo_offline.data.storage import stored_at

    # Unknown names are answered before anything heavy is imported.
    catalog.suite(suite)
    for name in request["algos"] or ():
        catalog.check_algorithm(name)
    for name in request["datasets"] or ():
        if not stored_at(name, running.home):
            check_declared(name, running.home)
    output = running.output or Path("results") / Path(suite).stem
    with watching(output) if running.watch else nullcontext():
        from pmpo_offline import benchmark

        return shown(benchmark.bench(suite, **request))


def _shard(text: str) -> tuple[int, int]:
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal()):
        raise UserError(f"--shard {text}: write I/N, as in 2/4")
    return int(number), int(count)


def shown(done: Benchmark, text: str | None = None, written: Mapping[str, str] | None = None) -> Result[Any]:
    """Return the tables of a benchmark, or a text in their place, and its failures, which are exit code 1.

    Below the tables are the files that were `written` beside the report, by their forms.
    """
    content: dict[str, Any] = {
        "rows": done.rows,
        "raw": str(done.raw),
        "report": str(done.report),
        "failures": done.failures,
    }
    if written is not None:
        content["written"] = written
    errors = [f"error: {failure}" for failure in done.failures]
    if done.failures and done.has_recorded_failures:
        errors.append("What failed is not run again, except by bench --retry-failed.")
    render = partial(print, text, end="") if text is not None else partial(_print, done, written or {})
    return Result(content, lambda _: render(), failed=bool(errors), errors=errors)


def _print(done: Benchmark, written: Mapping[str, str]) -> None:
    from rich.console import Console

    # Piped into a file the tables keep their width instead of being folded at 80 columns.
    console = Console(width=None if sys.stdout.isatty() else 200)
    for part in tables(done.title, done.rows, console.width):
        console.print(part, crop=False)
    for form, path in {"report": done.report, **written}.items():
        print(f"{form}: {path}")


def tables(title: str, rows: Sequence[Row], width: int) -> Iterator[RenderableType]:
    """Yield what a rich console prints: the tables of each dataset, of language models one of their drift too, notes.

    No number is cut: columns that do not fit beside each other follow in a further table below. Columns of dashes are
    left out, algorithms with their settings are folded. Several shares or rates of noise are sections of the table;
    what all rows share is in its title.

    Args:
        title: of the benchmark.
        rows: of its table.
        width: of the terminal, in characters.
    """
    from rich.text import Text

    from pmpo_offline.benchmark.report import DRIFT, TEXT, cells, legend

    for _, group in groupby(rows, lambda row: row["dataset"]):
        mine = list(group)
        lines = cells(mine)
        texts = {name: {line[name] for line in lines} for name in lines[0]}
        shared = [f"{name} {lines[0][name]}" for name in DESCRIPTION if len(texts[name]) == 1]
        yield Text(", ".join([title, *shared]), style="italic")
        hidden = {*TEXT, "accepted", "noise", *(["seeds"] if len(texts["seeds"]) == 1 else [])}
        shown = [name for name in texts if name not in hidden and texts[name] != {"–"}]
        for kind in ([name for name in shown if name not in DRIFT], [name for name in shown if name in DRIFT]):
            for columns in _fitting(kind, lines, width):
                yield _grid(mine, lines, columns)
    for name, meaning in legend(rows):
        yield Text(wrapped(f"{name}: {meaning}.", min(width, PROSE), "  "), style="dim")


def _fitting(names: Sequence[str], lines: Sequence[dict[str, str]], width: int) -> Iterator[list[str]]:
    """Yield the columns in groups that fit the width beside the algorithms; a single one is never left out."""
    room = width - NARROWEST - 4
    group: list[str] = []
    left = room
    for name in names:
        needed = _width(name, lines) + 2
        if group and needed > left:
            yield group
            group, left = [], room
        group.append(name)
        left -= needed
    if group:
        yield group


def _width(name: str, lines: Sequence[dict[str, str]]) -> int:
    return max(len(name), *(len(line[name]) for line in lines))


def _grid(rows: Sequence[Row], lines: Sequence[dict[str, str]], names: Sequence[str]) -> Table:
    """Return one table: the algorithms with these columns, in sections by labelling."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from pmpo_offline.benchmark.report import labelling

    grid = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    grid.add_column("algorithm", overflow="fold", min_width=NARROWEST)
    for name in names:
        grid.add_column(name, justify="right", overflow="fold", min_width=_width(name, lines))
    several = len({labelling(row) for row in rows}) > 1
    heading = None if several else labelling(rows[0])
    for row, line in zip(rows, lines, strict=True):
        if labelling(row) != heading:
            heading = labelling(row)
            grid.add_section()
            grid.add_row(Text(heading, style="italic"))
        label = Text(f"{line['algorithm']} {line['settings']}".rstrip())
        grid.add_row(label, *(line[name] for name in names), style="dim" if row["shuffled"] else None)
    return grid


@command(Executed)
def tune(
    suite: Annotated[str, _SUITE],
    output: Annotated[
        Path | None, typer.Option(help="Directory of results.", show_default="results/tune-SUITE")
    ] = None,
    *,
    running: Executed,
) -> Result[Any]:
    """Choose every learner's hyperparameters: as many settings for each, on data and seeds that no table uses."""
    from pmpo_offline.declarations import catalog

    catalog.suite(suite)
    from pmpo_offline.benchmark.tune import tune as choose

    content = [
        {
            "family": each.algorithm.family,
            "learner": each.algorithm.name,
            "chosen": each.settings[each.best],
            "score": each.scores[each.best],
            "best_of": each.budget,
        }
        for each in choose(suite, output=output, **vars(running))
    ]
    return Result({"learners": content}, lambda found: _print_tuned(found["learners"]))


def _print_tuned(learners: list[dict[str, Any]]) -> None:
    for each in learners:
        setting = " ".join(f"{key}={value}" for key, value in each["chosen"].items())
        print(
            f"{each['family']}/{each['learner']:<15} {each['score']:6.1f} (any one {each['best_of'][0]:.1f})  {setting}"
        )


def _list(text: str | None, kind: Any, option: str, values: str) -> list[Any] | None:
    """Return the values of a type, which a suite declares alike, in a text with commas."""
    from pydantic import TypeAdapter

    if text is None:
        return None
    words = [word.strip() for word in text.split(",")]
    try:
        if "" in words:
            raise ValueError
        return TypeAdapter(list[kind]).validate_python(words)
    except ValueError:
        raise UserError(f"{option} {text}: write {values}, separated by commas") from None


def _sweep(options: list[str]) -> dict[str, dict[str, list[Any]]]:
    """Return the values to try by algorithm and setting; a setting that is given twice tries both lists."""
    sweep: dict[str, dict[str, list[Any]]] = {}
    for given in options:
        target, equals, values = given.partition("=")
        algorithm, _, setting = target.rpartition(".")
        if not (equals and algorithm and setting and values):
            raise UserError(f"--set {given}: write ALGO.SETTING=VALUES, as in pmpo.beta=0.5,1,2")
        listed = [value.strip() for value in values.split(",")] if "," in values else [values]  # a text ends in a space
        sweep.setdefault(algorithm, {}).setdefault(setting, []).extend(map(parse_value, listed))
    return sweep
