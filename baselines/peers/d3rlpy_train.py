"""Trains d3rlpy's own learner on an exported dataset and leaves its policy; run by `d3rlpy_scores.py`.

    python d3rlpy_train.py dataset.h5 bc 2500 0 policy.pt     (in the environment of baselines/peers)

The policy is written by d3rlpy's `save_policy`: its greedy action with the scaling of observations, without d3rlpy.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # before torch reads them

import d3rlpy
import torch
from d3rlpy.dataset import InfiniteBuffer, ReplayBuffer
from d3rlpy.models import VectorEncoderFactory
from d3rlpy.preprocessing import StandardObservationScaler

BATCH, RATE = 256, 1e-3
ACTOR, CRITIC = VectorEncoderFactory([128, 128]), VectorEncoderFactory([64, 64])
"""Sizes, rates and batch of baselines/control; what is not named here is d3rlpy's default."""


def learner(name: str) -> d3rlpy.algos.QLearningAlgoBase:
    """Return d3rlpy's counterpart of our algorithm of this name."""
    scaled = {"batch_size": BATCH, "observation_scaler": StandardObservationScaler()}
    if name == "bc":
        return d3rlpy.algos.BCConfig(learning_rate=RATE, encoder_factory=ACTOR, **scaled).create()
    rates = {"actor_learning_rate": RATE, "critic_learning_rate": RATE}
    encoders = {"actor_encoder_factory": ACTOR, "critic_encoder_factory": CRITIC}
    return d3rlpy.algos.TD3PlusBCConfig(alpha=2.5, tau=0.05, **rates, **encoders, **scaled).create()


def train(dataset: ReplayBuffer, name: str, updates: int, seed: int) -> d3rlpy.algos.QLearningAlgoBase:
    """Fit for `updates` minibatches, leaving no log behind."""
    d3rlpy.seed(seed)
    algorithm = learner(name)
    algorithm.fit(
        dataset,
        n_steps=updates,
        n_steps_per_epoch=updates,
        logger_adapter=d3rlpy.logging.NoopAdapterFactory(),
        show_progress=False,
        save_interval=1 << 30,
    )
    return algorithm


def opened(path: Path) -> ReplayBuffer:
    """Open an export by d3rlpy's own reader."""
    with path.open("rb") as file:
        return ReplayBuffer.load(file, InfiniteBuffer())


if __name__ == "__main__":
    torch.set_num_threads(1)
    source, name, updates, seed, target = sys.argv[1:]
    train(opened(Path(source)), name, int(updates), int(seed)).save_policy(target)
