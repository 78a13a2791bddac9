"""Datasets of a few hand-made episodes, in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from helpers.labelled import labelled
from pmpo_offline import data
from pmpo_offline.data import columns


def recorded(
    observation: Sequence[Sequence[float]],
    action: Sequence[Sequence[float]],
    reward: Sequence[float],
    lengths: Sequence[int],
    terminated: Sequence[bool],
    final: Sequence[Sequence[float]],
    label: str = "return:q0.5",
) -> data.Dataset:
    """A control dataset of these rows, episodes of these lengths one after the other."""
    length, ends = np.asarray(lengths), np.asarray(terminated)
    start = np.cumsum(length) - length
    episode = np.repeat(np.arange(len(length)), length)
    step = np.arange(len(episode)) - start[episode]
    last = step == length[episode] - 1
    wide = {name: np.asarray(each, np.float32) for name, each in (("o", observation), ("a", action), ("f", final))}
    rewards = np.asarray(reward, np.float64)
    transitions = {
        "observation": columns.list_array(wide["o"]),
        "action": columns.list_array(wide["a"]),
        "reward": rewards.astype(np.float32),
        "terminated": last & ends[episode],
        "truncated": last & ~ends[episode],
        "episode": episode,
        "step": step,
        "score": pa.nulls(len(episode), pa.float32()),
        "label": pa.nulls(len(episode), pa.bool_()),
    }
    episodes = {
        "start": start,
        "length": length,
        "return": np.add.reduceat(rewards, start),
        "success": np.zeros(len(length), bool),
        "terminated": ends,
        "final_observation": columns.list_array(wide["f"]),
        "behavior": ["hand"] * len(length),
        "seed": np.arange(len(length)),
        "score": pa.nulls(len(length), pa.float64()),
        "label": pa.nulls(len(length), pa.bool_()),
        "split": ["train"] * len(length),
    }
    states, actions = wide["o"].shape[1], wide["a"].shape[1]
    metadata, tables = labelled(
        pa.table({name: pa.array(each) for name, each in transitions.items()}).cast(
            data.transitions_schema(states, actions)
        ),
        pa.table({name: pa.array(each) for name, each in episodes.items()}).cast(data.episodes_schema(states)),
        label,
        id="test/recorded-v0",
        task="dm_control/cartpole-swingup",
    )
    return data.Dataset(metadata, Path("nowhere"), tables["transitions"], tables["episodes"])
