"""How far a policy is from its reference, token by token, over the whole vocabulary.

The reference's distribution is not stored but made again from its last hidden states, which take about a hundredth of
the room: its head turns them into logits, a chunk of tokens at a time.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pmpo_offline.objectives import divergences
from pmpo_offline.policies.language.linear_head import is_closed, kl, logp_and_slope
from pmpo_offline.policies.language.scoring import Causal, causal, head_log_probs, of_target, per_token
from pmpo_offline.runtime.errors import unknown

KINDS = ("forward", "reverse", "alpha", "renyi")
"""KL(reference || policy), KL(policy || reference), and the two families of an order between them."""


def token_divergence(
    model: Causal,
    states: Tensor,
    reference_head: nn.Module,
    reference_states: Tensor,
    kind: str,
    order: float,
    chunk: int | None = None,
) -> Tensor:
    """Return the divergence at each token, exact, nats, differentiable in `states`: (N, H), (N, H) -> (N,).

    Args:
        model: the policy, whose head turns `states` into its distributions.
        states: of the policy.
        reference_head: (n, H) -> (n, V) logits; the policy's own output embeddings where those are not trained.
        reference_states: of the reference, at the same tokens.
        kind: one of `KINDS`.
        order: of "alpha" and "renyi": near 1 they are like the forward, near 0 like the reverse divergence.
        chunk: tokens whose distributions are held at once; default by the device.

    Raises:
        UserError: an unknown kind.
        ValueError: an order outside [0, 1].
    """

    def measure(log_p: Tensor, reference: Tensor) -> Tensor:
        return _divergence(log_p, _frozen(reference_head, reference), kind, order).unsqueeze(0)

    return per_token(model, states, measure, reference_states, chunk=chunk)[0]


def token_logp_and_divergence(
    model: Causal,
    states: Tensor,
    target: Tensor,
    reference_head: nn.Module,
    reference_states: Tensor,
    kind: str,
    order: float,
    chunk: int | None = None,
    constant: bool = False,
    reference_logp: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return `token_logp` and `token_divergence` together, which share the policy's distributions: (N,) each.

    `constant`: the divergence needs no gradient, which saves a third of the work. `reference_logp`, (N,), is what the
    reference says of the same tokens, if it is at hand: a constant reverse divergence may then follow from it.
    """
    head = causal(model).get_output_embeddings()
    if reference_head is head and is_closed(head, states) and reference_states.dtype == states.dtype:
        # Nothing of the reference's own is read for a constant reverse divergence, a tenth of a step of KTO; the
        # forward one costs no tensor of the vocabulary's width, a tenth of a step of PMPO.
        if kind == "forward" and not constant:
            logp, _ = logp_and_slope(head, states, target, chunk)
            known, slope = logp_and_slope(head, reference_states.detach(), target, chunk)
            return logp, kl(known, slope, reference_states, logp, states)
        if kind == "reverse" and constant and reference_logp is not None:
            logp, slope = logp_and_slope(head, states, target, chunk)
            return logp, kl(logp, slope, states, reference_logp, reference_states).detach()

    def measure(log_p: Tensor, word: Tensor, reference: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not constant):
            divergence = _divergence(log_p, _frozen(reference_head, reference), kind, order)
        return torch.cat([of_target(log_p, word), divergence.unsqueeze(0)])

    logp, divergence = per_token(model, states, measure, target, reference_states, chunk=chunk, constants=int(constant))
    return logp, divergence


def _frozen(head: nn.Module, states: Tensor) -> Tensor:
    with torch.no_grad():
        return head_log_probs(head, states)


def _divergence(policy: Tensor, reference: Tensor, kind: str, order: float) -> Tensor:
    """Return the divergence between log-probabilities: (n, V), (n, V) -> (n,)."""
    match kind:
        case "forward":
            return divergences.categorical_kl(reference, policy)
        case "reverse":
            return divergences.categorical_kl(policy, reference)
        case "alpha":
            return divergences.categorical_alpha(reference, policy, order)
        case "renyi":
            return divergences.categorical_renyi(reference, policy, order)
        case _:
            raise unknown("divergence", kind, KINDS)
