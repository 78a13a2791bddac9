"""The collapse threshold of a policy that sees the state: what a classifier can tell of a label from the state alone.

In one context `stability.beta_collapse` takes the shares of accepts and rejects among the labels. A policy that sees
the state has a context a state: it collapses there if

    beta <= ((1 - alpha) r(s) - alpha a(s)) / L

with r(s) and a(s) the probability that a row of this state is labelled reject, or accept, and L the labelled share of
all rows (`joint`). If the state says nothing of the label that is the threshold of the whole data; if it says all, the
bound (1 - alpha) / L. r and a are estimated by a classifier of states, cross-fitted by episode.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from benchmarks.experiments import control_rows, shared, tiny_rows
from benchmarks.experiments.domains.run import CLEAN, DOMAINS, OUT, labelled
from benchmarks.experiments.stability import language
from pmpo_offline.data import columns

QUANTILES = (0.5, 0.9, 0.99)
"""Of the states. At the threshold of the second a tenth of all states collapses: the prediction."""


def probabilities(observation: Tensor, label: Tensor, episode: Tensor, folds: int = 2, updates: int = 400) -> Tensor:
    """Return the probability of a reject, of no label and of an accept in every state, (N, 3), from other episodes.

    Args:
        observation: (N, O).
        label: (N,), -1, 0 or +1.
        episode: (N,), the number of each row's.
        folds: episodes of one are predicted from those of the others.
        updates: of each classifier, in minibatches of 1,024.
    """
    scaled = (observation - observation.mean(0)) / observation.std(0).clamp(min=1e-6)
    found = torch.empty(len(scaled), 3)
    for fold in range(folds):
        generator = torch.Generator().manual_seed(fold)
        asked = episode % folds == fold
        rows = torch.nonzero(~asked).squeeze(1)
        torch.manual_seed(fold)
        classifier = nn.Sequential(
            nn.Linear(scaled.shape[1], 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3)
        )
        optimizer = torch.optim.AdamW(classifier.parameters(), lr=3e-3, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=updates)
        for _ in range(updates):
            chosen = rows[torch.randint(len(rows), (1024,), generator=generator)]
            loss = nn.functional.cross_entropy(classifier(scaled[chosen]), label[chosen].long() + 1)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            found[asked] = classifier(scaled[asked]).softmax(-1)
    return found


def thresholds(chance: Tensor, alpha: float) -> Tensor:
    """Return the collapse threshold in every state in multiples of the bound (1 - alpha) / L, (N,), from (N, 3)."""
    return (chance[:, 0] - alpha / (1 - alpha) * chance[:, 2]).clamp(min=0)


def seen(domain: str) -> tuple[Tensor, Tensor]:
    """Return what a policy sees of every row, (N, O), and its episode, (N,); a prompt is a state and an episode."""
    if domain == "language":
        prompt = tiny_rows.corpus()[0][:, : language.STRING]
        place = prompt.new_tensor([language.LETTERS**i for i in range(language.STRING)])
        return nn.functional.one_hot(prompt, language.LETTERS).flatten(1).float(), (prompt * place).sum(1)
    dataset = control_rows.dataset(domain)
    length = columns.vector(dataset.episodes, "length")
    observation = np.array(columns.matrix(dataset.table, "observation"), np.float32)
    return torch.from_numpy(observation), torch.from_numpy(np.repeat(np.arange(len(length)), length))


def run(domains: Sequence[str] = DOMAINS) -> pl.DataFrame:
    """Return quantiles of the states' thresholds, for the labels of run 0 of every curve of the sweep of β."""
    found = []
    for domain, share in itertools.product(domains, (None, 0.1)):
        observation, episode = seen(domain)
        chance = probabilities(observation, labelled(domain, 0, {**CLEAN, "share": share}).label, episode)
        for alpha in (0.5, 0.0):
            at = thresholds(chance, alpha)[:: max(1, len(chance) // 100_000)]
            values = {f"q{q}": float(at.quantile(q)) for q in QUANTILES}
            found.append({"domain": domain, "share": share, "arm": "PMPO AR" if alpha else "PMPO R", **values})
    return pl.DataFrame(found, schema_overrides={"share": pl.Float64})


def main() -> None:
    """Write states.parquet."""
    frame = run()
    shared.save(frame, OUT / "states.parquet")
    print(frame)


if __name__ == "__main__":
    shared.script(main)
