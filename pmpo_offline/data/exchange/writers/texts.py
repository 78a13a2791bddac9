"""Responses to plain Parquet, and to a folder for `datasets.load_dataset`: all rows, labelled or not.

responses.parquet                          to parquet: the columns of `data.schema`, split and all
data/train-00000-of-00001.parquet          to huggingface: a file a split, as the front matter of README.md says
data/test-00000-of-00001.parquet
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pmpo_offline.data.dataset import Dataset
from pmpo_offline.data.exchange.writers.steps import BLOCK
from pmpo_offline.data.exchange.writers.writer import Writer
from pmpo_offline.runtime import progress

NOTE = (
    "One row a completion. `label` is true for accept, false for reject, null where unlabelled; an absent `score` is "
    "null. Rows of one `prompt_id` answer the same prompt; a prompt is of one `split`."
)


def splits(table: pa.Table) -> dict[str, pa.Table]:
    """Return the rows of each split that has any, train first."""
    parts = {name: table.filter(pc.equal(table["split"], name)) for name in ("train", "test")}
    return {name: part for name, part in parts.items() if part.num_rows}


def write_table(path: Path, table: pa.Table, store_schema: bool = True) -> None:
    """Write one table into one file, with Arrow's own types of its columns or without."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd", row_group_size=BLOCK, store_schema=store_schema)


def _to_parquet(folder: Path, dataset: Dataset) -> None:
    write_table(folder / "responses.parquet", dataset.table.replace_schema_metadata(None))
    progress.report("write rows", len(dataset), len(dataset))


def _to_hugging_face(folder: Path, dataset: Dataset) -> None:
    for name, part in splits(dataset.table).items():
        write_table(folder / f"data/{name}-00000-of-00001.parquet", part)
    progress.report("write rows", len(dataset), len(dataset))


def _files(dataset: Dataset) -> Mapping[str, str]:
    parts = [f"{{split: {name}, path: data/{name}-*.parquet}}" for name in splits(dataset.table)]
    return {"responses": f"[{', '.join(parts)}]"}


PARQUET = Writer(_to_parquet, lambda dataset: ['import polars; polars.scan_parquet("responses.parquet")'], NOTE)
HUGGINGFACE = Writer(
    _to_hugging_face,
    lambda dataset: ['import datasets; responses = datasets.load_dataset("path/of/this/folder", split="train")'],
    NOTE,
    data_files=_files,
)
