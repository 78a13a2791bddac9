"""Acting in many episodes that are reset when over: of a stack of runs, and of one learner with a small actor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pmpo_offline.online.replay import CUT_OFF, ENDED, GOES_ON
from pmpo_offline.policies.behavior import BehaviorPolicy
from pmpo_offline.runtime.hashing import random_words
from pmpo_offline.tasks.control import Rules, Simulation
from pmpo_offline.tasks.simulated import Array, Bools, Index
from pmpo_offline.training.adam import Adam
from pmpo_offline.training.checkpoint import keep_state

ACTOR = 64
"""Units of either of an actor's two layers."""
SMALLEST_SCALE = 1e-2
"""Of an observation: rarely changing components are not blown up."""


def hold(
    simulation: Simulation, action: Array, index: Index, repeat: int, bonus: Callable[[Array], Array] | None = None
) -> tuple[Array, Bools, Bools, int]:
    """Apply actions (m, A) to the episodes `index` for `repeat` control steps, or until an episode is over.

    Returns:
        The sums of the rewards, with the bonus of the observations reached, (m,); whether the task has ended the
        episode, and whether the clock cut it off, (m,); and the control steps taken, of all episodes together.
    """
    reward, running, frames = np.zeros(len(index)), np.arange(len(index)), 0
    terminated, truncated = np.zeros((2, len(index)), np.bool_)
    for _ in range(repeat):
        step = simulation.step(action[running], index[running])
        terminated[running], truncated[running] = step.terminated, step.truncated
        reward[running] += step.reward
        if bonus is not None:
            reward[running] += bonus(step.observation)
        frames += len(running)
        running = running[~step.done]
        if not len(running):
            break
    return reward, terminated, truncated, frames


class RunningStats(nn.Module):
    """Running mean and variance of columns, merged batch by batch (Chan et al. 1979).

    Args:
        columns: their number.
    """

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.values = torch.zeros(3, columns, dtype=torch.float64)
        """Count, mean and sum of squared differences, (3, columns)."""
        keep_state(self, values=self.values)

    def add(self, batch: Array) -> None:
        """Add rows (m, columns)."""
        count, mean, squares = self.values.numpy()
        m = len(batch)
        gap, total = batch.mean(axis=0) - mean, count + m
        squares += np.square(batch - batch.mean(axis=0)).sum(axis=0) + np.square(gap) * count * m / total
        mean += gap * m / total
        count[:] = total

    @property
    def mean(self) -> Array:
        """(columns,)."""
        return self.values[1].numpy()

    @property
    def std(self) -> Array:
        """(columns,); 1 before the first batch."""
        count, _, squares = self.values.numpy()
        return np.sqrt(np.where(count > 0, squares / np.maximum(count, 1), 1.0))


class ActingLearner(nn.Module):
    """A learner of one tanh actor in n episodes; subclasses set the actor, its deviation and the optimizer.

    Args:
        rules: the task.
        seed: of all random numbers.
        beginnings: how many are drawn, once.
        episodes: n.
    """

    actor: nn.Sequential
    log_std: Tensor
    """(A,)."""
    optimizer: Adam

    def __init__(self, rules: Rules, seed: int, beginnings: int, episodes: int) -> None:
        super().__init__()
        self._frames = torch.tensor(0)
        self._chance = torch.Generator().manual_seed(seed)
        # dm_control takes as long for a beginning as the simulation for a hundred steps: they are drawn once, and
        # an episode's "seed" is the number of one of them.
        words = torch.randint(2**32, (beginnings,), generator=self._chance)
        self._starts = [rules.begin(int(word)) for word in words]
        self._simulation = Simulation(replace(rules, begin=self._starts.__getitem__), episodes)
        self._reset(np.ones(episodes, np.bool_))
        self._seen = RunningStats(self._simulation.observation.shape[1])
        keep_state(self, frames=self._frames, **self._simulation.arrays())

    @property
    def frames(self) -> int:
        """Control steps taken so far, of all episodes together."""
        return int(self._frames)

    def policy(self) -> BehaviorPolicy:
        """Return the policy as it is now."""
        layers = [layer for layer in self.actor if isinstance(layer, nn.Linear)]
        return BehaviorPolicy(
            center=self._seen.mean.astype(np.float32),
            scale=np.maximum(self._seen.std, SMALLEST_SCALE).astype(np.float32),
            weights=tuple(layer.weight.detach().numpy().T.copy() for layer in layers),
            biases=tuple(layer.bias.detach().numpy().copy() for layer in layers),
            log_std=self.log_std.detach().numpy().copy(),
        )

    def get_extra_state(self) -> Tensor:
        """Return the random state, for `state_dict`."""
        return self._chance.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the random state, for `load_state_dict`."""
        self._chance.set_state(state)

    def _train(self, weights: Iterable[Tensor], learning_rate: float, eps: float = 1e-8) -> None:
        """Make the optimizer of weights, whose moments are part of the state."""
        self.optimizer = Adam(weights, learning_rate, eps=eps)
        keep_state(self, moments=self.optimizer.moments)

    def _reset(self, over: Bools) -> None:
        """Begin the episodes that are over, (n,), again."""
        if len(index := np.flatnonzero(over)):
            drawn = torch.randint(len(self._starts), (len(index),), generator=self._chance)
            self._simulation.reset(drawn.tolist(), index)


def perceptron(sizes: tuple[int, ...], gain: float, chance: torch.Generator) -> nn.Sequential:
    """Return tanh layers between `sizes` units, orthogonal at first, the last one scaled to `gain`."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layer = nn.Linear(inputs, outputs)
        last = len(layers) == 2 * (len(sizes) - 2)
        nn.init.orthogonal_(layer.weight, gain if last else 2**0.5, generator=chance)
        nn.init.zeros_(layer.bias)
        layers += [layer] if last else [layer, nn.Tanh()]
    return nn.Sequential(*layers)


