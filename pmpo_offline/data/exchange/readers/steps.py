"""Rows of steps whose ends are marked, and whose successors may be beside them: D4RL's files and our own columns."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pydantic import JsonValue

from pmpo_offline.data.exchange.exported import ABOUT
from pmpo_offline.data.exchange.readers.arrays import Kind, checked, is_nan, without
from pmpo_offline.data.exchange.readers.episodes import GOES_ON, LOST, PADDED, RESET, Rows, recorded, report
from pmpo_offline.data.exchange.readers.flat import Flat
from pmpo_offline.data.exchange.readers.order import (
    begins_with_resets,
    check_numbers,
    ends_by_successors,
    has_no_successors,
    resets_itself,
)
from pmpo_offline.data.exchange.readers.source import Recorded
from pmpo_offline.data.mapping import gathered, slices
from pmpo_offline.runtime.errors import UserError

_NAMES: Mapping[str, tuple[str, ...]] = {
    "observation": ("observations", "observation", "obs"),
    "action": ("actions", "action"),
    "reward": ("rewards", "reward"),
    "terminated": ("terminals", "terminated", "terminations"),
    "truncated": ("timeouts", "truncated", "truncations", "episode_terminals"),
    "next_observation": ("next_observations", "next_observation", "next_obs"),
}
"""What the arrays are called by D4RL, here, by Gymnasium and in replay buffers (`obs`, `next_obs`), and by d3rlpy of
version 1 (whose mark is of both ends)."""
_NEEDED: Mapping[str, Kind] = {"observation": "matrix", "action": "actions", "terminated": "flags"}


def called(flat: Flat) -> dict[str, str]:
    """Return the names of the arrays in a file by ours; those that it lacks as D4RL, or we, call them."""
    usual = 1 if flat.parts("observation") else 0
    return {ours: next(filter(flat.parts, names), names[usual]) for ours, names in _NAMES.items()}


def _advice(names: Mapping[str, str]) -> str:
    """Return what arrays a file of steps needs, for the error of one that lacks some."""
    return (
        f"; needed are, a row a step, {names['observation']} (M, O), {names['action']} (M, A), {names['terminated']} "
        f"(M,), true where the task ended an episode (false throughout if it never does), and {names['truncated']} "
        "(M,), true in the last row of every other episode"
    )


def _check_marks(flat: Flat) -> None:
    """Raise `UserError` where two arrays of the same ends differ; d3rlpy's marks more than time's."""
    for names in (_NAMES["terminated"], _NAMES["truncated"][:3]):
        first, *others = [*filter(flat.names.__contains__, names), ""]
        for other in filter(None, others):
            if not np.array_equal(flat[first], flat[other]):
                raise UserError(f"{flat.path}: {first} and {other} differ: leave one of them out")


def holds_any(flat: Flat) -> bool:
    """Return whether a file has any of the arrays that steps need."""
    names = called(flat)
    return any(flat.parts(names[ours]) for ours in _NEEDED)


def holds_steps(flat: Flat) -> bool:
    """Return whether a file has observations and actions."""
    names = called(flat)
    return bool(flat.parts(names["observation"]) and flat.parts(names["action"]))


def read_steps(flat: Flat, name: str, column: str | None) -> Recorded:
    """Return the episodes of steps, and their feedback in a column.

    Where there are next observations, they decide: a row whose successor is not the row after it ends an episode,
    marked or not. Without them, or where they are NaN, padding or the next episode's first ones (of a vector
    environment that resets itself), the last row of an episode that ran out of time is dropped.

    Args:
        flat: the arrays, called as in `_NAMES`.
        name: of the data set.
        column: of feedback; None: one of labels, if there is one.
    """
    names = called(flat)
    done = next((name for name in ("done", "dones") if name in flat.names), None)
    if done and not flat.parts(names["terminated"]):
        raise UserError(
            f"{flat.path}: {done} does not say whether the task ended an episode or time ran out: write "
            f"{names['terminated']} and {names['truncated']} (M,)"
        )
    flat.need(*(names[ours] for ours in _NEEDED), advice=_advice(names))
    _check_marks(flat)
    if not (flat.parts(names["truncated"]) or flat.parts(names["next_observation"])):
        raise UserError(
            f"{flat.path} lacks {names['truncated']} and {names['next_observation']}, and nothing else says where time "
            f"ran out: add an array {names['truncated']} (M,), of zeros if {names['terminated']} end every episode"
        )
    marks = flat.read({names["observation"]: "matrix", names["terminated"]: "flags"}, {names["truncated"]: "flags"})
    observation, terminal = marks[names["observation"]], marks[names["terminated"]]
    marked = terminal | marks.get(names["truncated"], np.zeros(len(terminal), np.bool_))
    end, unmarked, dropped, goes_on, following = np.append(marked[:-1], True), 0, {}, False, None
    bare = end & ~terminal
    dropped = {LOST: bare}
    if flat.parts(names["next_observation"]):
        raw = flat[names["next_observation"]]
        if len(raw) != len(end):
            has = f"{len(raw)} rows and {names['observation']} {len(end)}"
            raise UserError(f"{flat.path}: {names['next_observation']} has {has}: every array needs one row a step")
        hole = is_nan(raw) & end
        kinds: Mapping[str, Kind] = {names["next_observation"]: "matrix"}
        (following,) = checked(dict.fromkeys(kinds, without(raw, hole)), kinds, flat.path).values()
        end, unmarked = ends_by_successors(observation, following, marked, flat.path, every=names["truncated"] in marks)
        cut = marked & ~terminal & ~hole
        resets = resets_itself(observation, following, cut)
        is_padded = ABOUT not in flat.names and has_no_successors(observation, following, cut)
        lost = end & ~terminal & (hole | resets | is_padded)
        dropped = {LOST: lost & hole, PADDED if is_padded else RESET: lost & ~hole}
        bare, own = lost, lost | hole
        if own.any():
            blocks = slices(len(own))
            following = gathered(np.where(own[rows, None], observation[rows], following[rows]) for rows in blocks)
        goes_on = bool(resets.any())
    rewards: Mapping[str, Kind] = {names["reward"]: "vector"}
    values = flat.read({names["action"]: "actions"}, rewards, unused=bare)
    rows = Rows(
        observation,
        values[names["action"]],
        values.get(names["reward"]),
        end=end,
        terminal=terminal,
        bare=bare,
        following=following,
        success=flat.solved(np.flatnonzero(end)),
        named=check_numbers(flat, end),
    )
    notes: dict[str, JsonValue] = {
        "rows_without_successor_dropped": int(bare.sum()),
        "episodes_ended_by_next_observations": unmarked,
        "final_observation_of_terminated": "the last observation" if following is None else names["next_observation"],
    }
    feedback = flat.feedback(column)
    notes |= report(rows, dropped, flat.unused)
    if goes_on and rows.reward is not None and begins_with_resets(rows.reward, marked):
        notes[GOES_ON] = int(marked[:-1].sum())
    return recorded(rows, str(flat.path), name, notes, feedback)
