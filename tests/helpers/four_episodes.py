"""Four episodes of 4, 3, 5 and 2 steps, as arrays of D4RL's names and in Parquet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from helpers.aligned import experience
from helpers.foreign import as_d4rl, as_states

LENGTHS = [4, 3, 5, 2]
WRITTEN = experience(LENGTHS)
STEPS = as_d4rl(WRITTEN)
STATES = as_states(WRITTEN)
EPISODE = np.repeat(np.arange(4), LENGTHS)
LAST = np.cumsum(LENGTHS) - 1
OURS = {
    "observations": "observation",
    "next_observations": "next_observation",
    "actions": "action",
    "rewards": "reward",
    "terminals": "terminated",
    "timeouts": "truncated",
}


def parquet(path: Path, arrays: dict[str, Any], classes: dict[str, list[str]] | None = None) -> Path:
    """Steps in our own columns, of which some are Hugging Face's `ClassLabel`."""
    lists = {OURS.get(n, n): v.tolist() if isinstance(v, np.ndarray) else v for n, v in arrays.items()}
    features = {name: {"names": names, "_type": "ClassLabel"} for name, names in (classes or {}).items()}
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(pa.table(lists).replace_schema_metadata(about), path)
    return path
