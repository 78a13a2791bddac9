"""The collapse threshold of a policy that sees the state (`stability.state_collapse`), in all domains.

It needs what a classifier can tell of a label from the state alone: `training.states`, as `doctor` has it. A prompt of
the tiny language is a state, too.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from benchmarks.experiments import control_rows, shared, tiny_rows
from benchmarks.experiments.domains.run import DOMAINS, OUT, labelled
from benchmarks.experiments.labellings import CLEAN
from benchmarks.experiments.stability import language
from pmpo_offline.data import columns
from pmpo_offline.objectives import stability
from pmpo_offline.training.states import QUANTILE, cross_fitted

QUANTILES = (0.5, QUANTILE, 0.99)
"""Of the states. At the threshold of the second a tenth of all states collapses: the prediction."""


def seen(domain: str) -> tuple[Tensor, Tensor]:
    """Return what a policy sees of every row, (N, O), and its episode, (N,); a prompt is a state and an episode."""
    if domain == "language":
        prompt = tiny_rows.corpus()[0][:, : language.STRING]
        place = prompt.new_tensor([language.LETTERS**i for i in range(language.STRING)])
        _, number = torch.unique((prompt * place).sum(1), return_inverse=True)
        return nn.functional.one_hot(prompt, language.LETTERS).flatten(1).float(), number
    dataset = control_rows.dataset(domain)
    length = columns.vector(dataset.episodes, "length")
    observation = np.array(columns.matrix(dataset.table, "observation"), np.float32)
    return torch.from_numpy(observation), torch.from_numpy(np.repeat(np.arange(len(length)), length))


def run(domains: Sequence[str] = DOMAINS) -> pl.DataFrame:
    """Return quantiles of the states' thresholds, for the labels of run 0 of every curve of the sweep of β."""
    found = []
    for domain, share in itertools.product(domains, (None, 0.1)):
        observation, episode = seen(domain)
        chance = cross_fitted(observation, labelled(domain, 0, {**CLEAN, "share": share}).label, episode)
        for alpha in (0.5, 0.0):
            bound = (1 - alpha) / float(chance[:, ::2].sum(1).mean())
            at = stability.state_collapse(chance[:, [0, 2]], alpha, "joint") / bound
            at = at[:: max(1, len(at) // 100_000)]
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
