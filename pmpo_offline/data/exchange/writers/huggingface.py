"""To Hugging Face: a folder for `datasets.load_dataset`, or for an upload to the hub as it is.

README.md                                  the card; its front matter says which files are which configuration
data/transitions-00000-of-00003.parquet    the columns of `data.schema` with `next_observation`, files of some 256 MB
data/episodes-00000-of-00001.parquet       likewise candidates, where there are any

Every file's schema carries the features, so that lists keep their lengths.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from pmpo_offline.data.dataset import Dataset
from pmpo_offline.data.exchange.writers.parquet import NOTE, write_parts
from pmpo_offline.data.exchange.writers.steps import BLOCK, blocks
from pmpo_offline.data.exchange.writers.writer import Writer
from pmpo_offline.runtime import progress

_FILE_SIZE = 2**28


def write(folder: Path, dataset: Dataset) -> None:
    """Write the tables into `folder`."""
    (folder / "data").mkdir()
    size = rows_a_file(dataset)
    count = -(-len(dataset) // size)
    for index in range(count):
        write_parts(folder / _name("transitions", index, count), _steps(dataset, index * size, size))
    for name in ("episodes", "candidates"):
        table: pa.Table | None = getattr(dataset, name)
        if table is not None:
            write_parts(folder / _name(name, 0, 1), [table])


def rows_a_file(dataset: Dataset, file_size: int = _FILE_SIZE) -> int:
    """Return how many transitions fill a file of `file_size` bytes, in whole blocks."""
    row: int = max(1, dataset.table.nbytes // len(dataset))
    return max(1, file_size // row // BLOCK) * BLOCK


def data_files(dataset: Dataset) -> Mapping[str, str]:
    """Return the files of each configuration, as the front matter names them."""
    tables = ["transitions", "episodes"] + (["candidates"] if dataset.candidates is not None else [])
    return {name: f"data/{name}-*.parquet" for name in tables}


def loading(dataset: Dataset) -> list[str]:
    """Return the lines of Python that open it."""
    return ['import datasets; transitions = datasets.load_dataset("path/of/this/folder", "transitions", split="train")']


def _steps(dataset: Dataset, first: int, size: int) -> Iterator[pa.Table]:
    features = json.loads(dataset.table.schema.metadata[b"huggingface"])
    described = features["info"]["features"]
    described["next_observation"] = described["observation"]
    for rows, block in blocks(dataset, first, min(first + size, len(dataset))):
        yield block.replace_schema_metadata({"huggingface": json.dumps(features)})
        progress.report("write rows", rows.stop, len(dataset))


def _name(table: str, index: int, count: int) -> str:
    return f"data/{table}-{index:05d}-of-{count:05d}.parquet"


HUGGINGFACE = Writer(write, loading, NOTE, data_files=data_files)
