"""The commands that make datasets of stored ones: filter, split, combine, relabel, rename; and delete."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pmpo_offline.build.options import Place
from pmpo_offline.cli.console import Home, Name, Result, command, parse_value
from pmpo_offline.cli.summary import print_summary
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.options import option

if TYPE_CHECKING:
    from pmpo_offline.data import Dataset

_kept = partial(option, show_default="as it is")
New = Annotated[str, typer.Argument(metavar="NEW", help="Id of the result, as in my/experts-v0.")]


@command(Place)
def filter_(
    name: Name,
    new: New,
    where: Annotated[
        str,
        typer.Option(help='Condition over the columns of episodes (or responses), e.g. "return > 300"; polars\' SQL.'),
    ],
    *,
    place: Place,
) -> Result[Any]:
    """Store the episodes, or responses, that match a condition as a dataset of their own."""
    from pmpo_offline import build

    return _shown([build.filter_dataset(name, new, where, place)])


@command(Place)
def split(
    name: Name,
    shares: Annotated[
        str, typer.Option(metavar="PART=SHARE,…", help="Shares of the episodes (or prompts), as in train=0.9,test=0.1.")
    ],
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random order.")] = 0,
    *,
    place: Place,
) -> Result[Any]:
    """Store random parts of a dataset, each under the id with the part's name before the version."""
    from pmpo_offline import build

    return _shown(list(build.split_dataset(name, _shares(shares), seed, place).values()))


@command(Place)
def combine(
    new: New,
    names: Annotated[list[str], typer.Argument(metavar="ID", help="Ids or paths of two or more datasets.")],
    *,
    place: Place,
) -> Result[Any]:
    """Store several datasets of one task, one kind of score and one label rule as one."""
    from pmpo_offline import build

    return _shown([build.combine_datasets(names, new, place)])


@dataclass(frozen=True)
class Changed:
    """What `relabel` changes."""

    label: str | None = _kept("SCORE[:THRESHOLD[:MARGIN]], as in return:q0.7.")
    imbalance: str | None = _kept("Accepted share of the labelled units, or collected.")
    balance: Literal["labels", "rows"] | None = _kept("What is dropped for it.", metavar="labels|rows")
    noise: float | None = _kept("Rate of flipped labels.", min=0, max=1)
    seed: int | None = _kept("Seed of noise and balance.", min=0)


@command(Changed, Place)
def relabel(
    name: Name,
    new: Annotated[
        str | None, typer.Argument(metavar="NEW", help="Id of the result.", show_default="named after the changes")
    ] = None,
    *,
    options: Changed,
    place: Place,
) -> Result[Any]:
    """Store a dataset with other labels of the same rows."""
    share = parse_value(options.imbalance) if options.imbalance else None
    if isinstance(share, str) and share != "collected":
        raise UserError(f"--imbalance {share}: write a number from 0 to 1, or collected")
    changes = vars(options) | {"imbalance": share}
    from pmpo_offline import build

    return _shown([build.relabel_dataset(name, new, changes, place)])


@command(Place)
def rename(name: Name, new: New, *, place: Place) -> Result[Any]:
    """Give a dataset another id."""
    from pmpo_offline import build

    return _shown([build.rename_dataset(name, new, place)])


@command()
def delete(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    home: Home = None,
) -> Result[Any]:
    """Remove a stored dataset with all its files."""
    from pmpo_offline import build, data

    path = data.resolve(name, home)
    if not yes and not _agreed(f"delete {path}?"):
        raise UserError(f"{path} is kept: answer y, or add --yes")
    build.delete_dataset(name, home)
    return Result({"deleted": str(path)}, lambda _: print(f"deleted {path}"))


def _agreed(question: str) -> bool:
    """Return whether the answer is yes; no answer (the input ends, Ctrl-C) is no."""
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:
        typer.echo(err=True)  # the message goes on a line of its own
        return False


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


def _shown(made: list[Dataset]) -> Result[Any]:
    from pmpo_offline import build

    shown = [build.show(dataset) for dataset in made]
    return Result({"datasets": shown}, lambda _: print_summary(*shown))
