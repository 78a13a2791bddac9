"""From a recipe to a dataset: collect, judge, label, balance, store.

```
declaration ── task.collect ── critic, clone ── label_tables ── write ──▶ <home>/<id>/
                 (raw episodes and what the critics say of them are kept under <home>/.raw/ and
                  shared by every labelling, share and noise that is made of them)
```
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pmpo_offline import catalog, data, tasks
from pmpo_offline.catalog import DatasetDeclaration
from pmpo_offline.data import Dataset, LabelRule, Rows
from pmpo_offline.data.storage import alone_in
from pmpo_offline.errors import PmpoOfflineError, UserError
from pmpo_offline.training import CriticSettings, judge, train

Progress = Callable[[str, int, int], None]
DEFAULT = "rgb-stacking/proxy-v0"


class CandidateSettings(BaseModel):
    """Which candidate actions are scored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    actions: int = Field(default=4, ge=2)
    """K: actions a state, drawn from a clone of the recorded behaviour."""
    states: int = Field(default=50_000, ge=1)
    """States, drawn without replacement (all, if there are fewer)."""
    updates: int = Field(default=3000, ge=1)
    """Gradient steps of the clone."""


@dataclass(frozen=True)
class Recipe:
    """A declaration with a user's changes: everything that a dataset depends on."""

    declaration: DatasetDeclaration
    episodes: int
    seed: int
    label: LabelRule
    imbalance: float | None
    noise: float
    critic: CriticSettings
    candidates: CandidateSettings | None

    @classmethod
    def of(cls, declaration: DatasetDeclaration, **changes: Any) -> Recipe:
        """Apply the changes that are not None. Raises `UserError` for what is malformed."""
        given = {name: value for name, value in changes.items() if value is not None}
        merged = catalog.revise(declaration, "build-dataset", given)
        try:
            critic = CriticSettings.model_validate(merged.critic)
            candidates = CandidateSettings.model_validate(merged.candidates) if merged.candidates else None
        except ValidationError as error:
            first = error.errors()[0]
            raise UserError(
                f"dataset {declaration.id}: {'.'.join(map(str, first['loc']))}: {first['msg'].lower()}"
            ) from None
        rule = LabelRule.parse(merged.label)
        return cls(declaration, merged.episodes, merged.seed, rule, merged.imbalance, merged.noise, critic, candidates)

    @property
    def id(self) -> str:
        """The declared id; one of its own where settings differ: readable for one change, else with their hash."""
        declared = Recipe.of(self.declaration)
        names = ("episodes", "seed", "label", "imbalance", "noise")
        changed = {name: getattr(self, name) for name in names if getattr(self, name) != getattr(declared, name)}
        if not changed:
            return self.declaration.id
        base, _, version = self.declaration.id.rpartition("-")
        readable = [_readable(*item) for item in changed.items()]
        if len(readable) == 1 and readable[0]:
            return f"{base}-{readable[0]}-{version}"
        return f"{base}-{_digest({name: str(value) for name, value in changed.items()})[:8]}-{version}"

    @property
    def raw(self) -> str:
        """Name of the folder that raw experience is kept in: a hash of all that it depends on."""
        recorded = [self.declaration.task, self.declaration.behavior, self.episodes, self.seed]
        return _digest([recorded, importlib.metadata.version("mujoco")])[:16]

    @property
    def judged(self) -> str:
        """Name of the file with the critics' scores, likewise."""
        candidates = self.candidates.model_dump() if self.candidates else None
        return f"judged-{_digest([self.critic.model_dump(), candidates])[:16]}.npz"


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
        stored = "arrow" if "transitions.arrow" in standing.metadata.files else "hdf5"
        if stored != format:
            raise UserError(f"{recipe.id} stands as {stored} in {directory}: add --overwrite to store it as {format}")
        return standing

    tell: Progress = progress or (lambda stage, done, total: None)
    try:
        folder = root / ".raw" / recipe.raw
        folder.mkdir(parents=True, exist_ok=True)
        with alone_in(folder):
            experience = tasks.get(recipe.declaration.task).collect(
                recipe.declaration.behavior,
                recipe.episodes,
                recipe.seed,
                workers or os.cpu_count() or 1,
                folder,
                lambda done, total: tell("collect episodes", done, total),
            )
            transitions, ends = experience.tables()
            scored = None
            if recipe.label.score == "advantage" or recipe.candidates:
                scored = _judged(folder / recipe.judged, recipe, transitions, ends, tell)
    except OSError as error:
        raise PmpoOfflineError(
            f"cannot write in {root}: {error.strerror or error}; choose another --home or free space"
        ) from None
    candidates = None
    if scored is not None:
        if recipe.label.score == "advantage":
            place = transitions.schema.get_field_index("score")
            transitions = transitions.set_column(place, transitions.schema.field(place), pa.array(scored["advantage"]))
        if recipe.candidates:
            candidates = pa.table(
                {
                    "row": np.repeat(scored["row"], recipe.candidates.actions),
                    "action": data.columns.list_array(scored["action"].reshape(-1, experience.action.shape[1])),
                    "score": scored["score"].ravel(),
                    "label": pa.nulls(scored["score"].size, pa.bool_()),
                },
                schema=data.candidates_schema(experience.action.shape[1]),
            )
    metadata, labelled = _label(recipe, transitions, ends, candidates, scored)
    data.write(directory, metadata, labelled, format=format, overwrite=overwrite)
    return data.load_dataset(recipe.id, home=root)


