"""The offline bandits as sweeps over labels use them: rows of one state, exact scores, runs of milliseconds."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import torch

from benchmarks.experiments.arms import Arm, Setting, runs_of
from benchmarks.experiments.labellings import Labelled, Run, diverged, imbalanced, pick, train
from pmpo_offline.build import build_dataset
from pmpo_offline.data import Dataset, columns
from pmpo_offline.evaluation.rollouts import evaluate
from pmpo_offline.evaluation.statistics import normalized
from pmpo_offline.policies import MixturePolicy

FAMILY = "bandit"
UPDATES, BATCH = 200, 128
"""Of every run, a clone that it starts from included; rows of a minibatch."""
ACTIONS = 200
"""Drawn of every policy, whose mean reward is its score."""
_STRENGTHS = [{"beta": beta, "rate": rate} for beta in (0.1, 0.3, 1.0, 3.0) for rate in (0.01, 0.03)]

ARMS = {
    "bc": Arm("bc"),
    "bc-accepted": Arm("bc-accepted"),
    "bc-unrejected": Arm("bc-unrejected"),
    "PMPO AR": Arm("pmpo", [{"multiple": m, "alpha": a} for m in (1.05, 0.25, 0.5, 2.0) for a in (0.5, 0.8)]),
    "PMPO R": Arm(
        "reject-bc", [{"multiple": m, "rate": rate} for m in (1.05, 0.25, 0.5, 2.0) for rate in (0.05, 0.02)]
    ),
    "KTO": Arm("kto", _STRENGTHS),
    "KTO, unlabelled = good": Arm("kto", _STRENGTHS, unlabelled_is_good=True),
    "BCO": Arm("bco", _STRENGTHS),
    "DPO": Arm("dpo", _STRENGTHS),
    "MPO*": Arm("mpo", [{"epsilon": e, "rate": rate} for e in (0.1, 0.3, 0.6, 1.0) for rate in (0.01, 0.03)]),
}
"""DPO pairs every accepted action with every rejected one; MPO* sees the rewards of all rows."""
_OTHERS = {
    **{"APO-zero": "apo-zero", "AOT": "aot", "SPPO": "sppo", "SSPO": "sspo", "NPO": "npo", "TOPR": "topr"},
    **{"RPO": "rpo", "DRO": "dro", "IPO": "ipo", "D2O": "d2o"},
}
COMPARED = {title: Arm(name) for title, name in _OTHERS.items()}
"""The other learners that compare with a reference, for the sweep of poor ones alone."""
LEARNERS = {**ARMS, **COMPARED}


@cache
def dataset(function: str) -> Dataset:
    """Return the bandit's dataset, half of whose rows are accepted."""
    return build_dataset(f"bandit/{function}-v0")


@cache
def reward(function: str) -> torch.Tensor:
    """Return the rewards of all rows, (N,)."""
    return torch.from_numpy(np.array(columns.vector(dataset(function).table, "reward")))


def labelled(function: str, seed: int, cell: Mapping[str, Any]) -> Labelled:
    """Return the labels of a cell; its keys are those of `imbalanced`."""
    truth = np.array(columns.labels(dataset(function).table))
    return imbalanced(truth, None, seed, **cell)


def learn(
    function: str, name: str, runs: Sequence[Run], reference: MixturePolicy | None = None, **training: Any
) -> MixturePolicy:
    """Train an arm; without a reference the rows of each run are cloned, with half of all updates."""
    arm = LEARNERS[name].declared(FAMILY)
    hyper: dict[str, Any] = {"updates": UPDATES, "batch": BATCH, **training}
    if arm.start == "reference" and reference is None:
        hyper["updates"] //= 2
        reference = _clones(function, runs, hyper.get("components", 5))
    return train(dataset(function), arm, runs, reference, **hyper)


def clone(function: str, runs: Sequence[Run], **training: Any) -> MixturePolicy:
    """Clone the rows of each run, whatever their labels."""
    plain = [Run(run.labelled, run.seed) for run in runs]
    return train(dataset(function), ARMS["bc"].declared(FAMILY), plain, batch=BATCH, **training)


def _clones(function: str, runs: Sequence[Run], components: int) -> MixturePolicy:
    """Return the clone of each run's rows; runs of one seed that have every row share one."""
    keys = [(run.seed, -1 if _complete(run) else place) for place, run in enumerate(runs)]
    first = dict(reversed(list(zip(keys, runs, strict=True))))
    made = clone(function, list(first.values()), updates=UPDATES // 2, components=components)
    places = {key: place for place, key in enumerate(first)}
    return pick(made, [places[key] for key in keys])


def _complete(run: Run) -> bool:
    return run.labelled.collected is None or bool(run.labelled.collected.all())


def scores(function: str, policy: MixturePolicy) -> pl.DataFrame:
    """Return the normalized score of every run, whether it diverged, and the deviation of its actions."""
    task = dataset(function).metadata.task
    raw = evaluate(policy, task, episodes=ACTIONS, workers=1)
    references = dataset(function).metadata.references
    assert references is not None
    returns = raw.group_by("run").agg(pl.col("return").mean()).sort("run")["return"].to_numpy()
    return pl.DataFrame({"score": normalized(returns, references.min, references.max), "diverged": diverged(policy)})


def cells(
    function: str, name: str, grid: Sequence[Mapping[str, Any]], seeds: Sequence[int], settings: Sequence[Setting]
) -> pl.DataFrame:
    """Train and score an arm in cells, with settings of one rate and equal words; one row a run.

    A cell in which a part of the minibatch would have no rows is left out.
    """
    draws = ((seed, cell, labelled(function, seed, cell)) for cell, seed in itertools.product(grid, seeds))
    runs, named = runs_of(ARMS[name], FAMILY, draws, settings)
    if not runs:
        return pl.DataFrame()
    training = {"learning_rate": settings[0]["rate"]} if "rate" in settings[0] else {}
    named = [{"function": function, "arm": name, **each} for each in named]
    frame = pl.DataFrame(named, schema_overrides={"beta": pl.Float64})
    return frame.hstack(scores(function, learn(function, name, runs, **training)))
