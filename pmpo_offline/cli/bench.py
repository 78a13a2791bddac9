"""The command bench: train and evaluate the cells of a suite, print the table."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from pmpo_offline.cli import names
from pmpo_offline.cli.console import Home, Json, Watch, options_of, parse_value, show, working
from pmpo_offline.runtime.errors import UserError

if TYPE_CHECKING:
    from pmpo_offline.benchmark import Benchmark

T = TypeVar("T")

_option = partial(typer.Option, show_default="the suite's")
_SUITE = typer.Argument(metavar="SUITE", help="Name of a suite, or its .toml.", autocompletion=names.suites)
_SETTINGS = typer.Option(
    "--set", metavar="ALGO.SETTING=VALUES", help="Values to try, e.g. pmpo.beta=0.5,1,2; repeatable."
)
_FRESH = typer.Option("--fresh/--resume", help="Run everything again, or only what is missing.")
_SHARD = typer.Option(metavar="I/N", help="Run the I-th of N parts of the suite.", show_default=False)
_EXECUTOR = typer.Option(help="Where cells run: local, ray, submitit, or a package's own.", metavar="NAME")
_RETRY = typer.Option("--retry-failed", help="Run again what failed; its errors are in failed/ of the results.")
_WORKERS = "Processes at once (tasks, jobs), with a thread each."


@dataclass(frozen=True)
class Grid:
    """What a run of a suite changes of it."""

    algos: Annotated[str | None, _option(help="Algorithms to run, e.g. pmpo,dpo.")] = None
    datasets: Annotated[str | None, _option(help="Ids or paths, separated by commas.")] = None
    imbalance: Annotated[str | None, _option(help="Accepted shares, e.g. 0.1,0.5,collected.")] = None
    balance: Annotated[str | None, _option(help="What is dropped for a share: labels, rows, or labels,rows.")] = None
    noise: Annotated[str | None, _option(help="Rates of flipped labels, e.g. 0,0.2.")] = None
    seeds: Annotated[int | None, _option(help="Training runs (seeds) per row of the table.", min=1)] = None
    episodes: Annotated[int | None, _option(help="Evaluation episodes per run.", min=1)] = None
    updates: Annotated[int | None, _option(help="Gradient steps per run.", show_default="the algorithm's", min=1)] = (
        None
    )
    settings: Annotated[list[str] | None, _SETTINGS] = None


@dataclass(frozen=True)
class Executed:
    """Where and how cells run."""

    executor: Annotated[str, _EXECUTOR] = "local"
    workers: Annotated[int | None, _option(help=_WORKERS, show_default="one per core", min=1)] = None
    home: Home = None


@dataclass(frozen=True)
class Running(Executed):
    """Which cells run, and where their results are."""

    output: Annotated[Path | None, _option(help="Directory of results.", show_default="results/SUITE")] = None
    fresh: Annotated[bool, _FRESH] = False
    retry_failed: Annotated[bool, _RETRY] = False
    shard: Annotated[str | None, _SHARD] = None
    watch: Watch = False


@options_of(Grid, Running)
def bench(
    suite: Annotated[str, _SUITE] = "quick",
    *,
    grid: Grid,
    running: Running,
    json: Json = False,
) -> None:
    """Train and evaluate algorithms on datasets, building what is missing, and print the table of scores."""
    request: dict[str, Any] = vars(grid) | {
        "algos": _list(grid.algos, str, "--algos", "names"),
        "datasets": _list(grid.datasets, str, "--datasets", "ids or paths"),
        "imbalance": _list(grid.imbalance, _share, "--imbalance", "numbers from 0 to 1, or collected"),
        "balance": _list(grid.balance, str, "--balance", "labels or rows"),
        "noise": _list(grid.noise, float, "--noise", "numbers from 0 to 1"),
        "settings": _sweep(grid.settings or []),
    }
    request |= vars(running) | {"shard": None if running.shard is None else _shard(running.shard)}
    del request["watch"]
    from pmpo_offline.build import is_built
    from pmpo_offline.declarations import catalog

    # Unknown names are answered before anything heavy is imported.
    catalog.suite(suite)
    for name in request["algos"] or ():
        catalog.check_algorithm(name)
    for name in request["datasets"] or ():
        is_built(name, running.home)
    watched = running.output or Path("results") / Path(suite).stem
    with working(watched if running.watch else None):
        from pmpo_offline import benchmark

        done = benchmark.bench(suite, **request)
    show_benchmark(done, json)


def _shard(text: str) -> tuple[int, int]:
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal()):
        raise UserError(f"--shard {text}: write I/N, as in 2/4")
    return int(number), int(count)


def show_benchmark(done: Benchmark, as_json: bool, text: str | None = None) -> None:
    """Print the tables of a benchmark, or a text in their place, and its failures, which are exit code 1."""
    content = {"rows": done.rows, "raw": str(done.raw), "report": str(done.report), "failures": done.failures}
    show(content, as_json, lambda _: _print(done) if text is None else print(text, end=""))
    sys.stdout.flush()  # the table comes first, also where both streams go to one file
    for failure in done.failures:
        print(f"error: {failure}", file=sys.stderr)
    if done.failures:
        if done.has_recorded_failures:
            print("What failed is not run again, except by bench --retry-failed.", file=sys.stderr)
        raise typer.Exit(1)


def _print(done: Benchmark) -> None:
    from rich.console import Console

    from pmpo_offline.benchmark.report import tables

    # Piped into a file the tables keep their width instead of being folded at 80 columns.
    console = Console(width=None if sys.stdout.isatty() else 200)
    for part in tables(done.title, done.rows, console.width):
        console.print(part, crop=False)
    print(f"report: {done.report}")


@options_of(Executed)
def tune(
    suite: Annotated[str, _SUITE],
    output: Annotated[Path | None, _option(help="Directory of results.", show_default="results/tune-SUITE")] = None,
    *,
    running: Executed,
    json: Json = False,
) -> None:
    """Choose every learner's hyperparameters: as many settings for each, on data and seeds that no table uses."""
    from pmpo_offline.declarations import catalog

    catalog.suite(suite)
    with working():
        from pmpo_offline.benchmark.tune import tune as choose

        found = choose(suite, output=output, **vars(running))
    content = [
        {
            "family": each.algorithm.family,
            "learner": each.algorithm.name,
            "chosen": each.settings[each.best],
            "score": each.scores[each.best],
            "best_of": each.budget,
        }
        for each in found
    ]
    show({"learners": content}, json, lambda shown: _print_tuned(shown["learners"]))


