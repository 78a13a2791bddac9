"""Write the responses that ship with the package: sample those of a recipe (hours on a busy CPU) unless they are there.

    python -m benchmarks.experiments.responses.run language/sentiment-v0 language/instructions-v0

An interrupted run is resumed; files of other settings in datasets/ are removed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.experiments import shared
from pmpo_offline import data
from pmpo_offline.build.collect import Recipe
from pmpo_offline.build.sample import Sampling
from pmpo_offline.cli.console import working
from pmpo_offline.declarations import catalog
from pmpo_offline.tasks.language.responses import shipped_file, write_shipped


def main(
    datasets: Annotated[list[str], typer.Argument(help="Ids of declared datasets of responses.")],
    home: Annotated[Path | None, typer.Option(help="Directory of sampled chunks and models.")] = None,
) -> None:
    """Sample and write the responses of datasets."""
    for name in datasets:
        sampling = Sampling(Recipe.of(catalog.dataset(name)), home or data.home())
        with working():
            responses, facts = sampling.responses()
        path = shipped_file(sampling.task.id, sampling.raw)
        for stale in path.parent.glob(f"{path.name.rpartition('-')[0]}-*.parquet"):
            stale.unlink()
        write_shipped(path, responses, facts)
        print(f"{path}: {responses.completion.size:,} responses, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    shared.script(main)
