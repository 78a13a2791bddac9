"""Scored candidates of the present policy as the inputs of objectives, by their names in the vocabulary.

Tied candidates: labels do not distinguish them, so that a tie across the middle is unlabelled, and equal scores give
PMPO nothing but its divergence. Pairs do: of two tied candidates the later drawn counts as the better. As all are drawn
alike, that is a pair labelled by a coin: it favours neither, but DPO has a gradient from it, which on average draws
their log-ratios together. It shows where rewards end in a plateau, as those of clipped actions do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pmpo_offline.objectives.rows import mean
from pmpo_offline.policies import Mixture
from pmpo_offline.training.control.batches import of_pairs
from pmpo_offline.training.control.divergence import from_reference


@dataclass(eq=False)
class OnlineBatch:
    """K scored candidates at each of B states, R runs: the inputs of objectives, by their names."""

    action: Tensor
    """(R, B, K, A), drawn from the reference."""
    group_score: Tensor
    """(R, B, K)."""
    policy: Mixture
    """The distributions that learn, at the B states."""
    reference: Mixture
    """Those that the candidates were drawn from, without gradient."""
    settings: Mapping[str, Any]
    """The objective's settings, of which `divergence`, `order` and `over` are this batch's to obey."""
    paired: int
    """As in `OnlineSettings`."""
    step: int
    """Seeds the draws behind divergences that have no closed form."""

    @cached_property
    def _order(self) -> Tensor:
        return self.group_score.argsort(dim=-1, stable=True)  # the worst first

    @cached_property
    def group_logp(self) -> Tensor:
        """(R, B, K)."""
        return self.policy.log_prob(self.action)

    @cached_property
    def _group_ref(self) -> Tensor:
        return self.reference.log_prob(self.action)

    @property
    def label(self) -> Tensor:
        """(R, B K): the better half +1, the worse half -1; 0 where a tie runs across the middle."""
        half = self.group_score.shape[-1] // 2
        ranked = self.group_score.gather(-1, self._order)
        rejected, accepted = ranked[..., half - 1 : half], ranked[..., -half].unsqueeze(-1)
        label = (self.group_score >= accepted).to(ranked) - (self.group_score <= rejected).to(ranked)
        return label.flatten(1)

    @property
    def logp(self) -> Tensor:
        """(R, B K)."""
        return self.group_logp.flatten(1)

    @property
    def ref_logp(self) -> Tensor:
        """(R, B K)."""
        return self._group_ref.flatten(1)

    @property
    def advantage(self) -> Tensor:
        """(R, B K): the score less the mean score of the state."""
        return (self.group_score - self.group_score.mean(-1, keepdim=True)).flatten(1)

    @property
    def divergence(self) -> Tensor:
        """(R,): how far the policy is from the reference, according to the objective's settings.

        "behavior" is estimated on the candidates, which the reference has drawn, less the reference's own entropy.
        Over "labelled" candidates alone, a state counts as often as it has some; without any the divergence is 0.
        """
        kind, labelled = self.settings["divergence"], self.settings["over"] == "labelled"
        if kind == "behavior":
            return mean(-self.logp, self.label.abs()) if labelled else -self.logp.mean(-1)
        far = from_reference(self.policy, self.reference, kind, self.settings["order"], self.step)
        return mean(far, self.label.abs().view_as(self.group_score).sum(-1)) if labelled else far.mean(-1)

    @property
    def policy_kl(self) -> Tensor:
        """(R,): KL(policy || reference), detached."""
        with torch.no_grad():
            return from_reference(self.policy, self.reference, "reverse", 0.0, self.step).mean(-1).clamp(min=0)

    def _pairs(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return `values` (R, B, K) of the best and of the worst candidate of every pair, (R, P)."""
        n = self.paired
        best, worst = values.gather(-1, self._order[..., -n:]), values.gather(-1, self._order[..., :n])
        shape = (*best.shape, n)
        return best.unsqueeze(-1).expand(shape).flatten(1), worst.unsqueeze(-2).expand(shape).flatten(1)

    _logp = property(lambda batch: batch._pairs(batch.group_logp))
    _ref = property(lambda batch: batch._pairs(batch._group_ref))
    logp_chosen, logp_rejected = of_pairs("_logp")
    ref_chosen, ref_rejected = of_pairs("_ref")
