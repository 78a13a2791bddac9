"""What an import of episodes warns of: what was lost, is not used, or may mean something else."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

from pmpo_offline.data.exchange.forms.columns import GONE, SPLITS, split_named
from pmpo_offline.data.exchange.forms.names import is_feedback
from pmpo_offline.data.exchange.forms.selection import lone_negative
from pmpo_offline.data.exchange.readers import Recorded, Source
from pmpo_offline.data.exchange.readers.episodes import GOES_ON, SOLVED_AT_FIRST, UNMARKED, UNREAD_REWARDS
from pmpo_offline.runtime.errors import Dropped

_COUNTED = {
    UNMARKED: "{} episodes end unmarked, where next_observations is not the next row's "
    "observation: right if time ran out there, wrong if rows were shuffled or left out",
    GOES_ON: "most episodes begin with the observation with which the one before it ended: right where nothing was "
    "reset; where a vector environment reset itself (Gymnasium 1), the first step of each is no step of the task: "
    "leave those rows out and import again",
    SOLVED_AT_FIRST: "{} episodes are a success by their first step alone: wrong if that says how the episode before "
    "it ended, as the info of a reset may",
    UNREAD_REWARDS: "{} episodes have a reward in their last row, where RLDS has nothing done, and it is left out: if "
    "an action was taken there, add a row with the final observation to every episode",
}
"""Warnings of episodes that a note counts."""


def warn(found: Source, recorded: Recorded) -> None:
    """Warn of all that is lost or doubtful in the episodes of a source."""
    for line in _doubts(found, recorded):
        warnings.warn(line, stacklevel=4)


def _doubts(found: Source, recorded: Recorded) -> Iterator[str | Warning]:
    for name, said in _COUNTED.items():
        if count := recorded.notes.get(name):
            yield said.format(count)
    report, note = recorded.report, recorded.feedback_note
    if rounded := report.get("rounded"):
        counts = ", ".join(f"{count} rows of {name}" for name, count in rounded.items())
        yield f"numbers beyond 2^24 are stored as float32, which rounds {counts}: subtract what they have in common"
    if dropped := report.get("dropped"):
        reasons = "; ".join(f"{count} rows: {reason}" for reason, count in dropped.items())
        yield Dropped(f"dropped {reasons} (`show` names the first of each)")
    if differ := report.get("contradicting_episodes"):
        yield f"{differ} episodes repeat an earlier one in all numbers, with another label: leave at least one out"
    if only := note.get("only_of"):
        yield f"{note['column']} is of {only} only: if it is meant of whole episodes, write it in all of their rows"
    names = {column: column.rpartition("/")[2] for column in report.get("columns_not_used", [])}
    if gone := [column for column in names if column in GONE]:
        yield f"{gone[0]} is not used: leave out the rows that it marks, if any"
    masks = {column for column in names if column.startswith("mask/")}
    splits = [column for column, name in names.items() if name in SPLITS or (column in masks and split_named(name))]
    if splits:
        yield f"{splits[0]} is not used, and all episodes are for training: leave those out that are held out"
    named = {name: split_named(name) for name in found.files}
    if (held := [name for name, split in named.items() if split == "test"]) and len(held) < len(named):
        yield f"{held[0]} is held out by its name, and all episodes are for training: leave it out if it is"
    if feedback := [
        column for column, name in names.items() if is_feedback(name) or column in masks.difference(splits)
    ]:
        yield f"{' and '.join(feedback[:3])} may be feedback and is not used: --score {feedback[0]} takes it"
    if recorded.feedback is not None and note["labels"] is False:
        for score, count in lone_negative(recorded.feedback).items():
            yield f"{count:,} scores are {score:g} and no other is below 0: if that means unknown, write null"
    if isinstance(images := recorded.notes.get("images"), dict):
        yield (
            f"left out {', '.join(images)}: learners here read vectors of numbers; where the files are is in the "
            "dataset's provenance.settings.images"
        )
