"""A leaderboard that others can join: raw runs of checked submissions, from which alone its page is made.

```
<leaderboard>/<date>-<name>/entry.json      who and what: the files' hashes, commands, hardware
<leaderboard>/<date>-<name>/scores.parquet  the raw scores of all rows, as in a results folder
```
`submit` makes such a folder from a results folder; a pull request adds it. `pmpo-offline report <leaderboard>` makes
the table and the page. Equal rows of two submissions are one; other rows of an algorithm carry the submission's name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict

from pmpo_offline.benchmark.results import CONDITION, HARDWARE, Results, read_scores, write_scores
from pmpo_offline.build import is_built
from pmpo_offline.data import load_dataset
from pmpo_offline.runtime.arguments import validated
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.runtime.files import atomic_directory, read_json, write_json
from pmpo_offline.runtime.hashing import hash_file

ENTRY, SCORES = "entry.json", "scores.parquet"
LEAST_RUNS = 5
"""Training runs of every row."""
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,60}")
_LABELS = ["dataset", "imbalance", "balance", "noise"]
_HASHES = ["dataset_sha", "labels_sha"]
_SCORE = ["algo", "shuffled", "seed", "episode", "return"]


class Leaderboard(Results):
    """The submissions in a folder, read as the results of one benchmark."""

    @property
    def entries(self) -> dict[str, dict[str, Any]]:
        """The content of every entry.json by the folder's name, the oldest first; `PmpoOfflineError` if damaged."""
        return {path.parent.name: _entry(path) for path in sorted(self.output.glob(f"*/{ENTRY}"))}

    def read(self, keys: Any = None) -> pl.DataFrame:
        """Return the raw scores of all submissions.

        Raises:
            PmpoOfflineError: a file is damaged, or is not the one that was submitted.
        """
        merged: list[pl.DataFrame] = []
        for name, entry in self.entries.items():
            path = self.output / name / SCORES
            if not path.is_file() or hash_file(path) != entry["sha256"]:
                raise PmpoOfflineError(f"{path} is not the file that was submitted: take it from the repository again")
            merged.append(self._renamed(name, read_scores(path), merged))
        return pl.concat(merged)

    def commands(self) -> list[str]:
        """Return the commands of all submissions."""
        return list(dict.fromkeys(line for entry in self.entries.values() for line in entry["commands"]))

    def machines(self) -> list[str]:
        """Return the machines of all submissions."""
        return sorted({line for entry in self.entries.values() for line in entry["hardware"]})

    def _renamed(self, name: str, scores: pl.DataFrame, before: list[pl.DataFrame]) -> pl.DataFrame:
        """Leave out rows that are there already; mark other rows of an algorithm that is there with the submission."""
        known = pl.concat([scores.head(0), *before])
        # Keys of another version may differ where no score does.
        new = scores.join(known, on=[*CONDITION, *_SCORE], how="anti", nulls_equal=True)["key"].unique()
        scores = scores.filter(
            pl.col("key").is_in(new.implode()), ~pl.col("key").is_in(known["key"].unique().implode())
        )
        taken = scores.join(known, on=[*CONDITION, "algo"], how="semi", nulls_equal=True)["algo"].unique().implode()
        marked = pl.format("{} ({})", "algo", pl.lit(name))
        return scores.with_columns(algo=pl.when(pl.col("algo").is_in(taken)).then(marked).otherwise("algo"))


class _Data(BaseModel):
    """Labelled data that a submission learned from."""

    model_config = ConfigDict(strict=True)
    dataset: str
    imbalance: float | None
    balance: str
    noise: float
    dataset_sha: str
    labels_sha: str | None = None


class _Entry(BaseModel):
    """An entry.json."""

    model_config = ConfigDict(strict=True)
    name: str
    date: str
    by: str = ""
    link: str = ""
    algorithms: list[str]
    datasets: list[_Data]
    commands: list[str]
    hardware: list[str]
    sha256: str


def _entry(path: Path) -> dict[str, Any]:
    remedy = "take it from the repository again"
    try:
        return validated(_Entry, read_json(path, remedy), str(path)).model_dump()
    except UserError as error:
        raise PmpoOfflineError(f"{error}: {remedy}") from None


def results_in(folder: Path) -> Results:
    """Return the raw scores of a folder: of a benchmark, or of all submissions to a leaderboard."""
    return Leaderboard(folder) if any(folder.glob(f"*/{ENTRY}")) else Results(folder)


