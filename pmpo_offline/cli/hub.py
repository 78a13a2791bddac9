"""The commands push and pull: datasets to and from the Hugging Face hub."""

from __future__ import annotations

from typing import Annotated

import typer

from pmpo_offline.cli.console import Home, Json, Name, show, working


def push(
    name: Name,
    repository: Annotated[str, typer.Argument(metavar="USER/NAME", help="Repository on the Hugging Face hub.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Upload a dataset to the Hugging Face hub, with a card; the token is that of `hf auth login` or $HF_TOKEN."""
    with working():
        from pmpo_offline.data.exchange import push_dataset

        address = push_dataset(name, repository, private=private, home=home)
    show({"id": name, "url": address}, json, lambda _: print(address))


def pull(
    source: Annotated[str, typer.Argument(metavar="hf:USER/NAME", help="Repository that a dataset was pushed to.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.", show_default="the main branch")] = None,
    home: Home = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another dataset of its id.")] = False,
    json: Json = False,
) -> None:
    """Download a dataset from the Hugging Face hub and check it; it is stored under the id that it was pushed with."""
    with working():
        from pmpo_offline.data.exchange import pull_dataset

        dataset = pull_dataset(source, revision=revision, overwrite=overwrite, home=home)
    found = {"id": dataset.metadata.id, "path": str(dataset.path)}
    show(found, json, lambda _: print(f"{found['id']}: {found['path']}"))
