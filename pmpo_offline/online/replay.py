"""The newest steps of many environments: a ring of tensors, stretches of consecutive rows drawn from it, and Retrace.

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

from typing import NamedTuple

import torch
from torch import Tensor, nn

from pmpo_offline.training.checkpoint import keep_state

GOES_ON, CUT_OFF, ENDED = 0, 1, 2
"""Values of `end`: a step is taken in this row; or none is, because the episode was cut off or has ended."""


class ReplayRows(NamedTuple):
    """Rows of R runs; the shape between depends on the use: (R, E, …) for a tick, (R, S, L, …) for stretches."""

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


class Replay(nn.Module):
    """A ring of ticks for R runs with E environments each.

    Args:
        ticks: T, how many are kept.
        runs: R.
        environments: E.
        observation_dim: O.
        action_dim: A.
    """

    def __init__(self, ticks: int, runs: int, environments: int, observation_dim: int, action_dim: int) -> None:
        super().__init__()
        self._shape = shape = (ticks, runs, environments)
        self._rings = ReplayRows(
            torch.zeros(*shape, observation_dim),
            torch.zeros(*shape, action_dim),
            torch.zeros(shape),
            torch.zeros(shape),
            torch.zeros(shape, dtype=torch.uint8),
        )
        self.written = torch.tensor(0)
        """Ticks so far, those that were overwritten too."""
        keep_state(self, written=self.written, **self._rings._asdict())

    def __len__(self) -> int:
        """Return how many ticks are held."""
        return min(int(self.written), self._shape[0])

    def add(self, rows: ReplayRows) -> None:
        """Write a tick, rows (R, E, …)."""
        place = int(self.written) % self._shape[0]
        for ring, row in zip(self._rings, rows, strict=True):
            ring[place] = row
        self.written += 1

    def sample(self, uniform: Tensor, length: int) -> ReplayRows:
        """Draw stretches of consecutive rows of one environment each, (R, S, length, …).

        Args:
            uniform: numbers in [0, 1) that choose the first tick and the environment, (R, S, 2).
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
        tick = (int(self.written) - held + first.unsqueeze(-1) + torch.arange(length)) % ticks
        row = (tick * runs + torch.arange(runs)[:, None, None]) * environments + environment.unsqueeze(-1)
        return ReplayRows(*(ring.flatten(0, 2)[row] for ring in self._rings))


def retrace(reward: Tensor, discount: Tensor, value: Tensor, action_value: Tensor, trace: Tensor) -> Tensor:
    """Return off-policy returns of the actions of a stretch of L steps under another policy, (…, L).

    Munos et al., *Safe and efficient off-policy reinforcement learning*, arXiv 1606.02647, Eq. 3 and 4, as a recursion
    from the end of the stretch, where the value alone estimates what follows::

        target_t = r_t + γ (V(s_t+1) + c_t+1 (target_t+1 - Q(s_t+1, a_t+1)))        c = λ min(1, π(a|s) / μ(a|s))

    Args:
        reward: r_t, (…, L).
        discount: γ; 0 where the task has ended after the step, so that nothing follows, (…, L).
        value: V of the state after each step, (…, L).
        action_value: Q of that state and of the action that was taken there, (…, L).
        trace: c there; 0 where none was taken, (…, L). Neither is used after the last step.
    """
    targets: list[Tensor] = []
    beyond = torch.zeros_like(reward[..., 0])
    for t in reversed(range(reward.shape[-1])):
        targets.append(reward[..., t] + discount[..., t] * (value[..., t] + beyond))
        if t:
            beyond = trace[..., t - 1] * (targets[-1] - action_value[..., t - 1])
    return torch.stack(targets[::-1], dim=-1)
