"""A reader in another language, written from docs/format.md, reads what is written here."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.encoded import make

from pmpo_offline import data
from pmpo_offline.data import Dataset, Metadata

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "format.md").read_text(encoding="utf-8")
needs_node = pytest.mark.skipif(
    shutil.which("node") is None or not (DOCS / "reader/node_modules/apache-arrow").is_dir(),
    reason="node or its package apache-arrow is missing: make reader",
)


def read(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["node", DOCS / "reader/read.mjs", folder], capture_output=True, text=True)


def write(folder: Path, label: str, **more: Any) -> Dataset:
    metadata, tables = make([3, 1, 4, 2, 5], label, **more)
    data.write(folder, metadata, tables)
    return data.open_dataset(folder)


@needs_node
@pytest.mark.parametrize("label", ["advantage", "success"])
def test_counts_and_next_observations_are_read_as_here(tmp_path: Path, label: str) -> None:
    dataset = write(tmp_path / "one", label)
    done = read(tmp_path / "one")
    assert done.returncode == 0, done.stderr
    found, counts = json.loads(done.stdout), dataset.metadata.counts
    rows = np.arange(len(dataset))
    observation = np.stack(dataset.table.column("observation").to_numpy())
    moved = np.linalg.norm(observation - dataset.next_observation(rows), axis=1).sum()
    assert found.pop("moved") == pytest.approx(moved, rel=1e-6)
    assert found == {"id": dataset.metadata.id, **counts.model_dump()}


@needs_node
def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    write(tmp_path / "one", "success")
    path = tmp_path / "one/transitions.arrow"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert read(tmp_path / "one").stderr.endswith("transitions.arrow is damaged\n")


def test_the_page_names_every_column_with_its_type_and_every_key() -> None:
    tables = {
        "transitions": data.transitions_schema(3, 2),
        "episodes": data.episodes_schema(3),
        "candidates": data.candidates_schema(2),
        "responses": data.responses_schema(),
    }
    for name, schema in tables.items():
        section = PAGE.split(f"\n`{name}`, ")[1].split("\n\n")[1]
        cells = [row.split("|")[1:3] for row in section.splitlines()[2:]]
        shown: list[tuple[str, str]] = []
        for names, types in cells:
            columns, kinds = re.findall(r"`(\w+)`", names), types.strip().split(", ")
            shown += zip(columns, kinds * len(columns) if len(kinds) == 1 else kinds, strict=True)
        assert [column for column, _ in shown] == schema.names
        for column, kind in shown:
            stored = str(schema.field(column).type).replace("double", "float64").replace("float32", "float")
            written = kind.replace("fixed-size list of O float32", "fixed_size_list<element: float>[3]")
            written = written.replace("fixed-size list of A float32", "fixed_size_list<element: float>[2]")
            stored = re.sub(r"<\w+:", "<element:", stored)
            assert stored == ("float" if written == "float32" else written), column
    keys = set(re.findall(r"`(\w+)`", PAGE.split("## dataset.json")[1].split("## The HDF5")[0]))
    assert set(Metadata.model_fields) <= keys
