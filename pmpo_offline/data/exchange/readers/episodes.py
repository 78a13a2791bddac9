"""Episodes cut from flat rows with marked ends: the one place where rows of other formats are aligned with ours.

There are two layouts, and in both the file's last episode may end without a mark:

    rows (D4RL with next_observations, OGBench's loader)     a row is a step; its successor is beside it
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
(its reward counts) whose successor is never valued; the row's own observation is stored in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from pmpo_offline.data import Experience
from pmpo_offline.data.exchange.exported import sound_name
from pmpo_offline.data.exchange.readers.arrays import by_row, is_blank
from pmpo_offline.data.exchange.readers.feedback import feedback_of_steps
from pmpo_offline.data.exchange.readers.flat import Flat, opened
from pmpo_offline.data.exchange.readers.source import Recorded
from pmpo_offline.data.mapping import Spill, kept, taken
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import UserError

UNKNOWN_SEED = -1
Column = tuple[str, NDArray[Any]] | None
"""The name and the values of a column of feedback, of the rows (M,) or the episodes (E,)."""
LOST = "the last row of an episode that ran out of time: what followed it is not in the file"
RESET = "the last row of an episode that ran out of time: next_observations has the next episode's first"
PADDED = "the last row of an episode that ran out of time: next_observations has only padding there"
UNMARKED = "episodes_ended_by_next_observations"
"""The note that perhaps rows were shuffled or left out."""
GOES_ON = "episodes_begin_where_the_last_ended"
"""The note that perhaps each episode has a first step that only resets the environment."""
SOLVED_AT_FIRST = "episodes_solved_in_their_first_row_only"
"""The note that perhaps success is that of the episode before, in the info of a reset."""
UNREAD_REWARDS = "rewards_in_last_steps"
"""The note that perhaps something was done in the last rows of RLDS."""
COUNTS = (
    *(UNMARKED, GOES_ON, SOLVED_AT_FIRST, UNREAD_REWARDS),
    *("rows_without_successor_dropped", "rows_that_are_final_states", "episodes_without_a_last_step"),
)
"""Notes that count rows or episodes: of several files they add up."""
NO_STEP = "a state without a step, of an episode of one row"


@dataclass(frozen=True)
class Rows:
    """M flat rows of episodes, one after the other."""

    observation: NDArray[np.float32]  # (M, O)
    action: NDArray[np.float32]  # (M, A)
    reward: NDArray[np.float32] | None  # (M,), None: the source has none
    end: NDArray[np.bool_]
    """(M,) last row of its episode; the last row of all is one even if it is not marked."""
    terminal: NDArray[np.bool_]
    """(M,) the task ended the episode here; read in end rows only."""
    bare: NDArray[np.bool_]
    """(M,) the row is a state and no step; read in end rows only. An episode of nothing else vanishes."""
    following: NDArray[np.float32] | None = None
    """(M, O) the observation after each row; None: a bare row's own, or its substitute."""
    success: NDArray[np.bool_] | None = None
    """(M,) solved at this row; an episode with one such row is a success."""
    final: NDArray[np.float32] | None = None
    """(E, O) the observation after each episode, in place of `following`."""
    named: NDArray[Any] | None = None
    """(E,) the numbers or names of the episodes in the source, if it has any."""

    @property
    def first(self) -> NDArray[np.int64]:
        """The first row of each episode."""
        return np.append(0, self.last[:-1] + 1)

    @property
    def last(self) -> NDArray[np.int64]:
        """The last row of each episode."""
        return np.flatnonzero(np.append(self.end[:-1], True))

    @property
    def length(self) -> NDArray[np.int64]:
        """The number of steps of each episode; one of none vanishes."""
        return np.diff(self.last, prepend=-1) - self.bare[self.last]


def cut(rows: Rows, where: str, behavior: str | Sequence[str]) -> Experience:
    """Return the episodes by a behaviour, or by one each; `UserError`, which names `where`, if no step is left."""
    last, length = rows.last, rows.length
    is_left = length > 0
    if not is_left.any():
        raise UserError(f"{where} holds no step: every episode is a single state")
    reward = np.zeros(len(rows.observation), np.float32) if rows.reward is None else rows.reward
    steps = (rows.observation, rows.action, reward)
    if rows.bare[last].any():
        step = steps_of(rows)
        steps = (kept(rows.observation, step), kept(rows.action, step), kept(reward, step))
    solved = np.zeros(len(last), np.bool_)
    if rows.success is not None:
        solved = np.logical_or.reduceat(rows.success, rows.first)
    following = rows.observation if rows.following is None else rows.following
    return Experience(
        *steps,
        length=length[is_left],
        success=solved[is_left],
        terminated=rows.terminal[last][is_left],
        final_observation=taken(following, last[is_left]) if rows.final is None else rows.final[is_left],
        behavior=np.array([sound_name(name) for name in np.broadcast_to(behavior, len(last))[is_left].tolist()]),
        seed=np.full(is_left.sum(), UNKNOWN_SEED, np.int64),
    )


