"""Files of other libraries that are imported: sound ones of each kind, and the call that reads them."""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from helpers import foreign, robots, texts
from helpers.aligned import experience

from pmpo_offline.build.read_text import import_text
from pmpo_offline.data.exchange.readers import open_source
from pmpo_offline.data.exchange.readers.feedback import feedback_of_file

LENGTHS = [3, 1, 4, 2, 5, 2]


@dataclass(frozen=True)
class Target:
    """Files of one kind."""

    make: Callable[[Path], object]
    """Writes sound files into an empty folder."""
    read: Callable[[Path], object]
    """Reads all of them, given the folder; `PmpoOfflineError` is the only exception that is right."""
    files: str = "*"
    """Pattern of the files that are damaged."""
    heal: Callable[[Path], object] = lambda folder: None
    """Corrects sizes and hashes after the damage, as somebody who knows of them would."""


def _imported(folder: Path) -> None:
    path = next(path for path in folder.iterdir() if not path.name.startswith("home"))
    open_source(str(path)).read().experience.tables()


def _text(folder: Path) -> None:
    path = next(path for path in folder.iterdir() if not path.name.startswith("home"))
    import_text(path, home=folder / "home", overwrite=True)
    shutil.rmtree(folder / "home", ignore_errors=True)


@contextmanager
def minari_home(folder: Path) -> Iterator[None]:
    before = os.environ.get("MINARI_DATASETS_PATH")
    os.environ["MINARI_DATASETS_PATH"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("MINARI_DATASETS_PATH")
        if before is not None:
            os.environ["MINARI_DATASETS_PATH"] = before


def _minari(form: str) -> Target:
    def write(folder: Path) -> None:
        with minari_home(folder):
            foreign.minari_set(experience(LENGTHS), form=form)

    def read(folder: Path) -> None:
        open_source(str(folder / "test/aligned-v0")).read().experience.tables()

    return Target(write, read, "test/aligned-v0/**/*")


def _rows(name: str) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        if name.endswith(".gz"):
            plain = texts.jsonl(folder / "a.jsonl", texts.unpaired(6))
            (folder / name).write_bytes(gzip.compress(plain.read_bytes(), mtime=0))
            plain.unlink()
        else:
            texts.save(folder / name, texts.unpaired(6) if "csv" in name else texts.paired(6))

    return write


def _flat(name: str) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        written = experience(LENGTHS)
        arrays = foreign.as_states(written) if name.startswith("rlds") else foreign.as_d4rl(written)
        if name.endswith(".hdf5"):
            foreign.hdf5(folder / name, arrays)
        elif name.endswith(".npz"):
            foreign.npz(folder / name, arrays)
        else:
            import pyarrow.parquet as pq

            pq.write_table(pa.table({key: list(values) for key, values in arrays.items()}), folder / name)

    return write


def _ogbench(folder: Path) -> None:
    arrays = foreign.as_states(experience(LENGTHS))
    named = {"observations": arrays["observation"], "actions": arrays["action"], "terminals": arrays["is_last"]}
    foreign.npz(folder / "cube-single-play-v0.npz", {name: np.asarray(values) for name, values in named.items()})


def _lerobot(version: str) -> Target:
    def write(folder: Path) -> None:
        frames = robots.frames_of(experience(LENGTHS))
        robots.lerobot(folder / "set", frames, version, verdict=["good", "bad", None] * 2)

    return Target(write, _imported, "set/**/*")


def _robomimic(folder: Path) -> None:
    masks, env = {"good": [0, 3], "bad": [1, 2, 4]}, {"env_name": "Lift", "type": 1, "env_kwargs": {}}
    robots.robomimic(folder / "low_dim.hdf5", experience(LENGTHS), masks=masks, env=env)


def _folders(folder: Path) -> None:
    for name in ("accepted", "rejected"):
        (folder / "set" / name).mkdir(parents=True)
        foreign.npz(folder / "set" / name / "0.npz", foreign.as_d4rl(experience([4])))


def _read_labels(folder: Path) -> None:
    feedback_of_file(folder / "labels.csv", np.arange(6))


def _labels(folder: Path) -> None:
    (folder / "labels.csv").write_text(
        "episode,thumb\n" + "".join(f"{i},{'accept' if i % 2 else 'reject'}\n" for i in range(6))
    )


IMPORTS: dict[str, Target] = {
    "d4rl": Target(_flat("hopper.hdf5"), _imported),
    "ogbench": Target(_ogbench, _imported),
    "rlds npz": Target(_flat("rlds.npz"), _imported),
    "rlds hdf5": Target(_flat("rlds.hdf5"), _imported),
    "rlds parquet": Target(_flat("rlds.parquet"), _imported),
    "minari hdf5": _minari("hdf5"),
    "minari arrow": _minari("arrow"),
    "jsonl": Target(_rows("a.jsonl"), _text),
    "jsonl.gz": Target(_rows("a.jsonl.gz"), _text),
    "json": Target(_rows("a.json"), _text),
    "csv": Target(_rows("a.csv"), _text),
    "parquet": Target(_rows("a.parquet"), _text),
    "arrow": Target(_rows("a.arrow"), _text),
    "lerobot v2": _lerobot("v2.1"),
    "lerobot v3": _lerobot("v3.0"),
    "robomimic": Target(_robomimic, _imported),
    "d3rlpy": Target(lambda folder: robots.d3rlpy(folder / "dump.h5", experience(LENGTHS)), _imported),
    "folders of episodes": Target(_folders, _imported, "set/**/*"),
    "file of labels": Target(_labels, _read_labels),
}
