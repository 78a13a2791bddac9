"""Flat rows with marked ends become episodes: the one place where rows of other formats are aligned with ours.

Two layouts are met, and an episode of either may end the file without a mark:

    rows (D4RL with next_observations, OGBench's loader)     a row is a step; its successor stands beside it
        observation        o₀  o₁  o₂ │                      3 steps; o₃, the successor of the last, becomes
        next observation   o₁  o₂  o₃ │                      final_observation
        action             a₀  a₁  a₂ │
        end                 0   0   1 │

    states (RLDS, OGBench's files)                           a row is a state; the last one is *bare*: nothing was done
        observation        o₀  o₁  o₂  o₃ │                  in it, its action and reward mean nothing
        action             a₀  a₁  a₂   – │                  3 steps; o₃ becomes final_observation
        end                 0   0   0   1 │

D4RL without next_observations is a mixture, as in D4RL's own `qlearning_dataset`: where time ran out, what followed the
last row is lost and the row serves as the bare state of the row before it. Where the task terminated, the row is a step
(its reward counts) whose successor nobody ever values; the row's own observation stands in for it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pmpo_offline.data.experience import Experience
from pmpo_offline.runtime.errors import UserError

UNKNOWN_SEED = -1


def cut(
    where: str,
    behavior: str,
    *,
    observation: NDArray[np.float32],
    action: NDArray[np.float32],
    reward: NDArray[np.float32],
    end: NDArray[np.bool_],
    terminal: NDArray[np.bool_],
    bare: NDArray[np.bool_],
    following: NDArray[np.float32] | None = None,
    success: NDArray[np.bool_] | None = None,
) -> Experience:
    """Cut rows into episodes; `UserError` if no step is left.

    Args:
        where: named in the error.
        behavior: who acted, for the episodes' column of that name.
        observation: (M, O).
        action: (M, A).
        reward: (M,).
        end: (M,) last row of its episode; the file's last row is one even if it is not marked.
        terminal: (M,) the task ended the episode here; looked at in end rows only.
        bare: (M,) the row is a state and no step; looked at in end rows only. An episode of nothing else vanishes.
        following: (M, O) the observation after each row; None: a bare row's own, or its stand-in.
        success: (M,) solved at this row; an episode with one such row is a success.
    """
    last = np.flatnonzero(np.append(end[:-1], True))
    first = np.append(0, last[:-1] + 1)
    length = last - first + 1 - bare[last]
    kept = length > 0
    if not kept.any():
        raise UserError(f"{where} holds no step: every episode is a single state")
    if bare[last].any():
        step = np.ones(len(observation), np.bool_)
        step[last[bare[last]]] = False
        steps = (observation[step], action[step], reward[step])
    else:
        steps = (observation, action, reward)
    episodes = int(kept.sum())
    solved = np.zeros(len(last), np.bool_) if success is None else np.logical_or.reduceat(success, first)
    final = observation if following is None else following
    return Experience(
        *steps,
        length=length[kept],
        success=solved[kept],
        terminated=terminal[last][kept],
        final_observation=final[last][kept],
        behavior=np.full(episodes, behavior),
        seed=np.full(episodes, UNKNOWN_SEED, np.int64),
    )
