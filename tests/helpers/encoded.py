"""Tables whose every value says which (episode, step) it belongs to, so that a row in the wrong place shows."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from helpers.labelled import Tables, labelled
from pmpo_offline import data
from pmpo_offline.data import columns
from pmpo_offline.runtime.hashing import hash_file

Make = Callable[..., tuple[data.Metadata, Tables]]
Store = Callable[..., data.Dataset]


def observed(episode: np.ndarray, step: np.ndarray) -> np.ndarray:
    """The observation of (episode, step): step `length` is the final observation."""
    return np.stack([episode, step, episode * 0.5 + step * 0.25], axis=-1).astype(np.float32)


def raw_tables(lengths: Sequence[int], candidates: int = 0, seed: int = 0) -> Tables:
    """Unlabelled tables of episodes of these lengths; the stored scores stand for advantages, some of them absent."""
    rng = np.random.default_rng(seed)
    length = np.asarray(lengths, np.int64)
    start = np.cumsum(length) - length
    episode = np.repeat(np.arange(len(length)), length)
    step = np.arange(len(episode)) - start[episode]
    last = np.zeros(len(episode), bool)
    last[start + length - 1] = True
    score = rng.normal(size=len(episode)).astype(np.float32)
    score[rng.random(len(episode)) < 0.05] = np.nan
    success = rng.random(len(length)) < 0.4
    reward = rng.normal(size=len(episode)).astype(np.float32)
    transitions: dict[str, Any] = {
        "observation": columns.list_array(observed(episode, step)),
        "action": columns.list_array(np.stack([episode + 0.5, step + 0.5], axis=-1).astype(np.float32)),
        "reward": reward,
        "terminated": last & success[episode],
        "truncated": last & ~success[episode],
        "episode": episode.astype(np.int32),
        "step": step.astype(np.int32),
        "score": pa.array(score, mask=np.isnan(score)),
        "label": pa.nulls(len(episode), pa.bool_()),
    }
    episodes: dict[str, Any] = {
        "start": start,
        "length": length.astype(np.int32),
        "return": np.add.reduceat(reward.astype(np.float64), start),
        "success": success,
        "terminated": success,
        "final_observation": columns.list_array(observed(np.arange(len(length)), length)),
        "behavior": [("expert", "clumsy")[index % 2] for index in range(len(length))],
        "seed": np.arange(len(length)) + 1000,
        "score": pa.nulls(len(length), pa.float64()),
        "label": pa.nulls(len(length), pa.bool_()),
        "split": ["train"] * len(length),
    }
    tables = {
        "transitions": pa.table(transitions, data.transitions_schema(3, 2)),
        "episodes": pa.table(episodes, data.episodes_schema(3)),
    }
    if candidates:
        rows = np.sort(rng.permutation(len(episode))[: max(1, len(episode) // 2)])
        row = np.repeat(rows, candidates)
        place = np.tile(np.arange(candidates), len(rows))
        tables["candidates"] = pa.table(
            {
                "row": row,
                "action": columns.list_array(np.stack([row, place], axis=-1).astype(np.float32)),
                "score": rng.normal(size=len(row)).astype(np.float32),
                "label": pa.nulls(len(row), pa.bool_()),
            },
            data.candidates_schema(2),
        )
    return tables


def make(
    lengths: Sequence[int] = (3, 1, 4, 2, 5, 2),
    label: str = "return",
    *,
    candidates: int = 0,
    noise: float = 0.0,
    imbalance: float | None = None,
    seed: int = 0,
    id: str = "test/small-v0",
    references: data.References | None = None,
) -> tuple[data.Metadata, Tables]:
    """(metadata, labelled tables) of synthetic episodes, ready for `data.write`."""
    tables = raw_tables(lengths, candidates)
    return labelled(
        tables["transitions"],
        tables["episodes"],
        label,
        candidates=tables.get("candidates"),
        noise=noise,
        imbalance=imbalance,
        seed=seed,
        id=id,
        references=references,
    )


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the dataset.json of the dataset at `path`, and its hash, as somebody who knows of it would."""
    content = json.loads((path / "dataset.json").read_text())
    change(content)
    (path / "dataset.json").write_text(json.dumps(content))
    (path / "dataset.json.sha256").write_text(f"{hash_file(path / 'dataset.json')}  dataset.json\n")
