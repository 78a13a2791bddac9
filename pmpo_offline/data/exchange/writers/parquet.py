"""To Parquet: plain files for polars, DuckDB and pandas, or a folder for `datasets.load_dataset` and for the hub.

    parquet        transitions/part-00000.parquet    the columns of `data.schema`, and `next_observation` on every row
                   episodes/part-00000.parquet       the columns of `data.schema`; likewise candidates if there are any
                   responses.parquet                 of texts: all rows of both splits
    huggingface    README.md                         the card; its front matter names the files of each configuration
                   transitions/train-00000-of-00003.parquet   likewise episodes and candidates
                   data/train-00000-of-00001.parquet          of texts: one file per split, labelled rows or not

A table is a folder of its own, in files of some 256 MB, because Ray, Dask, Spark, DuckDB and pyarrow read a folder as
one table. For Hugging Face every file's schema carries the features, so that lists keep their lengths. Where nothing
is known of success, the episodes' column `success` is null.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pmpo_offline.data import Dataset, Kind, columns
from pmpo_offline.data.exchange.writers import Writer
from pmpo_offline.runtime import progress

BLOCK = 65_536
"""Rows of a block: a few megabytes, whatever the dataset's size."""
FILE_SIZE = 2**28
"""Bytes of a file, in memory."""


def blocks(dataset: Dataset, first: int = 0, end: int | None = None) -> Iterator[tuple[slice, pa.Table]]:
    """Yield (rows, table) of rows first … end − 1 of transitions, with their `next_observation` as a last column."""
    end = len(dataset) if end is None else end
    for start in range(first, end, BLOCK):
        rows = slice(start, min(start + BLOCK, end))
        following = columns.list_array(_following(dataset, rows))
        table = dataset.table.slice(start, rows.stop - start)
        yield rows, table.append_column("next_observation", following).combine_chunks()
        progress.report("write rows", rows.stop, len(dataset))


def _following(dataset: Dataset, rows: slice) -> NDArray[np.float32]:
    """Return the observation (n, O) after each of these neighbouring rows: the next row's, or the episode's final."""
    episodes = dataset.others["episodes"]
    ends = columns.vector(episodes, "start") + columns.vector(episodes, "length")
    first, last = np.searchsorted(ends, [rows.start, rows.stop], side="right")
    after = dataset.table.select(["observation"]).slice(rows.start + 1, rows.stop - rows.start)
    final = columns.matrix(episodes, "final_observation")
    following = np.empty((rows.stop - rows.start, final.shape[1]), np.float32)
    following[: after.num_rows] = columns.matrix(after, "observation")
    following[ends[first:last] - 1 - rows.start] = final[first:last]
    return following


def write_tables(path: Path, tables: Iterable[pa.Table], *, store_schema: bool = True) -> None:
    """Write tables of one schema, at least one, into one file, with Arrow's own types of its columns or without."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remaining = iter(tables)
    first = next(remaining)
    with pq.ParquetWriter(path, first.schema, compression="zstd", store_schema=store_schema) as writer:
        for table in chain([first], remaining):
            writer.write_table(table, row_group_size=BLOCK)


def splits(table: pa.Table) -> dict[str, pa.Table]:
    """Return the rows of each split that has any, train first."""
    parts = {name: table.filter(pc.equal(table["split"], name)) for name in ("train", "test")}
    return {name: part for name, part in parts.items() if part.num_rows}


def rows_a_file(dataset: Dataset) -> int:
    """Return how many transitions fill a file of `FILE_SIZE` bytes, in whole blocks."""
    row: int = max(1, dataset.table.nbytes // len(dataset))
    return max(1, FILE_SIZE // row // BLOCK) * BLOCK


def _parts(dataset: Dataset, metadata: Mapping[str, str] | None) -> Iterator[tuple[str, int, int, Iterator[pa.Table]]]:
    """Yield (table, index, count, blocks) of every file of a dataset of transitions, with this metadata in the schema.

    Of tables other than transitions the schema keeps its own, unless `metadata` is None.
    """
    size = rows_a_file(dataset)
    count = -(-len(dataset) // size)
    for index in range(count):
        found = blocks(dataset, index * size, min((index + 1) * size, len(dataset)))
        yield "transitions", index, count, (block.replace_schema_metadata(metadata) for _, block in found)
    for name, table in dataset.others.items():
        if name == "episodes" and "success" in dataset.unknown:
            table = columns.replace(table, success=pa.nulls(table.num_rows, pa.bool_()))
        yield name, 0, 1, iter([table if metadata else table.replace_schema_metadata(None)])


def _write_plain(folder: Path, dataset: Dataset) -> None:
    if dataset.episodes is None:
        write_tables(folder / "responses.parquet", [dataset.table.replace_schema_metadata(None)])
    else:
        for name, index, _, tables in _parts(dataset, None):
            write_tables(folder / name / f"part-{index:05d}.parquet", tables)
    progress.report("write rows", len(dataset), len(dataset))


def _write_for_hugging_face(folder: Path, dataset: Dataset) -> None:
    if dataset.episodes is None:
        for name, table in splits(dataset.table).items():
            write_tables(folder / f"data/{name}-00000-of-00001.parquet", [table])
    else:
        features = json.loads(dataset.table.schema.metadata[b"huggingface"])
        described = features["info"]["features"]
        described["next_observation"] = described["observation"]
        for name, index, count, tables in _parts(dataset, {"huggingface": json.dumps(features)}):
            write_tables(folder / name / f"train-{index:05d}-of-{count:05d}.parquet", tables)
    progress.report("write rows", len(dataset), len(dataset))


def _data_files(dataset: Dataset) -> Mapping[str, str]:
    if dataset.episodes is None:
        parts = [f"{{split: {name}, path: data/{name}-*.parquet}}" for name in splits(dataset.table)]
        return {"responses": f"[{', '.join(parts)}]"}
    return {name: f"{name}/*.parquet" for name in dataset.tables}


def _load_plain(dataset: Dataset) -> list[str]:
    if dataset.episodes is None:
        return ['import polars; polars.scan_parquet("responses.parquet")']
    return [
        'import polars; transitions = polars.scan_parquet("transitions")',
        "import duckdb; duckdb.sql(\"select label, avg(reward) from 'transitions/*.parquet' group by label\")",
    ]


def _load_with_hugging_face(dataset: Dataset) -> list[str]:
    name, configuration = ("responses", "") if dataset.episodes is None else ("transitions", ', "transitions"')
    return [f'import datasets; {name} = datasets.load_dataset("path/of/this/folder"{configuration}, split="train")']


def _note(dataset: Dataset) -> str:
    if dataset.episodes is None:
        return (
            "One row a completion. `label` is true for accept, false for reject, null where unlabelled; an absent "
            "`score` is null. Rows of one `prompt_id` answer the same prompt; a prompt is of one `split`."
        )
    return (
        "One row a step, in order; `next_observation` is what was observed after it, at the end of an episode too. "
        "`label` is true for accept, false for reject and null where unlabelled; an absent `score` is null."
    )


_KINDS: tuple[Kind, ...] = ("transitions", "candidates", "responses")
PARQUET = Writer(
    "plain Parquet files; the next observation is a column",
    _write_plain,
    _load_plain,
    _note,
    kinds=_KINDS,
    discrete=True,
)
HUGGINGFACE = Writer(
    "Parquet with a card, for `datasets.load_dataset(folder)`",
    _write_for_hugging_face,
    _load_with_hugging_face,
    _note,
    kinds=_KINDS,
    discrete=True,
    data_files=_data_files,
)
