"""OGBench's npz, in the three layouts that are about (the file's, and the two that its `load_dataset` returns).

    the file          observations actions terminals                     M states, terminals marks the last of each
    compact           observations actions terminals valids              M states, valids is 0 in the last of each
    regular           observations actions terminals next_observations   M steps, terminals marks the last of each

rewards and masks (0: the task is solved) are in none of OGBench's files: they follow from a goal, and
`ogbench.make_env_and_datasets` adds them for its single tasks. A file that somebody saved with them keeps them; without
them rewards are 0 and nothing can be labelled by them. An episode is solved where any of its masks is 0, and terminated
where its last step's is.
"""

from __future__ import annotations

import numpy as np

from pmpo_offline.data.exchange.readers.episodes import cut
from pmpo_offline.data.exchange.readers.flat import Flat, Kind
from pmpo_offline.data.exchange.readers.source import Environment, Recorded, Source

_NEEDED: dict[str, Kind] = {"observations": "matrix", "actions": "actions", "terminals": "flags"}
_OPTIONAL: dict[str, Kind] = {
    "valids": "flags",
    "next_observations": "matrix",
    "rewards": "vector",
    "masks": "flags",
}


def is_ogbench(flat: Flat) -> bool:
    """Return whether the names of the arrays are OGBench's."""
    return flat.path.suffix == ".npz" and "terminals" in flat.names and "timeouts" not in flat.names


def source(flat: Flat) -> Source:
    """Return the file as a source; OGBench calls it <environment>-<kind of data>-vN, its validation part …-val."""
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
    given = {each: kind for each, kind in _OPTIONAL.items() if each in flat.names}
    arrays = flat.read({**_NEEDED, **given})
    rows = len(arrays["observations"])
    masks = arrays.get("masks", np.ones(rows, np.bool_))
    following = arrays.get("next_observations")
    end = arrays["terminals"] if "valids" not in arrays else ~arrays["valids"]
    bare = np.full(rows, following is None)
    # Of the row that is the last *step*: the one before a bare row.
    solved_last = ~masks if following is not None else np.append(False, ~masks[:-1])
    step = ~(bare & end)
    experience = cut(
        str(flat.path),
        name,
        observation=arrays["observations"],
        action=arrays["actions"],
        reward=arrays.get("rewards", np.zeros(rows, np.float32)),
        end=end,
        terminal=solved_last,
        bare=bare,
        following=following,
        success=~masks & step,
    )
    notes = {
        "rewards": "rewards" in arrays,
        "success": "masks" in arrays,
        "rows_that_are_final_states": rows - len(experience.reward),
    }
    return Recorded(experience, notes)
