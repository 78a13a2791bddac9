"""The data that every contender learns from: random observations and a noisy function of them as actions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pmpo_offline import data
from pmpo_offline.data import columns

OBSERVATION, ACTION, EPISODES, LENGTH = 17, 6, 200, 500


def arrays() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return 100,000 observations (N, 17) and actions (N, 6) in [-1, 1]."""
    rng = np.random.default_rng(0)
    observation = rng.normal(size=(EPISODES * LENGTH, OBSERVATION)).astype(np.float32)
    action = np.tanh(observation @ rng.normal(size=(OBSERVATION, ACTION)) / 4)
    noisy = action + 0.1 * rng.normal(size=action.shape)
    return observation, noisy.clip(-1, 1).astype(np.float32)


def dataset(folder: Path) -> data.Dataset:
    """Write the rows as a dataset of the package into `folder` and open it; half of the episodes are successes."""
    observation, action = arrays()
    rows, episode = len(observation), np.arange(EPISODES)
    start = episode * LENGTH
    last = np.zeros(rows, bool)
    last[start + LENGTH - 1] = True
    transitions = pa.table(
        {
            "observation": columns.list_array(observation),
            "action": columns.list_array(action),
            "reward": np.zeros(rows, np.float32),
            "terminated": last,
            "truncated": np.zeros(rows, bool),
            "episode": np.repeat(episode, LENGTH).astype(np.int32),
            "step": np.tile(np.arange(LENGTH), EPISODES).astype(np.int32),
            "score": pa.nulls(rows, pa.float32()),
            "label": pa.nulls(rows, pa.bool_()),
        },
        data.transitions_schema(OBSERVATION, ACTION),
    )
    episodes = pa.table(
        {
            "start": start,
            "length": np.full(EPISODES, LENGTH, np.int32),
            "return": np.zeros(EPISODES),
            "success": episode % 2 == 0,
            "terminated": np.ones(EPISODES, bool),
            "final_observation": columns.list_array(observation[start]),
            "behavior": ["random"] * EPISODES,
            "seed": episode,
            "score": pa.nulls(EPISODES, pa.float64()),
            "label": pa.nulls(EPISODES, pa.bool_()),
            "split": ["train"] * EPISODES,
        },
        data.episodes_schema(OBSERVATION),
    )
    rule = data.LabelRule.parse("success")
    done = data.label_tables(transitions, episodes, data.Labelling(rule))
    metadata = data.Metadata(
        id="speed/rows-v0",
        task="speed/rows",
        score=data.ScoreRule(name=rule.score),
        label=rule,
        noise=0.0,
        seed=0,
        **done.described,
    )
    path = folder / metadata.id
    data.write(path, metadata, done.tables)
    return data.open_dataset(path)