def submit(output: Path, leaderboard: Path, name: str, about: dict[str, str], home: Path | None = None) -> Path:
    """Check the results in a folder and add them to a leaderboard; return the new folder.

    Args:
        output: a results folder.
        leaderboard: the folder of submissions.
        name: of the submission: lower-case letters, digits, dots and hyphens.
        about: who submits and where more is to be read (`by`, `link`).
        home: where datasets are, whose hashes are compared.

    Raises:
        UserError: the name is malformed or taken, or the results do not fulfil what `problems` checks.
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"--name {name}: write lower-case letters, digits, dots and hyphens")
    results, now = Results(output), datetime.now(UTC)
    target = leaderboard / f"{now:%Y-%m-%d}-{name}"
    if target.exists():
        raise UserError(f"{target} exists already: choose another --name, or delete it")
    scores = results.read()
    found = [*dict.fromkeys(problems(scores, Leaderboard(leaderboard), home))]
    if found:
        more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
        raise UserError(f"{output} cannot be submitted: {'; '.join(found[:3])}{more}")
    with atomic_directory(target, ENTRY, "submission", overwrite=False) as folder:
        # Of the machines that ran it, not of the one that submits it.
        write_scores(folder / SCORES, scores, {HARDWARE: "; ".join(results.machines())})
        rows = scores.select("algo", "shuffled").unique(maintain_order=True).sort("algo", "shuffled")
        entry = {
            "name": name,
            "date": f"{now:%Y-%m-%d}",
            **about,
            "algorithms": rows.filter(~pl.col("shuffled"))["algo"].to_list(),
            "datasets": scores.select(*_LABELS, *_HASHES).unique(maintain_order=True).to_dicts(),
            "commands": results.commands(),
            "hardware": results.machines(),
            "sha256": hash_file(folder / SCORES),
        }
        write_json(folder / ENTRY, entry)
    return target


def problems(scores: pl.DataFrame, leaderboard: Leaderboard, home: Path | None = None) -> Iterator[str]:
    """Yield what is wrong with raw scores that are to be submitted, a line each.

    Every row has `LEAST_RUNS` runs or more with equally many episodes and finite returns; every condition has the
    suite's reference and a control on shuffled labels; one version of each package made all rows (language models have
    other packages than control); and the data are those of the leaderboard, or of the stored dataset of this id where
    the leaderboard has none with these labels.
    """
    made = {(name, str(version)) for text in scores["versions"].unique() for name, version in json.loads(text).items()}
    for package in sorted({name for name, _ in made}):
        if len(found := sorted(version for name, version in made if name == package)) > 1:
            yield f"its rows were made by {package} {' and '.join(found)}: run them again with one"
    wrong = scores.filter(~pl.col("return").is_finite().fill_null(False))
    if len(wrong):
        yield f"{len(wrong)} returns of {wrong['algo'][0]} are not numbers"
    runs = scores.group_by("key", "algo", "dataset", "seed", maintain_order=True).len()
    for (_, algo, dataset), own in runs.group_by(["key", "algo", "dataset"], maintain_order=True):
        if len(own) < LEAST_RUNS:
            yield f"{algo} on {dataset} has {len(own)} runs, and {LEAST_RUNS} are needed"
        if sorted(own["seed"]) != list(range(len(own))):
            yield f"{algo} on {dataset} lacks some of its seeds"
        if own["len"].n_unique() > 1:
            yield f"{algo} on {dataset} has runs with fewer episodes than others"
    for group, own in scores.group_by(CONDITION, maintain_order=True):
        if not own["shuffled"].any():
            yield f"{group[0]} has no control on shuffled labels: bench an algorithm that its suite shuffles"
        if not own.filter("reference", ~pl.col("shuffled"))["reference"].any():
            yield f"{group[0]} has no row of the suite's reference"
    yield from _other_data(scores, leaderboard, home)


def _other_data(scores: pl.DataFrame, leaderboard: Leaderboard, home: Path | None) -> Iterator[str]:
    """Yield which data are others: neither all content nor rows and labels alone have a known hash.

    Scores and candidates of a critic differ between processors; feedback is the labels.
    """
    known: dict[tuple[Any, ...], set[str]] = {}
    for entry in leaderboard.entries.values():
        for each in entry["datasets"]:
            own = {each[name] for name in _HASHES} - {None}
            known.setdefault(tuple(each[name] for name in _LABELS), set()).update(own)
    for *labels, sha, of_labels in scores.select(*_LABELS, *_HASHES).unique(maintain_order=True).iter_rows():
        dataset, share, balance, noise = labels
        hashes = known.get(tuple(labels))
        if hashes is None:
            if not is_built(dataset, home):
                yield f"{dataset} is not here to compare its hash with: pmpo-offline build-dataset {dataset}"
                continue
            asked = {"imbalance": "collected"} if share is None else {"imbalance": share, "balance": balance}
            built = load_dataset(dataset, **asked, noise=noise, home=home)
            hashes = {built.fingerprint, built.labels_hash}
        if not {sha, of_labels} & hashes:
            yield f"its data of {dataset} are others than those of this id (hash {sha[:12]}…, not {min(hashes)[:12]}…)"
