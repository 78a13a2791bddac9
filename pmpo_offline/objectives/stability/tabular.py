"""Policies over a few outcomes: the bound on beta, and the optimum, both in closed form.

The coefficients c(y) are those of `stability`.
"""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor

from .class_weights import class_weights


def beta_min(
    alpha: float,
    reject_mass: float,
    normalize: Literal["joint", "set"] = "set",
    reject_share: float | None = None,
) -> float:
    """Return the smallest beta that bounds PMPO where labels are clean: `(1 - alpha) w_r / P_r`.

    Clean labels make rho_r = 1 / P_r on the rejected outcomes. Contradictory labels on one outcome, or of contexts that
    the policy cannot tell apart, only relax the bound.

    Args:
        alpha: weight of the accepts, in [0, 1].
        reject_mass: P_r, the probability that the reference gives to the outcomes that are pushed away: a share of
            *all* rows. Count the rejects before balancing if the policy cannot tell a labelled reject from one whose
            label was dropped (few discrete outcomes), after it if it can (every row a state of its own).
        normalize: as in `pmpo`.
        reject_share: w_r for "joint", the rejects' share of the labelled rows, *after* balancing (default:
            `reject_mass`, every row labelled and nothing balanced). Zero: no rejects are left, any beta will do.

    Returns:
        The bound; 0 without rejects in the loss; infinite for rejects that the reference never produces.

    Raises:
        ValueError: an argument outside [0, 1], or another `normalize`.
    """
    reject_share = reject_mass if reject_share is None else reject_share
    for name, value in {"alpha": alpha, "reject_mass": reject_mass, "reject_share": reject_share}.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} lies in [0, 1], not {value}")
    _, w_reject = class_weights(normalize, 1 - reject_share, reject_share)
    strength = (1 - alpha) * w_reject
    if strength == 0 or reject_share == 0:
        return 0.0
    return strength / reject_mass if reject_mass else math.inf


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
    accepted, rejected = reference * accept, reference * reject
    p_accept, p_reject = float(accepted.sum()), float(rejected.sum())
    w_accept, w_reject = class_weights(normalize, p_accept, p_reject)
    coefficient = beta * reference
    if p_accept:
        coefficient = coefficient + alpha * w_accept * accepted / p_accept
    if p_reject:
        coefficient = coefficient - (1 - alpha) * w_reject * rejected / p_reject
    if (coefficient < 0).any() or not coefficient.any():
        raise ValueError(f"PMPO has no minimum at alpha={alpha}, beta={beta}: raise beta (see beta_min)")
    return coefficient / coefficient.sum()
