"""Raw scores, and the table that is computed from them.

```
<output>/raw/<key>.parquet     one row of the table, a record an evaluation episode; whole or absent
<output>/failed/<key>.json     the error of a row that could not be trained or evaluated; removed once it has scores
<output>/checkpoints/<key>…    a cell in training; removed once its scores are written
<output>/references/           reference policies that cells share
<output>/answers/<key>.parquet what language models answered to the first held-out prompts, beside stored answers
<output>/report.{md,json,png}  computed from raw/ alone
```
A key is the hash of everything that determines the scores (`suite.Job.determinants`).

A run's score is the mean over its evaluation episodes of 100 (return − min) / (max − min), with the dataset's reference
returns; without references it is the mean return itself, and `metric` says so. Rows state the interquartile mean over
runs with its 95 % interval (see `evaluation.statistics`), and compare it with the better of the filtered clones of the
same data, because a method is worth something where it beats that.

Language models can earn reward with useless texts, so their rows also state the drift from the reference model, as
means over samples (`evaluation.language.drift`), and whether they collapsed:

    kl               nats a sample, the sum of the exact divergences at its tokens
    distinct         different words among a sample's words; collapsed below half of the reference row's
    reference_logp   nats a token; collapsed below twice the reference row's, where its perplexity is the square
    perplexity       of the trained model on held-out prose
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import platform
import shutil
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, cast

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pmpo_offline.benchmark import provenance
from pmpo_offline.data.columns import hash_tables
from pmpo_offline.data.opening import open_parquet
from pmpo_offline.evaluation.rollouts import normalized
from pmpo_offline.evaluation.statistics import Estimate, estimate, holm, probability_of_improvement
from pmpo_offline.objectives.stability import Regime, regime
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError, reason_of
from pmpo_offline.runtime.files import atomic_file, claim, from_json, read_json, write_json
from pmpo_offline.runtime.machine import hardware
from pmpo_offline.training.config import has_diverged

SCHEMA = pl.Schema(
    {
        "key": pl.String,
        "dataset": pl.String,
        "dataset_sha": pl.String,  # of the content that was learned from, labels included
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
_LATER = {"balance": pl.lit("labels"), "filtered": pl.col("algo").is_in(FILTERED), "beta_collapse": pl.lit(None)}
"""Columns that older files lack."""
TRAINING = ("reach", "loss")
"""The columns that only control has: what the training of a run ended with."""
DRIFT = ("kl", "token_kl", "reference_logp", "distinct", "perplexity")
"""The columns that only language models have."""


Row = dict[str, Any]
"""A row of the table; its keys are documented in `table`."""
CONTROL = " (shuffled)"
CONDITION = ["dataset", "dataset_sha", "imbalance", "balance", "noise"]
REPEATING = 0.5
"""A policy with less than this share of the reference row's different words repeats a few of them."""
GARBAGE = 2.0
"""A policy has left the language if its texts cost the reference model more than this multiple of its own nats."""
_EPISODE = ("seed", "episode", "layout", "return", "success", "length", *DRIFT, *TRAINING)
_MODEL = "base model"
"""Metadata of a file of raw scores: the content hash of the model that training started from."""
HARDWARE = "hardware"
"""Metadata of a file of raw scores: the machine that computed them."""
ANSWERS = ("seed", "prompt", "accepted", "rejected", "learned")
"""Columns of answers: a held-out prompt, the stored answers that were accepted and rejected, and what a run wrote."""
_SEAL = "sha256"
"""Metadata of a file of raw scores: a hash of all its columns. Older files have none."""


@dataclass(frozen=True)
class Failure:
    """Why a row of the table has no scores."""

    title: str
    error: str
    is_request: bool
    """Whether it was a `UserError`: what was asked for is impossible."""

    def __str__(self) -> str:
        return f"{self.title}: {self.error}"


