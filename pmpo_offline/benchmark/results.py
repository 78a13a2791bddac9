"""The store of raw scores: a folder of Parquet files, and how they were made.

```
<output>/raw/<key>.parquet     one row of the table, a record an evaluation episode; whole or absent
<output>/failed/<key>.json     the error of a row that could not be trained or evaluated; removed once it has scores
<output>/checkpoints/<key>…    a cell in training; removed once its scores are written
<output>/references/           reference policies that cells share
<output>/commands.txt          a `pmpo-offline bench` a line, each once, in the order of their first run
<output>/curves/<key>.parquet  metrics over updates (`curves`)
<output>/episodes/<key>.parquet, <output>/answers/<key>.parquet
                               some evaluation episodes of every run, or answers of language models (`episodes`)
<output>/report.{md,json,png}  computed from raw/ alone
```
A key is the hash of everything that determines the scores (`suite.Job.determinants`).
"""

from __future__ import annotations

import contextlib
import io
import platform
import shutil
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pmpo_offline.data.columns import hash_tables
from pmpo_offline.data.opening import open_parquet
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError, reason_of, refusal
from pmpo_offline.runtime.files import atomic_file, claim, file_lock, from_json, read_json, write_json
from pmpo_offline.runtime.machine import hardware

SCHEMA = pl.Schema(
    {
        "key": pl.String,
        "dataset": pl.String,
        "dataset_sha": pl.String,  # of the content that was learned from, labels included
        "labels_sha": pl.String,  # of rows and labels alone, without a critic's scores and candidates
        "labels_here": pl.Boolean,  # a critic on this machine gave the labels: elsewhere they may differ
        "algo": pl.String,
        "settings": pl.String,  # JSON, complete
        "training": pl.String,  # JSON, complete but for the trainer's own defaults
        "imbalance": pl.Float64,  # accepted share that the labels were balanced to; null: as collected
        "balance": pl.String,  # what was dropped for that: labels or rows
        "share": pl.Float64,  # accepted share of the labelled units; null: nothing is labelled
        "noise": pl.Float64,
        "shuffled": pl.Boolean,
        "reference": pl.Boolean,  # the suite's algorithm to compare with
        "filtered": pl.Boolean,  # one of the suite's clones of filtered data
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
        "beta_collapse": pl.Float64,  # a policy over outcomes collapses down from here; null where that is not known
        "reach": pl.Float64,  # of a control run: its largest mean action at the end, over the largest recorded one
        "loss": pl.Float64,  # of a control run: its last one
        "versions": pl.String,  # JSON
    }
)

FILTERED = ("bc-accepted", "bc-unrejected")
"""The filtered clones by name, for older scores, which do not say whether they are of one."""
_LATER = {
    "balance": pl.lit("labels"),
    "filtered": pl.col("algo").is_in(FILTERED),
    **dict.fromkeys(("beta_collapse", "labels_sha", "labels_here"), pl.lit(None)),
}
"""Columns that older files lack."""
TRAINING = ("reach", "loss")
"""The columns that only control has: what the training of a run ended with."""
DRIFT = ("kl", "token_kl", "reference_logp", "distinct", "perplexity")
"""The columns that only language models have."""
CONDITION = ["dataset", "dataset_sha", "imbalance", "balance", "noise"]
"""The columns that say on which data a row was learned."""
COMMANDS = "commands.txt"
_MODEL = "base model"
"""Metadata of a file of raw scores: the content hash of the model that training started from."""
HARDWARE = "hardware"
"""Metadata of a file of raw scores: the machine that computed them."""
BESIDE = ("answers", "curves", "episodes")
"""Folders of tables that reports show beside the scores; a row may have none."""
_SEAL = "sha256"
"""Metadata of a file: a hash of all its columns. Older files have none."""


@dataclass(frozen=True)
class Failure:
    """Why a row of the table has no scores."""

    title: str
    error: str
    is_request: bool
    """Whether it was a `UserError`: what was asked for is impossible."""

    def __str__(self) -> str:
        return f"{self.title}: {self.error}"

    @property
    def exception(self) -> PmpoOfflineError:
        """The error again."""
        return (UserError if self.is_request else PmpoOfflineError)(self.error)


