"""Proximal policy optimization (Schulman et al. 2017, arXiv:1707.06347) on batched simulation.

A small network acts, a larger one judges; what the larger one knows is not needed once training is over.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pmpo_offline.online.acting import ACTOR, CARRIED, Moments, Pool, as_policy, optimized, perceptron, put_back
from pmpo_offline.online.ppo_config import PLANS, Plan
from pmpo_offline.policies.behavior import BehaviorPolicy
from pmpo_offline.tasks.control import Rules, Simulation

Array = NDArray[np.float64]

CRITIC = 128
"""Units of either of two layers."""
CLIP = 0.2
GAE = 0.95
LARGEST_GRADIENT = 0.5
LAST_RATE = 0.1
"""Share of the learning rate that is left at the end of the plan."""
POOL = 256
"""Beginnings, drawn once."""


def advantages(
    reward: Array, value: Array, following: Array, ended: NDArray[np.bool_], discount: float, trace: float
) -> Array:
    """Return generalised advantage estimates (Schulman et al. 2016, arXiv:1506.02438, eq. 16), (T, n).

        δ_t = r_t + γ v'_t - v_t        A_t = δ_t + γ λ (1 - ended_t) A_{t+1}

    Args:
        reward: r, (T, n).
        value: v of the states acted in, (T, n).
        following: v' of the states reached, (T, n): of an episode cut off by the clock that of its final state,
            of one that the task ended 0.
        ended: whether the episode was over then, for either reason, (T, n).
        discount: γ.
        trace: λ.
    """
    surprise = reward + discount * following - value
    result = np.empty_like(surprise)
    carried = np.zeros(surprise.shape[1])
    for t in reversed(range(len(surprise))):
        carried = surprise[t] + discount * trace * ~ended[t] * carried
        result[t] = carried
    return result


def clipped(ratio: Tensor, advantage: Tensor, clip: float = CLIP) -> Tensor:
    """Return PPO's loss (eq. 7), a scalar: -mean min(ρ A, clip(ρ, 1 - ε, 1 + ε) A), with ρ, A (B,)."""
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).mean()