class Results:
    """The raw scores in an output directory."""

    def __init__(self, output: Path) -> None:
        """Name the directory; nothing is created before the first write."""
        self.output = output
        self.raw = output / "raw"

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
        if {*ANSWERS} <= {*scores.columns}:
            with atomic_file(self.answers_path(key)) as scratch:
                scores.select(ANSWERS).filter(pl.col("learned").is_not_null()).write_parquet(scratch)
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
        return [path for path in (self.path(key), self.answers_path(key), self._failed(key)) if path.exists()]

    def answers_path(self, key: str) -> Path:
        """Return the file of the answers of a key's language models; controls have none."""
        return self.output / "answers" / f"{key}.parquet"

    def answers(self, key: str) -> pl.DataFrame | None:
        """Return the answers of a key's language models (`ANSWERS`), None without any or of a damaged file."""
        try:
            return pl.DataFrame(pl.from_arrow(pq.read_table(self.answers_path(key), columns=[*ANSWERS])))
        except (pa.ArrowException, OSError, ValueError, KeyError):
            return None

    def commands(self) -> list[str]:
        """Return the commands that wrote into the folder; older folders do not record them."""
        return provenance.commands(self.output)

    def machines(self) -> list[str]:
        """Return the machines that computed the raw scores; older files do not record theirs."""
        found = {_facts(pq.read_metadata(path)).get(HARDWARE) for path in sorted(self.raw.glob("*.parquet"))}
        return sorted(filter(None, found))

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
        path = self.output / "checkpoints" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    @contextlib.contextmanager
    def claim(self, name: str, *, wait: bool) -> Iterator[bool]:
        """Hold the right to train some rows, as `files.claim`: several benchmarks may write into one folder."""
        with claim(self.checkpoint(name), wait=wait) as held:
            yield held
        with contextlib.suppress(OSError):  # others may be at work
            (self.output / "checkpoints").rmdir()

    def discard_checkpoint(self, key: str) -> None:
        """Remove everything that a cell kept: it is finished, or to be started again."""
        folder = self.checkpoint(key).parent
        for path in folder.glob(f"{key}*"):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        with contextlib.suppress(OSError):  # another cell's checkpoint may still be there
            folder.rmdir()


def table(raw: pl.DataFrame) -> list[Row]:
    """Return the rows of the table, each condition's reference first, then by algorithm and settings.

    Keys of a row: `dataset, algo, settings, imbalance, balance, noise, seeds, metric, iqm, low, high, mean`, and beside
    them `share` (accepted share achieved), `success`, `return`, `episodes` (a run), `shuffled`, `reference`,
    `filtered`; `compared` (the name of what a row is compared with: of the filtered clones of its data the one of the
    higher IQM, else the reference; None for that row itself and where neither is), `improvement` (`[estimate, low,
    high]` of the probability that a run beats one of that), `margin` (the same of the difference of their IQMs) and
    `p_value` (of no difference, corrected for the number of rows); `beta`, `beta_min`, `beta_collapse`, `bounded` (None
    where no bound applies), `regime` (`stability.Regime`, None where it is not known), `diverged` (runs whose actions
    or loss left all bounds), `training`, `dataset_sha`, `versions`, `key`; and `kl`, `distinct`, `reference_logp`,
    `perplexity`, `collapsed` (None for what is no language model; the last also without a reference to compare with).
    Two may be infinite, which report.json and `--json` write as null: a `beta_min` that no β meets (`bounded` is then
    false, and null where no bound applies), and the `perplexity` of logits that have exploded (tables print inf, and a
    dash where the tokens cannot write prose).
    """
    rows = []
    for condition in runs(raw).partition_by(CONDITION):
        arms = [Arm(arm, estimate([arm["score"]])) for arm in condition.partition_by("key", maintain_order=True)]
        reference = condition.filter(pl.col("reference") & ~pl.col("shuffled"))
        against = _against(arms)
        rows += [_row(arm, against) | _drift(arm.runs, reference) for arm in arms]
    compared = [row for row in rows if row["p_value"] is not None]
    for row, corrected in zip(compared, holm([row["p_value"] for row in compared]), strict=True):
        row["p_value"] = corrected
    return sorted(rows, key=_order)


@dataclass(frozen=True)
class Arm:
    """The runs of one row of the table."""

    runs: pl.DataFrame
    iqm: Estimate

    @property
    def first(self) -> dict[str, Any]:
        """The first of the runs: what is equal in all of them."""
        return self.runs.row(0, named=True)


def _against(arms: Sequence[Arm]) -> Arm | None:
    """Return what the rows of a condition are compared with: the better filtered clone, else the reference, if any."""
    plain = [arm for arm in arms if not arm.first["shuffled"]]
    filtered = [arm for arm in plain if arm.first["filtered"]]
    return max(
        filtered or [arm for arm in plain if arm.first["reference"]], key=lambda arm: arm.iqm.value, default=None
    )


def runs(raw: pl.DataFrame) -> pl.DataFrame:
    """Return one record a training run, its score the mean over episodes."""
    scaled = normalized(pl.col("return"), pl.col("reference_min"), pl.col("reference_max"))
    score = pl.when(scaled.is_null()).then(pl.col("return")).otherwise(scaled)
    per_row = [name for name in raw.columns if name not in _EPISODE]
    return (
        raw.sort("key", "seed", "episode")  # sums and resampling in one order, whatever order the files were read in
        .with_columns(score=score)
        .group_by(*per_row, "seed", maintain_order=True)
        .agg(
            pl.col("score", "return", "success", "distinct", "reference_logp", "perplexity").mean(),
            # A sample without a token has no divergence a token, and a log-ratio of 0.
            (pl.col("token_kl") * pl.col("length")).fill_null(pl.col("kl")).mean().alias("kl"),
            pl.col(TRAINING).first(),
            episodes=pl.len(),
        )
    )