def _label(
    recipe: Recipe,
    transitions: pa.Table,
    ends: pa.Table,
    candidates: pa.Table | None,
    scored: Mapping[str, Any] | None,
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
    critic = (
        {}
        if scored is None
        else {"critic": recipe.critic.model_dump(mode="json"), "explained": float(scored["explained"])}
    )
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
            hashes={"experience": recipe.raw},
            packages={name: importlib.metadata.version(name) for name in ("pmpo-offline", "mujoco", "numpy", "torch")},
            settings={"episodes": recipe.episodes, "behavior": declaration.behavior, **critic},
        ),
        licence=declaration.licence,
        **done.described,
    )
    tables = {"transitions": done.table, "episodes": done.episodes, "candidates": done.candidates}
    return metadata, {name: table for name, table in tables.items() if table is not None}


def _judged(path: Path, recipe: Recipe, transitions: pa.Table, ends: pa.Table, tell: Progress) -> dict[str, Any]:
    """Score every step by cross-fitted critics, and candidate actions of a clone; kept at `path` for all labellings."""
    if path.exists():
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored)
    # Any labels will do here: neither the critics nor the clone look at them.
    unlabelled = Recipe.of(recipe.declaration, label="success", noise=0.0)
    metadata, tables = _label(unlabelled, transitions, ends, None, None)
    dataset = Dataset(metadata, path.parent, tables["transitions"], tables["episodes"])
    rows = Rows.of(dataset)
    judgement = judge(rows, recipe.critic, recipe.seed, tell)
    result: dict[str, Any] = {"advantage": judgement.advantage.numpy(), "explained": np.float64(judgement.explained)}
    if recipe.candidates:
        clone = train(
            dataset,
            "bc",
            seeds=(recipe.seed,),
            overrides={"updates": recipe.candidates.updates},
            device="cpu",
            progress=lambda stage, done, total: tell("clone the behaviour", done, total),
        ).policy
        rng = np.random.default_rng([recipe.seed, 11])
        row = np.sort(rng.choice(len(rows), min(recipe.candidates.states, len(rows)), replace=False))
        generator = torch.Generator().manual_seed(recipe.seed)
        actions = []
        with torch.no_grad():
            for part in torch.split(torch.from_numpy(row), 8192):
                distribution = clone(rows.observation[part].unsqueeze(0))
                for_each = [
                    distribution.sample(
                        torch.rand(len(part), generator=generator),
                        torch.randn(len(part), rows.action.shape[1], generator=generator),
                    )[0]
                    for _ in range(recipe.candidates.actions)
                ]
                actions.append(torch.stack(for_each, dim=1).clamp(-1, 1))
        action = torch.cat(actions)
        score = judgement.action_value(torch.from_numpy(row), action)
        result |= {"row": row, "action": action.numpy(), "score": score.numpy()}
    scratch = path.with_suffix(".tmp")
    try:
        with scratch.open("wb") as file:
            np.savez(file, allow_pickle=False, **result)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    return result


def _readable(name: str, value: Any) -> str | None:
    """Return what an id says of one changed setting, None where that would not be readable."""
    if name == "label":
        usual = value == LabelRule.parse(value.score)
        return str(value.score).replace("_", "-") if usual else None
    if name in ("imbalance", "noise"):
        if value is None:
            return "collected"
        percent = round(100 * value, 6)
        prefix = "accept" if name == "imbalance" else "noise"
        return f"{prefix}{percent:.0f}" if percent == int(percent) else None
    return f"{name}{value}"


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
