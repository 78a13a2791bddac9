"""The command that says what will happen before anything is trained: doctor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pmpo_offline.cli.console import assignments, emit, parse_value, print_lines, short, working
from pmpo_offline.cli.options import Home, Json
from pmpo_offline.runtime.errors import UserError

if TYPE_CHECKING:
    from pmpo_offline.training.doctor import Diagnosis

ALWAYS = ("alpha", "beta", "normalize")
"""Settings that are shown even where they are the objective's defaults."""
COLOURS = {"bounded": "green", "ready": "green", "at the edge": "yellow", "unbounded": "red", "cannot learn": "red"}


def doctor(
    name: Annotated[str, typer.Argument(metavar="DATASET", help="Id or path of a dataset.")],
    algo: Annotated[str, typer.Option(help="Name of an algorithm, or its .toml.")] = "pmpo",
    alpha: Annotated[float | None, typer.Option(help="Weight of the accepts.", show_default="as declared")] = None,
    beta: Annotated[
        str | None,
        typer.Option(help="A number, or a multiple of its bound such as 1.05x.", show_default="as declared"),
    ] = None,
    normalize: Annotated[
        str | None, typer.Option(metavar="joint|set", help="How PMPO averages.", show_default="as declared")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SETTING=VALUE", help="Any other, as in divergence=reverse; repeatable."),
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Say whether an algorithm's settings suit a dataset: classes, the bound on β, verdict, suggestion."""
    from pmpo_offline.build import is_built
    from pmpo_offline.data import load_dataset
    from pmpo_offline.declarations import catalog

    if not is_built(name, home):
        raise UserError(f"dataset {name!r} is declared but not built: run pmpo-offline build-dataset {name}")
    given = assignments(settings, "divergence=reverse")
    options = {"alpha": alpha, "beta": None if beta is None else parse_value(beta), "normalize": normalize}
    for option, value in options.items():
        if value is not None:
            if option in given:
                raise UserError(f"{option} is given by --{option} and by --set: leave one of them out")
            given[option] = value
    with working():
        from pmpo_offline.training.doctor import diagnose

        dataset = load_dataset(name, home=home)
        algorithm = catalog.algorithm(algo, catalog.family(dataset.metadata.task))
        found = diagnose(dataset, algorithm, given)
    if json:
        from dataclasses import asdict

        emit(asdict(found))
    else:
        _show(found)


def _show(found: Diagnosis) -> None:
    from rich.text import Text

    from pmpo_offline.declarations import OBJECTIVES

    usual = OBJECTIVES[found.objective].settings
    shown = {name: value for name, value in found.settings.items() if name in ALWAYS or value != usual[name]}
    settings = ", ".join(f"{name} {short(value)}" for name, value in shown.items())
    labelled = f"{found.accepted:,} accepted, {found.rejected:,} rejected, {found.unlabelled:,} unlabelled"
    lines: dict[str, Any] = {
        "dataset": found.dataset,
        "algorithm": f"{found.algorithm}{f' ({settings})' if settings else ''}",
        f"trains on {found.trains_on}": labelled,
        "accepted share": short(found.accepted_share),
        "reject mass": f"{short(found.reject_mass)} before balancing, {short(found.labelled_reject_mass)} after",
        "reject share": f"{short(found.reject_share)} of the labelled",
    }
    if found.pairs is not None:
        lines["pairs"] = f"{found.pairs:,}"
    if found.weight_range is not None:
        low, high = map(short, found.weight_range)
        lines["w_D / w_U"] = f"{short(found.weight_ratio)}, advised {low} to {high}"
    if found.bounds:
        lines["β ≥"] = ", ".join(f"{way} {short(bound)}" for way, bound in found.bounds.items())
    if found.collapse is not None:
        lines["β, collapse"] = f"at most {short(found.collapse)}"
    if found.noise_bound is not None:
        lines["β ≥, flipped labels"] = short(found.noise_bound)
    if found.gaussian_bound is not None:
        lines["β >, one Gaussian"] = short(found.gaussian_bound)
    factor = "" if found.factor is None else f": β is {short(found.factor)} times its bound"
    lines["verdict"] = Text(found.verdict + factor, style=COLOURS[found.verdict])
    if found.suggested_beta is not None:
        lines["suggested β"] = short(found.suggested_beta)
    if found.notes:
        lines["notes"] = Text("\n".join(found.notes))
    print_lines(lines)
