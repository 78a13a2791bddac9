"""A seeded choice among many prompts that templates make."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.random_words import random_words


def chosen(task: str, prompts: Sequence[str], count: int, seed: int) -> list[str]:
    """Return `count` of the prompts in a random order of its own for each seed; more begin with fewer.

    Raises `UserError` if there are not that many.
    """
    if count > len(prompts):
        raise UserError(f"{task} has {len(prompts):,} different prompts: ask for that many episodes or fewer")
    order = np.argsort(random_words(len(prompts), seed, task), kind="stable")
    return [prompts[i] for i in order[:count]]
