"""Train one algorithm on many labellings of the same rows, stacked: what sweeps over labels have in common.

`training.train` stacks seeds and settings on one labelled dataset. A sweep over coverage, noise or imbalance has a
labelling a cell, and stacking these too makes it several times as cheap: every run brings labels and rows of its own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from benchmarks.experiments import shared
from pmpo_offline.data import Dataset
from pmpo_offline.data.columns import Labels
from pmpo_offline.data.labels import balance, flip
from pmpo_offline.declarations.catalog import AlgorithmDeclaration
from pmpo_offline.objectives import bco_shift
from pmpo_offline.policies import MixturePolicy
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.runtime.hashing import hash_json, uniforms
from pmpo_offline.training.config import complete
from pmpo_offline.training.control.batches import Batch, CandidateBatch, Learner, PairBatch, RowBatch
from pmpo_offline.training.control.fit import fit
from pmpo_offline.training.control.sampler import Pools, Sampler
from pmpo_offline.training.control.stack import Stack
from pmpo_offline.training.control.trainer import fresh_policy

CPU = torch.device("cpu")
ROWS: dict[str, tuple[tuple[int, ...], ...]] = {
    "all": ((-1, 0, 1),),
    "accepted": ((1,),),
    "unrejected": ((0, 1),),
    "balanced": ((1,), (-1,)),
    "pairs": ((1,), (-1,)),
    "candidates": ((-1, 0, 1),),
}
"""The labels in each equal part of a minibatch, by an algorithm's `rows`."""

CLEAN = {"share": None, "kind": "labels", "coverage": 1.0, "flips": 0.0}
"""The cell, as `imbalanced` takes it, that leaves labels as they were collected."""
FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Shares of the rows that keep their labels."""
RATES = (0.0, 0.1, 0.2, 0.3)
"""Of flipped labels."""
WEIGHTS: dict[str, dict[str, Any]] = {
    "joint": {"normalize": "joint"},
    "set": {"normalize": "set"},
    "set, weight from the data": {"normalize": "set", "reject_mass": "dataset"},
}
"""Weights of both classes by name; the derived one divides β by the share of rejects in the data."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """The labels of one run."""

    label: Tensor
    """(N,) float32: +1 accepted, -1 rejected, 0 unlabelled."""
    collected: Tensor | None = None
    """(N,) bool: rows that are in the data at all; None: every one."""
    produced: float | None = None
    """The rejects' share of the collected rows before labels were dropped, where a policy cannot tell rows apart."""

    def rows(self, signs: Sequence[int]) -> Tensor:
        """Return the collected rows with one of these labels, (L,) int64."""
        found = torch.isin(self.label, self.label.new_tensor(signs))
        return torch.nonzero(found if self.collected is None else found & self.collected).squeeze(1)

    @property
    def masses(self) -> dict[str, float]:
        """P_r of all rows, and w_r of the labelled ones, as `stability.beta_min` takes them."""
        count = len(self.label) if self.collected is None else int(self.collected.sum())
        rejects, accepts = len(self.rows([-1])), len(self.rows([1]))
        mass = rejects / count if self.produced is None else self.produced
        return {"reject_mass": mass, "reject_share": rejects / max(1, rejects + accepts)}

    @property
    def known(self) -> float:
        """The share of the collected rows that have a label."""
        return len(self.rows([-1, 1])) / max(1, len(self.rows([-1, 0, 1])))


def imbalanced(
    truth: Labels, lengths: Labels | None, seed: int, *, share: float | None, kind: str, coverage: float, flips: float
) -> Labelled:
    """Flip labels, bring their accepted share to `share`, then keep only a part of them.

    Args:
        truth: (U,) +1 and -1, the right label of every unit.
        lengths: (U,) rows of each unit; None: units are rows of one state, which a policy cannot tell apart.
        seed: of the draw; those of one seed are nested in flips, in share and in coverage.
        share: accepted share of the labels; None: as they are.
        kind: how it is reached. "labels": surplus labels are dropped and their rows stay, unlabelled. "rows": the
            surplus rows are dropped, as if nothing else had been collected.
        coverage: share of the labels that are kept; the rows of the others stay, unlabelled.
        flips: rate of wrong labels.
    """
    flipped = flip(truth, flips, seed)
    balanced = balance(flipped, share, seed)
    known = balanced * (uniforms(len(truth), seed, "coverage") < coverage)
    there = np.ones(len(truth), bool) if kind == "labels" else balanced != 0
    produced = float((flipped[there] < 0).mean())
    if lengths is None:
        return Labelled(torch.from_numpy(known).float(), torch.from_numpy(there), produced)
    rows = (torch.from_numpy(np.repeat(each, lengths)) for each in (known, there))
    return Labelled(next(rows).float(), next(rows))


@dataclass(frozen=True, eq=False)
class Run:
    """One training run of an algorithm; runs of one stack may differ in all of this."""

    labelled: Labelled
    seed: int
    settings: Mapping[str, float] = field(default_factory=dict)
    """Numbers of the objective, over those that the algorithm declares."""

    def can(self, algorithm: AlgorithmDeclaration) -> bool:
        """Return whether every part of a minibatch has rows to draw from."""
        return all(len(self.labelled.rows(signs)) for signs in ROWS[algorithm.rows])


