"""Diagonal Gaussian policies without context: the bound on beta, and the optimum, in closed form from samples.

With the coefficients a = alpha w_a, r = (1 - alpha) w_r, every dimension of the loss rests on two numbers and a mean::

    W  = a - r + beta
    mu = (a E_A[y] - r E_R[y] + beta E_ref[y]) / W
    S  = a E_A[(y - mu)^2] - r E_R[(y - mu)^2] + beta E_ref[(y - mu)^2]

At the mean mu it is W log std + S / (2 std^2) and a constant. It has a minimum if and only if W > 0 and S > 0 in every
dimension: the mean mu, the variance S / W. Otherwise the mean runs away, or the deviation collapses or explodes.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from .bounds import Minibatch, class_weights


def gaussian_beta_min(
    accepted: Tensor,
    rejected: Tensor,
    reference: Tensor,
    *,
    alpha: float,
    normalize: Literal["joint", "set"] = "set",
    minibatch: Minibatch | None = None,
) -> float:
    """Return the beta above which PMPO is bounded for a diagonal Gaussian policy; at the bound itself it is not.

    Where W > 0, S is the least value over mu of an average in which beta multiplies E_ref[(y - mu)^2] >= 0, hence it
    never decreases with beta, and neither does W: one bound separates the two cases. Measured from the reference's
    mean, with its variance v, with c = a - r, and with the first and second moments g and e under a E_A - r E_R, ::

        W S = (beta + c) (beta v + e) - g^2

    which is -g^2 <= 0 at W = 0: the bound is the larger root of this quadratic, the largest over the dimensions.

    Args:
        accepted: `(N_a, D)`, accepted outcomes, N_a may be 0.
        rejected: `(N_r, D)`, rejected outcomes, N_r may be 0.
        reference: `(N, D)`, outcomes of the reference, N at least 1.
        alpha: weight of the accepts, in [0, 1].
        normalize: as in `pmpo`.
        minibatch: as in `beta_min`.

    Returns:
        The bound; 0 without rejects in the loss, and wherever else any beta above 0 will do; infinite where no beta
        helps, which takes a dimension in which the reference does not vary.

    Raises:
        ValueError: an alpha outside [0, 1], no outcome of the reference, or another `normalize`.
    """
    a, r = _coefficients(accepted, rejected, alpha, normalize, minibatch)
    if not len(reference):
        raise ValueError("the bound needs outcomes of the reference, (N, D) with N at least 1")
    if r == 0:
        return 0.0
    centre = _moment(reference, 1)
    v = _moment(reference, 2, centre)
    c = a - r
    g = a * _moment(accepted, 1, centre) - r * _moment(rejected, 1, centre)
    e = a * _moment(accepted, 2, centre) - r * _moment(rejected, 2, centre)

    linear = e + c * v
    root = ((e - c * v).square() + 4 * v * g.square()).sqrt()  # of the discriminant: it is never negative
    # Two forms of the larger root, so that numbers of one sign are added; the first also serves v = 0.
    larger = torch.where(linear > 0, 2 * (g.square() - c * e) / (linear + root), (root - linear) / (2 * v))
    return max(0.0, float(larger.nan_to_num(nan=math.inf, posinf=math.inf).max()))


def gaussian_optimum(
    accepted: Tensor,
    rejected: Tensor,
    reference: Tensor,
    *,
    alpha: float,
    beta: float,
    normalize: Literal["joint", "set"] = "set",
) -> tuple[Tensor, Tensor]:
    """Return the mean and the deviation, each `(D,)`, of the diagonal Gaussian policy that minimises PMPO.

    Args:
        accepted: `(N_a, D)`, accepted outcomes, N_a may be 0.
        rejected: `(N_r, D)`, rejected outcomes, N_r may be 0.
        reference: `(N, D)`, outcomes of the reference, N at least 1.
        alpha: weight of the accepts, in [0, 1].
        beta: weight of the divergence, which runs over the reference's outcomes.
        normalize: as in `pmpo`.

    Raises:
        ValueError: the loss has no minimum, or another `normalize`.
    """
    a, r = _coefficients(accepted, rejected, alpha, normalize)
    w = a - r + beta

    def average(power: int, centre: Tensor | float) -> Tensor:
        of_accepts, of_rejects = _moment(accepted, power, centre), _moment(rejected, power, centre)
        return a * of_accepts - r * of_rejects + beta * _moment(reference, power, centre)

    if w > 0:
        mu = average(1, 0.0) / w
        variance = average(2, mu) / w
        if (variance > 0).all():
            return mu, variance.sqrt()
    raise ValueError(f"PMPO has no minimum at alpha={alpha}, beta={beta}: raise beta (see gaussian_beta_min)")


def _coefficients(
    accepted: Tensor, rejected: Tensor, alpha: float, normalize: str, minibatch: Minibatch | None = None
) -> tuple[float, float]:
    """Return a and r; a class without outcomes has no say. ValueError for an alpha that is none."""
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha lies in [0, 1], not {alpha}")
    w_accept, w_reject = class_weights(normalize, len(accepted), len(rejected), minibatch)
    return alpha * w_accept * bool(len(accepted)), (1 - alpha) * w_reject * bool(len(rejected))


def _moment(y: Tensor, power: int, centre: Tensor | float = 0.0) -> Tensor:
    """Return E[(y - centre)^power] of outcomes `(N, D)` as `(D,)` in double precision; zero without outcomes."""
    return (y.double() - centre).pow(power).sum(0) / max(len(y), 1)
