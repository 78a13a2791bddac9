"""The newest steps of many environments: a ring of plain tensors, and stretches of consecutive rows drawn from it.

Every environment writes one row a tick. The row after a step holds the observation that the step led to, and the final
observation of an episode has a row of its own, without an action: a row's next observation is always the next row's::

    tick        0     1     2     3     4     5           an environment whose episode has 3 steps
    observation s₀    s₁    s₂    s₃    s₀'   s₁'
    action      a₀    a₁    a₂    —     a₀'   a₁'
    logp        log-density of each action under the policy that drew it
    reward      r₀    r₁    r₂    —     r₀'   r₁'
    end         0     0     0     1     0     0           1: the episode was cut off here, 2: the task has ended it

When the ring is full, the oldest tick is overwritten.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

GOES_ON, CUT_OFF, ENDED = 0, 1, 2
"""What `end` says of a row: a step is taken here; or none is, because the episode was cut off or has ended."""


class Rows(NamedTuple):
    """Rows of R runs; the shape between depends on who holds them: (R, E, …) for a tick, (R, S, L, …) for stretches."""

    observation: Tensor
    """(R, …, O)."""
    action: Tensor
    """(R, …, A), as drawn, before it was clipped; meaningless where no step was taken."""
    logp: Tensor
    """(R, …), nats; meaningless there too."""
    reward: Tensor
    """(R, …), likewise."""
    end: Tensor
    """(R, …), uint8."""


class Replay:
    """A ring of ticks for R runs with E environments each.

    Args:
        ticks: T, how many are kept.
        runs: R.
        environments: E.
        observation_dim: O.
        action_dim: A.
    """

    def __init__(self, ticks: int, runs: int, environments: int, observation_dim: int, action_dim: int) -> None:
        self._shape = shape = (ticks, runs, environments)
        self._rings = Rows(
            torch.zeros(*shape, observation_dim),
            torch.zeros(*shape, action_dim),
            torch.zeros(shape),
            torch.zeros(shape),
            torch.zeros(shape, dtype=torch.uint8),
        )
        self._written = 0

    def __len__(self) -> int:
        """Return how many ticks are held."""
        return min(self._written, self._shape[0])

    def add(self, rows: Rows) -> None:
        """Write a tick, rows (R, E, …)."""
        place = self._written % self._shape[0]
        for ring, row in zip(self._rings, rows, strict=True):
            ring[place] = row
        self._written += 1

    def sample(self, uniform: Tensor, length: int) -> Rows:
        """Draw stretches of consecutive rows of one environment each, (R, S, length, …).

        Args:
            uniform: numbers in [0, 1) that decide on the first tick and the environment, (R, S, 2).
            length: rows of a stretch.

        Raises:
            ValueError: fewer ticks are held.
        """
        ticks, runs, environments = self._shape
        held = len(self)
        if held < length:
            raise ValueError(f"stretches of {length} rows need as many ticks, and {held} are held")
        # In double precision: single cannot tell all starts of a long ring apart.
        first, environment = (
            (uniform[..., i].double() * choices).long() for i, choices in enumerate((held - length + 1, environments))
        )
        tick = (self._written - held + first.unsqueeze(-1) + torch.arange(length)) % ticks
        row = (tick * runs + torch.arange(runs)[:, None, None]) * environments + environment.unsqueeze(-1)
        return Rows(*(ring.flatten(0, 2)[row] for ring in self._rings))

    def state(self) -> dict[str, Tensor]:
        """Return all that is held, for a checkpoint: the ticks that were written, and how many ever were."""
        held = {name: ring[: len(self)] for name, ring in self._rings._asdict().items()}
        return held | {"written": torch.tensor(self._written)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` returned."""
        self._written = int(state["written"])
        for name, ring in self._rings._asdict().items():
            ring[: len(self)] = state[name]
