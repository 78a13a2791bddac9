"""A Gymnasium environment of a user's as a task: it scores policies; what is trained on is imported."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from pmpo_offline.data import Experience
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import UserError, reason_of
from pmpo_offline.tasks.task import CollectionSpec, Outcome, Task

if TYPE_CHECKING:
    from pmpo_offline.policies import Policy

Environment = gymnasium.Env[Any, Any]
_HELD_OUT = 1_073_741_824  # seeds of episodes; below 2^31, which some environments demand
_LONGEST = 1_000_000  # steps of an episode, far beyond what one with a limit has


class EnvironmentTask(Task):
    """A Gymnasium environment as a task.

    Observations are flattened as by an import. An episode is a success if `is_success` or `success` of its last `info`
    is true.

    Args:
        environment: an environment, its id (`module:Name-v0` imports the module first), or a function that makes it.
        name: id of the task; default the environment's own.
    """

    simulators = ("gymnasium",)

    def __init__(self, environment: Environment | Callable[[], Environment] | str, name: str | None = None) -> None:
        self._given = environment
        self._id = name

    @cached_property
    def environment(self) -> Environment:
        """The environment; `UserError` if there is none of this id, or its actions are no Box and no Discrete space."""
        made = self._given
        if isinstance(made, str):
            try:
                made = gymnasium.make(made)
            except (gymnasium.error.Error, ImportError) as error:
                raise UserError(f"environment {made}: {reason_of(error)}") from None
        elif not isinstance(made, gymnasium.Env):
            made = made()
        if not isinstance(made.action_space, spaces.Box | spaces.Discrete):
            raise UserError(
                f"actions of {made} are {made.action_space}: policies here act in a Box or a Discrete space"
            )
        return made

    @property
    def id(self) -> str:  # type: ignore[override]
        """The id that was given, else the environment's own."""
        spec = self.environment.spec
        return self._id or (spec.id if spec else type(self.environment.unwrapped).__name__)

    @property
    def observation_dim(self) -> int:
        """O, flattened."""
        return spaces.flatdim(self.environment.observation_space)

    @property
    def action_dim(self) -> int:
        """A, flattened: of discrete actions their number."""
        return spaces.flatdim(self.environment.action_space)

    def collect(self, spec: CollectionSpec, folder: Path, workers: int) -> Experience:
        """Raise `UserError`: there is no behaviour that could act here."""
        raise UserError(f"task {self.id} has no behaviours to collect from: import episodes that were recorded in it")

    def score(self, policy: Policy, episodes: int, threads: int) -> tuple[Outcome, list[str]]:
        """Play episodes of the same seeds with every stacked policy; outcomes are run by run, (runs * episodes,).

        As in our own tasks a component of the mixture is drawn and its mean played, clipped to the bounds of the
        actions, or the discrete action of the largest number; a policy that diverged acts with zeros.
        """
        ends = []
        for run in range(policy.runs):
            for episode in range(episodes):
                ends.append(self._play(policy, run, episode))
                progress.report("play episodes", len(ends), policy.runs * episodes)
        returns, length, success = zip(*ends, strict=True)
        outcome = Outcome(np.array(returns, np.float64), np.array(length, np.int64), np.array(success, np.bool_))
        return outcome, [self.id] * episodes

    def _play(self, policy: Policy, run: int, episode: int) -> tuple[float, int, bool]:
        environment, device = self.environment, policy.observation_mean.device
        generator = torch.Generator().manual_seed(episode)
        observation, _ = environment.reset(seed=_HELD_OUT + episode)
        total = 0.0
        for step in range(1, _LONGEST + 1):
            flat = np.asarray(spaces.flatten(environment.observation_space, observation), np.float32)
            uniform = torch.rand(1, generator=generator).to(device)
            with torch.no_grad():
                seen = torch.from_numpy(flat).to(device).expand(policy.runs, 1, -1)
                action = np.nan_to_num(policy(seen).component(uniform)[run, 0].cpu().numpy())
            observation, reward, terminated, truncated, info = environment.step(_acted(action, environment))
            total += float(reward)
            if terminated or truncated:
                return total, step, bool(info.get("is_success", info.get("success", False)))
        raise UserError(f"an episode of {self.id} has not ended after {_LONGEST:,} steps: add a TimeLimit wrapper")

    def references(self, episodes: int, seed: int, threads: int) -> tuple[Outcome, Outcome]:
        """Raise `UserError`: what the best policy returns is not known."""
        raise UserError(f"task {self.id} has no reference policies: its scores are returns")


def _acted(action: NDArray[np.float32], environment: Environment) -> Any:
    """Return an action (A,) as the environment takes it."""
    space = environment.action_space
    if isinstance(space, spaces.Discrete):
        return int(space.start + action.argmax())
    assert isinstance(space, spaces.Box)  # `environment` has refused all others
    return np.clip(action.reshape(space.shape), space.low, space.high).astype(space.dtype)
