"""From a recipe to a dataset: collect, then the tail that imports share (`finishing`).

```
recipe ── task.collect ── finish ── write ──▶ <home>/<id>/
```
Recipes of kind "responses" go another way, that of `responding`.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from pmpo_offline import data, tasks
from pmpo_offline.build.cache import kept, standing, versions
from pmpo_offline.build.label import Order, finish
from pmpo_offline.build.recipe import Recipe
from pmpo_offline.data import Dataset, LabelRule
from pmpo_offline.declarations import catalog
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.tasks import CollectionSpec, Task

DEFAULT = "rgb-stacking/proxy-v0"


def build_dataset(
    id: str = DEFAULT,
    *,
    imbalance: float | None = None,
    label: str | None = None,
    noise: float | None = None,
    format: data.Format = "arrow",
    episodes: int | None = None,
    seed: int | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    home: Path | None = None,
) -> Dataset:
    """Build a declared dataset, or open it if it stands with the same settings.

    Args:
        id: a declared id, or the path of a recipe's `.toml`.
        imbalance: accepted share of the labelled units in [0, 1]; None as declared.
        label: `SCORE[:THRESHOLD[:DEAD_ZONE]]`, see `data.labels`; None as declared.
        noise: rate of flipped labels; None as declared.
        format: "arrow", or "hdf5" (a Minari directory).
        episodes: how many to collect, or how many prompts to ask; None as declared.
        seed: of everything random; None as declared.
        workers: processes that simulate; default one a core. The content does not depend on it.
        overwrite: build again what stands.
        home: where datasets are; default `data.home()`.

    Raises:
        UserError: something is unknown, malformed or impossible.
        PmpoOfflineError: the disk refuses.
    """
    declared = catalog.dataset(id)
    root = data.home() if home is None else home
    changes = {"imbalance": imbalance, "label": label, "noise": noise, "episodes": episodes, "seed": seed}
    if declared.kind == "responses":
        from pmpo_offline.build.sample import ResponseRecipe, build_responses

        answered = ResponseRecipe.of(declared, **changes)
        return build_responses(answered, format=format, overwrite=overwrite, home=root)
    recipe = Recipe.of(declared, **changes)
    task = tasks.get(recipe.declaration.task)
    order = _order(recipe, task)
    if not overwrite and (found := standing(order, format, root)):
        return found
    if order.references is None:
        simulated = " and ".join(f"{name} {version}" for name, version in versions(*task.simulators).items())
        warnings.warn(f"{task.id} has no reference scores on {simulated}: its scores will be returns", stacklevel=2)
    with kept(root, recipe.raw) as folder:
        spec = CollectionSpec(recipe.declaration.behavior, recipe.episodes, recipe.seed)
        experience = task.collect(spec, folder, workers or os.cpu_count() or 1)
        asked = recipe.candidates
        scored = task.candidates(spec, experience, asked.states, asked.actions) if asked else None
        metadata, tables = finish(order, experience, scored, folder)
    if recipe.label == LabelRule.parse(declared.label) and metadata.kind != declared.kind:
        raise UserError(f"{declared.id} declares kind {declared.kind}, and its labels make it {metadata.kind}: say so")
    data.write(data.dataset_path(order.id, root), metadata, tables, format=format, overwrite=overwrite)
    return data.load_dataset(order.id, home=root)


def _order(recipe: Recipe, task: Task) -> Order:
    declaration = recipe.declaration
    references = catalog.references(declaration.task)
    return Order(
        id=recipe.id,
        task=declaration.task,
        label=recipe.label,
        imbalance=recipe.imbalance,
        noise=recipe.noise,
        seed=recipe.seed,
        critic=recipe.critic,
        candidates=recipe.candidates,
        digest=recipe.digest,
        judged=recipe.judged,
        licence=declaration.licence,
        references=data.References.model_validate(references) if references else None,
        provenance=data.Provenance(
            sources=[f"simulated by pmpo-offline, task {declaration.task}"],
            hashes={"experience": recipe.raw, **task.sources(declaration.behavior)},
            packages=versions("pmpo-offline", *task.simulators, "numpy", "torch"),
            settings={"episodes": recipe.episodes, "behavior": declaration.behavior},
        ),
        remedy="built from another recipe: add --overwrite to build it again, or give the recipe an id of its own",
    )
