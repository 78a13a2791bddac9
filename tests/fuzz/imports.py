"""Files of other libraries that are imported: sound ones of each kind, and the call that reads them."""

from __future__ import annotations

import bz2
import gzip
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from helpers import foreign, robots, texts
from helpers.aligned import experience

from pmpo_offline.build.read_text import import_text
from pmpo_offline.data.exchange.readers import open_source
from pmpo_offline.data.exchange.readers.labels_file import Episodes, feedback_of_file

LENGTHS = [3, 1, 4, 2, 5, 2]


@dataclass(frozen=True)
class Target:
    """Files of one kind."""

    make: Callable[[Path], object]
    """Writes sound files into an empty folder."""
    read: Callable[[Path], str | None]
    """Reads all of them, given the folder; `PmpoOfflineError` is the only exception that is right.

    Of files that carry checksums it returns a hash of what it read, which no damage may change, of others None.
    """
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


def _written(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


_LINES = "".join(json.dumps(row) + "\n" for row in texts.unpaired(6)).encode()
_TABLE = "prompt,completion,label\n" + "".join(f"p{i},ü{i},{i % 2}\n" for i in range(8))
_CHATS = [{"messages": texts.said(f"q{i}", f"a{i}"), "label": bool(i % 2)} for i in range(6)]
_RATED = [texts.ultrafeedback(i, [5.0, 2.0, None]) for i in range(4)]
_TREES = [
    {"message_id": f"{i}", "parent_id": f"{i - i % 3}" if i % 3 else None, "lang": "en", "text": f"text {i}"}
    | {"role": "assistant" if i % 3 else "prompter", "rank": i % 3 - 1 if i % 3 else None}
    for i in range(9)
]


def _stream(folder: Path) -> None:
    table = pa.Table.from_pylist(texts.unpaired(6))
    with pa.ipc.new_stream(folder / "a.arrow", table.schema) as file:
        file.write_table(table, max_chunksize=3)


CARD = """---
dataset_info:
  features:
  - {name: prompt, dtype: string}
  - {name: completion, dtype: string}
  - name: label
    dtype: {class_label: {names: {'0': reject, '1': accept}}}
---
"""


def _with_classes(folder: Path) -> None:
    """A folder of Hugging Face's, whose card and JSON name the classes of the labels."""
    (folder / "set").mkdir()
    rows = [{"prompt": f"p{i}", "completion": f"c{i}", "label": i % 2} for i in range(8)]
    texts.save(folder / "set/a.parquet", rows)
    (folder / "set/README.md").write_text(CARD)
    features = {"label": {"_type": "ClassLabel", "names": ["reject", "accept"]}}
    (folder / "set/dataset_infos.json").write_text(json.dumps({"default": {"features": features}}))


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


def _labels(name: str) -> Target:
    def write(folder: Path) -> None:
        thumbs = pl.DataFrame({"episode": range(6), "thumb": ["reject", "accept"] * 3})
        write = {".csv": thumbs.write_csv, ".jsonl": thumbs.write_ndjson, ".parquet": thumbs.write_parquet}
        write[Path(name).suffix](folder / name)

    def read(folder: Path) -> None:
        feedback_of_file(folder / name, Episodes(np.arange(6), np.full(6, 3)))

    return Target(write, read)


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
    "arrow stream": Target(_stream, _text),
    "jsonl.zst": Target(_written("a.jsonl.zst", pa.compress(_LINES, "zstd", asbytes=True)), _text),
    "jsonl.bz2": Target(_written("a.jsonl.bz2", bz2.compress(_LINES)), _text),
    "jsonl in UTF-16": Target(_written("a.jsonl", _LINES.decode().encode("utf-16")), _text),
    "tsv": Target(_written("a.tsv", _TABLE.replace(",", "\t").encode()), _text),
    "conversations": Target(lambda folder: texts.jsonl(folder / "a.jsonl", _CHATS), _text),
    "conversation trees": Target(lambda folder: texts.jsonl(folder / "a.jsonl", _TREES), _text),
    "ratings": Target(lambda folder: texts.jsonl(folder / "a.jsonl", _RATED), _text),
    "folder with names of classes": Target(_with_classes, _text, "set/*"),
    "lerobot v2": _lerobot("v2.1"),
    "lerobot v3": _lerobot("v3.0"),
    "robomimic": Target(_robomimic, _imported),
    "d3rlpy": Target(lambda folder: robots.d3rlpy(folder / "dump.h5", experience(LENGTHS)), _imported),
    "folders of episodes": Target(_folders, _imported, "set/**/*"),
    "labels in csv": _labels("labels.csv"),
    "labels in jsonl": _labels("labels.jsonl"),
    "labels in parquet": _labels("labels.parquet"),
}