def _row(arm: Arm, against: Arm | None) -> Row:
    """Return one row from its runs and those of what it is compared with."""
    first, scores = arm.first, arm.runs["score"]
    compared: Row = dict.fromkeys(("compared", "improvement", "margin", "p_value"))
    if against is not None and against is not arm:
        margin = arm.iqm - against.iqm
        compared = {
            "compared": against.first["algo"],
            "improvement": [*astuple(probability_of_improvement([scores], [against.runs["score"]]))],
            "margin": [*astuple(margin.interval)],
            "p_value": margin.p_value,
        }
    beta, beta_min = first["beta"], first["beta_min"]
    return {
        "dataset": first["dataset"],
        "algo": first["algo"] + (CONTROL if first["shuffled"] else ""),
        "settings": json.loads(first["settings"]),
        "imbalance": first["imbalance"],
        "balance": first["balance"],
        "noise": first["noise"],
        "seeds": len(scores),
        "metric": "return" if first["reference_max"] is None else "normalized_score",
        **dict(zip(("iqm", "low", "high"), astuple(arm.iqm.interval), strict=True)),
        "mean": scores.mean(),
        "success": arm.runs["success"].mean(),
        "return": arm.runs["return"].mean(),
        **compared,
        "beta": beta,
        "beta_min": beta_min,
        "beta_collapse": first["beta_collapse"],
        "bounded": None if beta is None or beta_min is None else beta >= beta_min,
        "regime": _regime(beta, beta_min, first["beta_collapse"]),
        "diverged": sum(has_diverged(*ended) for ended in arm.runs.select(TRAINING).iter_rows()),
        "share": first["share"],
        "episodes": first["episodes"],
        "shuffled": first["shuffled"],
        "reference": first["reference"],
        "filtered": first["filtered"],
        "training": json.loads(first["training"]),
        "versions": json.loads(first["versions"]),
        "dataset_sha": first["dataset_sha"],
        "key": first["key"],
    }


def _regime(beta: float | None, bound: float | None, collapse: float | None) -> Regime | None:
    """Return the regime of β; None where no bound applies, and below it in older files, which lack the threshold."""
    if beta is None or bound is None or (collapse is None and beta < bound < math.inf):
        return None
    return regime(beta, bound, collapse)


def _drift(arm: pl.DataFrame, reference: pl.DataFrame) -> Row:
    """Return what only language models have, None for the others."""
    means = pl.col("kl", "distinct", "reference_logp", "perplexity").mean()
    drift, usual = (frame.select(means).row(0, named=True) for frame in (arm, reference))
    below = [
        drift[name] < factor * usual[name]
        for name, factor in (("distinct", REPEATING), ("reference_logp", GARBAGE))
        if drift[name] is not None and usual[name] is not None
    ]
    return {**drift, "collapsed": any(below) if below else None}


def _order(row: Row) -> tuple[Any, ...]:
    condition = row["dataset"], row["imbalance"] is None, row["imbalance"] or 0.0, row["balance"], row["noise"]
    # Numbers sort as numbers; a setting that is a name in one row is a name in every row of its algorithm.
    return (*condition, not row["reference"], row["algo"], [*row["settings"].values()], row["key"])


def write_scores(path: Path, scores: pl.DataFrame, facts: Mapping[str, str] | None = None) -> None:
    """Write raw scores, whole or absent, with their checksum, this machine and other facts about them."""
    write_sealed(path, _complete(scores).cast(SCHEMA), {HARDWARE: hardware(), **(facts or {})})


def write_sealed(path: Path, scores: pl.DataFrame, facts: Mapping[str, str]) -> None:
    """Write scores with facts and a checksum, whole or absent; `OSError` if the disk refuses."""
    content = io.BytesIO()  # Polars' own errors of a full disk are no OSError
    scores.write_parquet(content, metadata={_SEAL: _seal(scores), **facts})
    with atomic_file(path) as scratch:
        scratch.write_bytes(content.getbuffer())


def read_sealed(path: Path) -> pl.DataFrame:
    """Read what `write_sealed` wrote; `PmpoOfflineError` if it is damaged. Older files have no checksum."""
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
        return scores


def _unsealed(path: Path) -> pl.DataFrame:
    # Not by Polars, which can end the whole process on a damaged file.
    with open_parquet(path) as file:
        stored, seal = file.read(), _facts(file.metadata).get(_SEAL)
    stored.validate(full=True)
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