class PPO:
    """Learns a task; a `training.learners.Learner`.

    Observations and rewards are normalised by what has been seen up to the last improvement, rewards by the deviation
    of their discounted sum. The episodes begin at different phases, so that a batch holds all of them.

    Args:
        rules: the task.
        seed: of all chance.
        frames: control steps planned; default: the plan's.
        plan: default: the task's in `PLANS`.
    """

    def __init__(self, rules: Rules, seed: int, frames: int | None = None, plan: Plan | None = None) -> None:
        self.plan = plan = plan or PLANS.get(rules.id) or Plan(10_000_000)
        self.planned, self.frames = frames or plan.frames, 0
        self._chance = torch.Generator().manual_seed(seed)
        self._pool = Pool(rules, POOL, self._chance)
        self._simulation = Simulation(replace(rules, begin=self._pool), plan.episodes)
        self._observation = self._simulation.reset(self._pool.draw(plan.episodes))
        phases = torch.randint(rules.horizon // plan.repeat, (plan.episodes,), generator=self._chance)
        self._simulation.elapsed[:] = phases.numpy() * plan.repeat
        observed, acted = self._observation.shape[1], rules.action_dim
        self._actor = perceptron((observed, ACTOR, ACTOR, acted), 0.01, self._chance)
        self._critic = perceptron((observed, CRITIC, CRITIC, 1), 1.0, self._chance)
        self._log_std = nn.Parameter(torch.full((acted,), math.log(plan.std)))
        self._weights = [*self._actor.parameters(), *self._critic.parameters(), self._log_std]
        self._optimizer = torch.optim.Adam(self._weights, lr=plan.learning_rate, eps=1e-5, fused=True)
        self._seen, self._returned = Moments(observed), Moments(1)
        self._seen.add(self._observation)
        self._owed = np.zeros(plan.episodes)
        """Discounted sums of the rewards of the episodes so far, (n,)."""

    def policy(self) -> BehaviorPolicy:
        """Return the policy as it is now."""
        return as_policy(self._actor, self._seen.mean, self._seen.std, self._log_std)

    def advance(self) -> dict[str, float]:
        """Act for `Plan.decisions` decisions and learn from them."""
        plan, n = self.plan, self.plan.episodes
        policy = self.policy()
        noise = torch.randn(plan.decisions, n, policy.action_dim, generator=self._chance)
        std = np.exp(policy.log_std)
        observations, final = [self._observation], []
        action, reward = np.empty(noise.shape), np.empty((plan.decisions, n))
        terminated, ended = np.zeros((2, plan.decisions, n), np.bool_)
        raw, sums = np.empty_like(reward), np.empty_like(reward)
        for t in range(plan.decisions):
            action[t] = policy.mean(self._observation) + std * noise[t].numpy()
            after, raw[t], terminated[t], ended[t] = self._act(action[t])
            final.append(after)
            self._owed = raw[t] + plan.discount * self._owed
            sums[t] = self._owed
            if ended[t].any():
                index = np.flatnonzero(ended[t])
                after = after.copy()
                after[index] = self._simulation.reset(self._pool.draw(len(index)), index)
                self._owed[index] = 0
            self._observation = after
            observations.append(after)
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
        advantage = advantages(reward, value[:-1], following, ended, plan.discount, GAE)
        metrics = self._improve(
            x[:-1].flatten(0, 1),
            torch.from_numpy(action.astype(np.float32)).flatten(0, 1),
            -(noise.square() / 2 + self._log_std.detach()).sum(-1).flatten(),
            torch.from_numpy(advantage.astype(np.float32)).flatten(),
            torch.from_numpy((advantage + value[:-1]).astype(np.float32)).flatten(),
        )
        self._seen.add(seen[1:].reshape(-1, seen.shape[-1]))
        return metrics | {"reward": float(raw.mean()) / plan.repeat, "std": float(std.mean())}

    def state(self) -> dict[str, Tensor]:
        """Return everything that changes."""
        arrays = {name: getattr(self._simulation, name) for name in CARRIED}
        arrays |= {"observation": self._observation, "owed": self._owed, "frames": np.array(self.frames)}
        return {
            **optimized(self._optimizer, self._weights),
            **{name: torch.from_numpy(values.copy()) for name, values in arrays.items()},
            "seen": self._seen.values.clone(),
            "returned": self._returned.values.clone(),
            "chance": self._chance.get_state(),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        put_back(self._optimizer, self._weights, state)
        for name in CARRIED:
            getattr(self._simulation, name)[:] = state[name].numpy()
        self._observation, self._owed = state["observation"].numpy().copy(), state["owed"].numpy().copy()
        self._seen.values.copy_(state["seen"])
        self._returned.values.copy_(state["returned"])
        self.frames = int(state["frames"])
        self._chance.set_state(state["chance"])

    def _improve(self, x: Tensor, action: Tensor, logp: Tensor, advantage: Tensor, target: Tensor) -> dict[str, float]:
        """Improve actor and critic on rows: x (B, O), action (B, A), the others (B,)."""
        rate = self.plan.learning_rate * max(1 - (1 - LAST_RATE) * self.frames / self.planned, LAST_RATE)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        for _ in range(self.plan.epochs):
            order = torch.randperm(len(x), generator=self._chance)
            for rows in torch.split(order, self.plan.minibatch):
                scaled = (action[rows] - self._actor(x[rows])) * torch.exp(-self._log_std)
                ratio = (-(scaled.square() / 2 + self._log_std).sum(-1) - logp[rows]).exp()
                judged = (self._critic(x[rows]).squeeze(-1) - target[rows]).square().mean()
                loss = clipped(ratio, advantage[rows]) + judged / 2
                self._optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self._weights, LARGEST_GRADIENT)
                self._optimizer.step()
        return {"ratio": (ratio - 1).abs().mean().item(), "critic": judged.item()}

    def _act(self, action: Array) -> tuple[Array, Array, NDArray[np.bool_], NDArray[np.bool_]]:
        """Apply a decision for `Plan.repeat` control steps; return observation, reward, terminated and over."""
        n = len(action)
        observation, reward = np.empty_like(self._observation), np.zeros(n)
        terminated, ended = np.zeros((2, n), np.bool_)
        going = np.arange(n)
        for _ in range(self.plan.repeat):
            step = self._simulation.step(action[going], going)
            observation[going], terminated[going], ended[going] = step.observation, step.terminated, step.done
            reward[going] += step.reward
            if self.plan.bonus is not None:
                reward[going] += self.plan.bonus(step.observation)
            self.frames += len(going)
            going = going[~step.done]
            if not len(going):
                break
        return observation, reward, terminated, ended
