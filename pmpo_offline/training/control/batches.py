"""Minibatches of all runs at once, and the inputs that objectives ask of them by name.

An objective declares which tensors it needs (`Objective.inputs`); a batch has a property of each name and computes it
when asked. So nothing here, or in the trainer, knows an algorithm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding  # a gather of whole rows, several times as fast as indexing

from pmpo_offline.data import Dataset, Rows, indices, pairs
from pmpo_offline.policies import Mixture, MixturePolicy
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.training.control.divergence import draw, from_reference
from pmpo_offline.training.control.groups import CandidateBatch, PairBatch, candidates, needed
from pmpo_offline.training.control.top import top_rows
from pmpo_offline.training.critics.registry import Critic
from pmpo_offline.training.shuffle import shuffled

_MANY = 1 << 62  # a population so large that its remainder by a pool's size is uniform for all purposes


class Pools:
    """What each run draws from: one pool of entries a run, or one that all share.

    Args:
        pools: (L,) int64 tensors, one a run or just one.
    """

    def __init__(self, pools: Sequence[Tensor]) -> None:
        self.size = torch.tensor([len(pool) for pool in pools], device=pools[0].device).unsqueeze(1)
        self.entries = torch.nn.utils.rnn.pad_sequence(list(pools), batch_first=True)
        if not self.size.all():
            raise UserError("the labels leave this algorithm nothing to learn from: no such rows or pairs are labelled")

    def draw(self, seeds: Sequence[int], step: int, batch: int) -> Tensor:
        """Return (R, batch) entries; a pure function of each run's seed and the step."""
        place = indices(seeds, step, batch, _MANY, self.size.device) % self.size
        return self.entries.expand(len(seeds), -1).gather(1, place)


class RowBatch:
    """Recorded steps: R runs of B rows."""

    def __init__(
        self,
        rows: Rows,
        score: str,
        label: Tensor,
        index: Tensor,
        policy: MixturePolicy,
        reference: MixturePolicy | None,
        settings: Mapping[str, Any],
        step: int,
        critic: Critic | None = None,
    ) -> None:
        self._rows, self._score, self.index, self._settings, self._step = rows, score, index, settings, step
        self._policy, self._reference, self._critic = policy, reference, critic
        self.label = label.expand(len(index), -1).gather(1, index)

    @cached_property
    def _distribution(self) -> Mixture:
        return self._policy(embedding(self.index, self._rows.observation))  # type: ignore[no-any-return]

    @cached_property
    def _reference_distribution(self) -> Mixture:
        with torch.no_grad():
            return needed(self._reference)(embedding(self.index, self._rows.observation))  # type: ignore[no-any-return]

    @cached_property
    def logp(self) -> Tensor:
        """(R, B)."""
        return self._distribution.log_prob(embedding(self.index, self._rows.action))

    @cached_property
    def ref_logp(self) -> Tensor:
        """(R, B)."""
        return self._reference_distribution.log_prob(embedding(self.index, self._rows.action))

    @property
    def advantage(self) -> Tensor:
        """(R, B): the critic's, else the dataset's scores; `UserError` if those are none."""
        if self._critic is not None:
            return self._critic.advantage
        if self._score != "advantage":
            raise UserError(
                f"this algorithm weighs steps by their advantage and the dataset is scored by {self._score}: build one "
                "with build-dataset --label advantage"
            )
        return self._rows.score[self.index]

    @cached_property
    def _own_action(self) -> Tensor:
        """(R, B, A): the mean, before the environment clips it."""
        if self._policy.components != 1:
            raise UserError("this objective moves the mean of a single Gaussian: set components = 1 in [training]")
        return self._distribution.mode()

    @property
    def policy_value(self) -> Tensor:
        """(R, B), of the action as the environment clips it: beyond its range only the distance draws."""
        if self._critic is None:
            raise UserError("this objective climbs a learned value: declare a [critic] in the algorithm's TOML")
        return self._critic.value(self.index, self._own_action.clamp(-1, 1))

    @property
    def distance(self) -> Tensor:
        """(R, B)."""
        return (self._own_action - embedding(self.index, self._rows.action)).square().mean(-1)

    @property
    def divergence(self) -> Tensor:
        """(R,): how far the policy is from its reference, over all rows or the labelled ones, as the settings say.

        "behavior" is KL(behaviour ‖ policy) on the recorded actions, less the behaviour's own entropy: they are samples
        of the reference itself, so nothing has to stand in for it. This is the behaviour-cloning term of the paper's
        offline experiment. The others compare with the reference policy.
        """
        counted = (
            self.label != 0 if self._settings["over"] == "labelled" else torch.ones_like(self.label, dtype=torch.bool)
        )
        kind = self._settings["divergence"]
        if kind == "behavior":
            return _average(-self.logp, counted)
        reference, order = self._reference_distribution, self._settings["order"]
        return _average(from_reference(self._distribution, reference, kind, order, self._step), counted)

    @property
    def policy_kl(self) -> Tensor:
        """(R,): KL(policy ‖ reference), closed between Gaussians, else by one action drawn a row; detached."""
        distribution = self._distribution  # with its graph: others may need the gradient
        with torch.no_grad():
            if self._policy.components == 1:
                return from_reference(distribution, self._reference_distribution, "reverse", 0.0, 0).mean(-1)
            (action,) = draw(distribution, 1, self._step)
            ratio = distribution.log_prob(action) - self._reference_distribution.log_prob(action)
        return ratio.mean(-1).clamp(min=0)


