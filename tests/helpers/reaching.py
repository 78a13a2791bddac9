"""A robot that reaches for a goal: scripted episodes that succeed or fail, in a file of another library, and its arm.

The hand moves in a plane towards one of two targets that it sees; only the first is the goal. A scripted arm moves
there, or to the distractor, or stops on the way.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pmpo_offline.policies import MixturePolicy

STEPS, SPEED, NEAR = 20, 0.15, 0.1
FAILURES = ("distractor", "stops")


def _start(rng: np.random.Generator, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    hand, goal = rng.uniform(-1, 1, (2, count, 2))
    return hand, np.concatenate([goal, rng.uniform(-1, 1, (count, 2))], axis=1)


def record(path: Path, episodes: int, seed: int = 0, failing: float = 0.5) -> NDArray[np.bool_]:
    """Write an .npz of steps with a column `success`, as a robot's log has it; return which episodes succeeded."""
    rng = np.random.default_rng(seed)
    hand, targets = _start(rng, episodes)
    goal, distractor = targets[:, :2], targets[:, 2:]
    kind = np.where(rng.uniform(size=episodes) < failing, rng.integers(1, 3, episodes), 0)
    aim = np.where((kind == 1)[:, None], distractor, np.where((kind == 2)[:, None], (hand + goal) / 2, goal))
    observations, actions = [], []
    for _ in range(STEPS):
        action = np.clip((aim - hand) / SPEED + rng.normal(0, 0.2, hand.shape), -1, 1)
        observations.append(np.concatenate([hand, targets], axis=1))
        actions.append(action)
        hand = hand + SPEED * action
    success = np.linalg.norm(hand - goal, axis=1) < NEAR
    last = np.zeros((STEPS, episodes), bool)
    last[-1] = True

    def rows(values: NDArray[np.generic]) -> NDArray[np.generic]:
        return values.swapaxes(0, 1).reshape(episodes * STEPS, *values.shape[2:])

    np.savez(
        path,
        observations=rows(np.array(observations, np.float32)),
        actions=rows(np.array(actions, np.float32)),
        rewards=rows((last & success).astype(np.float32)),
        terminals=rows(np.zeros_like(last)),
        timeouts=rows(last),
        success=rows(last & success),
    )
    return success


@torch.no_grad()
def succeed(policy: MixturePolicy, episodes: int = 200, seed: int = 1) -> NDArray[np.float64]:
    """Play the policies' likeliest actions in a loop of one's own; return the share of successes of each run, (R,)."""
    hand, targets = _start(np.random.default_rng(seed), episodes)
    hands = np.repeat(hand[None], policy.runs, axis=0)
    for _ in range(STEPS):
        observation = np.concatenate([hands, np.repeat(targets[None], policy.runs, axis=0)], axis=2)
        action = policy(torch.tensor(observation, dtype=torch.float32)).mode().numpy()
        hands = hands + SPEED * np.clip(action, -1, 1)
    return (np.linalg.norm(hands - targets[:, :2], axis=2) < NEAR).mean(axis=1)
