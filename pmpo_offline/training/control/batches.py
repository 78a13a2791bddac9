"""Minibatches of all runs at once, and the inputs of objectives by name.

An objective declares which tensors it needs (`Objective.inputs`); a batch has a property of each name and computes it
on access. So nothing here, or in the trainer, knows an algorithm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pmpo_offline.data import Candidates, Dataset, Rows, columns, indices, pairs
from pmpo_offline.data.gathering import Steps
from pmpo_offline.declarations.catalog import AlgorithmDeclaration
from pmpo_offline.objectives.rows import mean, per_run
from pmpo_offline.policies import Categorical, Mixture, MixturePolicy
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.training import config
from pmpo_offline.training.control.divergence import draw, from_reference
from pmpo_offline.training.shuffle import shuffled

if TYPE_CHECKING:
    from pmpo_offline.training.critics.critic import Critic

_OWN = 4  # actions that are drawn from the policy itself for each row, where an objective compares with them
_MANY = 1 << 62  # a population so large that its remainder by a pool's size is uniform for all purposes
_PLAYED = 0.01
"""Least weight of a mixture component whose mean counts as an action of the policy."""
PARTS = {"accepted": [[1]], "unrejected": [[0, 1]], "balanced": [[1], [-1]], "label_pairs": [[1], [-1]]}
"""Minibatches of rows by their labels: the labels of each of their parts, which are of one size."""


@dataclass(frozen=True)
class Learner:
    """The networks and settings from which the inputs of an objective are computed, given the rows of a minibatch."""

    policy: MixturePolicy
    reference: MixturePolicy | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the objective, stacked; its `caller` settings say how inputs are computed."""
    critic: Critic | None = None


class Pools:
    """Entries that each run draws from: one pool a run, or one that all share.

    Args:
        pools: (L,) int64 tensors, one a run or just one.
    """

    def __init__(self, pools: Sequence[Tensor]) -> None:
        self.size = torch.tensor([len(pool) for pool in pools], device=pools[0].device).unsqueeze(1)
        padded = torch.nn.utils.rnn.pad_sequence(list(pools), batch_first=True) if pools[1:] else pools[0].unsqueeze(0)
        self.entries = padded.int() if self.size.max() and padded.max() < 2**31 else padded  # half the memory
        if not self.size.all():
            raise UserError("the labels leave this algorithm nothing to learn from: no such rows or pairs are labelled")

    def draw(self, seeds: Sequence[int], step: int, batch: int) -> Tensor:
        """Return (R, batch) entries; a pure function of each run's seed and the step."""
        place = indices(seeds, step, batch, _MANY, self.size.device) % self.size
        return self.entries.expand(len(seeds), -1).gather(1, place).long()


@dataclass(frozen=True)
class Population:
    """All of `size` entries, which every run draws from: the draws are those of a pool that lists them."""

    size: int
    device: torch.device

    def draw(self, seeds: Sequence[int], step: int, batch: int) -> Tensor:
        """Return (R, batch) entries; a pure function of each run's seed and the step."""
        return indices(seeds, step, batch, _MANY, self.device) % self.size


