"""Rows of steps whose ends are marked, and whose successors may be beside them: D4RL's files and our own columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from pmpo_offline.data.exchange.exported import ABOUT
from pmpo_offline.data.exchange.readers.arrays import Array, Kinds, as_kind, is_nan, without
from pmpo_offline.data.exchange.readers.episodes import GOES_ON, LOST, PADDED, RESET, UNMARKED, Rows, recorded, report
from pmpo_offline.data.exchange.readers.flat import EPISODES, Flat
from pmpo_offline.data.exchange.readers.order import check_numbers, ends_by_successors
from pmpo_offline.data.exchange.readers.source import Recorded
from pmpo_offline.data.mapping import gathered, slices, taken
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
_SAMPLE = 65536
"""Rows of which it is asked whether observations change."""
_NEEDED = ("observation", "action", "terminated")


def called(flat: Flat) -> dict[str, str]:
    """Return the names of the arrays in a file by ours; those that it lacks as D4RL, or we, call them."""
    usual = 1 if flat.parts("observation") else 0
    return {ours: next(filter(flat.parts, names), names[usual]) for ours, names in _NAMES.items()}


def holds_any(flat: Flat) -> bool:
    """Return whether a file has any of the arrays that steps need."""
    names = called(flat)
    return any(flat.parts(names[ours]) for ours in _NEEDED)


def holds_steps(flat: Flat) -> bool:
    """Return whether a file has observations and actions."""
    names = called(flat)
    return bool(flat.parts(names["observation"]) and flat.parts(names["action"]))


@dataclass(frozen=True)
class _Ends:
    """Where the episodes of M rows end, and what followed each row."""

    end: NDArray[np.bool_]
    bare: NDArray[np.bool_]
    dropped: Mapping[str, NDArray[np.bool_]]
    """The bare rows by the reason."""
    following: NDArray[np.float32] | None = None
    unmarked: int = 0
    """Ends that only the next observations tell."""
    resets: bool = False
    """Whether some rows have the next episode's first observation as their next."""


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
    _check_names(flat, names)

    def read(kinds: Kinds, optional: Kinds, unused: NDArray[np.bool_] | None = None) -> dict[str, Array]:
        """Return arrays by our names."""
        theirs, others = ({names[ours]: kind for ours, kind in each.items()} for each in (kinds, optional))
        found = flat.read(theirs, others, unused)
        return {ours: found[called] for ours, called in names.items() if called in found}

    marks = read({"observation": "matrix", "terminated": "flags"}, {"truncated": "flags"})
    observation, terminal = marks["observation"], marks["terminated"]
    marked = terminal | marks["truncated"] if "truncated" in marks else terminal
    if flat.parts(names["next_observation"]):
        ends = _by_successors(flat, names["next_observation"], marks, marked)
    else:
        end = np.append(marked[:-1], True)
        ends = _Ends(end, end & ~terminal, {LOST: end & ~terminal})
    values = read({"action": "actions"}, {"reward": "vector"}, unused=ends.bare)
    rows = Rows(
        observation,
        values["action"],
        values.get("reward"),
        end=ends.end,
        terminal=terminal,
        bare=ends.bare,
        following=ends.following,
        success=flat.solved(np.flatnonzero(ends.end)),
        named=check_numbers(flat, ends.end),
    )
    known = "the last observation" if ends.following is None else names["next_observation"]
    notes: dict[str, JsonValue] = {
        "rows_without_successor_dropped": int(ends.bare.sum()),
        UNMARKED: ends.unmarked,
        "final_observation_of_terminated": known,
    }
    feedback = flat.feedback(column)
    notes |= report(rows, ends.dropped, flat.unused)
    if ends.resets and rows.reward is not None and _begins_with_resets(rows.reward, marked):
        notes[GOES_ON] = int(marked[:-1].sum())
    return recorded(rows, str(flat.path), name, notes, feedback)


