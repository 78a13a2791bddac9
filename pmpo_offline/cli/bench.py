"""The command `bench`: train and evaluate the cells of a suite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer

from pmpo_offline.cli.console import parse_value, working
from pmpo_offline.cli.options import Home, Json
from pmpo_offline.cli.report import show
from pmpo_offline.runtime.errors import UserError

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
    executor: Annotated[str, typer.Option(metavar="NAME", help="What runs the cells.")] = "local",
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
            executor=executor,
            workers=workers,
            home=home,
            **request,
        )
    show(done, json)


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
        sweep.setdefault(algorithm, {}).setdefault(setting, []).extend(parse_value(text) for text in values.split(","))
    return sweep
