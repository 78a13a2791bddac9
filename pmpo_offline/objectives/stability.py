"""When PMPO is bounded from below, and what it converges to.

In the loss of `pmpo`, with the divergence over all that the reference produces, outcome y carries the coefficient

    c(y) = pi_ref(y) [beta + alpha w_a rho_a(y) - (1 - alpha) w_r rho_r(y)]

on -log pi(y), where rho_a = p(y|accept) / pi_ref(y), rho_r = p(y|reject) / pi_ref(y), and w is the weight that the
normalisation gives each class ("set": 1 and 1; "joint": its share of the labelled rows). The loss is bounded if and
only if no coefficient is negative, and then the optimal policy is proportional to the coefficients.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor


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
    _, w_reject = _class_weights(normalize, 1 - reject_share, reject_share)
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
    """Return the policy over K outcomes that minimises PMPO: proportional to the coefficients c(y) above.

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
    w_accept, w_reject = _class_weights(normalize, p_accept, p_reject)
    coefficient = beta * reference
    if p_accept:
        coefficient = coefficient + alpha * w_accept * accepted / p_accept
    if p_reject:
        coefficient = coefficient - (1 - alpha) * w_reject * rejected / p_reject
    if (coefficient < 0).any() or not coefficient.any():
        raise ValueError(f"PMPO has no minimum at alpha={alpha}, beta={beta}: raise beta (see beta_min)")
    return coefficient / coefficient.sum()


def gaussian_bounded(
    accepted: Tensor,
    rejected: Tensor,
    reference: Tensor,
    *,
    alpha: float,
    beta: float,
    normalize: Literal["joint", "set"] = "set",
) -> bool:
    """Return whether PMPO is bounded for a diagonal Gaussian policy without context, from samples.

    A Gaussian cannot single outcomes out, so only moments count. With the coefficients a = alpha w_a,
    r = (1 - alpha) w_r and the stationary mean mu = (a E_A[y] - r E_R[y] + beta E_ref[y]) / W, it takes::

        W = a - r + beta > 0,    S = a E_A[(y - mu)^2] - r E_R[(y - mu)^2] + beta E_ref[(y - mu)^2] > 0

    in every dimension; the optimal variance is S / W. Otherwise the mean runs away, or the deviation collapses or
    explodes.

    Args:
        accepted: `(N_a, D)`, accepted outcomes, N_a may be 0.
        rejected: `(N_r, D)`, rejected outcomes, N_r may be 0.
        reference: `(N, D)`, outcomes of the reference, N at least 1.
        alpha: weight of the accepts, in [0, 1].
        beta: weight of the divergence.
        normalize: as in `pmpo`.

    Raises:
        ValueError: another `normalize`.
    """
    w_accept, w_reject = _class_weights(normalize, len(accepted), len(rejected))
    groups = [(alpha * w_accept, accepted), (-(1 - alpha) * w_reject, rejected), (beta, reference)]
    terms = [(coefficient, y.double()) for coefficient, y in groups if len(y)]
    w = sum(coefficient for coefficient, _ in terms)
    if w <= 0:
        return False
    mu = torch.stack([coefficient * y.mean(0) for coefficient, y in terms]).sum(0) / w
    s = torch.stack([coefficient * (y - mu).square().mean(0) for coefficient, y in terms]).sum(0)
    return bool((s > 0).all())


def _class_weights(normalize: str, accepts: float, rejects: float) -> tuple[float, float]:
    """Return (w_a, w_r) from the amounts of accepts and rejects among the labelled rows."""
    if normalize == "set":
        return 1.0, 1.0
    if normalize == "joint":
        labelled = (accepts + rejects) or 1.0
        return accepts / labelled, rejects / labelled
    raise ValueError(f'normalize is "joint" or "set", not {normalize!r}')
