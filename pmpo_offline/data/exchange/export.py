"""Export: a dataset in the format of another library, in a folder of its own, whole or absent."""

from __future__ import annotations

import json
from pathlib import Path

from pmpo_offline.data import Dataset, load_dataset
from pmpo_offline.data.exchange.exported import MARKER, described, files_in
from pmpo_offline.data.exchange.writers import WRITERS
from pmpo_offline.data.storage import card
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.arguments import checked
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError, refusal
from pmpo_offline.runtime.files import atomic_directory


@checked()
def export_dataset(
    dataset: Dataset | str | Path,
    to: str,
    directory: str | Path,
    overwrite: bool = False,
    *,
    fps: int | None = None,
    home: str | Path | None = None,
) -> Path:
    """Write a dataset in another library's format and return the folder: `directory`, or `directory/<id>` for minari.

    Args:
        dataset: a dataset, with its labels as they are in memory, or its id or path.
        to: a name in `writers.WRITERS`.
        directory: where to; nothing outside it is touched but, while it is written, its neighbour `.<name>.partial`.
        overwrite: replace an earlier export; nothing else is ever replaced.
        fps: steps a second for lerobot, whose frames have times; default 20.
        home: where an id is looked up; default `data.home()`.

    Raises:
        UserError: a name is unknown, another folder is in the way, or the format cannot hold this kind of dataset.
        PmpoOfflineError: the disk refuses, or the dataset is damaged.
    """
    writer = WRITERS[to]
    if fps is not None and (fps < 1 or "fps" not in writer.options):
        raise UserError(f"--fps {fps}: it is a positive number of frames a second, and only lerobot has frames")
    opened = dataset if isinstance(dataset, Dataset) else load_dataset(dataset, home=home)
    metadata = opened.metadata
    if metadata.kind not in writer.kinds:
        others = ", ".join(name for name, other in WRITERS.items() if metadata.kind in other.kinds)
        raise UserError(f"dataset {metadata.id} holds {metadata.kind}: choose {others}, not {to}")
    if metadata.actions and not writer.discrete:
        others = ", ".join(name for name, other in WRITERS.items() if other.discrete)
        raise UserError(f"dataset {metadata.id} has discrete actions: choose {others}, not {to}")
    folder = writer.place(Path(directory).expanduser().absolute(), opened)
    if folder.resolve().is_relative_to(opened.path.resolve()):
        raise UserError(f"{folder} is the dataset's own folder: export to another one")
    about = {"format": to, "left_out": left_out(opened, to), "dataset": json.loads(described(metadata))}
    note = writer.note if isinstance(writer.note, str) else writer.note(opened)
    try:
        with atomic_directory(folder, MARKER, "export of pmpo-offline", overwrite) as partial:
            with progress.stage(lambda _: f"export to {to}"):
                writer.write(partial, opened, **({} if fps is None else {"fps": fps}))
            page = card(metadata, writer.data_files(opened), writer.loading(opened), note)
            (partial / "README.md").write_text(page, encoding="utf-8")
            about["files"] = {name: info.model_dump() for name, info in files_in(partial).items()}
            (partial / MARKER).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise PmpoOfflineError(refusal(folder, error, "export to another folder")) from error
    return folder


def left_out(dataset: Dataset, to: str) -> list[str]:
    """Return what the format cannot hold: tables of the dataset, or some of its rows."""
    writer = WRITERS[to]
    tables = ["candidates"] if dataset.candidates is not None and "candidates" not in writer.kinds else []
    return tables + writer.left_out(dataset)
