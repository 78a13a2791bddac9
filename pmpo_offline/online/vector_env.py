"""Many environments of one task for R runs of a stack, which are reset whenever an episode is over."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pmpo_offline.online.replay import CUT_OFF, ENDED, GOES_ON
from pmpo_offline.runtime.random_words import random_words
from pmpo_offline.tasks.control import Rules, Simulation
from pmpo_offline.training.checkpoint import keep_state


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
        """Whether each observation is the final one of an episode, as in `replay`, (R, E), uint8."""
        return torch.from_numpy(self._end.copy()).view(self._shape)

    def step(self, action: Tensor) -> Tensor:
        """Act, (R, E, A), in the running episodes and reset the others; return the rewards, (R, E).

        Of a repeated action the rewards are summed.
        """
        actions, reward = action.flatten(0, 1).double().numpy(), np.zeros(len(self._end))
        over, going = np.flatnonzero(self._end != GOES_ON), np.flatnonzero(self._end == GOES_ON)
        for _ in range(self._repeat):
            step = self._simulation.step(actions[going], going)
            self._end[going] = np.where(step.terminated, ENDED, np.where(step.truncated, CUT_OFF, GOES_ON))
            reward[going] += step.reward
            self._frames += len(going)
            going = going[~step.done]
            if not len(going):
                break
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
