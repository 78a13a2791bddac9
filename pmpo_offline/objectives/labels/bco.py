"""BCO: learning from single accepted and rejected outcomes, as a classifier whose logit is the reward."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from ..objective import POSITIVE, declare
from ..rows import Setting, classes, detached, full_precision, mean, per_run, present


@declare({"beta": POSITIVE}, optional={"shift": "reward_shift"})
def bco(
    logp: Tensor,
    ref_logp: Tensor,
    label: Tensor,
    *,
    beta: Setting = 0.1,
    shift: Tensor | None = None,
    weight: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Classify accepts and rejects by their reward, above and below a shift that lies between the two.

    Jung et al., *Binary classifier optimization for large language model alignment*, arXiv 2404.04656, the binary
    cross-entropy with its reward shift (section and equation numbers differ between its versions)::

        r(y) = log pi(y|x) - log pi_ref(y|x)
        shift = (E_accept[beta r] + E_reject[beta r]) / 2
        loss = -E_accept[log sigmoid(beta r - shift)] - E_reject[log sigmoid(shift - beta r)]

    Each class is averaged over its own rows, and bounds DPO on all accept x reject pairs from above. A class that is
    absent contributes zero, to the loss and to the shift, which is then the other class's mean: all rows are pushed the
    same way without end. TRL's `bco_pair` is the shift 0. The density-ratio weights of the paper's first version, for
    classes of different contexts, are a `weight` here.

    Args:
        logp: `(*runs, B)`, log pi(y|x) in nats.
        ref_logp: `(*runs, B)`, log pi_ref(y|x).
        label: `(*runs, B)`, +1 accept, -1 reject, 0 unlabelled; or bool, True accept, False reject.
        beta: inverse temperature, above 0. A number or `(*runs, 1)`.
        shift: `(*runs,)`, in the units of beta r; no gradient flows through it. The authors keep a running mean over
            batches, which the caller may do with the metrics; `bco_shift` is that of other rows. None: from this batch.
        weight: `(*runs, B)`, at least 0: the averages are weighted.

    Returns:
        The loss `(*runs,)`, and detached metrics `(*runs,)`: `accept_logp` and `reject_logp`, `accept_reward` and
        `reject_reward` (means of beta r; 0 where the class is absent), `shift` (the one used).

    Raises:
        ValueError: a shift that still has a dimension of rows, or a hyperparameter of another shape.
    """
    logp = full_precision(logp)
    accepted, rejected = classes(label, logp, weight)
    beta = per_run(beta, logp)

    reward = beta * present(logp - ref_logp, accepted + rejected)
    accept_reward, reject_reward = mean(reward, accepted), mean(reward, rejected)
    if shift is None:
        shift = _half_way(reward, accepted, rejected)
    elif shift.dim() >= logp.dim():
        raise ValueError(f"shift is one number a run, (*runs,), not {tuple(shift.shape)}: average it over the rows")
    shift = full_precision(shift).detach()
    gain = reward - shift.unsqueeze(-1)
    loss = -mean(logsigmoid(gain), accepted) - mean(logsigmoid(-gain), rejected)

    return loss, detached(
        loss,
        accept_logp=mean(logp, accepted),
        reject_logp=mean(logp, rejected),
        accept_reward=accept_reward,
        reject_reward=reject_reward,
        shift=shift,
    )


def bco_shift(
    logp: Tensor, ref_logp: Tensor, label: Tensor, *, beta: Setting = 0.1, weight: Tensor | None = None
) -> Tensor:
    """Return the shift of `bco` on these rows, `(*runs,)` without a gradient; the arguments are those of `bco`.

    For a loss that is computed part by part, several processes' say, of which none sees all the rows.
    """
    logp = full_precision(logp).detach()
    accepted, rejected = classes(label, logp, weight)
    return _half_way(per_run(beta, logp) * present(logp - ref_logp, accepted + rejected), accepted, rejected)


def _half_way(reward: Tensor, accepted: Tensor, rejected: Tensor) -> Tensor:
    """Return the mean of both classes' means, or the mean of the one that is there: (*runs, B) -> (*runs,)."""
    kinds = (accepted != 0).any(-1).to(reward.dtype) + (rejected != 0).any(-1).to(reward.dtype)
    return (mean(reward, accepted) + mean(reward, rejected)) / kinds.clamp(min=1)
