"""Rows of steps whose ends are marked, and whose successors may be beside them: D4RL's files and our own Parquet."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pydantic import JsonValue

from pmpo_offline.data.exchange.exported import ABOUT
from pmpo_offline.data.exchange.readers.episodes import GOES_ON, LOST, PADDED, RESET, Rows, recorded, report
from pmpo_offline.data.exchange.readers.flat import SUCCESS, Flat, Kinds
from pmpo_offline.data.exchange.readers.order import (
    begins_with_resets,
    check_numbers,
    ends_by_successors,
    has_no_successors,
    resets_itself,
)
from pmpo_offline.data.exchange.readers.source import Recorded
from pmpo_offline.data.mapping import gathered, slices

NEEDED: Kinds = {"observation": "matrix", "action": "actions", "terminated": "flags"}
OPTIONAL: Kinds = {"reward": "vector", "truncated": "flags", "next_observation": "matrix"}


def read_steps(flat: Flat, called: Mapping[str, str], name: str, column: str | None) -> Recorded:
    """Return the episodes of steps, and their feedback in a column.

    Where there are next observations, they decide: a row whose successor is not the row after it ends an episode,
    marked or not. Without them, or where they are padding or the next episode's first ones (of a vector environment
    that resets itself), the last row of an episode that ran out of time is dropped.

    Args:
        flat: the arrays.
        called: their names in the file, by ours: those of `NEEDED` and `OPTIONAL`.
        name: of the data set.
        column: of feedback; None: one of labels, if there is one.
    """
    kinds, optional = ({called[ours]: kind for ours, kind in known.items()} for known in (NEEDED, OPTIONAL))
    arrays = flat.read(kinds, {**optional, **SUCCESS})
    found = {ours: arrays[theirs] for ours, theirs in called.items() if theirs in arrays}
    observation, terminal = found["observation"], found["terminated"]
    reward = found.get("reward", np.zeros(len(terminal), np.float32))
    following = found.get("next_observation")
    marked = terminal | found.get("truncated", np.zeros(len(terminal), np.bool_))
    end, unmarked, reason, goes_on = np.append(marked[:-1], True), 0, LOST, False
    bare = end & ~terminal
    if following is not None:
        end, unmarked = ends_by_successors(observation, following, marked, flat.path, every="truncated" in found)
        cut = marked & ~terminal
        resets, reason = resets_itself(observation, following, cut), RESET
        is_padded = ABOUT not in flat.names and has_no_successors(observation, following, cut)
        reason = PADDED if is_padded else reason
        bare = end & ~terminal & (resets or is_padded)
        goes_on = resets and begins_with_resets(reward, marked)
        if resets or is_padded:  # of bare rows their own observation
            following = gathered(
                np.where(bare[rows, None], observation[rows], following[rows]) for rows in slices(len(bare))
            )
    check_numbers(flat, end)
    success = flat.solved(arrays)
    rows = Rows(
        observation,
        found["action"],
        reward,
        end=end,
        terminal=terminal,
        bare=bare,
        following=following,
        success=success,
    )
    feedback = flat.feedback(column)
    notes: dict[str, JsonValue] = {
        "rewards": "reward" in found,
        "success": success is not None,
        "rows_without_successor_dropped": int(bare.sum()),
        "episodes_ended_by_next_observations": unmarked,
        "final_observation_of_terminated": "the last observation" if following is None else called["next_observation"],
        **report(rows, {reason: bare}, flat.unused),
        **({GOES_ON: int(marked[:-1].sum())} if goes_on else {}),
    }
    return recorded(rows, str(flat.path), name, notes, feedback)
