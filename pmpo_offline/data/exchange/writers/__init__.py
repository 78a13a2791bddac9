"""The formats that datasets are exported to: one registry, from which the errors and the help of `export` are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pmpo_offline.runtime.registry import Registry

if TYPE_CHECKING:
    from pmpo_offline.data import Dataset, Kind


@dataclass(frozen=True)
class Writer:
    """A format: how a dataset is written in it, and what a reader of the files must know."""

    description: str
    """One line for the help."""
    write: Callable[..., None]
    """write(folder, dataset, **options): fill the empty folder; `OSError` if the disk refuses."""
    loading: Callable[[Dataset], list[str]]
    """The lines of Python that open the files."""
    note: str | Callable[[Dataset], str]
    """Explanation of rows and labels for the README."""
    kinds: tuple[Kind, ...] = ("transitions", "candidates")
    """Kinds of dataset that it can write; without "candidates" it leaves candidate actions out."""
    place: Callable[[Path, Dataset], Path] = lambda directory, dataset: directory
    """The folder to write, given the one that the user chose."""
    data_files: Callable[[Dataset], Mapping[str, str]] = lambda dataset: {}
    """The files of each configuration of Hugging Face's front matter."""
    left_out: Callable[[Dataset], list[str]] = lambda dataset: []
    """Names of what cannot be written, besides candidates."""
    discrete: bool = False
    """Whether it can write discrete actions."""
    options: tuple[str, ...] = ()
    """Names of further arguments of `write`."""


_HERE = "pmpo_offline.data.exchange.writers"
WRITERS: Registry[Writer] = Registry(
    "format",
    "pmpo_offline.writers",
    {
        "minari": f"{_HERE}.hdf5_files:MINARI",
        "d4rl": f"{_HERE}.hdf5_files:D4RL",
        "d3rlpy": f"{_HERE}.hdf5_files:D3RLPY",
        "robomimic": f"{_HERE}.robomimic:ROBOMIMIC",
        "ogbench": f"{_HERE}.ogbench:OGBENCH",
        "lerobot": f"{_HERE}.lerobot:LEROBOT",
        "huggingface": f"{_HERE}.parquet:HUGGINGFACE",
        "parquet": f"{_HERE}.parquet:PARQUET",
        "trl": f"{_HERE}.trl:TRL",
    },
)
