"""Proximal policy optimization (Schulman et al. 2017, arXiv:1707.06347) on batched simulation.

A small network acts; a larger one, the critic, is not needed once training is over.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch
from pydantic import JsonValue
from torch import Tensor, nn

from pmpo_offline.online.acting import ACTOR, ActingLearner, RunningStats, hold, perceptron
from pmpo_offline.tasks.control import Rules
from pmpo_offline.tasks.simulated import Array, Bools
from pmpo_offline.training.checkpoint import keep_state

CRITIC = 128
"""Units of either of two layers."""
CLIP = 0.2
GAE = 0.95
LARGEST_GRADIENT = 0.5
LAST_RATE = 0.1
"""Share of the learning rate that is left at the end."""
POOL = 256
"""Beginnings, drawn once."""


@dataclass(frozen=True)
class PPOConfig:
    """Settings of PPO on a task, and a bonus where chance alone hardly ever meets the reward."""

    frames: int
    """Control steps, of all episodes together, evaluations not counted."""
    discount: float = 0.99
    """Per decision."""
    repeat: int = 1
    """Control steps a decision in training; in evaluation every step is a decision."""
    std: float = 0.6
    """Of the first exploration."""
    learning_rate: float = 5e-4
    episodes: int = 64
    """Played at once."""
    decisions: int = 64
    """In every episode between two improvements."""
    epochs: int = 5
    minibatch: int = 1024
    bonus: Callable[[Array], Array] | None = None
    """(m,) from observations (m, O): added to the reward in training alone."""


def near_target(observation: Array) -> Array:
    """Return a bonus for a reacher's finger near its target: the reward alone is sparse."""
    return -np.hypot(observation[:, 2], observation[:, 3])


def going_upright(observation: Array) -> Array:
    """Return a bonus for a hopper's height and, once it is up, its speed: lying, it would never meet the reward."""
    up = np.clip((0.7 + observation[:, 0]) / 0.6, 0, 1)  # the torso is 1 m above what is observed
    return up * (0.2 + 0.3 * np.clip(observation[:, 6] / 2, 0, 1))


PLANS = {
    "dm_control/cartpole-swingup": PPOConfig(1_500_000, repeat=2),
    "dm_control/cheetah-run": PPOConfig(12_000_000, repeat=2, episodes=128, minibatch=2048, learning_rate=1e-3),
    "dm_control/walker-walk": PPOConfig(6_000_000, repeat=2, episodes=128, learning_rate=1e-3, std=1.0),
    "dm_control/finger-spin": PPOConfig(4_000_000, episodes=128, minibatch=2048, learning_rate=1e-3),
    "dm_control/reacher-easy": PPOConfig(
        4_000_000, repeat=2, episodes=128, epochs=10, learning_rate=7e-4, std=1.0, bonus=near_target
    ),
    "dm_control/hopper-hop": PPOConfig(13_000_000, repeat=2, episodes=128, epochs=8, std=0.8, bonus=going_upright),
    "mujoco/halfcheetah": PPOConfig(8_000_000, episodes=128, minibatch=2048),
    "mujoco/hopper": PPOConfig(3_000_000, minibatch=256, epochs=10, learning_rate=3e-4),
    "mujoco/walker2d": PPOConfig(3_000_000, minibatch=256, epochs=10, learning_rate=3e-4),
}
"""By task, as its shipped policies were trained."""


def advantages(reward: Array, value: Array, following: Array, ended: Bools, decay: float) -> Array:
    """Return generalised advantage estimates (Schulman et al. 2016, arXiv:1506.02438, eq. 16), (T, n).

        δ_t = r_t + γ v'_t - v_t        A_t = δ_t + γ λ (1 - ended_t) A_{t+1}

    Args:
        reward: r, (T, n).
        value: v of the states acted in, (T, n).
        following: γ v' of the states reached, (T, n): of an episode cut off by the clock that of its final state, of
            one that the task ended 0.
        ended: whether the episode was over then, for either reason, (T, n).
        decay: γ λ.
    """
    surprise = reward + following - value
    result = np.empty_like(surprise)
    carried = np.zeros(surprise.shape[1])
    for t in reversed(range(len(surprise))):
        carried = surprise[t] + decay * ~ended[t] * carried
        result[t] = carried
    return result


def clipped(ratio: Tensor, advantage: Tensor, clip: float = CLIP) -> Tensor:
    """Return PPO's loss (eq. 7), a scalar: -mean min(ρ A, clip(ρ, 1 - ε, 1 + ε) A), with ρ, A (B,)."""
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).mean()


