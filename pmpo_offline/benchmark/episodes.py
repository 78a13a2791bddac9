"""What runs did in some of their evaluation episodes, for reports.

```
<output>/episodes/<key>.parquet    seed, episode, …, step, reward, action, observation: an episode a record
<output>/answers/<key>.parquet     seed, prompt, accepted, rejected, learned, return: a prompt of a language model
```
Of a run there are its worst, its median and its best episode by their returns; of a task whose episodes are of one
step, some samples. The last columns are lists over the steps that `tasks.trajectories` recorded, and `task` names the
task that draws them. No score depends on these files, and older rows have none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pmpo_offline.benchmark.results import Results
from pmpo_offline.tasks.trajectories import Trajectories

WHICH, SAMPLE = ("worst", "median", "best"), "sample"
SAMPLES = 40
"""Episodes of a run that are stored where they are of one step."""
SCHEMA = pl.Schema(
    [
        ("task", pl.String),
        ("seed", pl.Int32),
        ("episode", pl.Int32),
        ("which", pl.String),
        ("return", pl.Float64),
        ("step", pl.List(pl.Int32)),  # counted from 1
        ("reward", pl.List(pl.Float32)),
        ("action", pl.List(pl.Float32)),  # dimension after dimension: that compresses best
        ("observation", pl.List(pl.Float32)),  # likewise, after the step
    ]
)
_LISTS = ("step", "reward", "action", "observation")
ANSWERS = pl.Schema(
    {"seed": pl.Int32, **dict.fromkeys(("prompt", "accepted", "rejected", "learned"), pl.String), "return": pl.Float64}
)
"""A held-out prompt, the stored answers that were accepted and rejected, what a run wrote, and the reward of that."""


def store(results: Results, key: str, scores: pl.DataFrame, trajectories: Trajectories, task: str) -> None:
    """Store some episodes of a row.

    Args:
        results: the store.
        key: of the row.
        scores: its raw scores, with the `place` of each episode among the trajectories.
        trajectories: of all runs that were scored together.
        task: the id of the task.
    """
    choose = _samples if trajectories.step.shape[1] == 1 else _ends
    records = [
        {**episode, "task": task, "which": which, **_steps(trajectories, episode["place"])}
        for run in scores.select("seed", "episode", "place", "return").partition_by("seed", maintain_order=True)
        for which, episode in choose(run)
    ]
    results.write_beside("episodes", key, pl.DataFrame(records, SCHEMA))


def store_answers(results: Results, key: str, scores: pl.DataFrame) -> None:
    """Store the answers to the prompts of a row of language models that `learned` has a text for."""
    if {*ANSWERS} <= {*scores.columns}:  # runs that an earlier version had finished may lack them
        results.write_beside("answers", key, scores.select(ANSWERS.names()).filter(pl.col("learned").is_not_null()))


def load(results: Results, raw: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Return the stored episodes of the rows of raw scores by key, of those that have any, whole and of these runs."""
    return _scored(results.read_beside("episodes", _keys(raw), _whole), raw, "seed", "episode", "return")


def load_answers(results: Results, raw: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Return the stored answers likewise; older ones have no return."""

    def complete(table: pl.DataFrame) -> pl.DataFrame:
        added = [] if "return" in table.columns else [pl.lit(None).alias("return")]
        return _cast(table.with_columns(added), ANSWERS)

    return _scored(results.read_beside("answers", _keys(raw), complete), raw, "seed", "return")


def _keys(raw: pl.DataFrame) -> list[str]:
    return raw["key"].unique(maintain_order=True).to_list()


def _scored(tables: Mapping[str, pl.DataFrame], raw: pl.DataFrame, *columns: str) -> dict[str, pl.DataFrame]:
    """Return the tables whose every record is a scored episode of its row by these columns: a file may be another's."""
    found = {}
    for key, table in tables.items():
        known = [name for name in columns if name != "return" or not table[name].null_count()]
        if len(table.join(raw.filter(key=key), on=known, how="semi")) == len(table):
            found[key] = table
    return found


def _cast(table: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
    return table.select(pl.col(name).cast(kind) for name, kind in schema.items())


def _whole(table: pl.DataFrame) -> pl.DataFrame:
    """Return a table of episodes with as many numbers of each kind as they have steps, else raise `ShapeError`."""
    same, steps = _cast(table, SCHEMA), pl.col("step").list.len()
    sound = [pl.col("return").is_finite(), steps > 0, pl.col("reward").list.len() == steps]
    sound += [pl.col(name).list.len() % steps == 0 for name in ("action", "observation")]
    sound += [pl.col(name).list.drop_nulls().list.len() == pl.col(name).list.len() for name in _LISTS]
    sampled = (pl.col("which") == SAMPLE) & (steps == 1) & (pl.col("action").list.len() > 0)
    kinds = (same.drop_nulls().filter(*sound, kind) for kind in (sampled, pl.col("which").is_in(WHICH)))
    if same.is_empty() or all(len(kind) < len(same) for kind in kinds):
        raise pl.exceptions.ShapeError("no episodes of one kind, or lists of other lengths than the steps")
    return same


def _ends(run: pl.DataFrame) -> list[tuple[str, dict[str, Any]]]:
    """Return the worst, the median and the best of a run's episodes, each once."""
    ranked = run.sort("return", "episode").to_dicts()
    places = {len(ranked) // 2: "median", len(ranked) - 1: "best", 0: "worst"}  # the later name, where places are equal
    return [(places[place], ranked[place]) for place in sorted(places)]


def _samples(run: pl.DataFrame) -> list[tuple[str, dict[str, Any]]]:
    return [(SAMPLE, row) for row in run.head(SAMPLES).to_dicts()]


def _steps(trajectories: Trajectories, place: int) -> dict[str, Any]:
    kept = trajectories.step[place] > 0
    return {
        "step": trajectories.step[place, kept].tolist(),
        "reward": _rounded(trajectories.reward[place, kept]).tolist(),
        "action": _rounded(trajectories.action[place, kept]).T.ravel().tolist(),
        "observation": _rounded(trajectories.observation[place, kept]).T.ravel().tolist(),
    }


def _rounded(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return numbers to three digits, enough for a picture: their last 14 bits are 0, and compress."""
    bits = (np.ascontiguousarray(values).view(np.uint32) + 0x2000) & 0xFFFFC000
    return bits.view(np.float32)
