"""Divergences between distributions: Kullback-Leibler, alpha- and Renyi divergences, in nats.

The order of the arguments is the direction, the same in every function. PMPO's divergence is the *forward* one,
reference first: `categorical_kl(reference, policy)` is KL(pi_ref || pi), the policy covers every mode of the reference.
`categorical_kl(policy, reference)` is the *reverse* one, KL(pi || pi_ref), the policy may settle on one mode.

Between the two lie the orders a in (0, 1) of two families that both rest on the moment integral of p^a q^(1-a)::

    alpha  D_a(p || q) = (1 - integral p^a q^(1-a)) / (a (1 - a))      a -> 1: KL(p || q)    a -> 0: KL(q || p)
    Renyi  R_a(p || q) = -log(integral p^a q^(1-a)) / (1 - a)          a -> 1: KL(p || q)    a -> 0: -log q(p > 0)

(Minka, *Divergence measures and message passing*, 2005; van Erven and Harremoes, arXiv 1206.2459.) Both are never
negative and are zero for p = q alone (Renyi's of order 0 wherever p has the support of q). An order is a number in
[0, 1], the ends included, or a tensor `(*runs, 1)`, one for each stacked run; `order` says how they are computed
without the loss of digits that dividing by a (1 - a) would bring.

The closed forms return one divergence a row, `(*runs, B)`; the losses take its mean, `(*runs,)`.
"""

from __future__ import annotations

from .categorical import categorical_alpha as categorical_alpha
from .categorical import categorical_kl as categorical_kl
from .categorical import categorical_renyi as categorical_renyi
from .gaussian import gaussian_alpha as gaussian_alpha
from .gaussian import gaussian_kl as gaussian_kl
from .gaussian import gaussian_kl_decoupled as gaussian_kl_decoupled
from .gaussian import gaussian_renyi as gaussian_renyi
from .sampled import sampled_alpha as sampled_alpha
from .sampled import sampled_kl as sampled_kl
from .sampled import sampled_renyi as sampled_renyi
