"""Write the responses that ship with the package: sample those of a recipe (hours on a busy CPU) unless they are there.

    python benchmarks/ship_responses.py language/sentiment-v0 language/instructions-v0

An interrupted run goes on where it stopped; what stood in datasets/ for other settings is removed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pmpo_offline import data
from pmpo_offline.build.sample import ResponseRecipe, responses_of
from pmpo_offline.cli.console import working
from pmpo_offline.declarations import catalog
from pmpo_offline.tasks.language import shipped


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("datasets", nargs="+", help="ids of declared datasets of responses")
    parser.add_argument("--home", type=Path, default=data.home(), help="where sampled chunks and models are kept")
    arguments = parser.parse_args()
    for name in arguments.datasets:
        recipe = ResponseRecipe.of(catalog.dataset(name))
        with working() as progress:
            responses, facts = responses_of(recipe, arguments.home, progress)
        path = shipped.place(recipe.task.id, recipe.raw)
        for stale in path.parent.glob(f"{path.name.rpartition('-')[0]}-*.parquet"):
            stale.unlink()
        shipped.write(path, responses, facts)
        print(f"{path}: {responses.completion.size:,} responses, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
