"""MPO: learning from scores of several candidate actions in each state."""

from __future__ import annotations

import torch
from torch import Tensor

from ..objective import NOT_NEGATIVE, POSITIVE, declare
from ..rows import Setting, detached, full_precision, mean, per_run, present, row_weight
from .duals import candidates, state_temperature


@declare(
    {"temperature": POSITIVE, "epsilon": NOT_NEGATIVE},
    {"logp": "group_logp", "score": "group_score"},
    variants={"a budget": {"epsilon": 0.2}},
)
def mpo(
    logp: Tensor, score: Tensor, *, temperature: Setting = 1.0, epsilon: Setting = 0.0, weight: Tensor | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Fit the policy to its reference's candidates, reweighted by the exponential of their scores.

    Abdolmaleki et al., *Maximum a posteriori policy optimisation*, arXiv 1806.06920: the non-parametric E-step and the
    weighted maximum likelihood of the M-step, over candidates that were drawn from the reference::

        q(k|s) = exp(score_k / temperature) / sum_j exp(score_j / temperature)
        loss   = -E_s[sum_k q(k|s) log pi(a_k|s)]

    The temperature is fixed, or learned by its dual (`duals.temperature_loss`, all states together), or found in each
    state from a budget `epsilon` (`duals.state_temperature`), which makes every state depart equally far from its
    reference whatever the scale of its scores. There are no classes to be absent: equal scores clone all candidates.

    Args:
        logp: `(*runs, B, K)`, log pi of the K candidates of B states in nats.
        score: `(*runs, B, K)`, their values; no gradient flows through them. -inf leaves a candidate out; every state
            of positive weight keeps one.
        temperature: above 0, in the score's units: small takes the best candidate, large clones them all. A number or
            `(*runs, 1)`. Ignored where `epsilon` is above 0.
        epsilon: KL(q || uniform over the candidates) in nats, at most log K: small clones, more than the scores can
            spend takes the best candidate. 0 uses the temperature as given. A number or `(*runs, 1)`.
        weight: `(*runs, B)`, at least 0: the average over states is weighted.

    Returns:
        The loss `(*runs,)`, and detached metrics `(*runs,)`: `logp` (mean of all candidates), `candidates` (effective
        number behind a state's target, 1 to K), `temperature` (mean of those used), `target_kl` (mean of
        KL(q || uniform), which is epsilon where that is attainable).

    Raises:
        ValueError: a hyperparameter of another shape.
    """
    logp = full_precision(logp)
    weight = row_weight(logp[..., 0], weight)
    score = present(full_precision(score), weight.unsqueeze(-1)).detach()

    used = per_run(temperature, logp)
    if isinstance(epsilon, Tensor) or epsilon > 0:  # skip the search where it is not used
        used = torch.where(per_run(epsilon, logp) > 0, state_temperature(score, epsilon), used)
    # The best score is taken out first: scores far from zero would lose their differences in the division.
    gain = score - score.amax(-1, keepdim=True)
    target = (gain / used.unsqueeze(-1)).softmax(-1).to(logp.dtype)
    loss = -mean((target * present(logp, target * weight.unsqueeze(-1))).sum(-1), weight)

    return loss, detached(
        loss,
        logp=mean(logp.mean(-1), weight),
        candidates=mean(1 / target.square().sum(-1), weight),
        temperature=mean(used.to(logp.dtype), weight),
        target_kl=mean(candidates(score).log() + torch.xlogy(target, target).sum(-1), weight),
    )
