"""From a recipe to a dataset of responses: a model answers, a reward scores, and the labels follow.

```
recipe ── task.prompts ── shipped, or sampled ── task.reward ── label_tables ── write ──▶ <home>/<id>/
             (what was sampled is kept under <home>/.raw/ and shared by every labelling of it)
```
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pmpo_offline import data
from pmpo_offline.build.cache import kept, standing, versions
from pmpo_offline.build.naming import digest
from pmpo_offline.build.recipe import Recipe
from pmpo_offline.data import Dataset
from pmpo_offline.policies.language import LanguageModel, open_model
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.random_words import random_words
from pmpo_offline.tasks import language
from pmpo_offline.tasks.language.responses import Responses, collect, shipped

_SAMPLED, _SCORED = 1, 1
"""Raise them when sampling, or prompts and rewards, change what they make of the same settings."""


@dataclass(frozen=True)
class ResponseRecipe(Recipe):
    """A recipe of kind "responses": its `episodes` are prompts."""

    @cached_property
    def task(self) -> language.LanguageTask:
        """What is answered."""
        return language.get(self.declaration.task)

    @cached_property
    def sampling(self) -> language.SamplingSettings:
        """Who answers, and how often."""
        return language.SamplingSettings.of(self.declaration.id, self.declaration.sampling)

    @cached_property
    def model(self) -> str:
        """Name of the model that answers."""
        return self.sampling.model or self.task.model

    @cached_property
    def prompts(self) -> list[str]:
        """What is asked."""
        return self.task.prompts(self.episodes, self.seed)

    @property
    def raw(self) -> str:
        """Name of the folder that responses are kept in: a hash of how they are sampled, however many there are."""
        task, version = self.task, language.model_version(self.model)
        return digest([_SAMPLED, task.id, version, self.sampling.responses, task.tokens, task.ends, self.seed])[:16]

    @property
    def digest(self) -> str:
        """A hash of everything that was asked for: two datasets of one recipe are equal."""
        return digest([_SCORED, self.raw, self.prompts, self.sampling.test, *self._labelling])

    @property
    def remedy(self) -> str:
        """What else to do where another dataset of this id stands."""
        return "built from another recipe: add --overwrite to build it again, or give the recipe an id of its own"

    @property
    def _labelling(self) -> list[str | float | None]:
        return [str(self.label), self.imbalance, self.noise]

    def check(self) -> None:
        """Raise `UserError` for what a recipe of responses cannot hold."""
        declared = self.declaration
        for name in ("critic", "candidates", "behavior"):
            if getattr(declared, name):
                raise UserError(f"dataset {declared.id}: {name}: means nothing for responses; remove it")
        if self.label.score != "reward":
            raise UserError(f"label '{self.label}': sampled responses are scored by reward, as in reward:q0.5")


def build_responses(recipe: ResponseRecipe, *, format: data.Format, overwrite: bool, home: Path) -> Dataset:
    """Build a dataset of responses, or open it if it stands with the same settings.

    Raises:
        UserError: something is unknown, malformed or impossible, or the model that should answer cannot be had.
        PmpoOfflineError: the disk refuses.
    """
    recipe.check()
    if not overwrite and (found := standing(recipe, format, home)):
        return found
    responses, facts = responses_of(recipe, home)
    table = _scored(recipe, responses)
    done = data.label_tables(
        table, None, recipe.label, noise=recipe.noise, imbalance=recipe.imbalance, seed=recipe.seed
    )
    declared, task = recipe.declaration, recipe.task
    metadata = data.Metadata(
        id=recipe.id,
        kind=done.kind,
        task=task.id,
        score=data.ScoreRule(name=recipe.label.score),
        label=recipe.label,
        noise=recipe.noise,
        seed=recipe.seed,
        references=_references(recipe, done.table),
        provenance=data.Provenance(
            sources=[f"sampled from {recipe.model} by pmpo-offline, task {task.id}"],
            hashes={"recipe": recipe.digest, "responses": recipe.raw, "model": facts.pop("model")},
            packages=facts | versions("pmpo-offline", "numpy"),
            settings={
                "model": recipe.model,
                "prompts": recipe.episodes,
                "responses": recipe.sampling.responses,
                "tokens": task.tokens,
                "ends": task.ends,
                "temperature": 1.0,
                "test": recipe.sampling.test,
            },
        ),
        licence=declared.licence,
        **done.described,
    )
    data.write(
        data.dataset_path(recipe.id, home), metadata, {"responses": done.table}, format=format, overwrite=overwrite
    )
    return data.load_dataset(recipe.id, home=home)


def responses_of(recipe: ResponseRecipe, home: Path) -> tuple[Responses, dict[str, str]]:
    """Return the responses, shipped, kept or sampled now, and the model's digest and the packages of their sampling."""
    known = shipped(recipe.task.id, recipe.raw)
    if known is not None and len(known[0]) >= recipe.episodes:
        return known[0][: recipe.episodes], known[1]
    with kept(home, recipe.raw) as folder:
        facts_file = folder / "sampled.json"

        def model() -> LanguageModel:
            opened = open_model(language.model_directory(recipe.model, home), name=recipe.model)
            facts = {"model": opened.digest, **versions("torch", "transformers")}
            facts_file.write_text(json.dumps(facts), encoding="utf-8")
            return opened

        task = recipe.task
        spec = language.SamplingSpec(recipe.sampling.responses, task.tokens, task.ends, recipe.seed)
        responses = collect(model, recipe.prompts, spec, folder, known and known[0])
        return responses, json.loads(facts_file.read_text(encoding="utf-8"))


