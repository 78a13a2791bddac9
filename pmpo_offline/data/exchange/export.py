"""Export: a dataset in the format of another library, in a folder of its own, whole or absent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pmpo_offline.data.dataset import Dataset, load_dataset
from pmpo_offline.data.exchange.origin import MARKER
from pmpo_offline.data.exchange.writers import FORMATS, TEXT_FORMATS, Writer
from pmpo_offline.data.storage import card
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError, unknown
from pmpo_offline.runtime.files import atomic_directory, refusal


def export_dataset(
    dataset: Dataset | str | Path,
    to: str,
    directory: str | Path,
    overwrite: bool = False,
    *,
    fps: int | None = None,
    home: Path | None = None,
) -> Path:
    """Write a dataset in another library's format and return the folder: `directory`, or `directory/<id>` for minari.

    Args:
        dataset: a dataset, with its labels as they are in memory, or its id or path.
        to: one of `FORMATS`, for responses one of `TEXT_FORMATS`.
        directory: where to; nothing outside it is touched but, while it is written, its neighbour `.<name>.partial`.
        overwrite: replace an earlier export; nothing else is ever replaced.
        fps: steps a second for lerobot, whose frames carry times; default 20.
        home: where an id is looked up; default `data.home()`.

    Raises:
        UserError: something is unknown, stands in the way, or has no place in the format.
        PmpoOfflineError: the disk refuses, or the dataset is damaged.
    """
    known = {**FORMATS, **TEXT_FORMATS}
    if to not in known:
        raise unknown("format", to, known)
    if fps is not None and (fps < 1 or "fps" not in known[to].options):
        raise UserError(f"--fps {fps}: it is a positive number of frames a second, and only lerobot has frames")
    opened = dataset if isinstance(dataset, Dataset) else load_dataset(dataset, home=home)
    _refuse_what_has_no_place(opened, to)
    writer = _writers(opened)[to]
    folder = writer.place(Path(directory).expanduser().absolute(), opened)
    if folder.resolve().is_relative_to(opened.path.resolve()):
        raise UserError(f"{folder} is the dataset's own folder: export to another one")
    given = {} if fps is None else {"fps": fps}
    try:
        with atomic_directory(folder, MARKER, "export of pmpo-offline", overwrite) as partial:
            writer.write(partial, opened, **given)
            (partial / "README.md").write_text(_readme(writer, opened), encoding="utf-8")
            (partial / MARKER).write_text(json.dumps(_about(opened, to), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise PmpoOfflineError(refusal(folder, error, "export to another folder")) from error
    return folder


def left_out(dataset: Dataset, to: str) -> list[str]:
    """Return what the format has no place for: the tables of the dataset, or which of its rows."""
    writer = _writers(dataset)[to]
    tables = ["candidates"] if dataset.candidates is not None and not writer.holds_candidates else []
    return tables + writer.left_out(dataset)


def _writers(dataset: Dataset) -> dict[str, Writer]:
    return TEXT_FORMATS if dataset.metadata.kind == "responses" else FORMATS


def _refuse_what_has_no_place(dataset: Dataset, to: str) -> None:
    metadata = dataset.metadata
    if to not in _writers(dataset):
        raise UserError(f"dataset {metadata.id} holds {metadata.kind}: choose {', '.join(_writers(dataset))}, not {to}")
    if metadata.kind == "candidates" and left_out(dataset, to):
        others = ", ".join(name for name, writer in FORMATS.items() if writer.holds_candidates)
        raise UserError(f"the labels of {metadata.id} are on candidates, which {to} has no place for: choose {others}")


def _readme(writer: Writer, dataset: Dataset) -> str:
    return card(dataset.metadata, writer.data_files(dataset), writer.loading(dataset), writer.note)


def _about(dataset: Dataset, to: str) -> dict[str, Any]:
    described = dataset.metadata.model_dump(mode="json", exclude={"files"})
    return {"format": to, "left_out": left_out(dataset, to), "dataset": described}
