"""α and β from the data: what an unlabelled row is worth, and the threshold that coverage, noise and minibatches make.

With the divergence on the recorded rows every row is imitated with a weight. Per row, with the class weights divided by
the rows of the class, `a = w_a / n_a` and `r = w_r / n_r`, an accepted row weighs `β / N + α a`, an unlabelled one
`β / N`, a rejected one `β / N - (1 - α) r`. Weights that a row deserves, in units of an accepted one:

    rejected      ρ = 0, or -e / (1 - e) where a share e of the labels is flipped and outcomes carry both labels: then
                  the weights are the unbiased estimate of the clean label (Natarajan et al., *Learning with noisy
                  labels*, NeurIPS 2013), and flipped labels cancel
    unlabelled    γ = g (1 + ρ), with g the share of the unlabelled rows that are good; 1 + ρ = (1 - 2e) / (1 - e)

have one solution::

    α / (1 - α) = (r / a) (1 - γ) / (γ - ρ),    β = the threshold at this α

of which "joint" (r = a) without noise is the plainest: α = 1 - g. So unlabelled rows count as accepts where labels were
dropped from successes alone (α = 0, rejects do the work), and for nothing where they were dropped from failures alone.
g is estimated from the labels before balancing: those that were dropped are counted, rows that never had one are taken
to be as good as the labelled ones.
"""

from __future__ import annotations

import numpy as np

from pmpo_offline.data import columns
from pmpo_offline.objectives import stability
from pmpo_offline.objectives.stability.bounds import class_weights
from pmpo_offline.training.config import Setup
from pmpo_offline.training.states import collapse_by_state

MARGIN = 1.05
"""β over its threshold that is suggested: the nearer, the less a reject is imitated (benchmarks/results/README.md)."""


def suggest_beta(setup: Setup) -> float | None:
    """Return β for these settings; None where it has no bound above 0.

    A little above the bound, or above the one that flipped labels relax. A policy that sees states is better below it,
    as long as it is above the β at which states collapse (`states.collapse_by_state`): half-way between the two, which
    is next to the bound where the state tells the label.
    """
    bound = setup.bound
    if not bound or not np.isfinite(bound):
        return None
    safe = MARGIN * (noise_bound(setup) or bound)
    by_state = collapse_by_state(setup)
    return safe if by_state is None else (safe + by_state) / 2


def suggest(setup: Setup) -> dict[str, float] | None:
    """Return α and β that follow from the labels; None without rejects, with flips corrected, or all rows labelled.

    Where every row has a label, only the sum of α and β matters for "joint", and the declared α is as good as another.
    """
    meta = setup.dataset.metadata
    counts, balance = meta.counts, meta.imbalance
    if not counts.unlabelled or setup.algorithm.rows != "all" or "flip_rate" in setup.settings:
        return None
    if suggest_beta(setup) is None:
        return None
    dropped = (balance.dropped_accepted, balance.dropped_rejected) if balance.balance == "labels" else (0, 0)
    accepts, rejects = counts.accepted + dropped[0], counts.rejected + dropped[1]
    noise = min(meta.noise, 0.45)  # near one half the labels say nothing
    aliased = noise > 0 and not setup.dataset.has_contexts
    if not accepts:
        alpha = 0.0  # nothing says that an unlabelled row is any worse than an accepted one
    else:
        share = accepts / (accepts + rejects)
        good = min(1.0, max(0.0, (share - noise) / (1 - 2 * noise)))  # of the clean labels
        of_accepts, of_rejects = good * (1 - noise) / share, good * noise / (1 - share) if rejects else 0.0
        never = counts.unlabelled - sum(dropped)
        unlabelled = (dropped[0] * of_accepts + dropped[1] * of_rejects + never * good) / counts.unlabelled
        reject = -noise / (1 - noise) if aliased else 0.0
        worth = unlabelled * (1 + reject) if aliased else min(1.0, unlabelled / of_accepts)
        odds = _weight_ratio(setup) * (1 - worth) / max(worth - reject, 1e-9)
        alpha = float(np.clip(odds / (1 + odds), 0, 1))
    return {"alpha": alpha, "beta": suggest_beta(setup.change(alpha=alpha)) or 0.0}


def _weight_ratio(setup: Setup) -> float:
    """Return r / a: how much more a rejected row is pushed than an accepted one, but for α."""
    share = setup.reject_share
    if not 0 < share < 1:
        return 1.0
    accept, reject = class_weights(setup.settings["normalize"], 1 - share, share, setup.minibatch)
    return (reject / share) / (accept / (1 - share))


def noise_bound(setup: Setup) -> float | None:
    """Return the bound relaxed by flipped labels; None where none is flipped or single rows are distinguishable.

    Also None where it is not known: labels flipped, then rows dropped for a balance, and others never labelled; or so
    many rejects dropped that an outcome which should be rejected is mostly accepted.
    """
    settings, dataset = setup.settings, setup.dataset
    meta, balance = dataset.metadata, dataset.metadata.imbalance
    if not meta.noise or dataset.has_contexts or setup.algorithm.rows != "all" or settings["floor"]:
        return None
    if "flip_rate" in settings:  # the objective itself corrects for flips
        return None
    noise = min(meta.noise, 1 - meta.noise)  # beyond one half the other outcomes are the ones that are pushed away
    accepted, rejected = meta.counts.accepted, meta.counts.rejected
    if settings["over"] == "labelled" or balance.balance == "rows":
        if settings["over"] != "labelled" and meta.counts.unlabelled:
            return None
        if not accepted or not rejected:
            return None
        kept = accepted / (accepted + balance.dropped_accepted) * (rejected + balance.dropped_rejected) / rejected
        noise, mass, accept_mass = stability.remaining_noise(noise, kept), meta.reject_share, 1 - meta.reject_share
        if noise > 0.5:
            return None
    else:
        # A row an episode, or a label a row: what was dropped is counted in rows either way.
        accepts = int((columns.labels(dataset.table) > 0).sum()) + balance.dropped_accepted
        mass = setup.reject_mass
        accept_mass = min(1.0 - mass, accepts / len(dataset) / setup.labelled_at_first)
    bound = stability.beta_min(
        settings["alpha"],
        mass,
        settings["normalize"],
        meta.reject_share,
        noise=noise,
        accept_mass=accept_mass,
        minibatch=setup.minibatch,
    )
    return bound * float(settings["reject_mass"])
