"""The commands push and pull: datasets to and from the Hugging Face hub."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pmpo_offline.build.options import Place
from pmpo_offline.cli.console import Home, Name, Result, command
from pmpo_offline.cli.summary import print_summary


@command()
def push(
    name: Name,
    repository: Annotated[str, typer.Argument(metavar="USER/NAME", help="Repository on the Hugging Face hub.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    home: Home = None,
) -> Result[Any]:
    """Upload a dataset to the Hugging Face hub, with a card; the token is that of `hf auth login` or $HF_TOKEN."""
    from pmpo_offline.data.exchange import push_dataset

    address = push_dataset(name, repository, private=private, home=home)
    return Result({"id": name, "url": address}, lambda _: print(address))


@command(Place)
def pull(
    source: Annotated[str, typer.Argument(metavar="hf:USER/NAME", help="Repository that a dataset was pushed to.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.", show_default="the main branch")] = None,
    *,
    place: Place,
) -> Result[Any]:
    """Download a dataset from the Hugging Face hub and check it; it is stored under the id that it was pushed with."""
    from pmpo_offline.build import show
    from pmpo_offline.data.exchange import pull_dataset

    return Result(show(pull_dataset(source, revision=revision, **vars(place))), print_summary)
