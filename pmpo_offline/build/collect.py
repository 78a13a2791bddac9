"""Build declared datasets: from a recipe to a `Spec`, and the source that simulates it.

Recipes of kind "responses" are sampled from a language model instead (`sample`).
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from pmpo_offline import data, tasks
from pmpo_offline.build.options import Changes, Target
from pmpo_offline.build.pipeline import Content, Critic, Spec, build, candidates_table, variant, versions
from pmpo_offline.data import Dataset, Labelling, LabelRule
from pmpo_offline.data.storage import OURS
from pmpo_offline.declarations import catalog
from pmpo_offline.declarations.catalog import DatasetDeclaration
from pmpo_offline.runtime import processes
from pmpo_offline.runtime.arguments import checked, validated
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.hashing import hash_json
from pmpo_offline.training import CandidateSettings, CriticSettings

DEFAULT = "rgb-stacking/proxy-v0"
_EXPERIENCE = 1
"""Revision of physics, observations, rewards and critics: raise it when they change what they make of one recipe."""


@checked()
def build_dataset(
    id: str = DEFAULT,
    *,
    imbalance: float | None = None,
    balance: data.Balance | None = None,
    label: str | None = None,
    noise: float | None = None,
    format: data.Format | None = None,
    episodes: int | None = None,
    seed: int | None = None,
    workers: int | None = None,
    executor: str = "local",
    overwrite: bool = False,
    home: str | Path | None = None,
) -> Dataset:
    """Build a declared dataset, or open it if it is built with the same settings.

    Args:
        id: a declared id, or the path of a recipe's `.toml`.
        imbalance: accepted share of the labelled units in [0, 1]; None as declared.
        balance: what is dropped for it, "labels" (the rows stay, unlabelled) or "rows" (as if nothing else had been
            collected: episodes vanish whole); None as declared.
        label: `SCORE[:THRESHOLD[:MARGIN]]`, see `data.labels`; None as declared.
        noise: rate of flipped labels; None as declared.
        format: "arrow", or "hdf5" (a Minari directory); by default "arrow", and a stored one is opened as it is.
        episodes: episodes to collect, or prompts to ask; None as declared.
        seed: of everything random; None as declared.
        workers: processes that simulate; default one per core. The content does not depend on it.
        executor: where they run: "local", or "ray" ($RAY_ADDRESS, else on this machine). One that is killed loses the
            episodes that it was simulating, which are simulated again.
        overwrite: build again what is built.
        home: where datasets are; default `data.home()`.

    Raises:
        UserError: something is unknown, malformed or impossible.
        PmpoOfflineError: the disk refuses.
    """
    root = data.home(home)
    recipe = Recipe.of(catalog.dataset(id), Changes(imbalance, balance, label, noise, episodes, seed))
    with processes.executor(executor):
        return build(recipe.spec(root, workers or os.cpu_count() or 1), Target(root, overwrite, format))


@dataclass(frozen=True)
class Recipe:
    """A declared dataset, as declared and with a user's changes."""

    declared: DatasetDeclaration
    changed: DatasetDeclaration

    @classmethod
    def of(cls, declared: DatasetDeclaration, changes: Changes | None = None) -> Recipe:
        """Apply the changes; `UserError` for what is malformed."""
        wanted = {name: value for name, value in vars(changes or Changes()).items() if value is not None}
        recipe = cls(declared, catalog.revise(declared, "build-dataset", wanted))
        if recipe.labelling.label == LabelRule.parse(declared.label) and declared.kind != "responses":
            kind = "candidates" if recipe.labelling.label.score == "q_rank" else "transitions"
            if kind != declared.kind:
                raise UserError(f"{declared.id} declares kind {declared.kind}, and its labels make it {kind}: say so")
        return recipe

    @cached_property
    def labelling(self) -> Labelling:
        """The rule, noise, balance and seed of the labels."""
        changed = self.changed
        rule = LabelRule.parse(changed.label)
        return Labelling(rule, changed.imbalance, changed.noise, changed.seed, changed.balance)

    @property
    def id(self) -> str:
        """The declared id, or with changes another: readable for one change, else with their hash."""
        rules = {"label": LabelRule.parse(self.declared.label)}
        usual, now = vars(self.declared) | rules, vars(self.changed) | {"label": self.labelling.label}
        names = ("episodes", "seed", "label", "imbalance", "balance", "noise")
        return variant(self.declared.id, {name: now[name] for name in names if now[name] != usual[name]})

    def spec(self, home: Path, workers: int = 1) -> Spec:
        """Return what the dataset is made of; `UserError` for settings that its task does not have."""
        if self.changed.kind == "responses":
            from pmpo_offline.build.sample import spec

            return spec(self, home)
        return self._simulated(workers)

    def _simulated(self, workers: int) -> Spec:
        recipe, labelling = self.changed, self.labelling
        where = f"dataset {recipe.id}"
        settings = validated(CriticSettings, recipe.critic, where)
        candidates = validated(CandidateSettings, recipe.candidates, where) if recipe.candidates else None
        task = tasks.get(recipe.task)
        sources = task.sources(recipe.behavior)
        recorded = [_EXPERIENCE, recipe.task, recipe.behavior, recipe.episodes, recipe.seed]
        simulators = versions(*task.simulators)
        raw = hash_json([recorded, "+".join(simulators.values()), *sources.values()])[:16]
        scored = [settings.model_dump(), candidates and candidates.model_dump()]
        critic = Critic(settings, candidates, f"judged-{hash_json(scored)[:16]}.npz")
        labels = [str(labelling.label), *labelling.shares]
        return Spec(
            id=self.id,
            task=recipe.task,
            labelling=labelling,
            digest=hash_json([*recorded[1:], *labels, critic.file, *sources.values()]),
            hashes={"experience": raw, **sources},
            source=f"simulated {OURS}, task {recipe.task}",
            licence=recipe.licence,
            read=partial(_simulate, recipe, candidates, workers),
            raw=raw,
            critic=critic,
        )


def _simulate(recipe: DatasetDeclaration, candidates: CandidateSettings | None, workers: int, folder: Path) -> Content:
    """Collect episodes of the recipe's behaviours, and score candidate actions where the task knows their values."""
    task, references = tasks.get(recipe.task), catalog.references(recipe.task)
    if references is None:
        simulated = " and ".join(f"{name} {version}" for name, version in versions(*task.simulators).items())
        warnings.warn(f"{task.id} has no reference scores on {simulated}: its scores will be returns", stacklevel=2)
    collection = tasks.CollectionSpec(recipe.behavior, recipe.episodes, recipe.seed)
    experience = task.collect(collection, folder, workers)
    scored = candidates and task.candidates(collection, experience, candidates.states, candidates.actions)
    transitions, ends = experience.tables()
    return Content(
        table=transitions,
        episodes=ends,
        candidates=candidates_table(scored) if scored else None,
        settings={"episodes": recipe.episodes, "behavior": recipe.behavior},
        packages=versions("pmpo-offline", *task.simulators, "numpy", "torch"),
        references=data.References.model_validate(references) if references else None,
    )
