"""The Arrow form: one uncompressed IPC *file* a table, in one record batch, so that a memory map is the table."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa


def write(directory: Path, tables: dict[str, pa.Table]) -> None:
    """Write `<name>.arrow` for every table."""
    for name, table in tables.items():
        with pa.ipc.new_file(directory / f"{name}.arrow", table.schema) as file:
            file.write_table(table.combine_chunks(), max_chunksize=max(1, table.num_rows))


def read(directory: Path, names: list[str]) -> dict[str, pa.Table]:
    """Map `<name>.arrow` into memory for every name; nothing is read until it is touched."""
    # The reader keeps the map alive, and each table its reader's buffers: no handle needs closing here.
    return {name: pa.ipc.open_file(pa.memory_map(str(directory / f"{name}.arrow"))).read_all() for name in names}
