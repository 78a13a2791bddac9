"""Recorded episodes, before anybody has judged them: the columns of a dataset less scores and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pmpo_offline.data import columns
from pmpo_offline.data.schema import episodes_schema, transitions_schema
from pmpo_offline.runtime.files import load_arrays, save_arrays


@dataclass(frozen=True)
class Experience:
    """N steps of E episodes, one episode after the other; after an episode's last step comes its final observation."""

    observation: NDArray[np.float32]  # (N, O)
    action: NDArray[np.float32]  # (N, A)
    reward: NDArray[np.float32]  # (N,)
    length: NDArray[np.int64]  # (E,)
    success: NDArray[np.bool_]  # (E,)
    terminated: NDArray[np.bool_]  # (E,) the task ended the episode; otherwise the horizon cut it
    final_observation: NDArray[np.float32]  # (E, O)
    behavior: NDArray[np.str_]  # (E,)
    seed: NDArray[np.int64]  # (E,)

    @classmethod
    def concatenate(cls, parts: Sequence[Experience]) -> Experience:
        """Join recordings, one after another."""
        return cls(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)})

    def save(self, path: Path) -> None:
        """Write the recording to `path`, whole or not at all."""
        save_arrays(path, {f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def load(cls, path: Path) -> Experience:
        """Read a recording; `PmpoOfflineError` if the file is damaged."""
        return cls(**load_arrays(path, [f.name for f in fields(cls)]))

    def tables(self) -> tuple[pa.Table, pa.Table]:
        """Return the transitions and the episodes as Arrow tables, scores and labels empty."""
        n, e = len(self.reward), len(self.length)
        last = np.cumsum(self.length) - 1
        start = last + 1 - self.length
        episode = np.repeat(np.arange(e), self.length)
        terminated, truncated = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
        terminated[last], truncated[last] = self.terminated, ~self.terminated
        returns = np.add.reduceat(self.reward.astype(np.float64), start)
        rows: dict[str, Any] = {
            "observation": columns.list_array(self.observation),
            "action": columns.list_array(self.action),
            "reward": self.reward,
            "terminated": terminated,
            "truncated": truncated,
            "episode": episode.astype(np.int32),
            "step": (np.arange(n) - start[episode]).astype(np.int32),
            "score": pa.nulls(n, pa.float32()),
            "label": pa.nulls(n, pa.bool_()),
        }
        ends: dict[str, Any] = {
            "start": start,
            "length": self.length.astype(np.int32),
            "return": returns,
            "success": self.success,
            "terminated": self.terminated,
            "final_observation": columns.list_array(self.final_observation),
            "behavior": self.behavior.tolist(),
            "seed": self.seed,
            "score": pa.nulls(e, pa.float64()),
            "label": pa.nulls(e, pa.bool_()),
            "split": ["train"] * e,
        }
        transitions = transitions_schema(self.observation.shape[1], self.action.shape[1])
        episodes = episodes_schema(self.observation.shape[1])
        return pa.table(rows, schema=transitions), pa.table(ends, schema=episodes)
