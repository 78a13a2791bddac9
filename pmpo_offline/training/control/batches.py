"""The inputs of objectives by name, computed for the minibatches of all runs at once (`sampler` draws them).

An objective declares which tensors it needs (`Objective.inputs`); a batch has a property of each name and computes it
on access. So nothing here, or in the trainer, knows an algorithm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pmpo_offline.data import Candidates
from pmpo_offline.data.gathering import Steps
from pmpo_offline.declarations.catalog import AlgorithmDeclaration
from pmpo_offline.objectives.rows import mean, per_run
from pmpo_offline.policies import Categorical, Mixture, MixturePolicy
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.training import config
from pmpo_offline.training.control.divergence import from_reference

if TYPE_CHECKING:
    from pmpo_offline.training.control.sampler import Sampler
    from pmpo_offline.training.critics.critic import Critic

_OWN = 4  # actions that are drawn from the policy itself for each row, where an objective compares with them
_PLAYED = 0.01
"""Least weight of a mixture component whose mean counts as an action of the policy."""


@dataclass(frozen=True)
class Learner:
    """The networks and settings from which the inputs of an objective are computed, given the rows of a minibatch."""

    policy: MixturePolicy
    reference: MixturePolicy | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the objective, stacked; its `caller` settings say how inputs are computed."""
    critic: Critic | None = None


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
        super().__init__(source.gathered("observation", index, step), learner)
        self.index = index
        self._source, self._steps, self._step = source, source.steps, step

    @cached_property
    def label(self) -> Tensor:
        """(R, B)."""
        return self._source.label.expand(len(self.index), -1).gather(1, self.index).to(self._observation)

    @cached_property
    def _action(self) -> Tensor:
        """(R, B, A)."""
        return self._source.gathered("action", self.index, self._step)

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
            return distribution.draw(_OWN, torch.Generator().manual_seed(self._step))

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
            action = distribution.draw(1, torch.Generator().manual_seed(self._step)).squeeze(-2)
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
