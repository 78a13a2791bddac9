"""The keys of results that were committed stay what they are: nobody should have to run them again."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest

from pmpo_offline.benchmark import job
from pmpo_offline.benchmark.suite import Cell, Condition
from pmpo_offline.declarations import catalog

RAW = Path(__file__).parents[2] / "benchmarks" / "results" / "control" / "raw"


def rows() -> list[dict[str, object]]:
    columns = ["dataset", "dataset_sha", "algo", "settings", "shuffled", "reference_min", "reference_max", "versions"]
    raw = pl.concat([pl.read_parquet(path, columns=["key", "seed", *columns]) for path in RAW.glob("*.parquet")])
    runs = raw.group_by("key", *columns).agg(seeds=pl.col("seed").n_unique(), records=pl.len())
    return runs.sort("key").to_dicts()


def test_committed_rows_of_control_are_found_under_their_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    found = rows()
    assert len(found) > 100
    for row in found:
        references = None
        if row["reference_max"] is not None:
            references = SimpleNamespace(min=row["reference_min"], max=row["reference_max"])
        cell = Cell(
            Condition(row["dataset"], None, None),
            catalog.algorithm(row["algo"], "control"),
            settings=(),
            shuffled=row["shuffled"],
            reference=False,
        )
        seeds = row["seeds"]
        sizes = {"seeds": seeds, "episodes": row["records"] // seeds}
        labels = SimpleNamespace(accepted=101_634, rejected=98_365, unlabelled=1)  # a tie, as control's sets may have
        metadata = SimpleNamespace(references=references, kind="transitions", counts=labels, candidates=None)
        dataset = SimpleNamespace(metadata=metadata)
        each = job.Job(
            catalog.revise(catalog.suite("control"), "test", sizes), cell, dataset, content=row["dataset_sha"]
        )
        # As installed when they were made; another version of ours or of torch would be another key, and rightly so.
        monkeypatch.setattr(job.Job, "versions", json.loads(row["versions"]))
        assert job.key(each.determinants(json.loads(row["settings"]))) == row["key"]
