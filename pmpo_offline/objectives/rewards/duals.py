"""MPO's constraints: the temperature that spends a divergence budget, and trust regions with multipliers.

The temperature is the dual variable of `KL(q || uniform) <= epsilon`, where q is the target over a state's K candidates
(they were drawn from the reference, so that uniform represents it). Either all states share one temperature, learned
with `temperature_loss`, or each has its own, found with `state_temperature`. The trust regions hold the policy near
its predecessor, one multiplier a constraint. Candidates with a score of -inf are left out of K everywhere.

`pmpo_offline.training.control.constraints` learns the temperature and both multipliers beside a policy.

The conventions are those of acme's MPO. There epsilon is 0.1 for the target, 0.0025 for the mean and 1e-6 for the
deviation, with 20 candidates a state and a learning rate of 1e-2 for the duals, which a softplus keeps positive. Watch
`kl_over_epsilon`: near 1 a constraint is met and in use, far below it is idle, above 1 its dual learns too slowly.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..rows import Setting, full_precision, mean, per_run, present, row_weight, scale

_STEPS = 24
"""Of the root search at most; on a GPU and in a compiled graph always, so that nothing waits for a comparison. Scores
that are not made to be difficult take 10 at most, the worst that were tried (a near tie of the best, 1e-12 of the
spread apart) take 20 to 1e-5.
"""
_COLD = 1000.0
"""The gap between the two best scores, in temperatures, at which exp(-gap) is 0 in any precision: the greedy limit."""


def temperature_loss(score: Tensor, temperature: Setting, epsilon: Setting, weight: Tensor | None = None) -> Tensor:
    """Return the dual whose minimum over the temperature makes the states' mean divergence epsilon, `(*runs,)`.

    Abdolmaleki et al., *Maximum a posteriori policy optimisation*, arXiv 1806.06920, the dual of the E-step, with the
    expectation over the reference's actions as a mean over K candidates::

        g(temperature) = temperature (epsilon + E_s[log mean_k exp(score_k / temperature)])

    Convex in the temperature, with the derivative epsilon - E_s[KL(q || uniform)].

    Args:
        score: `(*runs, B, K)`, values of each state's candidates; no gradient flows through them.
        temperature: above 0, a number or, to learn it, a tensor `(*runs, 1)` that requires a gradient.
        epsilon: budget in nats, above 0. A number or `(*runs, 1)`.
        weight: `(*runs, B)`, at least 0: the average over states is weighted.

    Raises:
        ValueError: a hyperparameter of another shape.
    """
    score = full_precision(score).detach()
    weight = row_weight(score[..., 0], weight)
    temperature, epsilon = per_run(temperature, score), per_run(epsilon, score)

    score = present(score, weight.unsqueeze(-1))
    top = score.amax(-1)
    # The best score is taken out before the division: exponentials of at most 1 cannot overflow.
    tempered = (score - top.unsqueeze(-1)) / temperature.unsqueeze(-1)
    log_mean = tempered.logsumexp(-1) - candidates(score).log()
    return mean(top + temperature * (epsilon + log_mean), weight)


def state_temperature(score: Tensor, epsilon: Setting) -> Tensor:
    """Return each state's temperature at which KL(softmax(score / temperature) || uniform) = epsilon.

    The divergence falls from log(K / m), where m candidates share the best score, to 0 as the temperature rises, so
    that one root exists for every epsilon between, found to 1e-5 unless the two best scores differ by less than 1e-100
    of the spread: such a near tie is no longer resolved in the fixed number of steps. An epsilon that is not attainable
    gives the greedy limit, a temperature so low that the target is uniform over the best candidates; where all scores
    are equal every temperature gives the uniform target, and it is 1.

    Args:
        score: `(*runs, B, K)`, at least one finite score a state.
        epsilon: budget in nats, above 0. A number or `(*runs, 1)`.

    Returns:
        `(*runs, B)`, positive, float64 whatever the scores are: the temperatures of nearly tied scores are below what
        float32 holds. No gradient flows through it.

    Raises:
        ValueError: a hyperparameter of another shape.
    """
    with torch.no_grad():
        score = score.double()
        epsilon = per_run(epsilon, score).clamp(min=1e-12)
        kept = score > -math.inf
        below = torch.where(kept, score - score.amax(-1, keepdim=True), 0)
        spread = -below.amin(-1)
        gap = torch.where(below < 0, -below, math.inf).amin(-1)  # from the best score to the next, inf without a next
        count, best = kept.sum(-1).double(), (kept & (below == 0)).sum(-1).double()
        most = (count / best).log()
        attainable = epsilon < most
        # Scores on [-1, 0], and solvable placeholders where there is no root: no step below divides by zero.
        spread, gap = torch.where(spread > 0, spread, 1), torch.where(spread > 0, gap, 1)
        most = torch.where(attainable, most, 2)
        target = torch.where(attainable, epsilon, 1)
        highest = (64 * spread / gap).clamp(max=1e300)  # where e^-64 is left for all but the best
        coldness = _coldness(below / spread.unsqueeze(-1), kept, most, target, highest)
        temperature = torch.where(attainable, spread / coldness, torch.where(best < count, gap / _COLD, 1))
        return temperature.clamp(min=torch.finfo(torch.float64).tiny)


def _coldness(scaled: Tensor, kept: Tensor, most: Tensor, epsilon: Tensor, highest: Tensor) -> Tensor:
    """Return the inverse temperature c at which KL = epsilon, for scores on [-1, 0]: Newton's steps in a bracket.

    The root lies between sqrt(8 epsilon), because KL <= c^2 / 8 by Hoeffding's lemma, and `highest`, where only the
    best candidates are left. The equation is solved for the log-odds of KL as a share of its limit `most`: these are
    straight in c near the limit, and in log c near zero. A step that leaves the bracket halves it (in log c) instead.
    """
    count, low, high = kept.sum(-1).double(), (8 * epsilon).sqrt(), highest
    wanted = epsilon.log() - (most - epsilon).log()
    c = torch.minimum(2 * low, low.sqrt() * high.sqrt())
    fixed = c.device.type != "cpu" or torch.compiler.is_compiling()
    for _ in range(_STEPS):
        # expm1: exact where c is small and all exponentials are near 1. Candidates left out: scaled = kept = 0.
        gain = torch.expm1(c.unsqueeze(-1) * scaled)
        total = gain.sum(-1)
        q = (gain + kept) / (total + count).unsqueeze(-1)
        average = (q * scaled).sum(-1)
        variance = (q * (scaled - average.unsqueeze(-1)).square()).sum(-1)
        kl = c * average - torch.log1p(total / count)
        low, high = torch.where(kl < epsilon, c, low), torch.where(kl < epsilon, high, c)
        excess = kl.log() - (most - kl).log() - wanted
        found = excess.abs() < 1e-9  # then c stays as it is
        if not fixed and found.all():
            break
        step = c - excess * kl * (most - kl) / (c * variance * most)
        inside = (step > low) & (step < high)  # NaN is not
        c = torch.where(found, c, torch.where(inside, step, low.sqrt() * high.sqrt()))
    return c


def trust_region(
    kl: Tensor, multiplier: Setting, epsilon: Setting, weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return what a constraint `E[KL] <= epsilon` adds to the policy's loss, and the loss of its multiplier.

    Abdolmaleki et al., *Relative entropy regularized policy iteration*, arXiv 1812.02256: the mean and the deviation of
    a Gaussian policy are constrained apart, each with its own epsilon and multiplier, so that one call serves one of
    the two (or one dimension of it: stack the dimensions as runs)::

        penalty   = multiplier E[KL(previous || policy)]               the multiplier held fixed
        dual_loss = multiplier (epsilon - E[KL(previous || policy)])   the divergence held fixed

    Minimising the dual loss raises the multiplier while the constraint is broken and lowers it while it is slack.

    Args:
        kl: `(*runs, B)`, the divergence in each state, in nats.
        multiplier: at least 0 (a softplus keeps it so), a number or, to learn it, `(*runs, 1)` with a gradient.
        epsilon: the constraint, above 0, in nats. A number or `(*runs, 1)`.
        weight: `(*runs, B)`, at least 0: the average over states is weighted.

    Returns:
        `penalty` and `dual_loss`, each `(*runs,)`.

    Raises:
        ValueError: a hyperparameter of another shape.
    """
    kl = full_precision(kl)
    average = mean(kl, row_weight(kl, weight))
    multiplier, epsilon = per_run(multiplier, kl), per_run(epsilon, kl)
    penalty = scale(multiplier.detach(), average)
    dual_loss = (multiplier * (epsilon - average.detach().unsqueeze(-1))).squeeze(-1)
    return penalty, dual_loss


def kl_over_epsilon(kl: Tensor, epsilon: Setting, weight: Tensor | None = None) -> Tensor:
    """Return how much of a budget is spent, E[KL] / epsilon, detached.

    Args:
        kl: `(*runs, B)`, the divergence in each state, in nats.
        epsilon: the budget, above 0. A number or `(*runs, 1)`.
        weight: `(*runs, B)`, at least 0: the average over states is weighted.

    Returns:
        `(*runs,)`, 1 where the budget is spent to the last.
    """
    kl = full_precision(kl).detach()
    return scale(1 / per_run(epsilon, kl), mean(kl, row_weight(kl, weight)))


def candidates(score: Tensor) -> Tensor:
    """Return how many candidates take part in each state, `(*runs, B, K)` to `(*runs, B)`: those not at -inf."""
    return (score > -math.inf).sum(-1).to(score.dtype)
