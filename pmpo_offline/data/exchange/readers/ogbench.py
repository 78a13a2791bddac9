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

from pmpo_offline.data.exchange.readers.episodes import NO_STEP, Rows, cut, report, single_states
from pmpo_offline.data.exchange.readers.flat import SUCCESS, Flat, Kinds
from pmpo_offline.data.exchange.readers.source import Candidate, Environment, Reader, Recorded, Source

_MARKS: Kinds = {"observations": "matrix", "terminals": "flags"}
_OPTIONAL: Kinds = {"valids": "flags", "masks": "flags", "next_observations": "matrix", **SUCCESS}


def _is_ogbench(given: Candidate) -> bool:
    """Return whether the arrays are OGBench's, which has rewards only with masks or valids: others' are D4RL's."""
    if given.path.suffix != ".npz" or not given.has("terminals") or given.has("timeouts"):
        return False
    return not given.has("rewards") or given.has("masks") or given.has("valids")


def _source(given: Candidate) -> Source:
    """Return the file as a source; OGBench calls it <environment>-<kind of data>-vN, its validation part …-val."""
    flat = given.flat
    name = flat.path.stem
    *parts, version = name.removesuffix("-val").split("-")
    named = len(parts) > 1 and version[:1] == "v" and version[1:].isdigit()
    return Source(
        format="ogbench",
        name=name,
        files={flat.path.name: flat.path},
        read=lambda: _read(flat, name),
        packages=("numpy",),
        environment=Environment(f"ogbench/{'-'.join(parts[:-1])}-{version}") if named else None,
    )


def _read(flat: Flat, name: str) -> Recorded:
    flat.need("observations", "actions", "terminals")
    marks = flat.read(_MARKS, _OPTIONAL)
    count = len(marks["observations"])
    end = ~marks["valids"] if "valids" in marks else marks["terminals"]
    following = marks.get("next_observations")
    bare = np.full(count, following is None)
    values = flat.read({"actions": "actions"}, {"rewards": "vector"}, unused=bare & end)
    solved = ~marks["masks"] if "masks" in marks else np.zeros(count, np.bool_)
    success = flat.solved(marks)
    rows = Rows(
        marks["observations"],
        values["actions"],
        values.get("rewards", np.zeros(count, np.float32)),
        end=end,
        # Of the row that is the last *step*: the one before a bare row.
        terminal=solved if following is not None else np.append(False, solved[:-1]),
        bare=bare,
        following=following,
        success=solved & ~(bare & end) if success is None else success,
    )
    experience = cut(rows, str(flat.path), name)
    notes = {
        "rewards": "rewards" in values,
        "success": "masks" in marks or success is not None,
        "rows_that_are_final_states": count - len(experience.reward),
    }
    return Recorded(experience, notes | report(rows, {NO_STEP: single_states(rows)}))


OGBENCH = Reader(
    name="ogbench",
    reads="OGBench's .npz (observations, actions, terminals), in its three layouts",
    recognises=_is_ogbench,
    open=_source,
    example="cube-single-play-v0.npz",
)