class LabelledSampler(Sampler):
    """Minibatches of runs with labels of their own.

    Where no observation differs, every accepted action pairs with every rejected one, and any four rows are
    candidates of one state: `rows` = "pairs" and "candidates" are made from the labelled rows themselves.
    """

    def __init__(self, dataset: Dataset, algorithm: AlgorithmDeclaration, runs: Sequence[Run]) -> None:
        seeds = [run.seed for run in runs]
        super().__init__(dataset, algorithm.model_copy(update={"rows": "all"}), seeds, shuffle=False, device=CPU)
        self._kind = algorithm.rows
        self.shift = torch.zeros(len(runs))
        self.label = torch.stack([run.labelled.label for run in runs])
        self._parts = [Pools([run.labelled.rows(signs) for run in runs]) for signs in ROWS[algorithm.rows]]

    def batch(self, step: int, size: int, learner: Learner) -> RowBatch | CandidateBatch | PairBatch:
        """Return the minibatch of update `step`, `size` rows a run."""
        share = size // len(self._parts)
        index = torch.cat([part.draw(self.seeds, step, share) for part in self._parts], dim=1)
        batch = _Shifted(self, index, step, learner)
        if self._kind == "pairs":
            return _Pairs(batch)  # type: ignore[return-value]
        if self._kind == "candidates":
            return _Groups(batch, self.rows.reward[index])  # type: ignore[return-value]
        return batch


class _Shifted(RowBatch):
    """A minibatch whose shift for BCO is a running mean, as its authors and TRL have it, not that of this batch alone.

    With the shift of one batch accepts and rejects may run away together, and the shift with them.
    The package's trainer averages over all earlier updates instead; the committed rows of BCO were made with this one.
    """

    _source: LabelledSampler

    @property
    def reward_shift(self) -> Tensor:
        """(R,): half way between the mean rewards of both classes, averaged over about a hundred batches."""
        here = bco_shift(self.logp, self.ref_logp, self.label, beta=self._learner.settings["beta"])
        self._source.shift = torch.lerp(self._source.shift, here, 0.01)
        return self._source.shift


class _Pairs(Batch):
    """A minibatch of accepted rows, then as many rejected ones, as pairs."""

    def __init__(self, batch: RowBatch) -> None:
        self._distribution = batch._distribution
        self.logp_chosen, self.logp_rejected = batch.logp.chunk(2, dim=-1)
        self.ref_chosen, self.ref_rejected = batch.ref_logp.chunk(2, dim=-1)


class _Groups(Batch):
    """A minibatch in groups of four candidates, with their rewards."""

    def __init__(self, batch: RowBatch, reward: Tensor) -> None:
        self._distribution = batch._distribution
        self.group_logp = batch.logp.unflatten(-1, (-1, 4))
        self.group_score = reward.unflatten(-1, (-1, 4))


def pick(policy: MixturePolicy, runs: Sequence[int]) -> MixturePolicy:
    """Return the policies of some runs, in this order and with repetitions, without gradients."""
    copy, index = deepcopy(policy), torch.tensor(runs)
    copy.runs = len(runs)
    for parameter in copy.parameters():
        parameter.data = parameter.data[index]
    return copy.requires_grad_(False)


def train(
    dataset: Dataset,
    algorithm: AlgorithmDeclaration,
    runs: Sequence[Run],
    reference: MixturePolicy | None = None,
    **training: Any,
) -> MixturePolicy:
    """Train runs as one stack; one that diverged has weights that are not finite.

    Args:
        dataset: whose rows all runs share; its own labels are not read.
        algorithm: its objective, rows, start and hyperparameters.
        runs: labels, seed and settings of each.
        reference: one policy a run, to start from and to compare with; None: from scratch.
        training: hyperparameters in place of the algorithm's.
    """
    sampler = LabelledSampler(dataset, algorithm, runs)
    stack = Stack(dataset, algorithm, (0,), [run.settings for run in runs], training)
    if stack.objective.optional:  # what the loss would take from one minibatch alone
        inputs = {**stack.objective.inputs, **stack.objective.optional}
        vars(stack)["objective"] = replace(stack.objective, inputs=inputs, optional={})
    if any("flip_rate" in run.settings for run in runs):  # the dataset's own labels would be asked whether it can be
        vars(stack)["complete"] = [complete(algorithm, run.settings) for run in runs]
    policy = fresh_policy(sampler, stack.hyper)
    if reference is not None:
        policy.load_state_dict(reference.state_dict())
        policy.requires_grad_(True)
    try:
        fit(stack, sampler, policy, reference)
    except UserError:
        raise
    except PmpoOfflineError:  # every run diverged
        for parameter in policy.parameters():
            parameter.data.fill_(float("nan"))
    return policy.eval().requires_grad_(False)


def diverged(policy: MixturePolicy) -> list[bool]:
    """Return for every run whether one of its weights is not finite."""
    finite = [weight.isfinite().flatten(1).all(1) for weight in policy.parameters()]
    return (~torch.stack(finite).all(0)).tolist()


def resumable(folder: Path, chunks: Iterable[Mapping[str, Any]], make: Callable[..., pl.DataFrame]) -> pl.DataFrame:
    """Return `make(**chunk)` of every chunk, one above the other; those in the folder are not made again.

    Args:
        folder: of one file a chunk, named by the hash of its arguments.
        chunks: arguments, which are JSON values.
        make: returns the rows of a chunk; the processor's seconds that it took are shared among them, `cpu_seconds`.
    """

    def parts() -> Iterator[pl.DataFrame]:
        for chunk in chunks:
            path = folder / f"{hash_json(dict(chunk))[:16]}.parquet"
            if not path.exists():
                start = time.process_time()
                rows = make(**chunk)
                spent = time.process_time() - start
                shared.save(rows.with_columns(cpu_seconds=pl.lit(spent / max(1, len(rows)))), path)
                print(f"{time.strftime('%H:%M:%S')} {spent:6.1f} s {json.dumps(chunk)[:150]}", flush=True)
            yield pl.read_parquet(path)

    return pl.concat(parts(), how="diagonal_relaxed")
