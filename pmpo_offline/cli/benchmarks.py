"""The commands on benchmarks: bench, report."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from pmpo_offline.cli.console import emit, working
from pmpo_offline.cli.datasets import Home, Json
from pmpo_offline.runtime.errors import UserError

if TYPE_CHECKING:
    from pmpo_offline.benchmark import Benchmark

T = TypeVar("T")


def bench(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="Name of a suite, or its .toml.")] = "quick",
    algos: Annotated[str | None, typer.Option(help="Only these, as in pmpo,dpo.", show_default="the suite's")] = None,
    datasets: Annotated[
        str | None, typer.Option(help="Ids or paths, separated by commas.", show_default="the suite's")
    ] = None,
    imbalance: Annotated[
        str | None,
        typer.Option(help="Accepted shares, as in 0.1,0.5,collected.", show_default="the suite's"),
    ] = None,
    noise: Annotated[
        str | None, typer.Option(help="Rates of flipped labels, as in 0,0.2.", show_default="the suite's")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Training runs a row.", show_default="the suite's")] = None,
    episodes: Annotated[
        int | None, typer.Option(min=1, help="Evaluation episodes a run.", show_default="the suite's")
    ] = None,
    updates: Annotated[
        int | None, typer.Option(min=1, help="Gradient steps a run.", show_default="the algorithm's")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="ALGO.SETTING=VALUES", help="Values to try, as in pmpo.beta=0.5,1,2; repeatable."
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Directory of results.", show_default="results/SUITE")] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh/--resume", help="Run everything again, or only what is missing.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Threads of the simulator and of torch; processes, where it collects or trains language models.",
            show_default="one a core",
        ),
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Train and evaluate algorithms on datasets, building what is missing, and print the table of scores."""
    request: dict[str, Any] = {
        "algos": _list(algos, str, "--algos"),
        "datasets": _list(datasets, str, "--datasets"),
        "imbalance": _list(imbalance, _share, "--imbalance"),
        "noise": _list(noise, float, "--noise"),
        "settings": _sweep(settings or []),
    }
    with working():
        from pmpo_offline.benchmark import bench as run

        done = run(
            suite,
            seeds=seeds,
            episodes=episodes,
            updates=updates,
            output=output,
            fresh=fresh,
            workers=workers,
            home=home,
            **request,
        )
    _show(done, json)


def report(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Output directory of a benchmark.")],
    json: Json = False,
) -> None:
    """Compute the table again from all raw scores in DIR, rewrite report.md, .json and .png there, and print it."""
    with working():
        from pmpo_offline.benchmark import report_on

        done = report_on(directory)
    _show(done, json)


def _show(done: Benchmark, as_json: bool) -> None:
    if as_json:
        emit({"rows": done.rows, "raw": str(done.raw), "report": str(done.report), "failures": done.failures})
    else:
        from rich.console import Console

        from pmpo_offline.benchmark import publish

        # Piped into a file the table keeps its width instead of being folded at 80 columns.
        console = Console(width=None if sys.stdout.isatty() else 200)
        console.print(publish.terminal(done.title, done.rows))
        print(f"report: {done.report}")
    sys.stdout.flush()  # the table comes first, also where both streams go to one file
    for failure in done.failures:
        print(f"error: {failure}", file=sys.stderr)
    if done.failures:
        raise typer.Exit(1)


def _list(text: str | None, parse: Callable[[str], T], option: str) -> list[T] | None:
    if text is None:
        return None
    try:
        return [parse(part.strip()) for part in text.split(",")]
    except ValueError as error:
        raise UserError(f"{option} {text}: {error}; write values separated by commas") from None


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
        sweep.setdefault(algorithm, {}).setdefault(setting, []).extend(value(text) for text in values.split(","))
    return sweep


def value(text: str) -> Any:
    """Return a number or a truth value as TOML or people write it (.5), else the text itself."""
    try:
        parsed = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return _number(text.strip())
    return parsed if isinstance(parsed, bool | int | float) else text.strip()


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
