"""From a recipe to a dataset: collect, judge, label, balance, store.

```
recipe ── task.collect ── critic, clone ── label_tables ── write ──▶ <home>/<id>/
            (raw episodes and what the critics say of them are kept under <home>/.raw/ and
             shared by every labelling, share and noise that is made of them)
```
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pmpo_offline import catalog, data, tasks
from pmpo_offline.data import Dataset, LabelRule
from pmpo_offline.data.storage import alone_in
from pmpo_offline.errors import PmpoOfflineError, UserError
from pmpo_offline.recipe import Recipe
from pmpo_offline.tasks import Experience, Scored, Task
from pmpo_offline.training import Judged

Progress = Callable[[str, int, int], None]
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
    progress: Progress | None = None,
) -> Dataset:
    """Build a declared dataset, or open it if it stands with the same settings.

    Args:
        id: a declared id, or the path of a recipe's `.toml`.
        imbalance: accepted share of the labelled units in [0, 1]; None as declared.
        label: `SCORE[:THRESHOLD[:DEAD_ZONE]]`, see `data.labels`; None as declared.
        noise: rate of flipped labels; None as declared.
        format: "arrow", or "hdf5" (a Minari directory).
        episodes: how many to collect; None as declared.
        seed: of everything random; None as declared.
        workers: processes that simulate; default one a core. The content does not depend on it.
        overwrite: build again what stands.
        home: where datasets are; default `data.home()`.
        progress: told what is going on.

    Raises:
        UserError: something is unknown, malformed or impossible.
        PmpoOfflineError: the disk refuses.
    """
    recipe = Recipe.of(catalog.dataset(id), imbalance=imbalance, label=label, noise=noise, episodes=episodes, seed=seed)
    root = data.home() if home is None else home
    directory = data.dataset_path(recipe.id, root)
    if data.stands(recipe.id, root) and not overwrite:
        standing = data.load_dataset(recipe.id, home=root)
        if standing.metadata.provenance.hashes.get("recipe") != recipe.digest:
            raise UserError(
                f"{recipe.id} stands in {directory} but was built from another recipe: add --overwrite to build it "
                "again, or give the recipe an id of its own"
            )
        stored = "arrow" if "transitions.arrow" in standing.metadata.files else "hdf5"
        if stored != format:
            raise UserError(f"{recipe.id} stands as {stored} in {directory}: add --overwrite to store it as {format}")
        return standing

    task = tasks.get(recipe.declaration.task)
    tell: Progress = progress or (lambda stage, done, total: None)
    try:
        folder = root / ".raw" / recipe.raw
        folder.mkdir(parents=True, exist_ok=True)
        with alone_in(folder):
            experience = task.collect(
                recipe.declaration.behavior,
                recipe.episodes,
                recipe.seed,
                workers or os.cpu_count() or 1,
                folder,
                lambda done, total: tell("collect episodes", done, total),
            )
            transitions, ends = experience.tables()
            scored = _scored(task, recipe, experience)
            judged = None
            if recipe.label.score == "advantage" or (recipe.candidates and scored is None):
                judged = _judged(folder / recipe.judged, recipe, transitions, ends, tell)
                scored = scored or Scored(judged.row, judged.action, judged.score)
    except OSError as error:
        raise PmpoOfflineError(
            f"cannot write in {root}: {error.strerror or error}; choose another --home or free space"
        ) from None
    if judged is not None and recipe.label.score == "advantage":
        place = transitions.schema.get_field_index("score")
        transitions = transitions.set_column(place, transitions.schema.field(place), pa.array(judged.advantage))
    candidates = None if scored is None or not recipe.candidates else _candidates(scored)
    metadata, labelled = _label(recipe, transitions, ends, candidates, judged)
    declared = recipe.declaration
    if recipe.label == LabelRule.parse(declared.label) and metadata.kind != declared.kind:
        raise UserError(f"{declared.id} declares kind {declared.kind}, and its labels make it {metadata.kind}: say so")
    data.write(directory, metadata, labelled, format=format, overwrite=overwrite)
    return data.load_dataset(recipe.id, home=root)


def _scored(task: Task, recipe: Recipe, experience: Experience) -> Scored | None:
    """Return candidate actions with their true values, None where none are asked for or only a critic can tell."""
    asked = recipe.candidates
    if asked is None:
        return None
    return task.candidates(recipe.declaration.behavior, experience, asked.states, asked.actions, recipe.seed)


def _candidates(scored: Scored) -> pa.Table:
    _, k, action_dim = scored.action.shape
    columns = {
        "row": np.repeat(scored.row, k),
        "action": data.columns.list_array(scored.action.reshape(-1, action_dim)),
        "score": scored.score.ravel(),
        "label": pa.nulls(scored.score.size, pa.bool_()),
    }
    return pa.table(columns, schema=data.candidates_schema(action_dim))


def _label(
    recipe: Recipe,
    transitions: pa.Table,
    ends: pa.Table,
    candidates: pa.Table | None,
    judged: Judged | None,
) -> tuple[data.Metadata, dict[str, pa.Table]]:
    """Label and balance the tables, and describe what came out."""
    done = data.label_tables(
        transitions,
        ends,
        recipe.label,
        candidates=candidates,
        noise=recipe.noise,
        imbalance=recipe.imbalance,
        seed=recipe.seed,
    )
    declaration = recipe.declaration
    references = catalog.references(declaration.task)
    critic: dict[str, Any] = {}
    if judged is not None:
        critic = {"critic": recipe.critic.model_dump(mode="json"), "explained": float(judged.explained)}
    metadata = data.Metadata(
        id=recipe.id,
        kind=done.kind,
        task=declaration.task,
        score=data.ScoreRule(name=recipe.label.score, settings=critic if recipe.label.score == "advantage" else {}),
        label=recipe.label,
        noise=recipe.noise,
        seed=recipe.seed,
        references=data.References.model_validate(references) if references else None,
        provenance=data.Provenance(
            sources=[f"simulated by pmpo-offline, task {declaration.task}"],
            hashes={"recipe": recipe.digest, "experience": recipe.raw},
            packages={
                name: importlib.metadata.version(name)
                for name in ("pmpo-offline", tasks.get(declaration.task).simulator, "numpy", "torch")
            },
            settings={"episodes": recipe.episodes, "behavior": declaration.behavior, **critic},
        ),
        licence=declaration.licence,
        **done.described,
    )
    tables = {"transitions": done.table, "episodes": done.episodes, "candidates": done.candidates}
    return metadata, {name: table for name, table in tables.items() if table is not None}


def _judged(path: Path, recipe: Recipe, transitions: pa.Table, ends: pa.Table, tell: Progress) -> Judged:
    """Return what the critics say of the experience; kept at `path` for every labelling of it."""
    if path.exists():
        return Judged.load(path)
    plain = replace(recipe, label=LabelRule.parse("success"), imbalance=None, noise=0.0)
    metadata, tables = _label(plain, transitions, ends, None, None)
    dataset = Dataset(metadata, path.parent, tables["transitions"], tables["episodes"])
    judged = Judged.of(dataset, recipe.critic, recipe.candidates, recipe.seed, path.parent, tell)
    judged.save(path)
    return judged
