"""MPO: learning from scores of several candidate actions in each state."""

from __future__ import annotations

from torch import Tensor

from .rows import Setting, detached, full_precision, mean, per_run, present, row_weight


def mpo(
    logp: Tensor,
    score: Tensor,
    *,
    temperature: Setting = 1.0,
    weight: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Fit the policy to its reference's candidates, reweighted by the exponential of their scores.

    Abdolmaleki et al., *Maximum a posteriori policy optimisation*, arXiv 1806.06920: the non-parametric E-step and the
    weighted maximum likelihood of the M-step, over candidates that were drawn from the reference::

        q(k|s) = exp(score_k / temperature) / sum_j exp(score_j / temperature)
        loss   = -E_s[sum_k q(k|s) log pi(a_k|s)]

    Args:
        logp: `(*runs, B, K)`, log pi of the K candidates of B states in nats.
        score: `(*runs, B, K)`, their values; no gradient flows through them. -inf leaves a candidate out.
        temperature: above 0, in the score's units: small takes the best candidate, large clones them all. A number or
            `(*runs, 1)`.
        weight: `(*runs, B)`, at least 0: the average over states is weighted.

    Returns:
        The loss `(*runs,)`, and detached metrics `(*runs,)`: `logp` (mean of all candidates), `candidates` (effective
        number behind a state's target, 1 to K).

    Raises:
        ValueError: a hyperparameter of another shape.
    """
    logp = full_precision(logp)
    weight = row_weight(logp[..., 0], weight)
    temperature = per_run(temperature, logp).unsqueeze(-1)

    target = (present(full_precision(score), weight.unsqueeze(-1)) / temperature).softmax(-1).detach()
    loss = -mean((target * present(logp, target * weight.unsqueeze(-1))).sum(-1), weight)

    return loss, detached(
        loss,
        logp=mean(logp.mean(-1), weight),
        candidates=mean(1 / target.square().sum(-1), weight),
    )
