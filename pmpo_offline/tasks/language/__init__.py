"""Language: prompts, models that answer them, and rewards for the answers."""

from __future__ import annotations

from collections.abc import Callable

from pmpo_offline.runtime.errors import unknown
from pmpo_offline.tasks.language.instructions import InstructionsTask
from pmpo_offline.tasks.language.models import model_directory, model_version
from pmpo_offline.tasks.language.sampling import Samples, draw
from pmpo_offline.tasks.language.sentiment import SentimentTask
from pmpo_offline.tasks.language.task import LanguageTask, SamplingSettings
from pmpo_offline.tasks.language.tiny import TinyTask

TASKS: dict[str, Callable[[], LanguageTask]] = {task.id: task for task in (TinyTask, SentimentTask, InstructionsTask)}
"""What makes a task, by its id."""


def get(name: str) -> LanguageTask:
    """Return the language task of this name; `UserError` with the near misses if there is none."""
    if name not in TASKS:
        raise unknown("language task", name, TASKS)
    return TASKS[name]()


__all__ = [
    "TASKS",
    "LanguageTask",
    "Samples",
    "SamplingSettings",
    "draw",
    "get",
    "model_directory",
    "model_version",
]
