"""Language: prompts, models that answer them, and rewards for the answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

from pmpo_offline.runtime.errors import unknown
from pmpo_offline.runtime.registry import Registry
from pmpo_offline.tasks.language.task import LanguageTask, Reward, SamplingSettings

if TYPE_CHECKING:
    from pmpo_offline.tasks.language.models import model_directory, model_version
    from pmpo_offline.tasks.language.sampling import Samples, SamplingSpec, draw

# Names of tasks are listed without torch, which models import.
__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={"models": ["model_directory", "model_version"], "sampling": ["Samples", "SamplingSpec", "draw"]},
)

TASKS: Registry[LanguageTask] = Registry(
    "language task",
    "pmpo_offline.language_tasks",
    {f"language/{name}": f"{__name__}.{name}:TASK" for name in ("tiny", "sentiment", "instructions")},
)
"""Language tasks by id."""
REWARDS: Registry[Reward] = Registry(
    "reward",
    "pmpo_offline.rewards",
    {name: f"{__name__}.{name}:reward" for name in ("sentiment", "instructions")},
)
"""Rewards of texts by name; each is also a task without prompts."""


def names() -> list[str]:
    """Return the names that `get` knows: the tasks, and the rewards alone."""
    return [*TASKS, *REWARDS]


def get(name: str) -> LanguageTask:
    """Return a language task, or a reward as one; `UserError` with the near misses if there is none of this name."""
    if name in TASKS:
        return TASKS[name]
    if name in REWARDS:
        return LanguageTask(name, REWARDS[name])
    raise unknown("language task", name, names())


__all__ = [
    "REWARDS",
    "TASKS",
    "LanguageTask",
    "Reward",
    "Samples",
    "SamplingSettings",
    "SamplingSpec",
    "draw",
    "get",
    "model_directory",
    "model_version",
    "names",
]
