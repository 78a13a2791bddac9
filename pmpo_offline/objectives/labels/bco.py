"""BCO: learning from single accepted and rejected outcomes, as a classifier whose logit is the reward."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from ..objective import POSITIVE, declare
from ..rows import Setting, classes, full_precision, log_ratio, mean, per_run
from .classes import class_metrics, half_way


@declare(
    {"beta": POSITIVE},
    optional={"shift": "reward_shift"},
    running={"reward_shift": "batch_shift"},
    revision=1,  # before, every minibatch had a shift of its own
)
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
            batches, as our training loops do with the metric `batch_shift`: a shift of the batch's own runs along with
            the rewards, and lets both classes run away together. `bco_shift` is that of other rows. None: this batch's.
        weight: `(*runs, B)`, at least 0: the averages are weighted.

    Returns:
        The loss `(*runs,)`, and detached metrics `(*runs,)`: `accept_logp` and `reject_logp`, `accept_reward` and
        `reject_reward` (means of beta r; 0 where the class is absent), `shift` (the one used), `batch_shift` (of these
        rows). A reject of log-probability -inf costs nothing; an accept costs infinity, with a finite gradient.

    Raises:
        ValueError: a shift that still has a dimension of rows, or a hyperparameter of another shape.
    """
    logp = full_precision(logp)
    accepted, rejected = classes(label, logp, weight)
    beta = per_run(beta, logp)

    reward = beta * log_ratio(logp, ref_logp, accepted + rejected)
    batch_shift = half_way(reward.detach(), accepted, rejected)
    if shift is None:
        shift = batch_shift
    elif shift.dim() >= logp.dim():
        raise ValueError(f"shift is one number a run, (*runs,), not {tuple(shift.shape)}: average it over the rows")
    shift = full_precision(shift).detach()
    gain = reward - shift.unsqueeze(-1)
    loss = -mean(logsigmoid(gain), accepted) - mean(logsigmoid(-gain), rejected)

    return loss, class_metrics(loss, logp, reward, (accepted, rejected), shift=shift, batch_shift=batch_shift)


def bco_shift(
    logp: Tensor, ref_logp: Tensor, label: Tensor, *, beta: Setting = 0.1, weight: Tensor | None = None
) -> Tensor:
    """Return the shift of `bco` on these rows, `(*runs,)` without a gradient; the arguments are those of `bco`.

    For a loss that is computed part by part, several processes' say, of which none sees all the rows.
    """
    logp = full_precision(logp).detach()
    accepted, rejected = classes(label, logp, weight)
    return half_way(per_run(beta, logp) * log_ratio(logp, ref_logp, accepted + rejected), accepted, rejected)
