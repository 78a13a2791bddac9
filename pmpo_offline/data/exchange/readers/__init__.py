"""Readers of other people's formats, one file a format: what is named becomes a source that can be read."""

from __future__ import annotations

from pathlib import Path

from pmpo_offline.data.exchange.readers import d4rl, hub, minari, ogbench, rlds
from pmpo_offline.data.exchange.readers.flat import SUFFIXES, Flat, joined, open_flat
from pmpo_offline.data.exchange.readers.source import Environment, Recorded, Source
from pmpo_offline.runtime.errors import UserError

_CAN_BE = (
    "give minari:ID, the folder of a Minari data set, a D4RL .hdf5, an OGBench .npz, "
    "RLDS steps as .npz, .hdf5 or .parquet, or texts as .jsonl, .json, .csv, .parquet, .arrow or hf:NAME"
)


def open_source(name: str) -> Source:
    """Return what is found under a name: `minari:ID`, or the path of a file or a folder.

    Raises `UserError` where there is nothing, or nothing that can be read here.
    """
    scheme, colon, rest = name.partition(":")
    if colon and scheme == "minari":
        return minari.source(hub.find(rest))
    path = Path(name).expanduser()
    if path.is_dir():
        return _in_folder(path)
    if not path.exists():
        unknown = f"{scheme}: is no place to import from; " if colon and scheme.isalnum() else ""
        raise UserError(f"{name}: there is no such file or folder; {unknown}{_CAN_BE}")
    return _of_arrays(open_flat(path), [path])


def _in_folder(path: Path) -> Source:
    if folder := minari.data_folder(path):
        return minari.source(folder)
    found = {suffix: files for suffix in SUFFIXES if (files := sorted(path.glob(f"*{suffix}")))}
    if not found:
        raise UserError(
            f"{path} holds neither data/metadata.json, as a Minari data set does, nor files of steps: {_CAN_BE}"
        )
    if len(found) > 1:
        raise UserError(f"{path} holds {' and '.join(found)} files: give one of them, or a folder of one kind")
    (files,) = found.values()
    return _of_arrays(joined([open_flat(file) for file in files], path), files)


def _of_arrays(flat: Flat, files: list[Path]) -> Source:
    if rlds.is_rlds(flat):
        return rlds.source(flat, files)
    if any(name.startswith("episode_0/") for name in flat.names):
        raise UserError(
            f"{flat.path} is the inside of a Minari data set: give the folder that holds data/metadata.json"
        )
    if flat.path.suffix == ".parquet" or len(files) > 1 or flat.path.is_dir():
        flat.need("is_first", "is_last", "is_terminal")
    return ogbench.source(flat) if ogbench.is_ogbench(flat) else d4rl.source(flat)


__all__ = ["Environment", "Progress", "Recorded", "Source", "open_source"]