class PPO(ActingLearner):
    """Learns a task; a `behavior.Learner`.

    Observations and rewards are normalised by the moments up to the last improvement, rewards by the deviation of their
    discounted sum. The episodes begin at different phases, so that a batch holds all of them.

    Args:
        rules: the task.
        seed: of all random numbers.
        frames: control steps planned; default: those of the settings.
        config: default: the task's in `PLANS`.
    """

    def __init__(self, rules: Rules, seed: int, frames: int | None = None, config: PPOConfig | None = None) -> None:
        self.config = config = config or PLANS.get(rules.id) or PPOConfig(10_000_000)
        super().__init__(rules, seed, POOL, config.episodes)
        self.planned = frames or config.frames
        phases = torch.randint(rules.horizon // config.repeat, (config.episodes,), generator=self._chance)
        self._simulation.elapsed[:] = phases.numpy() * config.repeat
        observed, acted = self._simulation.observation.shape[1], rules.action_dim
        self.actor = perceptron((observed, ACTOR, ACTOR, acted), 0.01, self._chance)
        self._critic = perceptron((observed, CRITIC, CRITIC, 1), 1.0, self._chance)
        self.log_std = nn.Parameter(torch.full((acted,), math.log(config.std)))
        weights = [*self.actor.parameters(), *self._critic.parameters(), self.log_std]
        self._train(weights, config.learning_rate, eps=1e-5)
        self._returned = RunningStats(1)
        self._seen.add(self._simulation.observation)
        self._owed = np.zeros(config.episodes)
        """Discounted sums of the rewards of the episodes so far, (n,)."""
        keep_state(self, owed=self._owed)

    @property
    def settings(self) -> dict[str, JsonValue]:
        """The settings of the training, complete, as JSON values."""
        bonus = self.config.bonus
        return {**asdict(self.config), "bonus": bonus and bonus.__name__, "beginnings": POOL}

    def advance(self) -> dict[str, float]:
        """Act for `PPOConfig.decisions` decisions and learn from them."""
        config, policy, simulation = self.config, self.policy(), self._simulation
        noise = torch.randn(config.decisions, config.episodes, policy.action_dim, generator=self._chance)
        std = np.exp(policy.log_std)
        observations, final = [simulation.observation.copy()], []
        action, raw, everywhere = np.empty(noise.shape), np.empty(noise.shape[:2]), np.arange(config.episodes)
        sums = np.empty_like(raw)
        terminated, ended = np.zeros((2, *raw.shape), np.bool_)
        for t in range(config.decisions):
            action[t] = policy.mean(simulation.observation) + std * noise[t].numpy()
            raw[t], terminated[t], cut_off, frames = hold(
                simulation, action[t], everywhere, config.repeat, config.bonus
            )
            ended[t] = terminated[t] | cut_off
            self._frames += frames
            final.append(simulation.observation.copy())
            sums[t] = raw[t] + config.discount * self._owed
            self._owed[:] = np.where(ended[t], 0.0, sums[t])
            self._reset(ended[t])
            observations.append(simulation.observation.copy())
        self._returned.add(sums.reshape(-1, 1))
        reward = raw / max(float(self._returned.std[0]), 1e-3)
        seen = np.stack(observations)
        x = torch.from_numpy(policy.normalised(seen))
        with torch.no_grad():
            value = self._critic(x).squeeze(-1).double().numpy()
            following = value[1:].copy()
            if ended.any():
                last = torch.from_numpy(policy.normalised(np.stack(final)[ended]))
                following[ended] = self._critic(last).squeeze(-1).double().numpy()
            following[terminated] = 0
        advantage = advantages(reward, value[:-1], config.discount * following, ended, config.discount * GAE)
        metrics = self._improve(
            x[:-1].flatten(0, 1),
            torch.from_numpy(action.astype(np.float32)).flatten(0, 1),
            -(noise.square() / 2 + self.log_std.detach()).sum(-1).flatten(),
            torch.from_numpy(advantage.astype(np.float32)).flatten(),
            torch.from_numpy((advantage + value[:-1]).astype(np.float32)).flatten(),
        )
        self._seen.add(seen[1:].reshape(-1, seen.shape[-1]))
        return metrics | {"reward": float(raw.mean()) / config.repeat, "std": float(std.mean())}

    def _improve(self, x: Tensor, action: Tensor, logp: Tensor, advantage: Tensor, target: Tensor) -> dict[str, float]:
        """Improve actor and critic on rows: x (B, O), action (B, A), the others (B,)."""
        share = max(1 - (1 - LAST_RATE) * self.frames / self.planned, LAST_RATE)
        self.optimizer.rate = self.config.learning_rate * share
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        for _ in range(self.config.epochs):
            order = torch.randperm(len(x), generator=self._chance)
            for rows in torch.split(order, self.config.minibatch):
                scaled = (action[rows] - self.actor(x[rows])) * torch.exp(-self.log_std)
                ratio = (-(scaled.square() / 2 + self.log_std).sum(-1) - logp[rows]).exp()
                error = (self._critic(x[rows]).squeeze(-1) - target[rows]).square().mean()
                loss = clipped(ratio, advantage[rows]) + error / 2
                self.optimizer.minimise(loss, partial(nn.utils.clip_grad_norm_, max_norm=LARGEST_GRADIENT))
        return {"ratio": (ratio - 1).abs().mean().item(), "critic": error.item()}
