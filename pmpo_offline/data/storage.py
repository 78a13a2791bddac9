"""Datasets on disk, whole or absent: where they are, writing, reading and verifying them, and their card (README.md).

In the Arrow form tables are uncompressed IPC *files*, so that a memory map is the table (`data.mapping`); the HDF5 form
is `data.hdf5`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

import pyarrow as pa

from pmpo_offline.data import columns, hdf5
from pmpo_offline.data.checks import derived_problems, problems
from pmpo_offline.data.mapping import read_parts, release_pages, table_files, write_parts
from pmpo_offline.data.schema import SCHEMA_VERSION, FileInfo, Metadata, schemas
from pmpo_offline.runtime.arguments import checked, validated
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError, reason_of, refusal, unknown
from pmpo_offline.runtime.files import atomic_directory, from_json, moved_aside, recover
from pmpo_offline.runtime.hashing import hash_file

METADATA_FILE = "dataset.json"
SEAL_FILE = "dataset.json.sha256"
"""The hash of dataset.json, as `sha256sum --check` reads it; datasets of earlier versions have none."""
Format = Literal["arrow", "hdf5"]
HISTORY = "made_from"
"""The key of `provenance.settings` that holds the operation and the datasets it was applied to."""
OURS = "by pmpo-offline"
"""In the source of what is simulated or sampled here, and in no other one."""
_EDITED = "edited after it was written (its sha256 differs)"

# Minari's rule (a namespace of two characters or more, a version at the end), with the namespace made compulsory and
# every part made to begin with a letter or digit, so that no id is hidden, absolute or escapes its home.
_ID = re.compile(r"(?=..+/)(?:[A-Za-z0-9][-\w]*/)+[A-Za-z0-9][-\w]*-v\d+", re.ASCII)


def home(folder: str | Path | None = None) -> Path:
    """Return `folder`, or the one of all datasets: `$PMPO_OFFLINE_DATASETS`, else `~/.cache/pmpo_offline/datasets`.

    Raises `UserError` for an empty name, which would be the current folder.
    """
    if folder == "":
        raise UserError("home: the folder's name is empty; write '.' for the current one")
    if folder is not None:
        return Path(folder).expanduser()
    return Path(os.environ.get("PMPO_OFFLINE_DATASETS") or "~/.cache/pmpo_offline/datasets").expanduser()


def _root(folder: str | Path | None) -> Path:
    return home(folder)  # for functions with a parameter of that name


def dataset_path(dataset_id: str, home: str | Path | None = None) -> Path:
    """Return the directory of an id, whether or not it exists; `UserError` for a malformed id or one that escapes."""
    root = _root(home)
    if not _ID.fullmatch(dataset_id):
        why = ", a namespace of two characters or more" if re.match(r"\w/", dataset_id) else ""
        raise UserError(f"{dataset_id!r} is no dataset id: write namespace/name-vN{why}, as in rgb-stacking/proxy-v0")
    path = root / dataset_id
    if not path.resolve().is_relative_to(root.resolve()):
        raise UserError(
            f"dataset {dataset_id!r} is a link that leads out of {root}: give the path it points to instead"
        )
    return path


def check_outside(folder: Path) -> None:
    """Raise `UserError` for the folder of a dataset or one inside: nothing but its own files may lie there."""
    place = folder.expanduser().absolute()
    if inside := [parent for parent in (place, *place.parents) if (parent / METADATA_FILE).is_file()]:
        raise UserError(f"{folder} lies in the dataset {inside[0]}: choose another --output")


def resolve(id_or_path: str | Path, home: str | Path | None = None) -> Path:
    """Return the directory of a stored dataset, as `stored_at`; `UserError` with the near misses if there is none."""
    if found := stored_at(id_or_path, home):
        return found
    name, path = str(id_or_path), Path(id_or_path).expanduser()
    if path.is_dir():
        raise UserError(f"{name} holds no {METADATA_FILE}: give the folder of a dataset, or an id")
    if path.is_file():
        raise UserError(f"{name} is a file: give the folder of a dataset or an id, which `import` makes of a file")
    error = unknown("dataset", name, stored_ids(home))
    raise UserError(f"{error} (a declared dataset has to be built first)")


def stored_at(id_or_path: str | Path, home: str | Path | None = None) -> Path | None:
    """Return the directory of a stored dataset, given its id or its path, None if there is none.

    An id wins over a path of the same name. Raises `UserError` for an empty name, and an id that is a link elsewhere.
    """
    name = str(id_or_path)
    if not name.strip():
        raise UserError("the name of a dataset is empty: give an id, or the folder of a dataset")
    if _ID.fullmatch(name) and is_stored(name, home):
        return dataset_path(name, home)
    path = Path(id_or_path).expanduser()
    recover(path)
    return path if (path / METADATA_FILE).is_file() else None


def is_stored(dataset_id: str, home: str | Path | None = None) -> bool:
    """Return whether there is a dataset of this id; `UserError` for a malformed id or one that escapes."""
    path = dataset_path(dataset_id, home)
    recover(path)
    return (path / METADATA_FILE).is_file()


def stored_ids(home: str | Path | None = None) -> list[str]:
    """Return the ids of the datasets in a home, sorted."""
    root = _root(home)
    found = []
    for folder, subfolders, files in os.walk(root):
        for name in moved_aside(subfolders):
            recover(Path(folder, name))
            subfolders += [name] if Path(folder, name).is_dir() else []
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
            table = content[name].select(schema.names).cast(schema)
            content[name] = columns.replace(table, score=columns.without_nans(table.column("score")))
    except (KeyError, AttributeError, pa.ArrowException) as error:
        raise PmpoOfflineError(f"the tables do not fit the schema: {reason_of(error)}") from error
    return content


def _fill(partial: Path, metadata: Metadata, tables: dict[str, pa.Table], form: Format) -> Metadata:
    """Write every file; dataset.json lists the others, and its own hash lies beside it."""
    if form == "hdf5":
        hdf5.write(partial, metadata, tables)
    else:
        for name, table in tables.items():
            write_parts(partial, name, table)
    own_card = _own_card(metadata, list(tables), form, [path.name for path in partial.iterdir()])
    (partial / "README.md").write_text(own_card, encoding="utf-8")
    files = {
        path.relative_to(partial).as_posix(): FileInfo(sha256=hash_file(path), bytes=path.stat().st_size)
        for path in sorted(partial.rglob("*"))
        if path.is_file()
    }
    written = metadata.model_copy(update={"files": files})
    (partial / METADATA_FILE).write_text(written.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (partial / SEAL_FILE).write_text(f"{hash_file(partial / METADATA_FILE)}  {METADATA_FILE}\n", encoding="utf-8")
    return written


def remedy(metadata: Metadata | None = None) -> str:
    """Return what to do about a damaged dataset, by what it is from; one that was received may be had there again."""
    how = "build or import it"
    if metadata and (origin := metadata.provenance).sources:
        how = "build it" if OURS in origin.sources[-1] else f"import it ({origin.sources[-1]})"
        how = "make it from its parents" if HISTORY in origin.settings else how
    return f"{how} again with --overwrite, or copy or pull it from where you have it"


def read_metadata(directory: Path, remedy: str = remedy()) -> Metadata:
    """Read dataset.json; one line, with `remedy`, for what is missing, malformed or of another schema version."""
    path = directory / METADATA_FILE
    try:
        content = from_json(path.read_bytes())
        version = content["schema_version"]
    except OSError as error:
        raise PmpoOfflineError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise PmpoOfflineError(f"{path} is damaged: no JSON with a schema_version; {remedy}") from error
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{directory} has schema version {version}, this pmpo-offline reads {SCHEMA_VERSION}: "
            "build or import it again with --overwrite, or install the pmpo-offline that wrote it"
        )
    try:
        return validated(Metadata, content, f"{path} is damaged")
    except UserError as error:
        raise PmpoOfflineError(f"{error}; {remedy}") from error


def file_problems(directory: Path, metadata: Metadata, *, hashes: bool = False) -> list[str]:
    """Return one line for every file that is missing, not of its recorded size or, if `hashes`, of other content.

    dataset.json is always compared with its hash, where it has one.
    """
    found = []
    for name, info in metadata.files.items():
        path = directory / name
        if not path.is_file():
            found.append(f"{name}: missing")
        elif (size := path.stat().st_size) != info.bytes:
            found.append(f"{name}: {size} bytes instead of {info.bytes}")
        elif hashes and hash_file(path) != info.sha256:
            found.append(f"{name}: {_EDITED}")
    if is_sealed(directory):
        seal = (directory / SEAL_FILE).read_text(encoding="utf-8", errors="replace").partition(" ")[0]
        found += [f"{METADATA_FILE}: {_EDITED}"] if hash_file(directory / METADATA_FILE) != seal else []
    return found


def is_sealed(directory: Path) -> bool:
    """Return whether a dataset has the hash of its dataset.json, so that edits of it are found."""
    return (directory / SEAL_FILE).is_file()


def read_tables(directory: Path, metadata: Metadata) -> dict[str, pa.Table]:
    """Open the tables of either form; the Arrow form is mapped into memory, the HDF5 form read."""
    try:
        if not any(name.endswith(".arrow") for name in metadata.files):
            return hdf5.read(directory, metadata)
        return read_parts(directory, metadata.files)
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError, pa.ArrowException) as error:
        raise PmpoOfflineError(f"{directory} cannot be read: {reason_of(error)}; {remedy(metadata)}") from error


@checked()
def verify(id_or_path: str | Path, home: str | Path | None = None) -> list[str]:
    """Return one line for every problem of a dataset: hashes, buffers, tables that disagree, labels that do not follow.

    Labels and their description in dataset.json are derived from the scores again. An empty list is a sound dataset.
    Raises `UserError` where there is no such dataset.
    """
    directory = resolve(id_or_path, home)
    try:
        metadata = read_metadata(directory)
        found = file_problems(directory, metadata, hashes=True)
        if found:
            return found
        tables = read_tables(directory, metadata)
        for table in tables.values():
            for batch in table.to_batches():
                batch.validate(full=True)
                release_pages()
        return problems(metadata, tables) or list(derived_problems(metadata, tables))
    except (pa.ArrowException, ValueError) as error:
        return [f"{directory} is damaged: {reason_of(error)}"]
    except PmpoOfflineError as error:
        return [str(error)]
    except OSError as error:
        return [f"{directory} cannot be read: {error}"]


def _own_card(metadata: Metadata, tables: list[str], form: Format, files: Collection[str]) -> str:
    found = table_files(tables, files)
    lines = ["from pmpo_offline import load_dataset", f'dataset = load_dataset("{metadata.id}")', ""]
    if form == "arrow":
        lines += [
            f'import polars; polars.scan_ipc("{found[tables[0]]}")',
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
    return card(metadata, {name: found[name] if form == "arrow" else f"{name}.hdf5" for name in readable}, lines)


def card(
    metadata: Metadata,
    data_files: Mapping[str, str],
    loading: Sequence[str],
    note: str = "`label` is true for accept, false for reject and null where unlabelled.",
) -> str:
    """Return a README.md whose front matter Hugging Face's `load_dataset` reads.

    `data_files` are the files of each table, as the front matter names them, the default table first; `loading` is the
    Python code that loads them; `note` explains the columns.
    """
    counts, imbalance = metadata.counts, metadata.imbalance
    achieved = "nothing labelled" if imbalance.achieved is None else f"{imbalance.achieved:.4g}"
    requested = "as collected" if imbalance.asked is None else f"{imbalance.asked:g} asked"
    if imbalance.dropped_accepted or imbalance.dropped_rejected:
        lost = "dropped with their rows" if imbalance.drops_rows else "left unlabelled"
        requested += f"; {imbalance.dropped_accepted} accepts and {imbalance.dropped_rejected} rejects {lost} for it"
    lines = [
        *_front_matter(metadata, data_files),
        f"# {metadata.id}",
        "",
        f"Task `{metadata.task}` with accept/reject feedback, one label for each {metadata.unit}. "
        f"Made by pmpo-offline, schema version {metadata.schema_version}.",
        "",
        "| | |",
        "|---|---|",
        f"| rows, episodes | {counts.rows:,}, {counts.episodes:,} |",
        f"| labels | {counts.accepted:,} accepted, {counts.rejected:,} rejected, {counts.unlabelled:,} unlabelled |",
        f"| label rule | `{metadata.label}` on the score `{metadata.score.name}` |",
        f"| label noise | {metadata.noise:g} of the labels flipped |",
        f"| accepted share | {achieved} ({requested}) |",
        f"| reject mass P_r before balancing | {metadata.reject_mass:.4g} |",
        f"| seed | {metadata.seed} |",
        f"| licence | {metadata.licence} |",
    ]
    if references := metadata.references:
        lines.append(f"| normalized score | 0 at {references.min:g}, 100 at {references.max:g}: {references.how} |")
    return "\n".join([*lines, "", note, "", "```python", *loading, "```", ""])


def _front_matter(metadata: Metadata, data_files: Mapping[str, str]) -> list[str]:
    quote = json.dumps  # a JSON string is a YAML string
    licence = [f"license: {quote(metadata.licence.lower())}"]
    if " " in metadata.licence:  # several, for which the hub has no identifier
        licence = ["license: other", f"license_name: {quote(metadata.licence)}"]
    lines = ["---", *licence, f"pretty_name: {quote(metadata.id)}"]
    lines += ["tags:", "- pmpo-offline", "- accept-reject-feedback", "- offline-reinforcement-learning"]
    if data_files:
        lines.append("configs:")
    for position, (name, files) in enumerate(data_files.items()):
        lines += [f"- config_name: {name}", f"  data_files: {files}"]
        lines += ["  default: true"] if position == 0 else []
    return [*lines, "---"]