def _check_names(flat: Flat, names: Mapping[str, str]) -> None:
    """Raise `UserError` where arrays that say where episodes end are not there, or contradict one another."""
    terminated, truncated = names["terminated"], names["truncated"]
    done = next((name for name in ("done", "dones") if name in flat.names), None)
    if done and not flat.parts(terminated):
        raise UserError(
            f"{flat.path}: {done} does not say whether the task ended an episode or time ran out: write {terminated} "
            f"and {truncated} (M,)"
        )
    advice = (
        f"; needed are, a row a step, {names['observation']} (M, O), {names['action']} (M, A), {terminated} (M,), true "
        f"where the task ended an episode (false throughout if it never does), and {truncated} (M,), true in the last "
        "row of every other episode"
    )
    if numbered := next(filter(flat.parts, EPISODES), None):
        advice += f", which is np.append({numbered}[1:] != {numbered}[:-1], True)"
    flat.need(*(names[ours] for ours in _NEEDED), advice=advice)
    for same in (_NAMES["terminated"], _NAMES["truncated"][:3]):  # d3rlpy's marks more than time's
        first, *others = [*filter(flat.names.__contains__, same), ""]
        for other in filter(None, others):
            if not np.array_equal(flat[first], flat[other]):
                raise UserError(f"{flat.path}: {first} and {other} differ: leave one of them out")
    if not (flat.parts(truncated) or flat.parts(names["next_observation"])):
        raise UserError(
            f"{flat.path} lacks {truncated} and {names['next_observation']}, and nothing else says where time ran "
            f"out: add an array {truncated} (M,), of zeros if {terminated} end every episode"
        )


def _by_successors(flat: Flat, name: str, marks: Mapping[str, Array], marked: NDArray[np.bool_]) -> _Ends:
    """Return the ends that the next observations tell, in the array of this name, where they are any."""
    observation, terminal, raw = marks["observation"], marks["terminated"], np.atleast_1d(flat[name])
    if len(raw) != len(marked):
        raise UserError(
            f"{flat.path}: {name} has {len(raw)} rows and {called(flat)['observation']} {len(marked)}: every array "
            "needs one row a step"
        )
    hole = is_nan(raw) & np.append(marked[:-1], True)
    following = as_kind("matrix", without(raw, hole), f"{flat.path}: {name}")
    end, unmarked = ends_by_successors(observation, following, marked, flat.path, every="truncated" in marks)
    cut = marked & ~terminal & ~hole
    resets = _resets_itself(observation, following, cut)
    is_padded = ABOUT not in flat.names and _has_no_successors(observation, following, cut)
    lost = end & ~terminal & (hole | resets | is_padded)
    if (own := lost | hole).any():  # its own observation in the place of what is not known
        blocks = slices(len(own))
        following = gathered(np.where(own[rows, None], observation[rows], following[rows]) for rows in blocks)
    dropped = {LOST: lost & hole, PADDED if is_padded else RESET: lost & ~hole}
    return _Ends(end, lost, dropped, following, unmarked, bool(resets.any()))


def _resets_itself(
    observation: NDArray[np.float32], following: NDArray[np.float32], cut: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Return the rows (M,) where time ran out and what follows is the next row's observation only.

    A vector environment that resets itself records it so, but for the last row of each environment: none are returned
    unless most are such rows. Episodes whose observation never changes cannot be judged.
    """
    rows = np.flatnonzero(cut[:-1])
    after = taken(following, rows)
    same = (after == taken(observation, rows + 1)).all(axis=1)
    moved = (after != taken(observation, rows)).any(axis=1)
    found = np.zeros(len(cut), np.bool_)
    if (same & moved).sum() * 2 > moved.sum():
        found[rows[same & moved]] = True
    return found


def _has_no_successors(
    observation: NDArray[np.float32], following: NDArray[np.float32], cut: NDArray[np.bool_]
) -> bool:
    """Return whether what follows the rows (M,) where time ran out is padding: zeros only, or those rows once more.

    Elsewhere observations have to change, and zeros have to differ from what was observed.
    """
    rows = np.flatnonzero(cut)
    after, here = taken(following, rows), taken(observation, rows)
    zeros = not after.any() and bool(here.any(axis=1).all())
    if not len(rows) or not (zeros or np.array_equal(after, here)):
        return False
    moved = (following[:_SAMPLE] != observation[:_SAMPLE]).any(axis=1)[~cut[:_SAMPLE]]
    return bool(len(moved)) and bool(moved.mean() > 0.5)


def _begins_with_resets(reward: NDArray[np.float32], marked: NDArray[np.bool_]) -> bool:
    """Return whether most rows (M,) after marked ends have no reward and most others do: they only reset, perhaps."""
    first = np.append(False, marked[:-1])
    return bool(first.any() and (reward[first] == 0).mean() > 0.5 and (reward[~first] != 0).mean() > 0.5)
