"""The episodes that speed comparisons store and learn from: random observations, and a function of them as actions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pmpo_offline import data
from pmpo_offline.data import Experience

OBSERVATION, ACTION, EPISODES, LENGTH = 17, 6, 200, 500


def arrays() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return 100,000 observations (N, 17) and noisy actions (N, 6) in [-1, 1]."""
    rng = np.random.default_rng(0)
    observation = rng.normal(size=(EPISODES * LENGTH, OBSERVATION)).astype(np.float32)
    action = np.tanh(observation @ rng.normal(size=(OBSERVATION, ACTION)) / 4)
    noisy = action + 0.1 * rng.normal(size=action.shape)
    return observation, noisy.clip(-1, 1).astype(np.float32)


def episodes(length: int, observation: NDArray[np.float32], action: NDArray[np.float32], first: int = 0) -> Experience:
    """Return steps in episodes of equal length, every other one a success; `first` is the number of the first one."""
    number = np.arange(len(observation) // length)
    return Experience(
        observation=observation,
        action=action,
        reward=observation[:, 0].copy(),
        length=np.full(len(number), length),
        success=number % 2 == 0,
        terminated=np.ones(len(number), np.bool_),
        final_observation=observation[: len(number)],
        behavior=np.full(len(number), "random"),
        seed=first + number,
    )


def drawn(rows: int, length: int, rng: np.random.Generator, first: int = 0) -> Experience:
    """Draw `rows` steps in episodes of equal length."""
    observation = rng.standard_normal((rows, OBSERVATION), dtype=np.float32)
    return episodes(length, observation, np.tanh(observation[:, :ACTION]), first)


def labelled(experience: Experience, rule: str = "success", **labelling: Any) -> tuple[data.Metadata, dict[str, Any]]:
    """Return what `data.write` writes of these episodes; `labelling` is that of `data.Labelling`, beside the rule."""
    label = data.LabelRule.parse(rule)
    done = data.label_tables(*experience.tables(), data.Labelling(label, **labelling))
    score, noise = data.ScoreRule(name=label.score), labelling.get("noise", 0.0)
    about = {"id": "speed/rows-v0", "task": "mujoco/halfcheetah", "score": score, "label": label, "noise": noise}
    return data.Metadata(**about, **done.described), done.tables


def dataset(folder: Path) -> data.Dataset:
    """Write `arrays` as a dataset of the package into `folder` and open it."""
    data.write(folder / "rows", *labelled(episodes(LENGTH, *arrays())))
    return data.open_dataset(folder / "rows")
