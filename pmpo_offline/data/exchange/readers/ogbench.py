"""OGBench's npz, in three layouts (the file's, and the two that its `load_dataset` returns).

    the file          observations actions terminals                     M states, terminals marks the last of each
    compact           observations actions terminals valids              M states, valids is 0 in the last of each
    regular           observations actions terminals next_observations   M steps, terminals marks the last of each

rewards and masks (0: the task is solved) are in none of OGBench's files: they follow from a goal, and
`ogbench.make_env_and_datasets` adds them for its single tasks. A file with them keeps them; without
them rewards are 0 and nothing can be labelled by them. An episode is solved where any of its masks is 0 (or an array
success says so), and terminated where its last step's mask is.
"""

from __future__ import annotations

import numpy as np
from pydantic import JsonValue

from pmpo_offline.data.exchange.exported import ABOUT, Tables, tables
from pmpo_offline.data.exchange.readers.arrays import Kinds
from pmpo_offline.data.exchange.readers.episodes import NO_STEP, Rows, recorded, report, single_states, steps_of
from pmpo_offline.data.exchange.readers.flat import Flat
from pmpo_offline.data.exchange.readers.order import check_numbers, ends_by_successors
from pmpo_offline.data.exchange.readers.source import (
    Candidate,
    Environment,
    Reader,
    Recorded,
    Source,
    exported_in,
    of_arrays,
)
from pmpo_offline.runtime.errors import UserError

_MARKS: Kinds = {"observations": "matrix", "terminals": "flags"}
_OPTIONAL: Kinds = {"valids": "flags", "next_observations": "matrix"}
_OF_STEPS: Kinds = {"rewards": "vector", "masks": "flags"}
"""Optional, and of no meaning where nothing was done."""


def _is_ogbench(given: Candidate) -> bool:
    """Return whether the arrays are OGBench's, which has rewards only with masks or valids: others' are D4RL's."""
    if given.path.suffix != ".npz" or not given.has("terminals") or given.has("timeouts"):
        return False
    return not given.has("rewards") or any(given.has(name) for name in ("masks", "valids", ABOUT))


def _source(given: Candidate) -> Source:
    """Return the file as a source; OGBench calls it <environment>-<kind of data>-vN, its validation part …-val."""
    *parts, version = given.path.stem.removesuffix("-val").split("-")
    exported = exported_in(given.flat, _tables)
    named = len(parts) > 1 and version[:1] == "v" and version[1:].isdigit()
    environment = Environment(f"ogbench/{'-'.join(parts[:-1])}-{version}") if named and not exported else None
    return of_arrays("ogbench", given, _read, packages=("numpy",), environment=environment, exported=exported)


def _tables(flat: Flat) -> Tables:
    step = flat["terminals"] == 0
    return tables(flat, _read(flat, flat.path.stem, None).experience, flat["scores"][step], flat["labels"][step])


def _read(flat: Flat, name: str, column: str | None) -> Recorded:
    flat.need("observations", "actions", "terminals")
    marks = flat.read(_MARKS, _OPTIONAL)
    count = len(marks["observations"])
    end = ~marks["valids"] if "valids" in marks else marks["terminals"]
    following = marks.get("next_observations")
    if following is None and "valids" not in marks and end.any() and 2 * (end[1:] & end[:-1]).sum() == end.sum():
        raise UserError(
            f"{flat.path}: terminals marks two rows of every episode, as in OGBench's compact layout: add its valids"
        )
    bare = np.full(count, following is None)
    values = flat.read({"actions": "actions"}, _OF_STEPS, unused=bare & end)
    solved = ~values["masks"] if "masks" in values else np.zeros(count, np.bool_)
    if following is not None:
        end, _ = ends_by_successors(marks["observations"], following, end, flat.path, every=True)
    whole = np.append(end[:-1], True)
    success = flat.solved(np.flatnonzero(whole))
    if success is None and "masks" in values:
        success = solved & ~(bare & end)
    rows = Rows(
        marks["observations"],
        values["actions"],
        values.get("rewards"),
        end=end,
        # Of the row that is the last *step*: the one before a bare row.
        terminal=solved if following is not None else np.append(False, solved[:-1]),
        bare=bare,
        following=following,
        success=success,
        named=check_numbers(flat, whole),
    )
    feedback = flat.feedback(column)
    notes: dict[str, JsonValue] = {
        "rows_that_are_final_states": int((~steps_of(rows)).sum()),
        **report(rows, {NO_STEP: single_states(rows)}, flat.unused),
    }
    return recorded(rows, str(flat.path), name, notes, feedback)


OGBENCH = Reader(
    name="ogbench",
    reads="OGBench's .npz (observations, actions, terminals), in its three layouts",
    recognises=_is_ogbench,
    open=_source,
    example="cube-single-play-v0.npz",
)
