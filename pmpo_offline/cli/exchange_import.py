"""The command `import`: other people's data sets become datasets."""

from __future__ import annotations

from typing import Annotated

import typer

from pmpo_offline.cli.console import working
from pmpo_offline.cli.datasets import FORMATS, Home, Json, print_summary, summary_of
from pmpo_offline.errors import unknown


def import_(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="minari:ID (local, else downloaded), or the path of a Minari folder, a D4RL .hdf5, an OGBench .npz, "
            "or RLDS steps as .npz, .hdf5 or .parquet (a file or a folder of them).",
        ),
    ],
    id: Annotated[
        str | None, typer.Option("--id", help="Id of the dataset.", show_default="FORMAT/its own name")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="The task that it is of.", show_default="as the source says, else its own environment"),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            help="SCORE[:THRESHOLD[:DEAD_ZONE]], as in success, return:q0.5, advantage:sign.",
            show_default="success where the source tells of both kinds, else return:q0.5; none without rewards",
        ),
    ] = None,
    imbalance: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Accepted share of the labelled units.", show_default="as it comes"),
    ] = None,
    noise: Annotated[float | None, typer.Option(min=0, max=1, help="Rate of flipped labels.", show_default="0")] = None,
    format: Annotated[str, typer.Option(help="arrow, or hdf5 (a Minari directory).")] = "arrow",
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Seed of noise, imbalance and critics.")] = 0,
    home: Home = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Import again what stands.")] = False,
    json: Json = False,
) -> None:
    """Import a data set of another library, score and label it, and store it; reuses one that stands."""
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    with working() as progress:
        from pmpo_offline.importing import import_dataset

        dataset = import_dataset(
            source,
            id=id,
            task=task,
            label=label,
            imbalance=imbalance,
            noise=noise,
            format="hdf5" if format == "hdf5" else "arrow",
            seed=seed,
            overwrite=overwrite,
            home=home,
            progress=progress,
        )
        summary = summary_of(dataset)
    print_summary(summary, json)
