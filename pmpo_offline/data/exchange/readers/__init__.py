"""Trajectories of other libraries: a name or a path becomes a source whose episodes can be read.

A format is a file with a `Reader`, registered here, or in another package by an entry point of the group
"pmpo_offline.readers". Which task the episodes are of and how they are labelled is not decided here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import lazy_loader

from pmpo_offline.runtime.registry import Registry

if TYPE_CHECKING:
    from pmpo_offline.data.exchange.readers.source import Environment as Environment
    from pmpo_offline.data.exchange.readers.source import Exported as Exported
    from pmpo_offline.data.exchange.readers.source import Reader as Reader
    from pmpo_offline.data.exchange.readers.source import Recorded as Recorded
    from pmpo_offline.data.exchange.readers.source import Source as Source
    from pmpo_offline.data.exchange.readers.source import open_source as open_source

_HERE = "pmpo_offline.data.exchange.readers"
READERS: Registry[Reader] = Registry(
    "reader",
    "pmpo_offline.readers",
    {
        "minari": f"{_HERE}.minari:MINARI",
        "lerobot": f"{_HERE}.lerobot:LEROBOT",
        "folders": f"{_HERE}.folders:FOLDERS",
        "robomimic": f"{_HERE}.robomimic:ROBOMIMIC",
        "d3rlpy": f"{_HERE}.d3rlpy:D3RLPY",
        "rlds": f"{_HERE}.rlds:RLDS",
        "parquet": f"{_HERE}.parquet:PARQUET",
        "ogbench": f"{_HERE}.ogbench:OGBENCH",
        "d4rl": f"{_HERE}.d4rl:D4RL",
        "files": f"{_HERE}.folders:FILES",
    },
)
"""In the order in which they are tried."""
ARRAYS = (".npz", ".hdf5", ".h5", ".parquet")
"""Endings of files of arrays."""


def minari_folder(directory: Path) -> Path | None:
    """Return the folder with the metadata of the Minari data set at `directory`, None if there is none."""
    return next((folder for folder in (directory / "data", directory) if (folder / "metadata.json").is_file()), None)


def holds_arrays(directory: Path) -> bool:
    """Return whether a folder holds trajectories for certain: a data set of them, or files that are never texts."""
    whole = ("metadata.json", "data/metadata.json", "meta/info.json", "transitions/*.parquet")
    inside = ("data/metadata.json", "*/data/metadata.json", "meta/info.json")
    arrays = tuple(f"*{ending}" for ending in ARRAYS if ending != ".parquet")
    patterns = (*whole, *arrays, *(f"*/{pattern}" for pattern in (*inside, *arrays)))
    return any(next(directory.glob(pattern), None) for pattern in patterns)


__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"source": ["Environment", "Exported", "Reader", "Recorded", "Source", "open_source"]}
)
