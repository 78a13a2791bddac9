"""Stacking and control as sweeps over labels use them: every state was recorded once, scores come from episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import torch

from benchmarks.experiments.arms import Arm
from benchmarks.experiments.labellings import Labelled, Run, diverged, imbalanced, pick, train
from pmpo_offline import tasks
from pmpo_offline.build import build_dataset
from pmpo_offline.data import Dataset, columns
from pmpo_offline.evaluation.statistics import normalized
from pmpo_offline.policies import MixturePolicy
from pmpo_offline.tasks.control.simulation import begin
from pmpo_offline.tasks.control.task import ControlTask, held_out
from pmpo_offline.tasks.simulated import Episodes, play_policy
from pmpo_offline.tasks.stacking.scene import random_layout, random_triplet
from pmpo_offline.tasks.stacking.simulation import StackingSimulation
from pmpo_offline.tasks.stacking.task import held_out_layouts

_STRENGTHS = [{"beta": beta, "rate": rate} for beta in (0.1, 1.0) for rate in (1e-4, 5e-4)]
_MULTIPLES = [{"multiple": multiple} for multiple in (1.05, 0.5, 1.0, 2.0)]
ARMS = {
    "bc": Arm("bc"),
    "bc-accepted": Arm("bc-accepted"),
    "bc-unrejected": Arm("bc-unrejected"),
    "PMPO AR": Arm("pmpo", _MULTIPLES),
    "PMPO AR, labelled rows": Arm("pmpo", [{**setting, "over": "labelled"} for setting in _MULTIPLES]),
    "PMPO R": Arm("reject-bc", _MULTIPLES),
    "KTO": Arm("kto", _STRENGTHS),
    "BCO": Arm("bco", _STRENGTHS),
    "DPO": Arm("dpo", [{"beta": beta, "rate": rate} for beta in (1.0, 10.0) for rate in (1e-4, 5e-4)]),
}
"""Four settings each. DPO pairs every accepted row with every rejected one, of whatever state."""
_TUNING = 8_800_000_000
"""The first seed of the layouts for tuning, which are never reported."""
_TUNING_STREAM = 88
"""Likewise of the beginnings of control episodes."""


@dataclass(frozen=True)
class Domain:
    """A dataset, its learners' family, and the scale of training and scoring."""

    id: str
    family: str
    training: Mapping[str, Any] = field(default_factory=dict)
    episodes: int = 25


DOMAINS = {
    "stacking": Domain("rgb-stacking/proxy-v0", "rgb-stacking", {"updates": 1500, "batch": 128, "hidden": (96,) * 3}),
    "cartpole": Domain("dm_control/cartpole-swingup-medium-replay-v0", "control", {"updates": 1500, "batch": 128}, 10),
    "cheetah": Domain("dm_control/cheetah-run-medium-replay-v0", "control", {"updates": 1500, "batch": 128}, 10),
    "finger": Domain("dm_control/finger-spin-medium-replay-v0", "control", {"updates": 1500, "batch": 128}, 10),
    "walker": Domain("dm_control/walker-walk-medium-replay-v0", "control", {"updates": 1500, "batch": 128}, 10),
}
"""Updates count those of a clone that a learner starts from."""


@cache
def dataset(name: str) -> Dataset:
    """Return a domain's dataset."""
    return build_dataset(DOMAINS[name].id)


@cache
def _truth(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the label of every unit, and its rows: episodes of stacking, steps of control."""
    data = dataset(name)
    if name != "stacking":
        label = np.array(columns.labels(data.table))
        return label, np.ones(len(label), np.int64)
    success = columns.vector(data.episodes, "success").astype(bool)
    return np.where(success, 1, -1).astype(np.int8), columns.vector(data.episodes, "length")


def first_rows(name: str) -> np.ndarray:
    """Return the first row of every labelled unit, (U,)."""
    _, lengths = _truth(name)
    return np.concatenate([[0], np.cumsum(lengths)[:-1]])


def labelled(name: str, seed: int, cell: Mapping[str, Any]) -> Labelled:
    """Return the labels of a cell; its keys are those of `imbalanced`."""
    truth, lengths = _truth(name)
    return imbalanced(truth, lengths, seed, **cell)


def run(name: str, arm: str, labels: Labelled, seed: int, setting: Mapping[str, Any]) -> Run:
    """Return a run whose multiple of the bound is that in this domain's minibatches."""
    return ARMS[arm].run(DOMAINS[name].family, labels, seed, setting, DOMAINS[name].training["batch"])


def learn(
    name: str, arm: str, runs: Sequence[Run], reference: MixturePolicy | None = None, **training: Any
) -> MixturePolicy:
    """Train an arm; without a reference one that needs it starts from a clone, which takes half of all updates."""
    algorithm, scale = ARMS[arm].declared(DOMAINS[name].family), {**DOMAINS[name].training, **training}
    if algorithm.start == "reference":
        scale["updates"] //= 2
        if reference is None:
            seeds = tuple(dict.fromkeys(run.seed for run in runs))
            reference = pick(clone(name, seeds), [seeds.index(run.seed) for run in runs])
    return train(dataset(name), algorithm, runs, reference, **scale)


@cache
def clone(name: str, seeds: tuple[int, ...], quality: str = "all") -> MixturePolicy:
    """Return clones of rows of a quality, one of `QUALITIES`, one a seed, with half of all updates."""
    rows = torch.from_numpy(_rows(name, quality))
    every = Labelled(torch.ones(len(rows)), rows)
    scale = {**DOMAINS[name].training, "updates": DOMAINS[name].training["updates"] // 2}
    if quality == "untrained":
        scale["updates"], scale["learning_rate"] = 1, 1e-9
    return train(dataset(name), ARMS["bc"].declared(DOMAINS[name].family), [Run(every, s) for s in seeds], **scale)


QUALITIES = ("all", "wrong target", "untrained")
"""Of references on stacking: clones of all episodes and of those that stack on the wrong object, and a network as it
was initialised."""


def _rows(name: str, quality: str) -> np.ndarray:
    data, (_, lengths) = dataset(name), _truth(name)
    if quality != "wrong target":
        return np.ones(len(data), bool)
    assert data.episodes is not None
    return np.repeat(np.array(data.episodes.column("behavior").to_pylist()) == "wrong-target", lengths)


def scores(name: str, policy: MixturePolicy, *, tuning: bool = False) -> pl.DataFrame:
    """Return the normalized score of every run, its success, and whether it diverged."""
    outcome = play_policy(_episodes(name, policy.runs, tuning=tuning), policy)
    references = dataset(name).metadata.references
    assert references is not None
    returns, success = (each.reshape(policy.runs, -1).mean(1) for each in (outcome.returns, outcome.success))
    score = normalized(returns, references.min, references.max)
    return pl.DataFrame({"score": score, "success": success.astype(float), "diverged": diverged(policy)})


def _episodes(name: str, runs: int, *, tuning: bool) -> Episodes:
    count = DOMAINS[name].episodes
    if name == "stacking":
        if not tuning:
            return StackingSimulation(held_out_layouts(count)[0] * runs, 1)
        generators = [np.random.default_rng(_TUNING + i) for i in range(count)]
        return StackingSimulation([random_layout(each, random_triplet(each)) for each in generators] * runs, 1)
    task = tasks.get(dataset(name).metadata.task)
    assert isinstance(task, ControlTask)
    return begin(task.rules, held_out(count, _TUNING_STREAM if tuning else 0) * runs, 1)