def _print_tuned(learners: list[dict[str, Any]]) -> None:
    for each in learners:
        setting = " ".join(f"{key}={value}" for key, value in each["chosen"].items())
        print(
            f"{each['family']}/{each['learner']:<15} {each['score']:6.1f} (any one {each['best_of'][0]:.1f})  {setting}"
        )


def _list(text: str | None, parse: Callable[[str], T], option: str, values: str) -> list[T] | None:
    if text is None:
        return None
    try:
        return [parse(part.strip()) for part in text.split(",")]
    except ValueError:
        raise UserError(f"{option} {text}: write {values}, separated by commas") from None


def _share(text: str) -> float | Literal["collected"]:
    return "collected" if text == "collected" else float(text)


def _sweep(options: list[str]) -> dict[str, dict[str, list[Any]]]:
    """Return the values to try by algorithm and setting; a setting that is given twice tries both lists."""
    sweep: dict[str, dict[str, list[Any]]] = {}
    for option in options:
        target, equals, values = option.partition("=")
        algorithm, _, setting = target.rpartition(".")
        if not (equals and algorithm and setting and values):
            raise UserError(f"--set {option}: write ALGO.SETTING=VALUES, as in pmpo.beta=0.5,1,2")
        sweep.setdefault(algorithm, {}).setdefault(setting, []).extend(map(parse_value, values.split(",")))
    return sweep
