"""A reader of trajectories: a CSV file with a row a step, columns `o…`, `a…`, `reward` and `done`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from pmpo_offline.data import Experience
from pmpo_offline.data.exchange.readers import Reader, Recorded, Source


def read(path: Path) -> Recorded:
    """Read all episodes; the file lacks the observation after the last step: that step's own is used."""
    steps = pl.read_csv(path)
    done = steps["done"].to_numpy().astype(bool)
    last = np.flatnonzero(done)
    observation = steps.select(pl.col("^o.*$")).to_numpy().astype(np.float32)[: last[-1] + 1]
    action = steps.select(pl.col("^a.*$")).to_numpy().astype(np.float32)[: last[-1] + 1]
    experience = Experience(
        observation=observation,
        action=action,
        reward=steps["reward"].to_numpy().astype(np.float32)[: last[-1] + 1],
        length=np.diff(last, prepend=-1),
        success=np.zeros(len(last), np.bool_),
        terminated=np.ones(len(last), np.bool_),
        final_observation=observation[last],
        behavior=np.full(len(last), path.stem),
        seed=np.full(len(last), -1),
    )
    return Recorded(experience, {"rewards": True, "success": False})


def source(path: Path) -> Source:
    """Return what the file is, before it is read."""
    return Source("steps-csv", path.stem, {path.name: path}, lambda: read(path), packages=("numpy", "polars"))


STEPS = Reader(
    name="steps-csv",
    reads="a CSV file of steps (.steps.csv)",
    recognises=lambda given: given.name.endswith(".steps.csv"),
    open=lambda given: source(given.path),
    example="log.steps.csv",
)
