"""Labels that were flipped at random: an estimate of what every objective would be on the true ones.

Chowdhury et al., *Provably robust DPO*, arXiv 2403.00409, de-bias the loss of a preference that was flipped with
probability e; of a single label y (Natarajan et al., *Learning with noisy labels*, 2013) the same reads::

    loss~(y) = ((1 - e) loss(y) - e loss(-y)) / (1 - 2 e)        E[loss~(observed label)] = loss(true label)

Here it is done to the rows and not to the loss, so that one function serves every objective: each labelled row counts
twice, as what was observed with the weight (1 - e) / (1 - 2e), and as the opposite with -e / (1 - 2e). A sum over rows
is then unbiased. So are numerator and denominator of the mean over a class, each by itself; a class whose estimated
count is not positive in a batch contributes nothing to it.

Unbiased is not bounded: the negative copy of a row takes its lower bound away from every loss that grows without end on
the wrong side (all but saturating ones such as `kto`), if the policy can single the row out. Where a loss is linear in
the label (`pmpo` with normalize = "joint", `asymre`), it is the same loss with the labels' weight divided by 1 - 2e.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .rows import Setting, full_precision, per_run, row_weight
from .vocabulary import row_dimension


def debias(
    inputs: Mapping[str, Tensor],
    weight: Tensor | None,
    flip_rate: Setting,
    accept_share: Setting | None = None,
) -> tuple[dict[str, Tensor], Tensor]:
    """Return the inputs of an objective with every row twice, and the rows' weights, some of them negative.

    Minibatches of as many accepts as rejects are not drawn as the labels were observed: an observed accept is the more
    often a true reject the rarer accepts are. With `accept_share` a, the accepts' share of the observed labels in the
    data, either class of the batch estimates the same class of true labels, and keeps its share of the batch::

        accepts = ((1 - e) a observed accepts - e (1 - a) observed rejects) / (a - e)

    in which both classes are represented by their means, and likewise for rejects.

    Args:
        inputs: by their names in the vocabulary, `label` `(*runs, B)` among them.
        weight: `(*runs, B)`, or None.
        flip_rate: e, at least 0 and below 1/2. A number or `(*runs, 1)`.
        accept_share: of balanced batches, between e and 1 - e; None: the batch is a plain sample of the data.

    Raises:
        ValueError: a rate or share out of its range. (Those in tensors are not read.)
    """
    if not isinstance(flip_rate, Tensor) and not 0 <= flip_rate < 0.5:
        raise ValueError(f"flip_rate is at least 0 and below 1/2, not {flip_rate!r}: at 1/2 labels say nothing")
    numbers = not isinstance(flip_rate, Tensor) and isinstance(accept_share, float)
    if numbers and not flip_rate < accept_share < 1 - flip_rate:  # type: ignore[operator]
        raise ValueError(
            f"accept_share is between flip_rate and 1 - flip_rate, not {accept_share!r} at {flip_rate!r}: "
            "flips alone would make as many labels of one class"
        )
    label = inputs["label"]
    label = full_precision(torch.where(label, 1, -1)) if label.dtype == torch.bool else full_precision(label)
    weight, rate = row_weight(label, weight), per_run(flip_rate, label)
    accepted = label > 0
    if accept_share is None:
        kept, flipped = (1 - rate) / (1 - 2 * rate), rate / (1 - 2 * rate)
    else:
        share = per_run(accept_share, label)
        ours = torch.where(accepted, share, 1 - share)  # of the row's observed class in the data
        kept = (1 - rate) * ours / (ours - rate)
        # An observed accept corrects the estimate of the true rejects, in proportion to what these weigh in the batch.
        total = torch.where(label != 0, weight, 0)
        accepts, rejects = ((total * side).sum(-1, keepdim=True) for side in (accepted, label < 0))
        balance = torch.where(accepted, rejects, accepts) / torch.where(accepted, accepts, rejects).clamp(min=1e-30)
        flipped = rate * ours / (1 - ours - rate) * balance
    once = torch.where(label != 0, kept, 1) * weight
    again = torch.where(label != 0, -flipped, 0) * weight
    twice = {name: _twice(name, value) for name, value in inputs.items()}
    twice["label"] = torch.cat([label, -label], -1)
    if "accept_rate" in twice:
        observed = twice["accept_rate"]
        twice["accept_rate"] = ((observed - rate) / (1 - 2 * rate)).clamp(0, 1)
    return twice, torch.cat([once, again], -1)


def _twice(name: str, value: Tensor) -> Tensor:
    dimension = row_dimension(name)
    return value if dimension is None else torch.cat([value, value], dimension)
