"""The command build-dataset: a declared dataset is collected or sampled, scored, labelled and stored."""

from __future__ import annotations

from typing import Annotated

import typer

from pmpo_offline.build.options import Changes
from pmpo_offline.cli.console import working
from pmpo_offline.cli.datasets import print_summary, summary_of
from pmpo_offline.cli.options import Home, Json, checked_format, options_of

DEFAULT = "rgb-stacking/proxy-v0"


@options_of(Changes)
def build_dataset(
    name: Annotated[str, typer.Argument(metavar="ID", help="Id of a declared dataset, or a recipe's .toml.")] = DEFAULT,
    *,
    options: Changes,
    format: Annotated[str, typer.Option(help="arrow, or hdf5 (a Minari directory).")] = "arrow",
    workers: Annotated[int | None, typer.Option(min=1, help="Processes.", show_default="one a core")] = None,
    home: Home = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Build again what is built.")] = False,
    json: Json = False,
) -> None:
    """Collect experience, score and label it, and store it as a dataset; reuses what is built already."""
    form = checked_format(format)
    with working():
        from pmpo_offline import build

        dataset = build.build_dataset(
            name, **vars(options), format=form, workers=workers, overwrite=overwrite, home=home
        )
        summary = summary_of(dataset)
    print_summary(summary, json)
