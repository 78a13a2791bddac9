"""Returns of clones of the steps that each way of scoring accepts."""

from __future__ import annotations

import numpy as np
import polars as pl
import torch
from torch import Tensor

from pmpo_offline.data import Rows
from pmpo_offline.policies.network import stacked_mlp
from pmpo_offline.tasks.control import Rules, play

RUNS, EPISODES = 3, 20  # clones of a way, episodes of a clone
HIDDEN, UPDATES, BATCH, RATE = (64, 64), 2000, 256, 2e-3
_FIRST_SEED = 1_000_000  # of episodes that no recording has


def clones(rules: Rules, rows: Rows, accepted: dict[tuple[str, float], Tensor]) -> pl.DataFrame:
    """Clone accepted rows, masks (N,) by way and trace, and play the means: one row a clone and episode."""
    mean, std = rows.observation.mean(0), rows.observation.std(0).clamp(min=1e-3)

    def seen(observation: Tensor) -> Tensor:
        return ((observation - mean) / std).clamp(-10, 10)

    pools = [torch.nonzero(mask).squeeze(1) for mask in accepted.values() for _ in range(RUNS)]
    network = stacked_mlp(list(range(RUNS)) * len(accepted), rows.observation.shape[1], HIDDEN, rows.action.shape[1])
    optimizer = torch.optim.Adam(network.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=UPDATES)
    generator, states = torch.Generator().manual_seed(0), seen(rows.observation)
    for _ in range(UPDATES):
        index = torch.stack([pool[torch.randint(len(pool), (BATCH,), generator=generator)] for pool in pools])
        loss = (network(states[index]) - rows.action[index]).square().mean((1, 2)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    @torch.no_grad()
    def choose(observation: np.ndarray, _: int) -> np.ndarray:
        inputs = seen(torch.from_numpy(observation).float()).view(len(pools), EPISODES, -1)
        return np.asarray(network(inputs).flatten(0, 1).double().numpy())

    outcome = play(rules, [*range(_FIRST_SEED, _FIRST_SEED + EPISODES)] * len(pools), choose)
    each = RUNS * EPISODES
    return pl.DataFrame(
        {
            "way": [way for way, _ in accepted for _ in range(each)],
            "trace": [trace for _, trace in accepted for _ in range(each)],
            "run": np.tile(np.arange(RUNS).repeat(EPISODES), len(accepted)),
            "return": outcome.returns,
        }
    )
