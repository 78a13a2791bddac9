"""The optimum of PMPO over a few outcomes, and the limit of training where it has none, in closed form.

The coefficients c(y) are those of `stability`.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .bounds import Minibatch, check_shares, class_weights


def limit_policy(coefficient: Tensor) -> Tensor:
    """Return the policy over K outcomes at which gradient ascent on softmax logits ends.

    The logits of the outcomes that survive grow at one rate, `c(y) - C pi(y) = level`, and those of the others more
    slowly, which is water-filling::

        pi(y) = max(0, c(y) - level) / C,    level such that it sums to one

    Where no coefficient is negative the level is zero and this is the minimum, `optimal_policy`.

    Args:
        coefficient: `(K,)`, c(y) of `coefficients`.

    Returns:
        `(K,)`, the probabilities.

    Raises:
        ValueError: the coefficients sum to zero or less (see `beta_collapse`).
    """
    total = coefficient.sum()
    if total <= 0:
        raise ValueError("training collapses onto one outcome: raise beta (see beta_collapse)")
    ordered = coefficient.sort(descending=True).values
    count = torch.arange(1, len(ordered) + 1, dtype=ordered.dtype)
    level = (ordered.cumsum(0) - total) / count
    return (coefficient - level[(ordered > level).nonzero()[-1]]).clamp(min=0) / total


def coefficients(
    reference: Tensor,
    accept: Tensor,
    reject: Tensor,
    *,
    alpha: float,
    beta: float,
    normalize: Literal["joint", "set"] = "set",
    rows: int | None = None,
) -> Tensor:
    """Return c(y) of K outcomes, the weights of -log pi(y) in PMPO's loss; arguments as in `optimal_policy`.

    In minibatches of so many `rows`, drawn at random, they are the expected weights (`Minibatch`).
    """
    accepted, rejected = reference * accept, reference * reject
    p_accept, p_reject = float(accepted.sum()), float(rejected.sum())
    minibatch = None if rows is None else Minibatch(rows, p_accept + p_reject)
    w_accept, w_reject = class_weights(normalize, p_accept, p_reject, minibatch)
    coefficient = beta * reference
    if p_accept:
        coefficient = coefficient + alpha * w_accept * accepted / p_accept
    if p_reject:
        coefficient = coefficient - (1 - alpha) * w_reject * rejected / p_reject
    return coefficient


def optimal_policy(
    reference: Tensor,
    accept: Tensor,
    reject: Tensor,
    *,
    alpha: float,
    beta: float,
    normalize: Literal["joint", "set"] = "set",
) -> Tensor:
    """Return the policy over K outcomes that minimises PMPO: proportional to the coefficients c(y).

    Args:
        reference: `(K,)`, pi_ref, the distribution that the rows come from.
        accept: `(K,)`, the probability that an outcome is labelled as accepted.
        reject: `(K,)`, the probability that it is labelled as rejected; whatever remains is unlabelled.
        alpha: weight of the accepts, in [0, 1].
        beta: weight of the divergence, which runs over every row.
        normalize: as in `pmpo`.

    Returns:
        `(K,)`, the optimal probabilities.

    Raises:
        ValueError: the loss has no minimum (a negative coefficient, or nothing but zeros), or another `normalize`.
    """
    coefficient = coefficients(reference, accept, reject, alpha=alpha, beta=beta, normalize=normalize)
    if (coefficient < 0).any() or not coefficient.any():
        raise ValueError(f"PMPO has no minimum at alpha={alpha}, beta={beta}: raise beta (see beta_min)")
    return coefficient / coefficient.sum()


def state_collapse(
    chances: Tensor,
    alpha: float,
    normalize: Literal["joint", "set"] = "set",
    *,
    over: Literal["all", "labelled"] = "all",
    minibatch: Minibatch | None = None,
) -> Tensor:
    """Return the beta at or below which a policy that sees the state collapses in each of S states, (S,).

    It has a softmax a state, of which `beta_collapse` asks that the coefficients have a positive sum there. With r(s)
    and a(s) the chances that a row of state s is labelled reject or accept, and P_r and P_a their means over states ::

        beta <= (1 - alpha) w_r r(s) / P_r - alpha w_a a(s) / P_a

    If the state says nothing of the label that is `beta_collapse`, if it says all, `beta_min`.

    Args:
        chances: `(S, 2)`, r(s) and a(s); states count equally, as rows of a dataset do.
        alpha: weight of the accepts, in [0, 1].
        normalize: as in `pmpo`, whose default is "joint".
        over: the rows that the divergence runs over; over the labelled ones it weighs by their share in the state.
        minibatch: as in `beta_min`.

    Raises:
        ValueError: alpha outside [0, 1], or another `normalize`.
    """
    check_shares(alpha=alpha)
    reject, accept = chances.unbind(1)
    rejects, accepts = chances.mean(0).tolist()
    w_accept, w_reject = class_weights(normalize, accepts, rejects, minibatch)
    push = (1 - alpha) * w_reject * reject / (rejects or 1.0) - alpha * w_accept * accept / (accepts or 1.0)
    labelled = reject + accept
    held = labelled / (rejects + accepts) if over == "labelled" else torch.ones_like(labelled)
    return torch.where(held > 0, push / held, 0.0).clamp(min=0)
