"""Exact divergences between policy and reference over the whole vocabulary, token by token.

The reference's distributions are not stored but computed from its last hidden states, which take about a hundredth of
the room: its head turns them into logits, a chunk of tokens at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pmpo_offline.objectives import divergences
from pmpo_offline.policies.language import scoring
from pmpo_offline.policies.language.scoring import Causal
from pmpo_offline.runtime.errors import unknown
from pmpo_offline.training.language.reference import ReferenceScores

KINDS = ("forward", "reverse", "alpha", "renyi")
"""KL(reference || policy), KL(policy || reference), and the two families of an order between them."""


@dataclass(frozen=True)
class TokenDivergence:
    """A divergence between policy and reference at each token, in nats.

    It raises `UserError` for an unknown kind, and `ValueError` for an order outside [0, 1].
    """

    kind: str
    """One of `KINDS`."""
    order: float = 0.0
    """Of "alpha" and "renyi": near 1 they are like the forward, near 0 like the reverse divergence."""
    constant: bool = False
    """It needs no gradient, which saves a third of the work."""

    def __call__(
        self, model: Causal, states: Tensor, target: Tensor, reference: ReferenceScores
    ) -> tuple[Tensor, Tensor]:
        """Return the log-probability of each target, (N,), and the divergence, which share the policy's distributions.

        Args:
            model: the policy, whose head turns `states` into its distributions.
            states: of the policy, (N, H).
            target: (N,), the tokens.
            reference: at the same tokens; its head is the policy's own if that is not trained.
        """
        head = scoring.causal(model).get_output_embeddings()
        if reference.head is head and scoring.is_closed(head, states) and reference.states.dtype == states.dtype:
            # A constant reverse divergence reads nothing but the reference's states and log-probabilities, a tenth of a
            # step of KTO less; the forward one needs no tensor of the vocabulary's width, a tenth of a step of PMPO.
            if self.kind == "forward" and not self.constant:
                logp, _ = scoring.logp_and_slope(head, states, target)
                known, slope = scoring.logp_and_slope(head, reference.states.detach(), target)
                return logp, scoring.kl(known, slope, reference.states, logp, states)
            if self.kind == "reverse" and self.constant:
                logp, slope = scoring.logp_and_slope(head, states, target)
                return logp, scoring.kl(logp, slope, states, reference.logp, reference.states).detach()

        def measure(log_p: Tensor, word: Tensor, other: Tensor) -> Tensor:
            return torch.cat([scoring.of_target(log_p, word), self._between(log_p, other, reference).unsqueeze(0)])

        logp, divergence = scoring.per_token(
            model, states, measure, target, reference.states, constants=int(self.constant)
        )
        return logp, divergence.detach() if self.constant else divergence

    def _between(self, policy: Tensor, reference_states: Tensor, reference: ReferenceScores) -> Tensor:
        """Return the divergence at n tokens from the policy's log-probabilities: (n, V), (n, H) -> (n,)."""
        with torch.no_grad():
            known = scoring.head_log_probs(reference.head, reference_states)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.constant):
            match self.kind:
                case "forward":
                    return divergences.categorical_kl(known, policy)
                case "reverse":
                    return divergences.categorical_kl(policy, known)
                case "alpha":
                    return divergences.categorical_alpha(known, policy, self.order)
                case "renyi":
                    return divergences.categorical_renyi(known, policy, self.order)
                case _:
                    raise unknown("divergence", self.kind, KINDS)
