"""Experience whose every value says the (episode, step) that it belongs to, and what any reader must find of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from helpers.encoded import observed
from helpers.labelled import labelled
from pmpo_offline import data

Columns = dict[str, np.ndarray]
ID = "test/aligned-v0"
LENGTHS: dict[str, list[int]] = {
    "single steps": [1, 1, 1],
    "one long episode": [2, 40_000, 1],  # longer than int16 counts
    "many episodes": [1 + index % 3 for index in range(1_010)],  # of four digits, whose names sort otherwise
}


def rewarded(episode: np.ndarray, step: np.ndarray) -> np.ndarray:
    """A whole number that differs from those of the neighbouring steps and episodes, exact in float32."""
    return (episode * 64 + step).astype(np.float32)


def experience(lengths: Sequence[int]) -> data.Experience:
    """Every third episode is ended by the task, the others by the horizon."""
    episode, step = indices(lengths)
    count = len(lengths)
    terminated = np.arange(count) % 3 == 0
    return data.Experience(
        observation=observed(episode, step),
        action=acted(episode, step),
        reward=rewarded(episode, step),
        length=np.asarray(lengths, np.int64),
        success=terminated,
        terminated=terminated,
        final_observation=observed(np.arange(count), np.asarray(lengths)),
        behavior=np.array([("expert", "clumsy")[index % 2] for index in range(count)]),
        seed=np.arange(count) + 1000,
    )


def expected(lengths: Sequence[int]) -> Columns:
    """The columns of all rows, in order."""
    episode, step = indices(lengths)
    last = step == np.asarray(lengths)[episode] - 1
    ended = episode % 3 == 0
    return {
        "observation": observed(episode, step),
        "action": acted(episode, step),
        "reward": rewarded(episode, step),
        "next_observation": observed(episode, step + 1),
        "terminated": last & ended,
        "truncated": last & ~ended,
    }


def assert_aligned(found: Columns, lengths: Sequence[int], only: np.ndarray | None = None) -> None:
    """Every column that was found holds what its rows must: all of them, or these."""
    wanted = expected(lengths)
    for name, values in found.items():
        right = wanted[name] if only is None else wanted[name][only]
        assert np.array_equal(np.asarray(values), right), f"{name} is not where it belongs"


def indices(lengths: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The episode and the step of every row."""
    episode = np.repeat(np.arange(len(lengths)), lengths)
    return episode, np.concatenate([np.arange(length) for length in lengths])


def acted(episode: np.ndarray, step: np.ndarray) -> np.ndarray:
    return np.stack([episode + 0.5, step + 0.5], axis=-1).astype(np.float32)


def stored(home: Path, lengths: Sequence[int], format: data.Format = "arrow", **changes: Any) -> data.Dataset:
    """The experience as a dataset whose score is its reward."""
    transitions, episodes = experience(lengths).tables()
    metadata, tables = labelled(transitions, episodes, "reward:q0.5", id=ID)
    data.write(home / ID, metadata.model_copy(update=changes), tables, form=format)
    return data.load_dataset(ID, home=home)
