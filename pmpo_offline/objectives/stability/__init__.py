"""Conditions under which PMPO is bounded from below, and its optimum.

In the loss of `pmpo`, with the divergence over all that the reference produces, outcome y carries the coefficient

    c(y) = pi_ref(y) [beta + alpha w_a rho_a(y) - (1 - alpha) w_r rho_r(y)]

on -log pi(y), where rho_a = p(y|accept) / pi_ref(y), rho_r = p(y|reject) / pi_ref(y), and w is the weight that the
normalisation gives each class ("set": 1 and 1; "joint": its share of the labelled rows). Over a few outcomes the loss
is bounded if and only if no coefficient is negative, and then the optimal policy is proportional to the coefficients
(`beta_min`, `optimal_policy`). Below the bound there is no minimum, yet as long as the coefficients have a positive
sum gradient ascent on logits ends at a policy over several outcomes (`beta_collapse`, `limit_policy`), of a policy that
sees the state in every state (`state_collapse`). A Gaussian
cannot single outcomes out: for it only their moments under c count (`gaussian_beta_min`, `gaussian_optimum`). In small
minibatches a class may be absent, which lowers its w and with it both thresholds (`Minibatch`).

All of it is about the forward divergence KL(pi_ref || pi), which grows as -log pi(y) where pi(y) vanishes. The reverse
one and the alpha- and Renyi divergences below order 1 stay finite there: with any of these *no* beta bounds the loss
while rejects outweigh accepts on some outcome, they merely slow the fall. Only a `floor` under the rejects does.
"""

import lazy_loader

# Names are imported on first use, as `__init__.pyi` lists them: the thresholds need no torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