def _scored(recipe: ResponseRecipe, responses: Responses) -> pa.Table:
    """Return the unlabelled table, its rows in a random order: readers that take them in order see mixed batches."""
    prompts, each = responses.completion.shape
    prompt, response = np.repeat(np.arange(prompts), each), np.tile(np.arange(each), prompts)
    test = _test(prompts, recipe.sampling.test)
    asked, said = responses.prompt[prompt].tolist(), responses.completion.reshape(-1).tolist()
    progress.report("score responses", 0, len(said))
    rewards = recipe.task.reward(asked, said)
    progress.report("score responses", len(said), len(said))
    rows = {
        "prompt": asked,
        "completion": said,
        "score": rewards,
        "label": pa.nulls(len(said), pa.bool_()),
        "prompt_id": prompt.astype(np.int32),
        "response_id": response.astype(np.int32),
        "source": [recipe.model] * len(said),
        "split": np.where(test, "test", "train")[prompt].tolist(),
    }
    order = np.argsort(random_words(len(said), recipe.seed, "rows"), kind="stable")
    return pa.table(rows, schema=data.responses_schema()).take(order)


def _test(prompts: int, share: float) -> NDArray[np.bool_]:
    """Return which prompts are tests: evenly among them, which are in random order, and the same if more follow."""
    passed = np.floor(share * np.arange(prompts + 1) + 1e-9)
    steps: NDArray[np.bool_] = np.diff(passed) > 0
    return steps


def _references(recipe: ResponseRecipe, table: pa.Table) -> data.References | None:
    """Return what is 0 and 100: the mean reward on the test prompts, and that of the best response to each of them.

    None where these are equal: one response a prompt, or nothing to choose between.
    """
    test = np.array(table["split"].to_pylist()) == "test"
    score, prompt = data.columns.vector(table, "score")[test], data.columns.vector(table, "prompt_id")[test]
    if not len(score):
        return None
    best = np.full(int(prompt.max()) + 1, -np.inf)
    np.maximum.at(best, prompt, score)
    low, high = float(score.mean(dtype=np.float64)), float(best[np.isfinite(best)].mean())
    if high <= low:
        return None
    each = recipe.sampling.responses
    how = f"mean reward of the {each} stored responses of {recipe.model} to each test prompt, and of the best of {each}"
    return data.References(min=low, max=high, how=how)
