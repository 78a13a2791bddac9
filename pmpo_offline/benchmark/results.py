"""The raw scores: one Parquet file a row of the table, one record an evaluation episode.

```
<output>/raw/<key>.parquet     finished; appears at once, so a file that exists is whole
<output>/checkpoints/<key>…    a cell in training; gone once its scores are written
<output>/references/           reference policies that cells share
<output>/report.{md,json,png}  computed from raw/ alone
```
A key is the hash of everything that determines the scores. What is to be run again and what is not follows from it.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.runtime.files import atomic_file
from pmpo_offline.runtime.hashing import hash_json

SCHEMA = pl.Schema(
    {
        "key": pl.String,
        "dataset": pl.String,
        "dataset_sha": pl.String,  # of the content that was learned from, labels included
        "algo": pl.String,
        "settings": pl.String,  # JSON, complete
        "training": pl.String,  # JSON, complete but for the trainer's own defaults
        "imbalance": pl.Float64,  # accepted share that the labels were balanced to; null: as collected
        "share": pl.Float64,  # accepted share of the labelled units; null: nothing is labelled
        "noise": pl.Float64,
        "shuffled": pl.Boolean,
        "reference": pl.Boolean,  # the suite's algorithm to compare with
        "seed": pl.Int32,
        "episode": pl.Int32,
        "layout": pl.String,
        "return": pl.Float64,
        "success": pl.Boolean,
        "length": pl.Int32,
        "kl": pl.Float64,  # of a language model's sample: log-ratio to the reference, nats; null for other tasks
        "token_kl": pl.Float64,  # exact KL(policy || reference), nats a token
        "reference_logp": pl.Float64,  # log-probability under the reference, nats a token
        "distinct": pl.Float64,  # different words / words
        "perplexity": pl.Float64,  # of the run, on held-out prose; null where its tokens cannot write that
        "reference_min": pl.Float64,  # the return that scores 0, and
        "reference_max": pl.Float64,  # 100; null where the dataset has no references
        "beta": pl.Float64,
        "beta_min": pl.Float64,  # the loss is bounded from here; null where the objective has no such bound
        "versions": pl.String,  # JSON
    }
)

DRIFT = ("kl", "token_kl", "reference_logp", "distinct", "perplexity")
"""The columns that only language models have."""


class Results:
    """The raw scores in an output directory."""

    def __init__(self, output: Path) -> None:
        """Name the directory; nothing is created before the first write."""
        self.output = output
        self.raw = output / "raw"

    def path(self, key: str) -> Path:
        """Return where the scores of this key are, once they are finished."""
        return self.raw / f"{key}.parquet"

    def checkpoint(self, key: str) -> Path:
        """Return where a cell may keep what it needs to go on after an interruption."""
        path = self.output / "checkpoints" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write(self, key: str, scores: pl.DataFrame) -> None:
        """Write one row's raw scores, whole or not at all."""
        self.raw.mkdir(parents=True, exist_ok=True)
        absent = [pl.lit(None, SCHEMA[name]).alias(name) for name in DRIFT if name not in scores.columns]
        frame = scores.with_columns(pl.lit(key).alias("key"), *absent).select(
            pl.col(name).cast(dtype) for name, dtype in SCHEMA.items()
        )
        write_whole(self.path(key), frame)

    def discard_checkpoint(self, key: str) -> None:
        """Remove what a cell kept, in whatever files: it is finished, or to be started again."""
        folder = self.checkpoint(key).parent
        for path in folder.glob(f"{key}*"):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        with contextlib.suppress(OSError):  # another cell's checkpoint may still be there
            folder.rmdir()

    def remove(self, key: str) -> None:
        """Forget the scores of a key."""
        self.path(key).unlink(missing_ok=True)

    def read(self, keys: Iterable[str] | None = None) -> pl.DataFrame:
        """Return the raw scores of some keys, or of all that there are.

        Raises:
            UserError: there are none.
            PmpoOfflineError: a file is not what was written.
        """
        # A key that is asked for twice, say by 2 and by a multiple that comes to 2, is one row of the table.
        paths = sorted(self.raw.glob("*.parquet")) if keys is None else [self.path(key) for key in dict.fromkeys(keys)]
        if not paths:
            raise UserError(f"{self.output}: no raw scores here; name the output directory of a `pmpo-offline bench`")
        return pl.concat([_read(path) for path in paths])


def write_whole(path: Path, frame: pl.DataFrame) -> None:
    """Write a frame as Parquet, whole or not at all."""
    with atomic_file(path) as scratch:
        frame.write_parquet(scratch)


def key(determinants: Mapping[str, Any]) -> str:
    """Return the short hash of what determines a result; `determinants` is JSON."""
    return hash_json(determinants)[:16]


def _read(path: Path) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(path, glob=False)
        # Files of before there were language models lack their columns.
        absent = [pl.lit(None, SCHEMA[name]).alias(name) for name in DRIFT if name not in frame.columns]
        return frame.with_columns(absent).select(SCHEMA.names())
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PmpoOfflineError(
            f"{path}: not readable as raw scores ({reason}); delete it and run bench again"
        ) from None