class VectorEnv(nn.Module):
    """R runs with E environments each. A run has the same beginnings alone and in a stack.

    After an episode's last step its final observation takes one tick, in which its environment takes no step.
    The first episodes of a run begin at different phases of the horizon, or all its environments would end at once.

    Args:
        rules: the task.
        seeds: one a run.
        environments: E.
        repeat: control steps that an action is held for.
    """

    def __init__(self, rules: Rules, seeds: Sequence[int], environments: int, repeat: int) -> None:
        super().__init__()
        self._seeds, self._repeat = list(seeds), repeat
        self._shape = len(seeds), environments
        everywhere = np.arange(len(seeds) * environments)
        self._simulation = Simulation(rules, len(everywhere))
        self._begun = np.zeros(len(everywhere), np.int64)
        self._begin(everywhere)
        self._simulation.elapsed[:] = everywhere % environments * rules.horizon // environments
        self._end = np.full(len(everywhere), GOES_ON, np.uint8)
        self._frames = torch.tensor(0)
        keep_state(self, end=self._end, begun=self._begun, frames=self._frames, **self._simulation.arrays())

    @property
    def frames(self) -> int:
        """Control steps so far, of all environments."""
        return int(self._frames)

    @property
    def observation(self) -> Tensor:
        """(R, E, O)."""
        return torch.from_numpy(self._simulation.observation.astype(np.float32)).view(*self._shape, -1)

    @property
    def end(self) -> Tensor:
        """GOES_ON, or the reason why this is an episode's final observation, (R, E), uint8; see `replay`."""
        return torch.from_numpy(self._end.copy()).view(self._shape)

    def step(self, action: Tensor) -> Tensor:
        """Act, (R, E, A), in the running episodes and reset the others; return the rewards, (R, E).

        Of a repeated action the rewards are summed.
        """
        actions, reward = action.flatten(0, 1).double().numpy(), np.zeros(len(self._end))
        over, going = np.flatnonzero(self._end != GOES_ON), np.flatnonzero(self._end == GOES_ON)
        reward[going], terminated, truncated, frames = hold(self._simulation, actions[going], going, self._repeat)
        self._end[going] = np.where(terminated, ENDED, np.where(truncated, CUT_OFF, GOES_ON))
        self._frames += frames
        if len(over):
            self._begin(over)
            self._end[over] = GOES_ON
        return torch.from_numpy(reward.astype(np.float32)).view(self._shape)

    def _begin(self, index: NDArray[np.intp]) -> None:
        seeds = []
        for i in index:
            run, environment = divmod(int(i), self._shape[1])
            word = random_words(1, "begin", self._seeds[run], environment, int(self._begun[i]))[0]
            seeds.append(int(word >> np.uint64(32)))
        self._begun[index] += 1
        self._simulation.reset(seeds, index)