class Sampler:
    """Draws the minibatches of a stack of runs.

    Args:
        dataset: labelled transitions.
        algorithm: its `rows` say what a minibatch is made of.
        seeds: one a run.
        shuffle: give every run labels that were permuted among all units, as a control.
        device: where the data lies.
    """

    def __init__(
        self,
        dataset: Dataset,
        algorithm: AlgorithmDeclaration,
        seeds: Sequence[int],
        *,
        shuffle: bool,
        device: torch.device,
    ) -> None:
        kind = algorithm.rows
        self.steps, self._kind, self.seeds, self.device = Steps.of(dataset, device), kind, seeds, device
        self.score, self.has_contexts = dataset.metadata.score.name, dataset.has_contexts
        self.is_discrete = dataset.metadata.actions is not None
        if kind in ("candidates", "pairs") and self.steps.candidates is None:
            raise UserError("this algorithm learns from scored candidate actions and the dataset has none")
        # Runs of equal seed share one permutation; without shuffling all runs share the labels as they are.
        views = [shuffled(self.steps, dataset.metadata.unit, seed) for seed in seeds] if shuffle else [self.steps]
        self.label = torch.stack([view.label for view in views])  # (R or 1, N) int8
        candidates = [view.candidates for view in views if view.candidates is not None]
        if kind == "label_pairs" and dataset.has_contexts:
            raise UserError(
                "pairs of labelled steps need one context, and here observations differ, so that an accept is not "
                'better than a reject of another state: set rows = "pairs", of candidates, in the TOML'
            )
        if kind in PARTS:
            chosen = [[torch.isin(view.label, view.label.new_tensor(part)) for view in views] for part in PARTS[kind]]
            self._parts: list[Pools | Population] = [
                Pools([each.nonzero().squeeze(1) for each in rows]) for rows in chosen
            ]
        elif kind == "top":
            self._parts = [Pools([top_rows(dataset, algorithm.top).to(device)])]
        elif kind == "pairs":
            tables = [torch.stack(pairs(view), dim=1) for view in candidates]
            self._pairs = torch.nn.utils.rnn.pad_sequence(tables, batch_first=True)  # (R or 1, P, 3)
            self._parts = [Pools([torch.arange(len(table), device=device) for table in tables])]
        else:
            count = len(candidates[0].state_row) if kind == "candidates" else len(self.steps)
            self._parts = [Population(count, device)]

    @cached_property
    def rows(self) -> Rows:
        """A dense copy of the transitions, which critics learn from."""
        return Rows.of(self.steps.dataset, self.device)

    def batch(self, step: int, size: int, learner: Learner) -> RowBatch | CandidateBatch | PairBatch:
        """Return the minibatch of update `step`, `size` rows, states or pairs a run."""
        parts = len(self._parts)
        if size < parts:
            raise UserError(f"batch is {size}, and a minibatch of {self._kind} rows has {parts} parts: raise it")
        index = torch.cat([part.draw(self.seeds, step, size // parts) for part in self._parts], dim=1)
        candidates = self.steps.candidates
        if candidates is not None and self._kind == "candidates":
            return CandidateBatch(self.steps, candidates, index, learner)
        if candidates is not None and self._kind == "pairs":
            pair = self._pairs.expand(len(index), -1, -1).gather(1, index.unsqueeze(-1).expand(-1, -1, 3))
            return PairBatch(self.steps, candidates, pair, learner)
        kind = LabelPairBatch if self._kind == "label_pairs" else RowBatch
        return kind(self, index, step, learner)


class Batch:
    """States of R runs, (R, B, O), with the distributions of policy and reference there."""

    def __init__(self, observation: Tensor, learner: Learner) -> None:
        self._observation, self._learner = observation, learner

    @cached_property
    def _distribution(self) -> Mixture:
        policy = self._learner.policy
        hidden = self._observation.new_zeros(self._observation.shape[:-1]) if policy.conditional else None
        return policy(self._observation, hidden)  # type: ignore[no-any-return]

    @property
    def reach(self) -> Tensor:
        """(R,): the largest mean of an action, of components that are played; not a number where one is not."""
        with torch.no_grad():
            size = self._distribution.mean.abs().amax(-1)
            played = self._distribution.log_weight > math.log(_PLAYED)
            return torch.where(played | ~size.isfinite(), size, 0).flatten(1).amax(1)

    @cached_property
    def _reference_distribution(self) -> Mixture:
        if self._learner.reference is None:
            raise UserError('this objective compares with a reference policy: set start = "reference" in its TOML')
        with torch.no_grad():
            return self._learner.reference(self._observation)  # type: ignore[no-any-return]

    @property
    def distributions(self) -> tuple[Mixture, Mixture]:
        """Policy and reference at the states."""
        return self._distribution, self._reference_distribution


class RowBatch(Batch):
    """Recorded steps: R runs of B rows."""

    def __init__(self, source: Sampler, index: Tensor, step: int, learner: Learner) -> None:
        super().__init__(source.steps.observation[index], learner)
        self.index = index
        self._source, self._steps, self._step = source, source.steps, step

    @cached_property
    def label(self) -> Tensor:
        """(R, B)."""
        return self._source.label.expand(len(self.index), -1).gather(1, self.index).to(self._observation)

    @cached_property
    def _action(self) -> Tensor:
        """(R, B, A)."""
        return self._steps.action[self.index]

    @cached_property
    def logp(self) -> Tensor:
        """(R, B)."""
        return self._distribution.log_prob(self._action)

    @cached_property
    def ref_logp(self) -> Tensor:
        """(R, B)."""
        return self._reference_distribution.log_prob(self._action)

    @property
    def conditional_logp(self) -> Tensor:
        """(R, B)."""
        shown: Mixture = self._learner.policy(self._observation, self.label)
        return shown.log_prob(self._action)

    @property
    def accept_rate(self) -> Tensor:
        """(R, B), of all labelled rows; `UserError` where contexts differ, because no two rows share one."""
        if self._source.has_contexts:
            raise UserError(
                "this objective compares the labels of one context, and every state was recorded once: take an "
                "algorithm whose value is learned (dro)"
            )
        label = self._source.label
        rate = mean((label > 0).to(self._observation), label.abs().to(self._observation))
        return rate.unsqueeze(-1).expand(self.index.shape)

    @property
    def state_value(self) -> Tensor:
        """(R, B)."""
        if self._learner.critic is None:
            raise UserError("this objective needs a value of the labels: declare a [critic] in the algorithm's TOML")
        return self._learner.critic.state_value

    @cached_property
    def _own(self) -> Tensor:
        """(R, B, K, A): actions drawn from the policy."""
        distribution = self._distribution  # with its graph: others need the gradient
        with torch.no_grad():
            return torch.stack(draw(distribution, _OWN, torch.Generator().manual_seed(self._step)), dim=-2)

    @property
    def own_logp(self) -> Tensor:
        """(R, B, K)."""
        return self._distribution.log_prob(self._own)

    @property
    def own_ref_logp(self) -> Tensor:
        """(R, B, K)."""
        return self._reference_distribution.log_prob(self._own)

    @property
    def log_reward(self) -> Tensor:
        """(R, B), detached: the log-ratio to the reference, times the objective's temperature."""
        ratio = (self.logp - self.ref_logp).detach()
        return ratio * per_run(self._learner.settings["temperature"], ratio)

    @property
    def advantage(self) -> Tensor:
        """(R, B): the critic's, else the dataset's scores; `UserError` if these are none."""
        if (critic := self._learner.critic) is not None:
            return critic.advantage
        if self._source.score != "advantage":
            raise UserError(
                f"this algorithm weighs steps by their advantage and the dataset is scored by {self._source.score}: "
                "build one with build-dataset --label advantage"
            )
        return self._steps.score[self.index]

    @cached_property
    def _own_action(self) -> Tensor:
        """(R, B, A): the mean, before the environment clips it."""
        if self._learner.policy.components != 1:
            raise UserError("this objective moves the mean of a single Gaussian: set components = 1 in [training]")
        return self._distribution.mode()

    @property
    def policy_value(self) -> Tensor:
        """(R, B), of the action as the environment clips it: beyond its range only the distance draws."""
        if self._learner.critic is None:
            raise UserError("this objective climbs a learned value: declare a [critic] in the algorithm's TOML")
        return self._learner.critic.value(self.index, self._own_action.clamp(-1, 1))

    @property
    def distance(self) -> Tensor:
        """(R, B)."""
        return (self._own_action - self._action).square().mean(-1)

    @property
    def divergence(self) -> Tensor:
        """(R,): how far the policy is from its reference, over all rows or the labelled ones, as the settings say.

        "behavior" is KL(behaviour ‖ policy) on the recorded actions, less the behaviour's own entropy: the cloning term
        of the paper's offline experiment. The others compare with the reference policy.
        """
        settings = self._learner.settings
        weight = self.label.abs() if settings["over"] == "labelled" else torch.ones_like(self.label)
        if settings["divergence"] == "behavior":
            return mean(-self.logp, weight)
        return mean(from_reference(*self.distributions, settings["divergence"], settings["order"], self._step), weight)

    @property
    def policy_kl(self) -> Tensor:
        """(R,): KL(policy ‖ reference), closed or, between mixtures, by one action drawn a row; detached."""
        distribution = self._distribution  # with its graph: others may need the gradient
        with torch.no_grad():
            if self._learner.policy.components == 1 or isinstance(distribution, Categorical):
                return from_reference(distribution, self._reference_distribution, "reverse", 0.0, 0).mean(-1)
            (action,) = draw(distribution, 1, torch.Generator().manual_seed(self._step))
            ratio = distribution.log_prob(action) - self._reference_distribution.log_prob(action)
        return ratio.mean(-1).clamp(min=0)


class CandidateBatch(Batch):
    """Scored candidate actions: R runs of B states with K candidates each."""

    def __init__(self, steps: Steps, candidates: Candidates, index: Tensor, learner: Learner) -> None:
        super().__init__(steps.observation[candidates.state_row[index]], learner)
        self._candidates, self._index = candidates, index

    @cached_property
    def group_logp(self) -> Tensor:
        """(R, B, K)."""
        return self._distribution.log_prob(self._candidates.action[self._index])

    @property
    def group_score(self) -> Tensor:
        """(R, B, K)."""
        return self._candidates.score[self._index]


def of_pairs(name: str) -> tuple[property, property]:
    """Return the properties of the accepted and of the rejected outcomes of pairs, (R, P), given that of both."""
    return property(lambda batch: getattr(batch, name)[0]), property(lambda batch: getattr(batch, name)[1])


class PairBatch(Batch):
    """Accepted beside rejected candidates of one state: R runs of P pairs, (R, P, 3) of state and both candidates."""

    def __init__(self, steps: Steps, candidates: Candidates, pair: Tensor, learner: Learner) -> None:
        state, chosen, rejected = pair.unbind(-1)
        super().__init__(steps.observation[candidates.state_row[state]], learner)
        self._actions = torch.stack([candidates.action[state, chosen], candidates.action[state, rejected]], dim=2)

    @cached_property
    def _logp(self) -> tuple[Tensor, ...]:
        return self._distribution.log_prob(self._actions).unbind(-1)

    @cached_property
    def _ref(self) -> tuple[Tensor, ...]:
        return self._reference_distribution.log_prob(self._actions).unbind(-1)

    logp_chosen, logp_rejected = of_pairs("_logp")
    ref_chosen, ref_rejected = of_pairs("_ref")


class LabelPairBatch(RowBatch):
    """Accepted beside rejected recorded steps of one context, drawn independently: halves of the rows, (R, B / 2)."""

    @property
    def _logp(self) -> tuple[Tensor, ...]:
        return self.logp.chunk(2, dim=1)

    @property
    def _ref(self) -> tuple[Tensor, ...]:
        return self.ref_logp.chunk(2, dim=1)

    logp_chosen, logp_rejected = of_pairs("_logp")
    ref_chosen, ref_rejected = of_pairs("_ref")


def inputs(batch: object, names: Mapping[str, str]) -> dict[str, Tensor]:
    """Return the tensors that an objective declares, by their names in the vocabulary."""
    return {name: getattr(batch, name) for name in names.values()}


def check_rows(algorithm: AlgorithmDeclaration) -> None:
    """Raise `UserError` if minibatches of the algorithm's rows lack an input of its objective."""
    kinds: dict[str, type[Batch]] = {"candidates": CandidateBatch, "pairs": PairBatch, "label_pairs": LabelPairBatch}
    config.check_inputs(algorithm, kinds.get(algorithm.rows, RowBatch))


def top_rows(dataset: Dataset, share: float) -> Tensor:
    """Return the rows, ascending int64, of the share of the episodes that have the highest returns, at least of one.

    Episodes are cut where they ended, as stored, and a share that is no whole number of them is rounded down; of equal
    returns the earlier episode goes first. This is "10 % BC" at 0.1 (Chen et al., *Decision Transformer*,
    arXiv 2106.01345, section 5.1).
    """
    if dataset.episodes is None:
        raise UserError(f"dataset {dataset.metadata.id} holds responses, not episodes with returns")
    returns, start, length = (columns.vector(dataset.episodes, name) for name in ("return", "start", "length"))
    count = max(1, math.floor(share * len(returns) + 1e-9))  # 0.1 of 30 is 3, whatever binary fractions say
    best = np.sort(np.argsort(-returns, kind="stable")[:count])
    return torch.from_numpy(np.concatenate([np.arange(start[e], start[e] + length[e]) for e in best]).astype(np.int64))
