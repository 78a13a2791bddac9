"""Datasets on disk, whole or absent: where they are, writing, reading and verifying them, and their card (README.md).

In the Arrow form a table is one uncompressed IPC *file* in one record batch, so that a memory map is the table; the
HDF5 form is `data.hdf5`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from pmpo_offline.data import columns, hdf5
from pmpo_offline.data.labels import count_labels
from pmpo_offline.data.opening import read_arrow
from pmpo_offline.data.schema import SCHEMA_VERSION, CandidateLabels, Counts, FileInfo, Kind, Metadata, card, schemas
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError, unknown, validated
from pmpo_offline.runtime.files import atomic_directory, refusal
from pmpo_offline.runtime.hashing import hash_file

METADATA_FILE = "dataset.json"
Format = Literal["arrow", "hdf5"]

# Minari's rule (a namespace of two characters or more, a version at the end), with the namespace made compulsory and
# every part made to begin with a letter or digit, so that no id is hidden, absolute or escapes its home.
_ID = re.compile(r"(?=..+/)(?:[A-Za-z0-9][-\w]*/)+[A-Za-z0-9][-\w]*-v\d+", re.ASCII)


def home() -> Path:
    """Return the folder of all datasets: `$PMPO_OFFLINE_DATASETS`, by default `~/.cache/pmpo_offline/datasets`."""
    return Path(os.environ.get("PMPO_OFFLINE_DATASETS") or "~/.cache/pmpo_offline/datasets").expanduser()


def _root(folder: Path | None) -> Path:
    return home() if folder is None else folder


def dataset_path(dataset_id: str, home: Path | None = None) -> Path:
    """Return the directory of an id, whether or not it exists; `UserError` for a malformed id or one that escapes."""
    root = _root(home)
    if not _ID.fullmatch(dataset_id):
        raise UserError(f"{dataset_id!r} is no dataset id: write namespace/name-vN, as in rgb-stacking/proxy-v0")
    path = root / dataset_id
    if not path.resolve().is_relative_to(root.resolve()):
        raise UserError(
            f"dataset {dataset_id!r} is a link that leads out of {root}: give the path it points to instead"
        )
    return path


def resolve(id_or_path: str | Path, home: Path | None = None) -> Path:
    """Return the directory of a stored dataset, given its id or its path; an id wins over a path of the same name.

    Raises `UserError` with the near misses among the stored ids.
    """
    name = str(id_or_path)
    if _ID.fullmatch(name) and is_stored(name, home):
        return dataset_path(name, home)
    path = Path(id_or_path).expanduser()
    if (path / METADATA_FILE).is_file():
        return path
    if path.is_dir():
        raise UserError(f"{name} holds no {METADATA_FILE}: give the folder of a dataset, or an id")
    raise unknown("dataset", name, stored_ids(home))


def is_stored(dataset_id: str, home: Path | None = None) -> bool:
    """Return whether there is a dataset of this id; `UserError` for a malformed id or one that escapes."""
    return (dataset_path(dataset_id, home) / METADATA_FILE).is_file()


def stored_ids(home: Path | None = None) -> list[str]:
    """Return the ids of the datasets in a home, sorted."""
    root = _root(home)
    found = []
    for folder, subfolders, files in os.walk(root):
        if METADATA_FILE in files:
            found.append(Path(folder).relative_to(root).as_posix())
            subfolders.clear()
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
    return sorted(found)


def write(
    directory: Path,
    metadata: Metadata,
    tables: Mapping[str, pa.Table],
    *,
    form: Format = "arrow",
    overwrite: bool = False,
) -> Metadata:
    """Write a dataset in this form and return its metadata with every file's size and hash.

    `tables` are "transitions" and "episodes" (and "candidates"), or "responses". Writers of one namespace wait for each
    other. Raises `UserError` if another folder or dataset is in the way, and `PmpoOfflineError` if the tables
    contradict the metadata or the disk refuses; then nothing of the dataset remains.
    """
    content = _cast(tables)
    if wrong := problems(metadata, content):
        raise PmpoOfflineError(f"dataset {metadata.id} is not written, its content is inconsistent: {wrong[0]}")
    try:
        with atomic_directory(directory, METADATA_FILE, "dataset", overwrite) as partial:
            return _fill(partial, metadata, content, form)
    except OSError as error:
        elsewhere = "set PMPO_OFFLINE_DATASETS to another folder"
        raise PmpoOfflineError(refusal(directory, error, elsewhere)) from error


def _cast(tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """Cast the tables to their exact schema; absent scores become null, never NaN."""
    content = dict(tables)
    try:
        for name, schema in schemas(content).items():
            if name not in content:
                continue  # `problems` reports it
            table = content[name].select(schema.names).cast(schema).combine_chunks()
            content[name] = columns.replace(table, score=columns.vector(table, "score"))
    except (KeyError, AttributeError, pa.ArrowException) as error:
        raise PmpoOfflineError(f"the tables do not fit the schema: {str(error).splitlines()[0]}") from error
    return content


def _fill(partial: Path, metadata: Metadata, tables: dict[str, pa.Table], form: Format) -> Metadata:
    """Write every file; dataset.json comes last and lists the others."""
    if form == "hdf5":
        hdf5.write(partial, metadata, tables)
    else:
        for name, table in tables.items():
            with pa.ipc.new_file(partial / f"{name}.arrow", table.schema) as file:
                file.write_table(table.combine_chunks(), max_chunksize=max(1, table.num_rows))
    (partial / "README.md").write_text(_own_card(metadata, list(tables), form), encoding="utf-8")
    files = {
        path.relative_to(partial).as_posix(): FileInfo(sha256=hash_file(path), bytes=path.stat().st_size)
        for path in sorted(partial.rglob("*"))
        if path.is_file()
    }
    written = metadata.model_copy(update={"files": files})
    (partial / METADATA_FILE).write_text(written.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return written


def read_metadata(directory: Path) -> Metadata:
    """Read dataset.json; one line for what is missing, malformed or of another schema version."""
    path = directory / METADATA_FILE
    try:
        content = json.loads(path.read_bytes())
        version = content["schema_version"]
    except OSError as error:
        raise PmpoOfflineError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise PmpoOfflineError(f"{path} is damaged: no JSON with a schema_version; build the dataset again") from error
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{directory} has schema version {version}, this pmpo-offline reads {SCHEMA_VERSION}: "
            "build it again with --overwrite, or install the pmpo-offline that wrote it"
        )
    try:
        return validated(Metadata, content, f"{path} is damaged")
    except UserError as error:
        raise PmpoOfflineError(f"{error}; build the dataset again") from error


def file_problems(directory: Path, metadata: Metadata, *, hashes: bool = False) -> list[str]:
    """Return one line for every file that is missing, not of its recorded size or, if `hashes`, of other content."""
    found = []
    for name, info in metadata.files.items():
        path = directory / name
        if not path.is_file():
            found.append(f"{name}: missing")
        elif (size := path.stat().st_size) != info.bytes:
            found.append(f"{name}: {size} bytes instead of {info.bytes}")
        elif hashes and hash_file(path) != info.sha256:
            found.append(f"{name}: edited after it was written (its sha256 differs)")
    return found


def read_tables(directory: Path, metadata: Metadata) -> dict[str, pa.Table]:
    """Open the tables of either form; the Arrow form is mapped into memory, the HDF5 form read."""
    names = [Path(name).stem for name in metadata.files if name.endswith(".arrow")]
    try:
        if not names:
            return hdf5.read(directory, metadata)
        return {name: read_arrow(directory / f"{name}.arrow") for name in names}
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError, pa.ArrowException) as error:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PmpoOfflineError(f"{directory} cannot be read: {line}; build it again with --overwrite") from error


def verify(id_or_path: str | Path, home: Path | None = None) -> list[str]:
    """Return one line for every problem of a dataset: the hash of every file, and what its tables must agree on.

    An empty list is a sound dataset. Raises `UserError` where there is no such dataset.
    """
    directory = resolve(id_or_path, home)
    try:
        metadata = read_metadata(directory)
        found = file_problems(directory, metadata, hashes=True)
        return found or problems(metadata, read_tables(directory, metadata))
    except PmpoOfflineError as error:
        return [str(error)]
    except OSError as error:
        return [f"{directory} cannot be read: {error}"]


_TABLES: dict[Kind, tuple[set[str], set[str]]] = {
    "transitions": ({"transitions", "episodes"}, {"candidates"}),
    "candidates": ({"transitions", "episodes", "candidates"}, set()),
    "responses": ({"responses"}, set()),
}
"""Tables that a dataset of each kind must have, and may have."""


def problems(metadata: Metadata, tables: dict[str, pa.Table]) -> list[str]:
    """Return one line for every contradiction, the most basic first; an empty list is a sound dataset."""
    return schema_problems(metadata, tables) or [*_content_problems(tables), *_label_problems(metadata, tables)]


def schema_problems(metadata: Metadata, tables: dict[str, pa.Table]) -> list[str]:
    """Return one line for every table that is missing, too many, empty or of another schema, without reading rows."""
    required, optional = _TABLES[metadata.kind]
    if missing := required - set(tables):
        return [f"kind {metadata.kind!r} lacks the table {', '.join(sorted(missing))}"]
    if excess := set(tables) - required - optional:
        return [f"kind {metadata.kind!r} has no table {', '.join(sorted(excess))}"]
    try:
        expected = schemas(tables)
    except (KeyError, AttributeError):
        return ["transitions: observation and action must be fixed-size lists of float32"]
    found = []
    for name, schema in expected.items():
        if not tables[name].schema.equals(schema):
            types = {field.name: field.type for field in tables[name].schema}
            wrong = [field.name for field in schema if types.get(field.name) != field.type]
            found.append(f"{name}: columns {', '.join(wrong) or 'are out of order or too many'} differ from the schema")
        elif not tables[name].num_rows:
            found.append(f"{name}: no rows")
    return found


def _content_problems(tables: dict[str, pa.Table]) -> Iterator[str]:
    """Check that every value is there and finite, that episodes tile the rows, and that candidates belong to rows."""
    for name, table in tables.items():
        for field in table.schema:
            if field.name not in ("score", "label") and table.column(field.name).null_count:
                yield f"{name}.{field.name}: holds nulls"
            elif pa.types.is_fixed_size_list(field.type) and not np.isfinite(columns.matrix(table, field.name)).all():
                yield f"{name}.{field.name}: holds NaN or infinite values"
    if "episodes" in tables:
        yield from _episode_problems(tables["transitions"], tables["episodes"])
    if "candidates" in tables:
        row = columns.vector(tables["candidates"], "row")
        try:
            columns.states_and_width(tables["candidates"])
            if row[0] < 0 or row[-1] >= tables["transitions"].num_rows:
                yield "candidates.row: points outside transitions"
        except UserError as error:
            yield str(error)


def _episode_problems(steps: pa.Table, episodes: pa.Table) -> Iterator[str]:
    start, length = columns.vector(episodes, "start"), columns.vector(episodes, "length").astype(np.int64)
    if (length < 1).any() or length.sum() != steps.num_rows or (start != np.cumsum(length) - length).any():
        yield f"episodes: start and length do not tile the {steps.num_rows} rows of transitions"
        return
    episode = np.repeat(np.arange(episodes.num_rows), length)
    if (columns.vector(steps, "episode") != episode).any():
        yield "transitions.episode: differs from the episodes of start and length"
    if (columns.vector(steps, "step") != np.arange(steps.num_rows) - start[episode]).any():
        yield "transitions.step: does not count each episode's rows from 0"
    ends = columns.vector(steps, "terminated") | columns.vector(steps, "truncated")
    ends[start + length - 1] = False
    if ends.any():
        yield f"transitions: row {int(ends.argmax())} is terminated or truncated before the end of its episode"


def _label_problems(metadata: Metadata, tables: dict[str, pa.Table]) -> Iterator[str]:
    """Check the counts, the shares, on which the bound on β rests, and that the rows of an episode have its label."""
    main, episodes = tables["responses" if metadata.kind == "responses" else "transitions"], tables.get("episodes")
    for name, table in {"rows": main, "episodes": episodes}.items():
        recorded = getattr(metadata.counts, name)
        if table is not None and recorded != table.num_rows:
            yield f"dataset.json: {recorded} {name}, the tables hold {table.num_rows}"
    if metadata.candidates and "candidates" in tables:
        yield from _count_problems("candidates ", metadata.candidates, tables["candidates"])
    if metadata.kind == "candidates":
        return
    yield from _count_problems("", metadata.counts, episodes if metadata.unit == "episode" else main)
    labels = columns.labels(main)
    rejected, labelled = int((labels < 0).sum()), int((labels != 0).sum())
    shares = {"labelled_reject_mass": rejected / len(labels), "reject_share": rejected / max(1, labelled)}
    for name, value in shares.items():
        if not np.isclose(getattr(metadata, name), value, rtol=0, atol=1e-9):
            yield f"dataset.json: {name} {getattr(metadata, name):g}, the tables give {value:g}"
    if metadata.unit == "episode":
        expected = np.repeat(columns.labels(episodes), columns.vector(episodes, "length"))
        if len(expected) == len(labels) and (expected != labels).any():
            yield "transitions.label: differs from the label of its episode"


def _count_problems(title: str, recorded: Counts | CandidateLabels, table: pa.Table) -> Iterator[str]:
    found = count_labels(columns.labels(table))
    if any(getattr(recorded, name) != count for name, count in found.items()):
        listed = f"{recorded.accepted} accepted, {recorded.rejected} rejected, {recorded.unlabelled} unlabelled"
        yield f"dataset.json: {title}{listed}; the tables hold {', '.join(map(str, found.values()))}"


def _own_card(metadata: Metadata, tables: list[str], form: Format) -> str:
    lines = ["from pmpo_offline import load_dataset", f'dataset = load_dataset("{metadata.id}")', ""]
    if form == "arrow":
        lines += [
            f'import polars; polars.scan_ipc("{tables[0]}.arrow")',
            f'import datasets; rows = datasets.load_dataset("path/of/this/folder", "{tables[0]}", split="train")',
        ]
        if metadata.kind == "responses":
            lines += [
                "# Hugging Face calls all rows of a file its split train; held out are those whose column says so.",
                "# TRL's KTOTrainer takes labelled rows only (export --to trl writes them, and pairs for DPOTrainer):",
                'rows.filter(lambda row: row["split"] == "train" and row["label"] is not None)',
            ]
    elif "transitions" in tables:
        lines += [
            "# with MINARI_DATASETS_PATH set to the folder that holds all datasets",
            f'import minari; minari.load_dataset("{metadata.id}")',
        ]
    # Hugging Face reads flat files only: in HDF5 form, transitions are a Minari directory without one.
    readable = [name for name in tables if form == "arrow" or name != "transitions"]
    return card(metadata, {name: f"{name}.{form}" for name in readable}, lines)
