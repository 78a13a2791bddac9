"""What a state tells of its labels, and the β at which a policy that sees the state collapses (control).

In every state labels are more one-sided than in the whole data, so that this threshold lies between the one that counts
labels over all states (`Setup.collapse`) and the bound. It is the better prediction of where harm begins in
control (benchmarks/results/domains), and it takes a classifier of states, which is fitted here.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from pmpo_offline.data import Dataset, columns
from pmpo_offline.objectives import stability
from pmpo_offline.runtime import progress
from pmpo_offline.training.adam import Adam, one_cycle
from pmpo_offline.training.config import Setup

QUANTILE = 0.9
"""Of the states' thresholds: at this β a tenth of the states collapses."""
ROWS = 200_000
"""The most rows that the classifier sees, evenly spaced among all."""
_BATCH, _UPDATES, _FOLDS, _RATE = 256, 400, 2, 3e-3


def collapse_by_state(setup: Setup) -> float | None:
    """Return the β at or below which a tenth of the states collapses.

    None where `Setup.collapse` has no threshold, where no state is seen, of responses, of minibatches that are
    chosen by labels, and where one episode leaves none to predict it from.
    """
    settings, meta = setup.settings, setup.dataset.metadata
    if meta.kind == "responses" or setup.algorithm.rows != "all" or meta.counts.episodes < _FOLDS:
        return None
    if not setup.dataset.has_contexts or setup.collapse is None:
        return None
    observed, rate = label_chances(setup.dataset)[:, [0, 2]], settings.get("flip_rate", 0.0)
    # De-biased, what was observed counts as itself and, with the other sign, as its opposite.
    chances = ((1 - rate) * observed - rate * observed.flip(1)) / (1 - 2 * rate)
    found = stability.state_collapse(
        chances, settings["alpha"], settings["normalize"], over=settings["over"], minibatch=setup.minibatch
    )
    least = float(np.quantile(found.numpy(), QUANTILE)) * float(settings["reject_mass"])
    return min(least, setup.bound or 0.0)


@lru_cache(maxsize=2)
def label_chances(dataset: Dataset) -> Tensor:
    """Return the chances of a reject, of no label and of an accept in every state, (N, 3), for `ROWS` rows at most."""
    chosen = np.linspace(0, len(dataset) - 1, min(len(dataset), ROWS)).astype(np.int64)
    table = dataset.table.select(["observation", "episode", "label"]).take(chosen)
    observation = torch.from_numpy(np.array(columns.matrix(table, "observation"), np.float32))
    _, episode = np.unique(columns.vector(table, "episode"), return_inverse=True)
    label = torch.from_numpy(columns.labels(table).astype(np.int64))
    return cross_fitted(observation, label, torch.from_numpy(episode))


def cross_fitted(observation: Tensor, label: Tensor, episode: Tensor) -> Tensor:
    """Return the probability of each label in every state, (N, 3), by a classifier that learned from other episodes.

    Args:
        observation: (N, O).
        label: (N,), -1, 0 or +1.
        episode: (N,), the number of each row's, from 0 without gaps: half of them are predicted from the other half.
    """
    scaled = (observation - observation.mean(0)) / observation.std(0).clamp(min=1e-6)
    found = torch.empty(len(scaled), 3)
    for fold in range(_FOLDS):
        asked = episode % _FOLDS == fold
        rows = torch.nonzero(~asked).squeeze(1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(fold)
            classifier = nn.Sequential(
                nn.Linear(scaled.shape[1], 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3)
            )
        generator = torch.Generator().manual_seed(fold)
        optimizer = Adam(classifier.parameters(), _RATE, decay=1e-2, fused=False)
        for update in range(_UPDATES):
            chosen = rows[torch.randint(len(rows), (min(_BATCH, len(rows)),), generator=generator)]
            loss = nn.functional.cross_entropy(classifier(scaled[chosen]), label[chosen].long() + 1)
            optimizer.rate, optimizer.beta = one_cycle(update, _UPDATES, _RATE)
            optimizer.minimise(loss)
            progress.report("labels by state", fold * _UPDATES + update + 1, _FOLDS * _UPDATES)
        with torch.no_grad():
            found[asked] = classifier(scaled[asked]).softmax(-1)
    return found
