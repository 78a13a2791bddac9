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
from d3rlpy.optimizers import AdamFactory
from d3rlpy.optimizers.lr_schedulers import CosineAnnealingLRFactory
from d3rlpy.preprocessing import ReturnBasedRewardScaler, StandardObservationScaler

BATCH, RATE = 256, 1e-3
ACTOR, CRITIC = VectorEncoderFactory([128, 128]), VectorEncoderFactory([64, 64])
"""Sizes, rates and batch of baselines/control at width 128; what is not named here is d3rlpy's default."""


def learner(name: str, updates: int) -> d3rlpy.algos.QLearningAlgoBase:
    """Return d3rlpy's counterpart of our algorithm of this name, for a training of so many updates.

    Of those of width 256 all that d3rlpy has by default, and what its scripts that reproduce the papers set: IQL's
    rewards in units of the spread of returns and its actor's rate cooled.
    """
    scaled = {"batch_size": BATCH, "observation_scaler": StandardObservationScaler()}
    if name == "iql-256":
        cooled = AdamFactory(lr_scheduler_factory=CosineAnnealingLRFactory(T_max=updates))
        reward = ReturnBasedRewardScaler(multiplier=1000.0)
        return d3rlpy.algos.IQLConfig(actor_optim_factory=cooled, reward_scaler=reward, **scaled).create()
    if name == "td3-bc-256":
        return d3rlpy.algos.TD3PlusBCConfig(**scaled).create()
    if name == "bc":
        return d3rlpy.algos.BCConfig(learning_rate=RATE, encoder_factory=ACTOR, **scaled).create()
    rates = {"actor_learning_rate": RATE, "critic_learning_rate": RATE}
    encoders = {"actor_encoder_factory": ACTOR, "critic_encoder_factory": CRITIC}
    return d3rlpy.algos.TD3PlusBCConfig(alpha=2.5, tau=0.05, **rates, **encoders, **scaled).create()


def train(dataset: ReplayBuffer, name: str, updates: int, seed: int) -> d3rlpy.algos.QLearningAlgoBase:
    """Fit for `updates` minibatches, leaving no log behind."""
    d3rlpy.seed(seed)
    algorithm = learner(name, updates)
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
    partial = Path(target).with_suffix(".partial.pt")  # by the last suffix d3rlpy knows the form
    train(opened(Path(source)), name, int(updates), int(seed)).save_policy(str(partial))
    partial.rename(target)
