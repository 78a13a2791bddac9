"""Scored candidates of the present policy as the inputs that objectives ask for, by their names in the vocabulary.

Tied candidates: labels do not tell them apart, so that a tie across the middle is unlabelled, and equal scores give
PMPO nothing but its divergence. Pairs do: of two tied candidates the later drawn counts as the better. As all are drawn
alike, that is a pair labelled by a coin: it favours neither, but DPO has a gradient from it, which on average draws
their log-ratios together. It shows where rewards end in a plateau, as those of clipped actions do.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pmpo_offline.objectives.rows import mean
from pmpo_offline.policies import Mixture
from pmpo_offline.training.control.divergence import from_reference


class Ranked:
    """K scored candidates at each of B states, R runs: the inputs that objectives ask for, by their names.

    Args:
        action: (R, B, K, A), drawn from the reference.
        score: (R, B, K).
        policy: the distributions that learn, at the B states.
        reference: those that the candidates were drawn from, without gradient.
        settings: those of the objective that are its caller's to obey.
        paired: as in `OnlineSettings`.
        step: seeds the draws behind divergences that have no closed form.
    """

    def __init__(
        self,
        action: Tensor,
        score: Tensor,
        policy: Mixture,
        reference: Mixture,
        settings: Mapping[str, Any],
        paired: int,
        step: int,
    ) -> None:
        self._action, self._policy, self._reference = action, policy, reference
        self._score, self._settings, self._paired, self._step = score, settings, paired, step

    @property
    def group_score(self) -> Tensor:
        """(R, B, K)."""
        return self._score

    @cached_property
    def _order(self) -> Tensor:
        return self._score.argsort(dim=-1, stable=True)  # the worst first

    @cached_property
    def group_logp(self) -> Tensor:
        """(R, B, K)."""
        return self._policy.log_prob(self._action)

    @cached_property
    def _group_ref(self) -> Tensor:
        return self._reference.log_prob(self._action)

    @property
    def label(self) -> Tensor:
        """(R, B K): the better half +1, the worse half -1; 0 where a tie runs across the middle."""
        half = self._score.shape[-1] // 2
        ranked = self._score.gather(-1, self._order)
        rejected, accepted = ranked[..., half - 1 : half], ranked[..., -half].unsqueeze(-1)
        label = (self._score >= accepted).to(ranked) - (self._score <= rejected).to(ranked)
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
        return (self._score - self._score.mean(-1, keepdim=True)).flatten(1)

    @property
    def divergence(self) -> Tensor:
        """(R,): how far the policy is from the reference, as the objective's settings say.

        "behavior" is estimated on the candidates, which the reference has drawn, less the reference's own entropy.
        Over "labelled" candidates alone, a state counts as often as it has some; without any the divergence is 0.
        """
        kind, labelled = self._settings["divergence"], self._settings["over"] == "labelled"
        if kind == "behavior":
            return mean(-self.logp, self.label.abs()) if labelled else -self.logp.mean(-1)
        far = from_reference(self._policy, self._reference, kind, self._settings["order"], self._step)
        return mean(far, self.label.abs().view_as(self._score).sum(-1)) if labelled else far.mean(-1)

    @property
    def policy_kl(self) -> Tensor:
        """(R,): KL(policy || reference), detached."""
        with torch.no_grad():
            return from_reference(self._policy, self._reference, "reverse", 0.0, self._step).mean(-1).clamp(min=0)

    def _pairs(self, values: Tensor, *, best: bool) -> Tensor:
        """Return `values` (R, B, K) of the best or worst candidate of every pair, (R, pairs)."""
        n = self._paired
        picked = values.gather(-1, self._order[..., -n:] if best else self._order[..., :n])
        each = picked.unsqueeze(-1) if best else picked.unsqueeze(-2)
        return each.expand(*picked.shape, n).flatten(1)

    @property
    def logp_chosen(self) -> Tensor:
        """(R, P)."""
        return self._pairs(self.group_logp, best=True)

    @property
    def logp_rejected(self) -> Tensor:
        """(R, P)."""
        return self._pairs(self.group_logp, best=False)

    @property
    def ref_chosen(self) -> Tensor:
        """(R, P)."""
        return self._pairs(self._group_ref, best=True)

    @property
    def ref_rejected(self) -> Tensor:
        """(R, P)."""
        return self._pairs(self._group_ref, best=False)
