"""Files that trainings, benchmarks and leaderboards keep: sound ones of each kind, and the call that reads them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from helpers.raw_scores import raw_scores

from fuzz.imports import Target
from pmpo_offline.benchmark import curves, episodes, report
from pmpo_offline.benchmark.exports import listed
from pmpo_offline.benchmark.html.runs import did
from pmpo_offline.benchmark.leaderboard import Leaderboard, problems
from pmpo_offline.benchmark.results import Results
from pmpo_offline.benchmark.table import table
from pmpo_offline.data.columns import hash_tables
from pmpo_offline.runtime.files import write_json
from pmpo_offline.runtime.hashing import hash_file
from pmpo_offline.training import tracking

KEY, FAILED = "a" * 16, "b" * 16


def _run(folder: Path) -> None:
    """A finished run on a bandit, as `train` leaves it."""
    from pmpo_offline.build import build_dataset
    from pmpo_offline.training.run import Run, train_run

    dataset = build_dataset("bandit/sphere-v0", episodes=60, workers=1, home=folder / "home")
    train_run(Run(dataset, "bc", steps=1), folder / "run", folder / "home")


def _evaluated(folder: Path) -> str:
    from pmpo_offline.evaluation.options import EvaluationOptions
    from pmpo_offline.evaluation.runs import evaluate_run

    return str(evaluate_run(folder / "run", EvaluationOptions(episodes=2, workers=1), folder / "home")["return"])


def _metrics(folder: Path) -> None:
    file = tracking.MetricsFile(folder / tracking.FILE)
    for step in range(1, 6):
        file.record(step, {"loss": [1.0 / step, 2.0], "kl": [0.1, float("nan")]})


def _read_metrics(folder: Path) -> None:
    """Read a run's metrics and go on with them, as a training that resumes does."""
    path = folder / tracking.FILE
    tracking.read_metrics(path)
    file = tracking.MetricsFile(path)
    file.begin(3)
    file.record(4, {"loss": [0.5, 2.0], "kl": [0.1, 0.2]})


def _scores(folder: Path) -> None:
    Results(folder).write(KEY, raw_scores(KEY, [[1.0, 2.0], [3.0, 4.0]]), "m" * 64)


def _table(raw: pl.DataFrame) -> str:
    """Compute the table of raw scores; return a hash of them."""
    table(raw)
    return hash_tables({"raw": raw.to_arrow()})


def _results(folder: Path) -> None:
    """All that a benchmark leaves beside its raw scores."""
    _scores(folder)
    results = Results(folder)
    results.fail(FAILED, "dpo on test/line-v0", RuntimeError("why"))
    results.record("pmpo-offline bench quick")
    texts = {name: [0, 1] if name == "seed" else ["a", "β"] for name in episodes.ANSWERS if name != "return"}
    numbers = {"step": [[1, 4]], "reward": [[0.5, 1.0]], "action": [[0.1, 0.2]], "observation": [[1.0, 2.0, 3.0, 4.0]]}
    played = {"task": ["bandit/sphere"], "seed": [0], "episode": [1], "which": ["best"], "return": [2.0], **numbers}
    metrics = {"seed": [0, 0], "step": [10, 20], "loss": [0.5, np.nan]}
    tables = {"answers": texts, "curves": metrics, "episodes": pl.DataFrame(played, episodes.SCHEMA)}
    for name, content in tables.items():  # without a checksum, as earlier versions wrote them
        results.beside(name, KEY).parent.mkdir()
        pl.DataFrame(content).write_parquet(results.beside(name, KEY))
    write_json(folder / "report.json", {"title": "Small", "rows": [], "raw": "raw"})


def _reported(folder: Path) -> None:
    results = Results(folder)
    report.title_of(folder)
    results.failures(), results.commands(), results.machines(), results.model(KEY)
    raw = results.read()
    did([episodes.load_answers(results, raw), episodes.load(results, raw)], 4)
    curves.load(results, [KEY])


def _submissions(folder: Path) -> None:
    entry: dict[str, Any] = {
        "name": "one",
        "date": "2026-01-01",
        "algorithms": ["pmpo"],
        "commands": ["bench"],
        "hardware": ["a machine"],
        "by": "",
        "link": "",
        "datasets": [{"dataset": "test/line-v0", "imbalance": 0.1, "balance": "labels", "noise": 0.0}],
    }
    entry["datasets"][0] |= {"dataset_sha": "a" * 64, "labels_sha": None}
    for name in ("2026-01-01-one", "2026-01-02-two"):
        Results(folder / name).write(name, raw_scores(name, [[1.0, 2.0]] * 5), "m" * 64)
        scores = (folder / name / "raw" / f"{name}.parquet").rename(folder / name / "scores.parquet")
        shutil.rmtree(folder / name / "raw")
        (folder / name / "entry.json").write_text(json.dumps(entry | {"sha256": hash_file(scores)}))


def _submitted(folder: Path) -> str:
    board = Leaderboard(folder)
    board.commands(), board.machines(), listed(board)
    [*problems(board.read(), board, folder / "home")]
    return _table(board.read())


BENCHMARKS: dict[str, Target] = {
    "run": Target(_run, _evaluated, "run/*"),
    "metrics of a run": Target(_metrics, _read_metrics),
    "raw scores": Target(_scores, lambda folder: _table(Results(folder).read()), "raw/*"),
    "results": Target(_results, _reported, "**/*"),
    "leaderboard": Target(_submissions, _submitted, "*/*"),
}
