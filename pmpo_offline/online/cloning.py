"""Cloning of a script that solves a task: DAgger (Ross et al. 2011, arXiv:1011.0686) on batched simulation.

The learner acts, the script labels every state with its own action, and the learner imitates that on all states so
far. PPO is not enough for the reacher: its reward is sparse, it turns the arm in circles, and one beginning in ten ends
beside the target, even with a bonus for coming near.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from pydantic import JsonValue

from pmpo_offline.online.acting import ACTOR, ActingLearner, perceptron
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.tasks.control import Rules
from pmpo_offline.tasks.simulated import Array
from pmpo_offline.training.checkpoint import keep_state

PLANNED = 600_000
EPISODES, STEPS, UPDATES, BATCH = 128, 10, 5, 1024
"""Episodes played at once; control steps of each, and updates of so many rows, in one improvement."""
NEWEST = 100_000
"""Rows that are imitated, at most."""
LEARNING_RATE, LAST_RATE = 2e-3, 0.01
"""At first, and the share of it that is left at the end."""
STD = 0.2
"""Of exploration; it is not learned."""
AGE = 150
"""Control steps of an episode: states far from the target soon get rare."""
BEGINNINGS = 1024

LINK = 0.12
"""Length of the reacher's two links, metres."""
STIFFNESS, DAMPING = 3.0, 0.35
"""Action a radian of error, and a radian a second."""
ELBOW_LIMIT = 2.75
"""Radians; the joint stops a little further."""


def reach(observation: Array) -> Array:
    """Return actions that bring the reacher's finger into the target, (m, 6) -> (m, 2): inverse kinematics, a PD rule.

    Two links of length l reach a point at distance d and angle φ with the elbow at ±w and the shoulder at s:

        cos w = (d² - 2 l²) / 2 l²        s = φ - atan2(l sin w, l + l cos w)

    Of the two ways it takes the one that is nearer and within the elbow's limits.
    """
    joints, velocity = observation[:, :2], observation[:, 4:6]
    angles = joints.cumsum(axis=1)
    target = observation[:, 2:4] + LINK * np.stack([np.cos(angles).sum(axis=1), np.sin(angles).sum(axis=1)], axis=1)
    distance = np.clip(np.linalg.norm(target, axis=1), 0.01, 2 * LINK - 1e-3)
    bend = np.arccos(np.clip(np.square(distance) / (2 * LINK**2) - 1, -1, 1))
    ways = []
    for elbow in (bend, -bend):
        inward = np.arctan2(np.sin(elbow), 1 + np.cos(elbow))
        turn = np.arctan2(target[:, 1], target[:, 0]) - inward - joints[:, 0]
        ways.append(np.stack([(turn + np.pi) % (2 * np.pi) - np.pi, elbow - joints[:, 1]], axis=1))
    first, second = (np.abs(way).sum(axis=1) + 10 * (np.abs(joints[:, 1] + way[:, 1]) > ELBOW_LIMIT) for way in ways)
    error = np.where((first <= second)[:, None], *ways)
    return STIFFNESS * error - DAMPING * velocity


SCRIPTS: dict[str, Callable[[Array], Array]] = {"dm_control/reacher-easy": reach}
"""Scripts by task: actions (m, A), unclipped, at observations (m, O)."""


class Cloning(ActingLearner):
    """Learns a task from its script; a `behavior.Learner`.

    Args:
        rules: the task.
        seed: of all random numbers.
        frames: control steps planned; default: `PLANNED`.

    Raises:
        UserError: there is no script for the task.
    """

    def __init__(self, rules: Rules, seed: int, frames: int | None = None) -> None:
        if rules.id not in SCRIPTS:
            raise UserError(f"{rules.id} has no script to clone (one has: {', '.join(SCRIPTS)}): choose --algo ppo")
        super().__init__(replace(rules, horizon=AGE), seed, BEGINNINGS, EPISODES)
        self._script = SCRIPTS[rules.id]
        self.planned = frames or PLANNED
        self._simulation.elapsed[:] = np.arange(EPISODES) * AGE // EPISODES
        observed, acted = self._simulation.observation.shape[1], rules.action_dim
        self.actor = perceptron((observed, ACTOR, ACTOR, acted), 0.1, self._chance)
        self.log_std = torch.full((acted,), math.log(STD))
        self._seen.add(self._simulation.observation)
        self._train(self.actor.parameters(), LEARNING_RATE)
        self._rows = torch.zeros(NEWEST, observed + acted)
        """The newest observations and the script's actions there, one a frame: the last rows of (NEWEST, O + A)."""
        keep_state(self, rows=self._rows)

    @property
    def settings(self) -> dict[str, JsonValue]:
        """The settings of the training, complete, as JSON values."""
        names = ("EPISODES", "STEPS", "UPDATES", "BATCH", "NEWEST", "LEARNING_RATE", "LAST_RATE", "STD", "AGE")
        return {name.lower(): globals()[name] for name in (*names, "BEGINNINGS")}

    def advance(self) -> dict[str, float]:
        """Act for `STEPS` steps, label them by the script, and imitate."""
        policy, simulation = self.policy(), self._simulation
        noise = STD * torch.randn(STEPS, EPISODES, policy.action_dim, generator=self._chance).numpy()
        rows, reward = [], 0.0
        for t in range(STEPS):
            observation = simulation.observation
            rows.append(np.concatenate([observation, self._script(observation)], axis=1))
            step = simulation.step(policy.mean(observation) + noise[t])
            reward += float(step.reward.mean())
            self._reset(step.done)
        self._frames += STEPS * EPISODES
        labelled = np.concatenate(rows)
        self._seen.add(labelled[:, : policy.observation_dim])
        self._rows.copy_(torch.cat([self._rows, torch.from_numpy(labelled.astype(np.float32))])[-NEWEST:])
        return {"error": self._imitate(), "reward": reward / STEPS}

    def _imitate(self) -> float:
        """Take `UPDATES` steps towards the script's actions; return the last squared error."""
        policy, rows = self.policy(), self._rows[-min(self.frames, NEWEST) :]
        self.optimizer.rate = LEARNING_RATE * max(1 - self.frames / self.planned, LAST_RATE)
        for _ in range(UPDATES):
            drawn = rows[torch.randint(len(rows), (BATCH,), generator=self._chance)]
            observation, wanted = torch.split(drawn, [policy.observation_dim, policy.action_dim], dim=1)
            mean = self.actor(torch.from_numpy(policy.normalised(observation.double().numpy())))
            wanted = wanted.clamp(-1, 1)
            # The environment clips: once both are beyond the same bound they agree.
            agree = (wanted.abs() == 1) & (mean.detach() * wanted >= 1)
            loss = torch.where(agree, 0.0, (mean - wanted).square()).mean()
            self.optimizer.minimise(loss)
        return loss.item()
