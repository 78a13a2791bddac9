"""Policies over a few outcomes: the thresholds on beta, in closed form; numbers alone, without torch.

The coefficients c(y) are those of `stability`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Regime = Literal["bounded", "no minimum", "collapse", "unbounded"]
"""The loss has a minimum; it has none, yet training ends at a policy over several outcomes (`limit_policy`); it ends on
one of them; no beta bounds the loss, and nothing more is known."""


def beta_min(
    alpha: float,
    reject_mass: float,
    normalize: Literal["joint", "set"] = "set",
    reject_share: float | None = None,
    *,
    noise: float = 0.0,
    accept_mass: float | None = None,
    minibatch: Minibatch | None = None,
) -> float:
    """Return the smallest beta that bounds PMPO: `(1 - alpha) w_r / P_r` where labels are clean.

    Clean labels make rho_r = 1 / P_r on the rejected outcomes, and rho_a = 0. Contradictory labels on one outcome, or
    of contexts that the policy cannot tell apart, only relax the bound. Of labels that were flipped at a known rate an
    outcome that should be rejected has rho_r = (1 - noise) / P_r and rho_a = noise / P_a, so that its coefficient is
    not negative from here on::

        beta >= (1 - alpha) w_r (1 - noise) / P_r - alpha w_a noise / P_a

    Args:
        alpha: weight of the accepts, in [0, 1].
        reject_mass: P_r, the probability that the reference gives to the outcomes that are pushed away: a share of
            *all* rows. Count the rejects before balancing if the policy cannot tell a labelled reject from one whose
            label was dropped (few discrete outcomes), after it if it can (every row a state of its own).
        normalize: as in `pmpo`, whose default is "joint".
        reject_share: w_r for "joint", the rejects' share of the labelled rows, *after* balancing (default:
            `reject_mass`, every row labelled and nothing balanced). Zero: no rejects are left, any beta will do.
        noise: rate at which labels were flipped, at most 1/2. For outcomes that come with both labels; a policy that
            can tell every row from the others sees each with one label, clean or not: leave it at 0. Over all rows,
            P_r and P_a are those before balancing, noise included. Over the labelled rows alone (`reject_mass` =
            `reject_share`), where one class lost labels more than the other, it is `remaining_noise`.
        accept_mass: P_a, the same of the accepts, before any of their labels were dropped to balance: that leaves rho_a
            as it was (default: `1 - reject_mass`, all that is not rejected).
        minibatch: in which a class may be absent; None: the whole data, or stratified minibatches.

    Returns:
        The bound; 0 without rejects in the loss; infinite for rejects that the reference never produces.

    Raises:
        ValueError: an argument outside [0, 1], noise above 1/2, or another `normalize`.
    """
    accept_mass = 1 - reject_mass if accept_mass is None else accept_mass
    reject_share = reject_mass if reject_share is None else reject_share
    check_shares(alpha=alpha, reject_mass=reject_mass, reject_share=reject_share, accept_mass=accept_mass)
    if not 0 <= noise <= 0.5:
        raise ValueError(f"noise lies in [0, 1/2], not {noise}: beyond it the labels say the opposite")
    w_accept, w_reject = class_weights(normalize, 1 - reject_share, reject_share, minibatch)
    push = (1 - alpha) * w_reject * (1 - noise)
    if push == 0 or reject_share == 0:
        return 0.0
    pull = alpha * w_accept * noise / accept_mass if accept_mass else 0.0
    return max(0.0, push / reject_mass - pull) if reject_mass else math.inf


def remaining_noise(noise: float, kept: float) -> float:
    """Return the share of accepts among the labels that an outcome which should be rejected has left.

    Flips give it accepts at the rate `noise`. If the accepts then keep k_a and the rejects k_r of their labels, at
    random, the outcome has `noise k_a` and `(1 - noise) k_r` left. A divergence over the labelled rows holds it by what
    is left, so that `beta_min` with this rate in place of `noise` is exact again::

        beta >= (1 - alpha) w_r (1 - u) / r - alpha w_a u / (1 - r),    r the rejects' share of the labels left

    Args:
        noise: rate at which labels were flipped, in [0, 1/2].
        kept: k_a / k_r, 0 or more.
    """
    return noise * kept / (noise * kept + 1 - noise)


def beta_collapse(
    alpha: float,
    reject_share: float,
    normalize: Literal["joint", "set"] = "set",
    *,
    minibatch: Minibatch | None = None,
) -> float:
    """Return the beta at or below which training a softmax over outcomes collapses onto a single one of them.

    The gradient on the logits is `c(y) - C pi(y)` with `C = sum c(y) = beta + alpha w_a - (1 - alpha) w_r`. As long as
    C is positive, ascent ends at a policy over several outcomes even if the loss has no minimum (`limit_policy`); at
    C <= 0 nothing holds a logit that leads, and ever fewer outcomes are left. A class's part of the sum is its weight
    whatever outcomes its labels lie on, so that labels which are missing, dropped or flipped change it only through
    the rejects' share; of weighted rows that is a share of the weights. With every row labelled and "joint" this is
    the threshold of off-policy REINFORCE with the baseline V = 1 - alpha - beta (Arnal et al., AsymRE,
    arXiv 2506.20520): V < P_a, that is beta > P_r - alpha.

    Args:
        alpha: weight of the accepts, in [0, 1].
        reject_share: w_r for "joint", the rejects' share of the labelled rows, after balancing and noise; "set" depends
            only on whether both classes are there.
        normalize: as in `pmpo`, whose default is "joint".
        minibatch: as in `beta_min`.

    Raises:
        ValueError: an argument outside [0, 1], or another `normalize`.
    """
    check_shares(alpha=alpha, reject_share=reject_share)
    w_accept, w_reject = class_weights(normalize, 1 - reject_share, reject_share, minibatch)
    pull = alpha * w_accept if reject_share < 1 else 0.0
    return max(0.0, (1 - alpha) * w_reject - pull) if reject_share else 0.0


def regime(beta: float, bound: float, collapse: float | None) -> Regime:
    """Return where a policy over outcomes ends at this beta: see `Regime`.

    Args:
        beta: of the loss.
        bound: `beta_min`, infinite where the divergence does not hold rejects back.
        collapse: `beta_collapse`; None: not known, which is taken as below it.
    """
    if beta >= bound:
        return "bounded"
    if math.isinf(bound):
        return "unbounded"
    return "no minimum" if collapse is not None and beta > collapse else "collapse"


def consequence(beta: float, bound: float, collapse: float | None) -> str:
    """Return what training ends at with a beta below its bound; arguments as in `regime`.

    `beta_collapse` counts the labels of all states: where states tell labels apart, collapse begins above it
    (`state_collapse`).
    """
    if collapse is None or math.isinf(bound):
        return "the loss has no minimum: rejects are pushed away without end, and the policy may collapse"
    if beta <= collapse:
        return (
            f"the loss has no minimum, and at {collapse:.3g} or less, by the labels of all states together, a policy "
            "over a few outcomes collapses onto one of them"
        )
    return (
        f"the loss has no minimum; above {collapse:.3g}, by the labels of all states together, a policy over a few "
        "outcomes still settles on several accepted ones, but one that sees the state may run away where it sees "
        "rejects alone"
    )


@dataclass(frozen=True)
class Minibatch:
    """Rows drawn at random with replacement, among which a class may be absent: that lowers both thresholds on beta.

    An average over a class of which a minibatch holds n rows is zero for n = 0 (`objectives.rows.mean`). Given n > 0
    its rows are drawn from the class alike, so that the average's expectation is that over all of the class, and
    without the condition ::

        E[average] = P(n > 0) E_class[log pi(y|x)],    P(n > 0) = 1 - (1 - p)^B

    for a share p of the class. Stochastic gradients thus follow, in expectation, a loss with the class's weight w
    multiplied by P(n > 0); the divergence over all rows is never absent and keeps its beta. What is averaged over, and
    so may be absent, depends on the normalisation:

    - "joint" divides both sums by the count of labelled rows: w_a and w_r are multiplied by P(any label), and with them
      the bound and the collapse threshold. A divergence over the labelled rows is absent together with them: nothing
      changes.
    - "set": w_a by P(an accept), w_r by P(a reject). A divergence over the labelled rows weighs P(any label) itself.

    With a thousandth of the rows labelled and B = 256 the bound is .226 times that of the whole data. Stratified
    minibatches, which hold every class, are not affected.
    """

    rows: int
    """B."""
    labelled: float
    """Share of all rows that carry a label, in [0, 1]."""
    over: Literal["all", "labelled"] = "all"
    """The rows that the divergence runs over."""

    def presence(self, share: float) -> float:
        """Return the probability that at least one row is of a class with this share of all rows."""
        return 1.0 if share >= 1 else -math.expm1(self.rows * math.log1p(-share))

    def factors(self, normalize: str, reject_share: float) -> tuple[float, float]:
        """Return what w_a and w_r are multiplied by, relative to the divergence; the share is of the labelled rows."""
        any_label = self.presence(self.labelled)
        divergence = any_label if self.over == "labelled" else 1.0
        if normalize == "joint":
            return any_label / divergence, any_label / divergence
        accept, reject = self.presence(self.labelled * (1 - reject_share)), self.presence(self.labelled * reject_share)
        return accept / divergence, reject / divergence


def class_weights(
    normalize: str, accepts: float, rejects: float, minibatch: Minibatch | None = None
) -> tuple[float, float]:
    """Return (w_a, w_r), the weights of the classes in `pmpo`, from their amounts among the labelled rows.

    Raises:
        ValueError: another `normalize`.
    """
    if normalize not in ("joint", "set"):
        raise ValueError(f'normalize is "joint" or "set", not {normalize!r}')
    labelled = (accepts + rejects) or 1.0
    shares = accepts / labelled, rejects / labelled
    weights = (1.0, 1.0) if normalize == "set" else shares
    if minibatch is None:
        return weights
    present = minibatch.factors(normalize, shares[1])
    return weights[0] * present[0], weights[1] * present[1]


def check_shares(**shares: float) -> None:
    """Raise `ValueError` for an argument outside [0, 1]."""
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise ValueError(f"{name} lies in [0, 1], not {share}")