class Results:
    """The raw scores in an output directory."""

    def __init__(self, output: Path) -> None:
        """Name the directory; nothing is created before the first write."""
        self.output = output
        self.raw = output / "raw"
        self.checkpoints = output / "checkpoints"

    def path(self, key: str) -> Path:
        """Return the file of this key's scores; it exists once they are finished."""
        return self.raw / f"{key}.parquet"

    def model(self, key: str) -> str | None:
        """Return the content hash of the model that a key's scores started from; None if they do not record one."""
        with contextlib.suppress(pa.ArrowException, OSError):  # damage is reported by `read`
            return _facts(pq.read_metadata(self.path(key))).get(_MODEL)
        return None

    def write(self, key: str, scores: pl.DataFrame, model: str | None = None) -> None:
        """Write one row's raw scores, whole or absent, with the content hash of the base model, if any."""
        write_scores(self.path(key), scores.with_columns(key=pl.lit(key)), {} if model is None else {_MODEL: model})
        self.discard_failure(key)

    def fail(self, key: str, title: str, error: Exception) -> None:
        """Record that a row could not be trained or evaluated; whole or absent."""
        ours = isinstance(error, PmpoOfflineError)
        content = {
            "title": title,
            "error": str(error) if ours else f"{type(error).__name__}: {reason_of(error)}",
            "request": isinstance(error, UserError),
            "traceback": None if ours else traceback.format_exception(error),
            "host": platform.node(),
        }
        write_json(self._failed(key), content)

    def failure(self, key: str) -> Failure | None:
        """Return why a row has no scores; None if it has, or was not run yet."""
        path = self._failed(key)
        if self.path(key).exists() or not path.exists():
            return None
        content = read_json(path)
        return Failure(str(content.get("title")), str(content.get("error")), bool(content.get("request")))

    def failures(self) -> list[Failure]:
        """Return all recorded failures of rows without scores."""
        found = [self.failure(path.stem) for path in sorted((self.output / "failed").glob("*.json"))]
        return [failure for failure in found if failure is not None]

    def discard_failure(self, key: str) -> None:
        """Forget a failure: the row is to be run again, or has scores."""
        with contextlib.suppress(OSError):  # there is none, or other failures are still there
            self._failed(key).unlink()
            self._failed(key).parent.rmdir()

    def _failed(self, key: str) -> Path:
        return self.output / "failed" / f"{key}.json"

    def is_settled(self, key: str) -> bool:
        """Return whether a row has scores or has failed."""
        return self.path(key).exists() or self._failed(key).exists()

    def files(self, key: str) -> list[Path]:
        """Return the files that hold what is known of a row, those that exist."""
        paths = (self.path(key), *(self.beside(folder, key) for folder in BESIDE), self._failed(key))
        return [path for path in paths if path.exists()]

    def beside(self, folder: str, key: str) -> Path:
        """Return the file of a row's table in one of the folders `BESIDE`."""
        return self.output / folder / f"{key}.parquet"

    def write_beside(self, folder: str, key: str, table: pl.DataFrame) -> None:
        """Write a table that reports show, whole or absent."""
        write_sealed(self.beside(folder, key), table, {})

    def read_beside(
        self, folder: str, keys: Iterable[str], form: Callable[[pl.DataFrame], pl.DataFrame]
    ) -> dict[str, pl.DataFrame]:
        """Return the tables of rows by key, of those that have one: `form` casts them, or raises an error of Polars.

        Damaged and other tables are left out.
        """
        found = {}
        for key in keys:
            with contextlib.suppress(PmpoOfflineError, pl.exceptions.PolarsError):
                found[key] = form(read_sealed(self.beside(folder, key)))
        return found

    def commands(self) -> list[str]:
        """Return the commands that wrote into the folder; older folders do not record them."""
        path = self.output / COMMANDS
        return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []

    def record(self, command: str) -> None:
        """Add a command to those of the folder, unless it is among them."""
        self.output.mkdir(parents=True, exist_ok=True)
        with file_lock(self.output):
            known = self.commands()
            if command not in known:
                with atomic_file(self.output / COMMANDS) as scratch:
                    scratch.write_text("".join(f"{line}\n" for line in [*known, command]), encoding="utf-8")

    def machines(self) -> list[str]:
        """Return the machines that computed the raw scores; older files do not record theirs.

        Raises `PmpoOfflineError` if a file is damaged.
        """
        found: set[str] = set()
        for path in sorted(self.raw.glob("*.parquet")):
            with _readable(path):
                found.add(_facts(pq.read_metadata(path)).get(HARDWARE, ""))
        return sorted(found - {""})

    def read(self, keys: Iterable[str] | None = None) -> pl.DataFrame:
        """Return the raw scores of some keys, or all.

        Raises:
            UserError: there are none.
            PmpoOfflineError: a file is damaged.
        """
        # A key given twice, say by 2 and by a multiple that comes to 2, is one row of the table.
        paths = sorted(self.raw.glob("*.parquet")) if keys is None else [self.path(key) for key in dict.fromkeys(keys)]
        if not paths:
            raise UserError(f"{self.output}: no raw scores here; name the output directory of a `pmpo-offline bench`")
        return pl.concat([read_scores(path) for path in paths])

    def checkpoint(self, key: str) -> Path:
        """Return where a cell may keep what it needs to continue after an interruption."""
        path = self.checkpoints / key
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PmpoOfflineError(refusal(path.parent, error, "name another output")) from None
        return path

    @contextlib.contextmanager
    def claim(self, name: str, *, wait: bool) -> Iterator[bool]:
        """Hold the right to train some rows, as `files.claim`: several benchmarks may write into one folder."""
        with claim(self.checkpoint(name), wait=wait) as held:
            yield held
        with contextlib.suppress(OSError):  # others may be at work
            self.checkpoints.rmdir()

    def discard_checkpoint(self, key: str) -> None:
        """Remove everything that a cell kept: it is finished, or to be started again."""
        folder = self.checkpoint(key).parent
        for path in (*folder.glob(f"{key}*"), *folder.glob(f".{key}*.tmp")):  # the latter of killed processes
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        with contextlib.suppress(OSError):  # another cell's checkpoint may still be there
            folder.rmdir()


