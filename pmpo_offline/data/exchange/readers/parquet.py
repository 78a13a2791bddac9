"""Steps in Parquet, as this package stores and exports them or called as in D4RL, in one file or a folder of files.

    observation (list), action (list), reward, terminated, truncated     a row a step, in order
    next_observation    where given; else the last step of a truncated episode is dropped: what followed it is unknown
    label, success      where given

An unchanged export of this package (`--to parquet`, `--to huggingface`) comes back whole, from the folders of its
tables; one that was changed is read as a table of steps, and what its episodes' table says besides is not used.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pmpo_offline.data import columns, schema
from pmpo_offline.data.exchange.exported import Tables
from pmpo_offline.data.exchange.readers.flat import EPISODES
from pmpo_offline.data.exchange.readers.source import Candidate, Reader, Recorded, Source, exported_to
from pmpo_offline.data.exchange.readers.steps import called, holds_steps, read_steps
from pmpo_offline.data.mapping import Spill
from pmpo_offline.data.schema import Metadata
from pmpo_offline.runtime.errors import UserError

STEPS = "transitions"


def _steps(given: Candidate) -> Candidate:
    """Return the steps among the tables of an export, or in the folder `data` that the hub has; else what is given."""
    inside = next(filter(Path.is_dir, (given.path / STEPS, given.path / "data")), given.path)
    return given if inside == given.path else Candidate(str(inside))


def _is_ours(given: Candidate) -> bool:
    steps = _steps(given)
    return bool(steps.files) and steps.files[0].suffix == ".parquet" and holds_steps(steps.flat)


def _source(given: Candidate) -> Source:
    steps = _steps(given)
    exported = exported_to(given.path, _tables)
    files = {path.relative_to(given.path).as_posix(): path for path in sorted(given.path.rglob("*.parquet"))}
    name = exported.metadata.id if exported else given.path.stem
    return Source(
        format="parquet",
        name=name,
        files=files if exported else {path.name: path for path in steps.files},
        read=lambda column=None: _read(steps, name, column),
        packages=("pyarrow",),
        takes_column=True,
        exported=exported,
    )


def _read(steps: Candidate, name: str, column: str | None) -> Recorded:
    """Return the episodes; `UserError` where nothing says whether one goes on in the next file."""
    names = called(steps.flat)
    decide = (names["next_observation"], *EPISODES)
    for shard in [] if steps.flat.names.intersection(decide) else steps.shards[:-1]:
        ends = [shard[names[mark]] for mark in ("terminated", "truncated") if names[mark] in shard.names]
        if not any(len(end) and bool(end[-1]) for end in ends):
            raise UserError(
                f"{shard.path}: the last row is marked neither {names['terminated']} nor {names['truncated']}, and "
                "nothing says whether the episode goes on in the next file: mark each episode's last row, or add a "
                "column episode"
            )
    return read_steps(steps.flat, name, column)


def _tables(folder: Path, _: Metadata) -> Tables:
    found = {
        name: ds.dataset(folder / name, format="parquet")
        for name in (STEPS, "episodes", "candidates")
        if (folder / name).is_dir()
    }
    schemas = schema.schemas({name: stored.schema.empty_table() for name, stored in found.items()})
    episodes = found.pop("episodes").to_table()
    episodes = columns.replace(episodes, success=pc.fill_null(episodes["success"], False))  # unknown
    tables = {name: _table(stored, schemas[name]) for name, stored in found.items()}
    wanted = schemas["episodes"]
    return {**tables, "episodes": episodes.select(wanted.names).cast(wanted).combine_chunks()}


def _table(stored: ds.Dataset, wanted: pa.Schema) -> pa.Table:
    """Read numbers in blocks, which memory never holds all of."""
    read = {name: Spill() for name in wanted.names}
    for batch in stored.to_batches(columns=wanted.names, batch_readahead=1, fragment_readahead=1, use_threads=False):
        block = pa.Table.from_batches([batch]).cast(wanted)
        for name, values in read.items():
            values.append(columns.values(block, name))
    return columns.table_of({name: values.joined() for name, values in read.items()}, wanted)


PARQUET = Reader(
    name="parquet",
    reads="steps in .parquet (observation, action, reward, terminated, truncated, or as in D4RL), and our exports",
    recognises=_is_ours,
    open=_source,
    example="exported",
)
