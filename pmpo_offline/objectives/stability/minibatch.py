"""Minibatches in which a class may be absent: both thresholds on beta fall with the chance that it occurs.

An average over a class of which a minibatch holds n rows is zero for n = 0 (`objectives.rows.mean`). Given n > 0 its
rows are drawn from the class alike, so that the average's expectation is that over all of the class, and without the
condition ::

    E[average] = P(n > 0) E_class[log pi(y|x)],    P(n > 0) = 1 - (1 - p)^B

in minibatches of B rows, drawn at random with replacement, of which a share p is of the class. Stochastic gradients
thus follow, in expectation, a loss with the class's weight w multiplied by P(n > 0); the divergence over all rows is
never absent and keeps its beta. What is averaged over, and so may be absent, depends on the normalisation:

- "joint" divides both sums by the count of labelled rows: w_a and w_r are multiplied by P(any label), and with them the
  bound and the collapse threshold. A divergence over the labelled rows is absent together with them: nothing changes.
- "set": w_a by P(an accept), w_r by P(a reject). A divergence over the labelled rows weighs P(any label) itself.

With a thousandth of the rows labelled and B = 256 the bound is .226 times that of the whole data. Stratified
minibatches, which hold every class, are not affected.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Minibatch:
    """Rows drawn at random with replacement."""

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