def write_scores(path: Path, scores: pl.DataFrame, facts: Mapping[str, str]) -> None:
    """Write raw scores, whole or absent, with their checksum, this machine and other facts about them."""
    write_sealed(path, _complete(scores).cast(SCHEMA), {HARDWARE: hardware(), **facts})


def write_sealed(path: Path, scores: pl.DataFrame, facts: Mapping[str, str]) -> None:
    """Write scores with facts and a checksum, whole or absent; `OSError` if the disk refuses."""
    content = io.BytesIO()  # Polars' own errors of a full disk are no OSError
    scores.write_parquet(content, metadata={_SEAL: _seal(scores), **facts})
    with atomic_file(path) as scratch:
        scratch.write_bytes(content.getbuffer())


def read_sealed(path: Path) -> pl.DataFrame:
    """Read what `write_sealed` wrote, or a file without a checksum; `PmpoOfflineError` if it is damaged."""
    with _readable(path):
        return _unsealed(path)


def read_scores(path: Path) -> pl.DataFrame:
    """Read a file of raw scores; `PmpoOfflineError` if it is damaged."""
    with _readable(path):
        scores = _complete(_unsealed(path))
        for column in ("settings", "training", "versions"):
            for text in scores[column].unique():
                if not isinstance(from_json(text), dict):
                    raise ValueError(f"{column} holds {text[:40]!r}")
        for column in ("dataset", "algo"):
            for name in scores[column].unique():
                if not name.isprintable():  # it could take over a terminal, or a row of the table
                    raise ValueError(f"{column} holds {name[:40]!r}")
        return scores


def _unsealed(path: Path) -> pl.DataFrame:
    # Not by Polars, which can end the whole process on a damaged file.
    with open_parquet(path) as file:
        stored, seal = file.read(), _facts(file.metadata).get(_SEAL)
    stored.validate(full=True)
    if odd := [field.name for field in stored.schema if pa.types.is_struct(field.type)]:
        raise TypeError(f"{odd[0][:40]!r} holds objects")
    scores = cast(pl.DataFrame, pl.from_arrow(stored))
    if seal not in (None, _seal(scores)):
        raise OSError("its checksum is wrong")
    return scores


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (
        pl.exceptions.PolarsError,
        pl.exceptions.PanicException,
        pa.ArrowException,
        OSError,
        ValueError,
        TypeError,
    ) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise PmpoOfflineError(
            f"{path}: not readable as raw scores ({reason}); delete it and run bench again"
        ) from None


def _facts(metadata: pq.FileMetaData) -> dict[str, str]:
    return {
        name.decode(errors="replace"): value.decode(errors="replace")
        for name, value in (metadata.metadata or {}).items()
    }


def _seal(scores: pl.DataFrame) -> str:
    return hash_tables({"scores": scores.to_arrow()})


def _complete(scores: pl.DataFrame) -> pl.DataFrame:
    """Return the columns in their order, with those that older files lack; drift is null but for language models."""
    later = {name: pl.lit(None) for name in (*DRIFT, *TRAINING)} | _LATER
    absent = [column.cast(SCHEMA[name]).alias(name) for name, column in later.items() if name not in scores.columns]
    return scores.with_columns(absent).select(SCHEMA.names())
