"""The commands that make datasets of stored ones: filter, split, combine, relabel, rename; and delete."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pmpo_offline.cli.console import Home, Json, Name, Stored, options_of, parse_value, show, working
from pmpo_offline.runtime.errors import UserError

if TYPE_CHECKING:
    from pmpo_offline.build import Place
    from pmpo_offline.data import Dataset

New = Annotated[str, typer.Argument(metavar="NEW", help="Id of the result, as in my/experts-v0.")]


@options_of(Stored)
def filter_(
    name: Name,
    new: New,
    where: Annotated[
        str,
        typer.Option(help='Condition over the columns of episodes (or responses), e.g. "return > 300"; polars\' SQL.'),
    ],
    *,
    place: Stored,
    json: Json = False,
) -> None:
    """Store the episodes, or responses, that match a condition as a dataset of their own."""
    with working():
        from pmpo_offline import build

        made = build.filter_dataset(name, new, where, _place(place))
    _show([made], json)


@options_of(Stored)
def split(
    name: Name,
    shares: Annotated[
        str, typer.Option(metavar="PART=SHARE,…", help="Shares of the episodes (or prompts), as in train=0.9,test=0.1.")
    ],
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random order.")] = 0,
    *,
    place: Stored,
    json: Json = False,
) -> None:
    """Store random parts of a dataset, each under the id with the part's name before the version."""
    with working():
        from pmpo_offline import build

        parts = build.split_dataset(name, _shares(shares), seed, _place(place))
    _show(list(parts.values()), json)


@options_of(Stored)
def combine(
    new: New,
    names: Annotated[list[str], typer.Argument(metavar="ID…", help="Ids or paths of two or more datasets.")],
    *,
    place: Stored,
    json: Json = False,
) -> None:
    """Store several datasets of one task, one kind of score and one label rule as one."""
    with working():
        from pmpo_offline import build

        made = build.combine_datasets(names, new, _place(place))
    _show([made], json)


@dataclass(frozen=True)
class Changed:
    """What `relabel` changes."""

    label: Annotated[
        str | None, typer.Option(help="SCORE[:THRESHOLD[:MARGIN]], as in return:q0.7.", show_default="as it is")
    ] = None
    imbalance: Annotated[
        str | None, typer.Option(help="Accepted share of the labelled units, or collected.", show_default="as it is")
    ] = None
    balance: Annotated[
        str | None, typer.Option(metavar="labels|rows", help="What is dropped for it.", show_default="as it is")
    ] = None
    noise: Annotated[
        float | None, typer.Option(min=0, max=1, help="Rate of flipped labels.", show_default="as it is")
    ] = None
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of noise and balance.", show_default="as it is")] = None


@options_of(Changed, Stored)
def relabel(
    name: Name,
    new: Annotated[
        str | None, typer.Argument(metavar="NEW", help="Id of the result.", show_default="named after the changes")
    ] = None,
    *,
    options: Changed,
    place: Stored,
    json: Json = False,
) -> None:
    """Store a dataset with other labels of the same rows."""
    share = parse_value(options.imbalance) if options.imbalance else None
    if isinstance(share, str) and share != "collected":
        raise UserError(f"--imbalance {share}: write a number from 0 to 1, or collected")
    changes = vars(options) | {"imbalance": share}
    with working():
        from pmpo_offline import build

        made = build.relabel_dataset(name, new, changes, _place(place))
    _show([made], json)


def rename(name: Name, new: New, home: Home = None, json: Json = False) -> None:
    """Give a dataset another id."""
    with working():
        from pmpo_offline import build

        made = build.rename_dataset(name, new, _place(Stored(home)))
    _show([made], json)


def delete(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Remove a stored dataset with all its files."""
    from pmpo_offline import build, data

    path = data.resolve(name, home)
    if not yes and not typer.confirm(f"delete {path}?", err=True):
        raise UserError(f"{path} is kept: answer y, or add --yes")
    build.delete_dataset(name, home)
    show({"deleted": str(path)}, json, lambda _: print(f"deleted {path}"))


def _place(place: Stored) -> Place:
    from pmpo_offline.build import Place

    return Place(place.home, place.overwrite)


def _shares(text: str) -> dict[str, float]:
    shares: dict[str, float] = {}
    for word in text.split(","):
        name, _, share = word.strip().partition("=")
        try:
            if name in shares:
                raise UserError(f"--shares {text}: {name} is given twice")
            shares[name] = float(share)
        except ValueError:
            raise UserError(f"--shares {text}: write PART=SHARE,…, as in train=0.9,test=0.1") from None
    return shares


def _show(made: list[Dataset], as_json: bool) -> None:
    content: list[dict[str, Any]] = [
        {
            "id": dataset.metadata.id,
            "path": str(dataset.path),
            "label": str(dataset.metadata.label),
            **dataset.metadata.counts.model_dump(),
        }
        for dataset in made
    ]
    show({"datasets": content}, as_json, _print)


def _print(content: dict[str, Any]) -> None:
    for made in content["datasets"]:
        units = f"{made['episodes']:,} episodes, " if made["episodes"] else ""
        print(f"{made['id']}: {units}{made['rows']:,} rows, label {made['label']}")
        print(f"  {made['accepted']:,} accepted, {made['rejected']:,} rejected, {made['unlabelled']:,} unlabelled")
        print(f"  {made['path']}")
