"""Does the suggested α and β beat the fixed default? PMPO on four bandits, over coverage, balance and flips of labels.

$ python -m benchmarks.experiments.suggestion.run

writes raw.parquet and README.md. The rule (`training.suggestion`) was derived, not fitted: no setting of it was chosen
on these runs. Beside it: α = ½ and 1.05 times the bound of clean labels, on the whole data and in minibatches.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.experiments import labellings, shared
from pmpo_offline.build import build_dataset
from pmpo_offline.data import Dataset, columns
from pmpo_offline.declarations import catalog
from pmpo_offline.evaluation import evaluate
from pmpo_offline.training import Setup, TrainingSettings
from pmpo_offline.training.config import hyperparameters
from pmpo_offline.training.suggestion import MARGIN, suggest, suggest_beta

OUT = shared.RESULTS / "suggestion"
DATASETS = ("bandit/sphere-v0", "bandit/rosenbrock-v0", "bandit/schwefel-v0", "bandit/gmm-v0")
COVERAGE, FLIPS, SHARES, SEEDS = (1.0, 0.3, 0.003), (0.0, 0.1, 0.25), (None, 0.2), (0, 1, 2)
FIXED, MINIBATCH, SUGGESTED = "α ½, 1.05 × bound", "α ½, 1.05 × bound in minibatches", "suggested"
PMPO = catalog.algorithm("pmpo", "bandit")
ROWS = hyperparameters(PMPO, {}, TrainingSettings).batch


def described(dataset: Dataset, labelled: labellings.Labelled, flips: float, dropped: tuple[int, int]) -> Dataset:
    """Return the dataset with these labels, and the metadata that a dataset with them has."""
    label = labelled.label.numpy().astype(np.int8)
    accepted, rejected = int((label > 0).sum()), int((label < 0).sum())
    counts = {"accepted": accepted, "rejected": rejected, "unlabelled": len(label) - accepted - rejected}
    kept = (accepted + rejected + sum(dropped)) / len(label)
    balance = {"dropped_accepted": dropped[0], "dropped_rejected": dropped[1]}
    changed: dict[str, Any] = {
        "noise": flips,
        "counts": dataset.metadata.counts.model_copy(update=counts),
        "imbalance": dataset.metadata.imbalance.model_copy(update=balance),
        "reject_mass": (rejected + dropped[1]) / len(label),
        "labelled_reject_mass": rejected / len(label),
        "reject_share": rejected / max(1, accepted + rejected),
    }
    assert 0 < kept <= 1
    return replace(
        dataset,
        metadata=dataset.metadata.model_copy(update=changed),
        table=columns.replace(dataset.table, label=label),
    )


def arms(dataset: Dataset) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield the settings of each arm on a labelled dataset."""
    whole, drawn = (Setup(PMPO, {"alpha": 0.5, "beta": 1.0}, dataset, rows).settled() for rows in (None, ROWS))
    for name, setup in ((FIXED, whole), (MINIBATCH, drawn)):
        yield name, {"alpha": 0.5, "beta": MARGIN * (setup.bound or 0.0)}
    yield SUGGESTED, suggest(drawn) or {"alpha": 0.5, "beta": suggest_beta(drawn) or 0.0}


def run(name: str, home: Path | None = None) -> pl.DataFrame:
    """Train every arm under every condition on one bandit, stacked; return one row a run."""
    dataset, start = build_dataset(name, home=home), time.process_time()
    truth = columns.labels(dataset.table)
    runs, facts = [], []
    for coverage, flips, share, seed in itertools.product(COVERAGE, FLIPS, SHARES, SEEDS):
        labelled = labellings.imbalanced(truth, None, seed, share=share, kind="labels", coverage=coverage, flips=flips)
        before = labellings.imbalanced(truth, None, seed, share=None, kind="labels", coverage=coverage, flips=flips)
        dropped = tuple(len(before.rows([sign])) - len(labelled.rows([sign])) for sign in (1, -1))
        for arm, settings in arms(described(dataset, labelled, flips, dropped)):
            runs.append(labellings.Run(labelled, seed, settings))
            condition = {"coverage": coverage, "flips": flips, "share": share, "seed": seed}
            facts.append({"dataset": name, **condition, "arm": arm, **settings})
    policy = labellings.train(dataset, PMPO, runs)
    scores = evaluate(policy, dataset.metadata.task, episodes=100, workers=1)
    mean = scores.group_by("run").agg(pl.col("return").mean()).sort("run")["return"]
    seconds = (time.process_time() - start) / len(runs)
    return pl.DataFrame(facts, infer_schema_length=None).with_columns(
        reward=mean, diverged=pl.Series(labellings.diverged(policy)), cpu_seconds=pl.lit(seconds)
    )


def gains(frame: pl.DataFrame, baseline: str) -> pl.DataFrame:
    """Return how much more reward the suggestion has than a baseline, a row a dataset, condition and label draw."""
    keys = ["dataset", "coverage", "flips", "share", "seed"]
    wide = frame.pivot("arm", index=keys, values="reward")
    return wide.with_columns(gain=pl.col(SUGGESTED) - pl.col(baseline))


def report(folder: Path) -> None:
    """Write README.md from raw.parquet."""
    frame = pl.read_parquet(folder / "raw.parquet")
    parts = []
    for baseline in (FIXED, MINIBATCH):
        found = gains(frame, baseline)
        rows = []
        for (coverage, flips), cell in found.group_by("coverage", "flips", maintain_order=True):
            of = [f"{cell.filter(pl.col('dataset') == name)['gain'].mean():+.3f}" for name in DATASETS]
            wins = (cell["gain"] > 0).mean()
            rows.append([f"{coverage:g}", f"{flips:g}", *of, f"{cell['gain'].mean():+.3f}", f"{wins:.2f}"])
        names = [name.removeprefix("bandit/").removesuffix("-v0") for name in DATASETS]
        table = "\n".join(shared.table(["labelled", "flips", *names, "all", "wins"], rows, "r"))
        parts.append(f"## Suggested, less {baseline}\n\n{table}\n")
    total = frame.with_columns(pl.col("cpu_seconds")).select(pl.col("cpu_seconds").sum()).item()
    text = (
        "Mean reward of the suggestion less that of a fixed setting, over two balances and three label draws; a reward "
        "of 0 is the best action, -1 a random one. `wins`: share of draws in which the suggestion has more.\n\n"
        + "\n".join(parts)
        + f"\n{shared.hardware('torch')} {total:.0f} CPU-seconds.\n"
    )
    title = "α and β from the data, against fixed ones"
    (folder / "README.md").write_text(shared.with_findings(folder, title, text), encoding="utf-8")


def main(home: Path | None = None) -> None:
    """Train, and write the raw results and the page."""
    frame = pl.concat([run(name, home) for name in DATASETS])
    OUT.mkdir(parents=True, exist_ok=True)
    shared.save(frame, OUT / "raw.parquet")
    report(OUT)


if __name__ == "__main__":
    shared.script(main)
