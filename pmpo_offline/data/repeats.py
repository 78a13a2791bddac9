"""Episodes that a source holds more than once, found without holding it in memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pmpo_offline.data import Experience
from pmpo_offline.data.mapping import release_pages, taken
from pmpo_offline.runtime.hashing import hash_bytes


def firsts(experience: Experience) -> NDArray[np.int64] | None:
    """Return the first episode (E,) that equals each one in all numbers, None if all of them differ.

    Only episodes that begin and end alike are compared as a whole, by a hash.
    """
    length = experience.length
    start = np.cumsum(length) - length
    rows = [taken(values, start) for values in (experience.observation, experience.action)]
    parts = zip(length.tolist(), experience.terminated.tolist(), *rows, experience.final_observation, strict=True)
    keys = [hash((count, ended, *(values.tobytes() for values in own))) for count, ended, *own in parts]
    _, group, counts = np.unique(keys, return_inverse=True, return_counts=True)
    found, first = np.arange(len(length)), dict[str, int]()
    for index in np.flatnonzero(counts[group] > 1).tolist():
        own = slice(start[index], start[index] + length[index])
        whole = (values[own].tobytes() for values in (experience.observation, experience.action, experience.reward))
        found[index] = first.setdefault(f"{keys[index]} {hash_bytes(whole)}", index)
        release_pages()
    return found if (found != np.arange(len(found))).any() else None