class Sampler:
    """Draws the minibatches of one cell.

    Args:
        dataset: labelled transitions.
        rows: what a minibatch is made of: "all", "accepted", "balanced" or "top" rows, "candidates" or "pairs".
        seeds: one a run.
        shuffle: give every run labels that were permuted among all units, as a control.
        device: where the data lies.
        top: share of the episodes that "top" rows are those of.
    """

    def __init__(
        self,
        dataset: Dataset,
        rows: str,
        seeds: Sequence[int],
        *,
        shuffle: bool,
        device: torch.device,
        top: float = 0.1,
    ) -> None:
        self.rows, self._kind, self.seeds = Rows.of(dataset, device), rows, seeds
        self._score = dataset.metadata.score.name
        # Runs of equal seed share one permutation; without shuffling all runs share the labels as they are.
        views = [shuffled(self.rows, dataset.metadata.unit, seed) for seed in seeds] if shuffle else [self.rows]
        self._label = torch.stack([view.label for view in views])
        signs = {"accepted": [1], "balanced": [1, -1]}
        if rows in signs:
            self._parts = [
                Pools([torch.nonzero(view.label == sign).squeeze(1) for view in views]) for sign in signs[rows]
            ]
        elif rows == "top":
            self._parts = [Pools([top_rows(dataset, top).to(device)])]
        elif rows == "candidates":
            self._parts = [Pools([torch.arange(len(candidates(self.rows).state_row), device=device)])]
        elif rows == "pairs":
            found = [torch.stack(pairs(candidates(view))) for view in views]
            self._pairs = torch.nn.utils.rnn.pad_sequence([p.T for p in found], batch_first=True)  # (R or 1, P, 3)
            self._parts = [Pools([torch.arange(p.shape[1], device=device) for p in found])]
        else:
            self._parts = [Pools([torch.arange(len(self.rows), device=device)])]

    def batch(
        self,
        step: int,
        size: int,
        policy: MixturePolicy,
        reference: MixturePolicy | None,
        settings: Mapping[str, Any] | None = None,
        critic: Critic | None = None,
    ) -> RowBatch | CandidateBatch | PairBatch:
        """Return the minibatch of update `step`; an objective's `caller` settings say how inputs are computed."""
        share = size // len(self._parts)
        if not share:
            raise UserError(
                f"batch is {size}, and a minibatch of {self._kind} rows has {len(self._parts)} parts: raise it"
            )
        index = torch.cat([part.draw(self.seeds, step, share) for part in self._parts], dim=1)
        if self._kind == "candidates":
            return CandidateBatch(self.rows, index, policy)
        if self._kind == "pairs":
            table = self._pairs.expand(len(index), -1, -1)
            pair = table.gather(1, index.unsqueeze(-1).expand(-1, -1, 3)).permute(2, 0, 1)
            return PairBatch(self.rows, pair, policy, reference)
        return RowBatch(self.rows, self._score, self._label, index, policy, reference, settings or {}, step, critic)


def inputs(batch: object, names: Mapping[str, str]) -> dict[str, Tensor]:
    """Return the tensors that an objective declares, by their names in the vocabulary.

    Raises `UserError` if this kind of minibatch cannot supply one.
    """
    missing = [name for name in names.values() if not hasattr(type(batch), name) and name != "label"]
    if missing:
        raise UserError(
            f"minibatches of {type(batch).__name__} have no {missing[0]}: set `rows` in the algorithm's TOML"
        )
    return {name: getattr(batch, name) for name in names.values()}


def _average(value: Tensor, counted: Tensor) -> Tensor:
    """Return the mean (R,) of the rows (R, B) that are counted, zero where none is."""
    return torch.where(counted, value, 0).sum(-1) / counted.sum(-1).clamp(min=1)
