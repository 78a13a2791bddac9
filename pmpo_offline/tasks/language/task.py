"""A language task: prompts, a reward for the answers, and how the answers are sampled.

Another package adds a task as an entry point of `pmpo_offline.language_tasks`, an object of `LanguageTask`, or a reward
alone as one of `pmpo_offline.rewards`: a function of prompts and completions, which scores texts from elsewhere
(`pmpo-offline import FILE --task NAME --label reward`) and the samples of models that were trained on them::

    def brevity(prompts, completions):
        return [-len(completion.split()) for completion in completions]

    [project.entry-points."pmpo_offline.rewards"]
    brevity = "my_package:brevity"
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from pmpo_offline.runtime.arguments import validated
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.hashing import random_words

SMOLLM2 = "smollm2-135m-instruct"
Reward = Callable[[Sequence[str], Sequence[str]], "Sequence[float] | NDArray[np.floating]"]
"""From n prompts and their completions, what each completion is worth."""


@dataclass(frozen=True)
class LanguageTask:
    """A task; `tasks.language.get` finds one by its id."""

    id: str
    function: Reward
    """May raise `UserError` for a prompt that is not of this task."""
    every_prompt: Callable[[], Sequence[str]] | None = None
    """Returns all prompts, as the model sees them; None for a reward of texts from elsewhere."""
    model: str = SMOLLM2
    """Name of the model that answers unless a recipe names another."""
    tokens: int = 64
    """The longest completion, its end counted."""
    ends: bool = True
    """Whether completions end by themselves; otherwise all have exactly `tokens` tokens."""

    def prompts(self, count: int, seed: int) -> list[str]:
        """Return different prompts in random order; more of them begin with fewer of one seed.

        Raises `UserError` if there are not that many.
        """
        if self.every_prompt is None:
            raise UserError(f"{self.id} scores texts from elsewhere and has no prompts of its own: import some")
        prompts = self.every_prompt()
        if count > len(prompts):
            raise UserError(f"{self.id} has {len(prompts):,} different prompts: ask for that many episodes or fewer")
        order = np.argsort(random_words(len(prompts), seed, self.id), kind="stable")
        return [prompts[i] for i in order[:count]]

    def reward(self, prompts: Sequence[str], completions: Sequence[str]) -> NDArray[np.float32]:
        """Return what each completion is worth, (n,); `UserError` if the reward is not n finite numbers."""
        rewards = np.asarray(self.function(prompts, completions), np.float32)
        if rewards.shape != (len(completions),) or not np.isfinite(rewards).all():
            raise UserError(f"the reward of {self.id} must return a finite number for each of {len(completions)} texts")
        return rewards


class SamplingSettings(BaseModel):
    """A recipe's [sampling]: the model, completions a prompt, and the share of prompts kept for tests."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: str | None = None
    """See `models.model_directory`; None: the task's own."""
    responses: Annotated[int, Field(ge=1)] = 4
    """K, completions of every prompt."""
    test: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the prompts that are never trained on."""

    @classmethod
    def of(cls, dataset: str, declared: Mapping[str, Any]) -> SamplingSettings:
        """Return the settings of a dataset's recipe; `UserError` for malformed ones."""
        return validated(cls, declared, f"dataset {dataset}: sampling", key="key of [sampling]")
