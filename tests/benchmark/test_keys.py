"""Committed results are found by `bench`: their keys stay what they are, and nothing has to be run again."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from pmpo_offline.benchmark.suite import Cell, Condition, Job, expand
from pmpo_offline.build import build_dataset
from pmpo_offline.declarations import OBJECTIVES, catalog

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
FOLDERS = {
    "control": "control",
    "control-ends": "control-ends",
    "stacking": "stacking",
    "quick": "quick",
    "language": "language/suite",
}
"""The folder of each suite's committed results."""
MODELS = {"language/tiny-v0": "tiny", "language/sentiment-v0": "smollm2-135m-instruct"}


def committed(folder: str) -> list[dict[str, Any]]:
    """Return the rows of a table with what their keys depend on, from the raw scores."""
    columns = ["key", "dataset", "dataset_sha", "algo", "settings", "training", "imbalance", "shuffled", "versions"]
    columns += ["reference_min", "reference_max"]
    raw = pl.concat(
        [pl.read_parquet(path, columns=[*columns, "seed"]) for path in RESULTS.glob(f"{folder}/raw/*.parquet")]
    )
    return raw.group_by(columns).agg(seeds=pl.col("seed").n_unique(), records=pl.len()).sort("key").to_dicts()


recipe = cache(catalog.dataset)


@cache
def algorithm_of(name: str, dataset: str) -> catalog.AlgorithmDeclaration:
    return catalog.algorithm(name, catalog.family(recipe(dataset).task))


def dataset(row: dict[str, Any]) -> SimpleNamespace:
    """Return as much of a row's dataset as its key depends on."""
    kind = recipe(row["dataset"]).kind
    references = None
    if row["reference_max"] is not None:
        references = SimpleNamespace(min=row["reference_min"], max=row["reference_max"])
    # Balancing drops labels; as collected, all units are labelled but for ties.
    counts = SimpleNamespace(accepted=101_634, rejected=98_365, unlabelled=1 if row["imbalance"] is None else 200_000)
    metadata = SimpleNamespace(
        references=references,
        kind=kind,
        counts=counts,
        candidates=None,
        provenance=SimpleNamespace(settings={"model": MODELS.get(row["dataset"])}),
    )
    return SimpleNamespace(metadata=metadata, fingerprint=row["dataset_sha"])


@pytest.mark.parametrize("suite", [*FOLDERS])
def test_committed_rows_are_found_under_their_keys(suite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    declared = catalog.suite(suite)
    rows = committed(FOLDERS[suite])
    assert len(rows) >= 4
    for row in rows:
        changes = {"seeds": row["seeds"], "episodes": row["records"] // row["seeds"], "updates": None}
        changes["training"] = json.loads(row["training"])
        algorithm = algorithm_of(row["algo"], row["dataset"])
        if suite == "stacking" and not row["shuffled"]:
            # From before stacking had hyperparameters of its own: `bench` would run these again.
            algorithm = algorithm.model_copy(update={"family": "control"})
        condition = Condition(row["dataset"], None, None)
        cell = Cell(condition, algorithm, settings=(), shuffled=row["shuffled"], reference=False)
        job = Job(catalog.revise(declared, "test", changes), cell, dataset(row))  # type: ignore[arg-type]
        # As installed when they were made: other versions of ours or of torch rightly have other keys.
        monkeypatch.setattr(Job, "versions", json.loads(row["versions"]))
        # An objective of a later revision trains differently: its rows are run again.
        is_current = not OBJECTIVES[algorithm.objective].version
        assert (job.key(json.loads(row["settings"])) == row["key"]) == is_current


def test_committed_rows_of_bandits_are_found_from_their_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels, shares, bounds on β and controls are part of the keys, and computed again here."""
    rows = committed("bandits/offline")
    monkeypatch.setattr(Job, "versions", json.loads(rows[0]["versions"]))
    suite = catalog.revise(catalog.suite("bandit"), "test", {"datasets": ["bandit/sphere-v0"]})
    cells = expand(suite, {"bandit/sphere-v0": "bandit"})
    whole = build_dataset("bandit/sphere-v0", home=tmp_path)
    found = {
        key for cell in cells for key in Job(suite, cell, whole.relabelled(imbalance=cell.condition.imbalance)).rows
    }
    assert len(found) == 26
    rows = [row for row in rows if row["dataset"] == "bandit/sphere-v0"]
    revised = {row["key"] for row in rows if OBJECTIVES[algorithm_of(row["algo"], row["dataset"]).objective].version}
    assert len(revised) == 2  # of BCO, at two shares
    assert len(found & {row["key"] for row in rows}) == 24
    assert not found & revised
