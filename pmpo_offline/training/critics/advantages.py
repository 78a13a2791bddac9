"""Advantages of a whole dataset by cross-fitted critics, and scored candidate actions drawn from a clone."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pmpo_offline.data import Dataset, Rows
from pmpo_offline.policies import MixturePolicy
from pmpo_offline.policies.network import one_thread
from pmpo_offline.runtime.arrays import load_arrays, save_arrays
from pmpo_offline.training.control.stack import CLONE
from pmpo_offline.training.control.trainer import train
from pmpo_offline.training.critics.config import CandidateSettings, CriticSettings
from pmpo_offline.training.critics.cross_fitted import fit_critic

_AT_ONCE = 8192  # states


@dataclass(frozen=True)
class Advantages:
    """Of N steps, and scores of K candidate actions at each of S states (S = 0 without candidates)."""

    advantage: NDArray[np.float32]  # (N,)
    explained: NDArray[np.float64]  # () share of the variance of the returns that V explains on unseen episodes
    row: NDArray[np.int64]  # (S,) the step that holds the state
    action: NDArray[np.float32]  # (S, K, A)
    score: NDArray[np.float32]  # (S, K)

    @classmethod
    @one_thread()
    def of(
        cls, dataset: Dataset, critic: CriticSettings, candidates: CandidateSettings | None, seed: int, folder: Path
    ) -> Advantages:
        """Estimate a dataset's advantages; its labels do not enter. The clone leaves its checkpoints in `folder`."""
        rows = Rows.of(dataset)
        estimates = fit_critic(rows, critic, seed)
        row = torch.empty(0, dtype=torch.int64)
        action = torch.empty(0, 1, rows.action.shape[1])
        score = torch.empty(0, 1)
        if candidates:
            clone = train(
                dataset,
                CLONE,
                seeds=(seed,),
                overrides={"updates": candidates.updates},
                references=folder,
                device="cpu",
            ).policy
            rng = np.random.default_rng([seed, 11])
            chosen = rng.choice(len(rows), min(candidates.states, len(rows)), replace=False)
            row = torch.from_numpy(np.sort(chosen))
            action = _draw(clone, rows.observation[row], candidates.actions, seed)
            score = estimates.action_value(row, action)
        arrays = (estimates.advantage, torch.tensor(estimates.explained, dtype=torch.float64), row, action, score)
        return cls(*(array.numpy() for array in arrays))

    def save(self, path: Path) -> None:
        """Write to `path`, whole or not at all."""
        save_arrays(path, {f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def load(cls, path: Path) -> Advantages:
        """Read what `save` wrote; `PmpoOfflineError` if the file is damaged."""
        return cls(**load_arrays(path, [f.name for f in fields(cls)]))


@torch.no_grad()
def _draw(policy: MixturePolicy, observation: Tensor, actions: int, seed: int) -> Tensor:
    """Draw actions at states from a policy of one run: (S, O) -> (S, actions, A), clipped to the action range."""
    generator = torch.Generator().manual_seed(seed)
    parts = torch.split(observation, _AT_ONCE)
    drawn = [policy(part.unsqueeze(0)).draw(actions, generator).squeeze(0) for part in parts]
    return torch.cat(drawn).clamp(-1, 1)
