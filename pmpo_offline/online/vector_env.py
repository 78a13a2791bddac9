"""Many environments of one task for R runs of a stack, which are reset whenever an episode is over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pmpo_offline.online.replay import CUT_OFF, ENDED, GOES_ON
from pmpo_offline.runtime.random_words import random_words
from pmpo_offline.tasks.control import Rules, Simulation


class VectorEnv:
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
        self._seeds, self._repeat = list(seeds), repeat
        self._shape = len(seeds), environments
        everywhere = np.arange(len(seeds) * environments)
        self._simulation = Simulation(rules, len(everywhere))
        self._begun = np.zeros(len(everywhere), np.int64)
        self._begin(everywhere)
        self._simulation.elapsed[:] = everywhere % environments * rules.horizon // environments
        self._end = np.full(len(everywhere), GOES_ON, np.uint8)
        self.frames = 0
        """Control steps so far, of all environments."""

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
            self.frames += len(going)
            going = going[~step.done]
            if not len(going):
                break
        if len(over):
            self._begin(over)
            self._end[over] = GOES_ON
        return torch.from_numpy(reward.astype(np.float32)).view(self._shape)

    def state(self) -> dict[str, Tensor]:
        """Return all episodes, for a checkpoint."""
        arrays: dict[str, NDArray[np.generic]] = {"end": self._end.copy(), "begun": self._begun.copy()}
        tensors = {name: torch.from_numpy(each) for name, each in (arrays | self._simulation.save()).items()}
        return tensors | {"frames": torch.tensor(self.frames)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned."""
        arrays = {name: tensor.numpy() for name, tensor in state.items()}
        self._simulation.restore(arrays)
        self._end[:], self._begun[:] = arrays["end"], arrays["begun"]
        self.frames = int(state["frames"])

    def _begin(self, index: NDArray[np.intp]) -> None:
        seeds = []
        for i in index:
            run, environment = divmod(int(i), self._shape[1])
            word = random_words(1, "begin", self._seeds[run], environment, int(self._begun[i]))[0]
            seeds.append(int(word >> np.uint64(32)))
        self._begun[index] += 1
        self._simulation.reset(seeds, index)
