"""Parts of recorded experience, and their comparison."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from pmpo_offline.data import Experience


def part(experience: Experience, episode: int) -> Experience:
    """One episode of several."""
    end = int(experience.length[: episode + 1].sum())
    rows = slice(end - int(experience.length[episode]), end)
    steps = ("observation", "action", "reward")
    return Experience(
        **{f.name: getattr(experience, f.name)[rows if f.name in steps else [episode]] for f in fields(Experience)}
    )


def assert_equal(one: Experience, other: Experience) -> None:
    """Assert that two recordings hold the same values in the same shapes."""
    for f in fields(Experience):
        left, right = getattr(one, f.name), getattr(other, f.name)
        assert left.shape == right.shape, f.name
        np.testing.assert_array_equal(left, right, err_msg=f.name)