def steps_of(rows: Rows) -> NDArray[np.bool_]:
    """Return the rows (M,) that are steps."""
    step = np.ones(len(rows.observation), np.bool_)
    last = rows.last
    step[last[rows.bare[last]]] = False
    return step


def recorded(
    rows: Rows, where: str, behavior: str | Sequence[str], notes: Mapping[str, JsonValue], column: Column = None
) -> Recorded:
    """Return the episodes with the number of each, and the feedback in a column if there is one.

    `notes` are those of `Recorded` that the rows and the feedback do not tell.
    """
    experience = cut(rows, where, behavior)
    notes = {"rewards": rows.reward is not None, "success": rows.success is not None, **notes}
    if _goes_on(experience):
        notes = {**notes, GOES_ON: len(experience.length) - 1}
    if rows.success is not None and (count := _solved_at_first(rows.success, rows)):
        notes = {**notes, SOLVED_AT_FIRST: count}
    numbers = np.flatnonzero(rows.length)
    named = (numbers, True) if rows.named is None else (rows.named[numbers], False)
    if column is None:
        return Recorded(experience, notes, None, *named)
    name, values = column
    of_rows = by_row(values, rows.last, f"{where}: {name}")
    if rows.bare[rows.last].any() and not np.delete(said := ~is_blank(of_rows), rows.last).any() and said.any():
        of_rows = by_row(of_rows[rows.last], rows.last, where)  # a value in a row that is no step is the episode's
    found, note = feedback_of_steps(name, of_rows[steps_of(rows)], experience.length, where)
    return Recorded(experience, {**notes, "feedback": note}, found, *named)


def _solved_at_first(success: NDArray[np.bool_], rows: Rows) -> int:
    """Return how many episodes of several rows are solved in their first row, and in no other."""
    solved = np.add.reduceat(success.astype(np.int64), rows.first)
    return int((success[rows.first] & (solved == 1) & (rows.last > rows.first)).sum())


def _goes_on(experience: Experience) -> bool:
    """Return whether most of several episodes begin with the observation with which the one before it ended."""
    start = np.cumsum(experience.length)[:-1]
    final, before = experience.final_observation[:-1], experience.observation[start - 1]
    goes_on = (final == experience.observation[start]).all(axis=1) & (final != before).any(axis=1)
    return len(start) > 1 and bool(goes_on.mean() > 0.5)


def joined_episodes(
    flat: Flat,
    episodes: Sequence[str],
    steps: Sequence[str],
    ends: Sequence[str],
    read: Callable[[h5py.File, int, str], NDArray[Any]],
) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]]:
    """Return arrays that an HDF5 file holds of each episode, joined, and the number of steps of each episode.

    Args:
        flat: the file.
        episodes: what errors call each episode.
        steps: names of arrays with a row a step, the first of which says how many steps there are.
        ends: names of arrays with a row an episode.
        read: returns an array, given the file, the place of its episode and its name.

    Raises `UserError` for an episode without steps, or with arrays of different lengths.
    """
    parts = {name: Spill() for name in (*steps, *ends)}
    with opened(flat) as file:
        for place, episode in enumerate(progress.counted(episodes, "read episodes", len(episodes))):
            for name, found in parts.items():
                found.append(read(file, place, name))
            count = parts[steps[0]].lengths[-1]
            if not count:
                raise UserError(f"{flat.path}: {episode} has no steps: write the file without it")
            if wrong := [name for name in steps if parts[name].lengths[-1] != count]:
                raise UserError(f"{flat.path}: {episode} has other numbers of {wrong[0]} and {steps[0]}")
        joined = {name: found.joined() for name, found in parts.items()}
    return joined, np.array(parts[steps[0]].lengths)


def single_states(rows: Rows) -> NDArray[np.bool_]:
    """Return the rows (M,) that are whole episodes without a step."""
    alone = np.zeros(len(rows.observation), np.bool_)
    alone[rows.last] = rows.length == 0
    return alone


def report(rows: Rows, dropped: Mapping[str, NDArray[np.bool_]], unused: Collection[str] = ()) -> dict[str, JsonValue]:
    """Return the note `report`: the rows (M,) dropped for each reason, counted, and the columns that were not used.

    Empty if there are neither.
    """
    lost = {reason: rows_of for reason, rows_of in dropped.items() if rows_of.any()}
    passed_over: dict[str, JsonValue] = {"columns_not_used": [*unused]} if unused else {}
    if not lost:
        return {"report": passed_over} if unused else {}
    alone = int(single_states(rows).sum())
    return {
        "report": {
            "rows": len(rows.observation),
            "episodes": len(rows.last) - alone,
            "episodes_dropped": alone,
            "dropped": {reason: int(marked.sum()) for reason, marked in lost.items()},
            "first_dropped": {reason: f"row {int(marked.argmax())}" for reason, marked in lost.items()},
            **passed_over,
        }
    }
