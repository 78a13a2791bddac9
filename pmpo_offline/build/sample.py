"""Source of datasets of responses: a language model answers a task's prompts, and the task's reward scores them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from pmpo_offline import data
from pmpo_offline.build.collect import Recipe
from pmpo_offline.build.pipeline import Content, Spec, load_notes, raw_folder, rewards, save_notes, versions
from pmpo_offline.data.storage import OURS
from pmpo_offline.policies.language import LanguageModel, open_model
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.hashing import hash_json, random_words
from pmpo_offline.tasks import language
from pmpo_offline.tasks.language.responses import Responses, collect, shipped

_SAMPLED, _SCORED = 1, 1
"""Revisions of sampling, and of prompts and rewards: raise them when they change what they make of one recipe."""


def spec(recipe: Recipe, home: Path) -> Spec:
    """Return what a recipe of kind "responses" is made of; `UserError` for what such a recipe cannot hold."""
    sampling, labelling = Sampling(recipe, home), recipe.labelling
    for name in ("critic", "candidates", "behavior"):
        if getattr(recipe.declared, name):
            raise UserError(f"dataset {recipe.declared.id}: {name}: means nothing for responses; remove it")
    if labelling.label.score != "reward":
        raise UserError(f"label '{labelling.label}': sampled responses are scored by reward, as in reward:q0.5")
    scored = [_SCORED, sampling.raw, sampling.prompts, sampling.settings.test]
    return Spec(
        id=recipe.id,
        task=sampling.task.id,
        labelling=labelling,
        digest=hash_json([*scored, str(labelling.label), *labelling.shares]),
        hashes={"responses": sampling.raw},
        source=f"sampled from {sampling.model} {OURS}, task {sampling.task.id}",
        licence=recipe.declared.licence,
        read=lambda _: sampling.content(),
    )


@dataclass(frozen=True)
class Sampling:
    """What a recipe of kind "responses" samples: `episodes` prompts, each answered several times."""

    recipe: Recipe
    home: Path

    @cached_property
    def task(self) -> language.LanguageTask:
        """The task that the prompts are of."""
        return language.get(self.recipe.declared.task)

    @cached_property
    def settings(self) -> language.SamplingSettings:
        """The recipe's [sampling]."""
        return language.SamplingSettings.of(self.recipe.declared.id, self.recipe.declared.sampling)

    @cached_property
    def model(self) -> str:
        """Name of the model that answers."""
        return self.settings.model or self.task.model

    @cached_property
    def prompts(self) -> list[str]:
        """The prompts, in random order."""
        return self.task.prompts(self.recipe.changed.episodes, self.recipe.changed.seed)

    @cached_property
    def raw(self) -> str:
        """Name of the folder that responses are cached in: a hash of how they are sampled, however many there are."""
        task, version = self.task, language.model_version(self.model)
        sampled = [_SAMPLED, task.id, version, self.settings.responses, task.tokens, task.ends]
        return hash_json([*sampled, self.recipe.changed.seed])[:16]

    def responses(self) -> tuple[Responses, dict[str, str]]:
        """Return the responses, shipped, cached or sampled now, with the model's hash and the packages that sampled."""
        known = shipped(self.task.id, self.raw)
        if known is not None and len(known[0]) >= len(self.prompts):
            return known[0][: len(self.prompts)], known[1]
        with raw_folder(self.home, self.raw) as folder:
            notes = folder / "sampled.json"

            def model() -> LanguageModel:
                opened = open_model(language.model_directory(self.model, self.home), name=self.model)
                save_notes(notes, {"model": opened.digest, **versions("torch", "transformers")})
                return opened

            task, changed = self.task, self.recipe.changed
            how = language.SamplingSpec(self.settings.responses, task.tokens, task.ends, changed.seed)
            responses = collect(model, self.prompts, how, folder, known and known[0])
            facts = load_notes(notes)
            if facts is None:
                model()
                facts = load_notes(notes) or {}
            return responses, facts

    def content(self) -> Content:
        """Return the unlabelled table, its rows in random order: readers that take them in order see mixed batches."""
        responses, facts = self.responses()
        prompts, k = responses.completion.shape
        prompt, response = np.repeat(np.arange(prompts), k), np.tile(np.arange(k), prompts)
        # Test prompts are evenly spread among all, which are in random order, and stay the same if more follow.
        passed = np.floor(self.settings.test * np.arange(prompts + 1) + 1e-9)
        texts, answers = responses.prompt[prompt].tolist(), responses.completion.reshape(-1).tolist()
        rows = {
            "prompt": texts,
            "completion": answers,
            "score": rewards(self.task, texts, answers),
            "label": pa.nulls(len(answers), pa.bool_()),
            "prompt_id": prompt.astype(np.int32),
            "response_id": response.astype(np.int32),
            "source": [self.model] * len(answers),
            "split": np.where(np.diff(passed) > 0, "test", "train")[prompt].tolist(),
        }
        order = np.argsort(random_words(len(answers), self.recipe.changed.seed, "rows"), kind="stable")
        table = pa.table(rows, schema=data.responses_schema()).take(order)
        return Content(
            table=table,
            settings={
                "model": self.model,
                "prompts": self.recipe.changed.episodes,
                "responses": self.settings.responses,
                "tokens": self.task.tokens,
                "ends": self.task.ends,
                "temperature": 1.0,
                "test": self.settings.test,
            },
            hashes={"model": facts.pop("model")},
            packages=facts | versions("pmpo-offline", "numpy"),
            references=self._references(table),
        )

    def _references(self, table: pa.Table) -> data.References | None:
        """Return what is 0 and 100: the mean reward on the test prompts, and of the best response to each of them.

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
        k = self.settings.responses
        how = f"mean reward of the {k} stored responses of {self.model} to each test prompt, and of the best of {k}"
        return data.References(min=low, max=high, how=how)
