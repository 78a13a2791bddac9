"""What a finished training leaves beside what it learned: run.json, by which anyone can find and judge it.

<output>/run.json             kind, dataset (its path, a digest of all of it, responses' labelling), task, algorithm,
                              settings, seed, bound, metrics; and model and adapter, or policy: written last, so that
                              who has one is done
<output>/adapter/             of a language model (kind "responses"), as peft writes it
<output>/policy.safetensors   of a control policy (kind "transitions" or "candidates"; `training.stored_policy`)
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pmpo_offline.data import Dataset
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.runtime.hashing import hash_bytes
from pmpo_offline.runtime.json_files import read_json, write_json

NAME = "run.json"
AGAIN = "remove the whole directory and train the run again"
"""What helps against a damaged record: without it, `claim` takes what else stands there for somebody else's."""


def identity(*facts: Any) -> str:
    """Return a hash of whatever makes a run what it is; equal facts are the same run."""
    return hash_bytes([json.dumps(facts, sort_keys=True, default=str).encode()])


def read_record(output: Path) -> dict[str, Any] | None:
    """Return what `write_record` wrote there, None if nothing; `PmpoOfflineError` if it is damaged."""
    path = output / NAME
    if not path.is_file():
        return None
    return read_json(path, AGAIN)


def write_record(output: Path, record: Mapping[str, Any]) -> None:
    """Write it at once or not at all; numbers that JSON does not know (infinite, not a number) become null."""
    try:
        write_json(output / NAME, record)
    except OSError as error:
        raise PmpoOfflineError(f"cannot write {output / NAME}: {error.strerror or error}") from None


def finished(output: Path, run: str) -> dict[str, Any] | None:
    """Return the record of this very run (`identity`), None if it is not there; `UserError` if another one is."""
    record = read_record(output)
    if record is not None and record.get("identity") != run:
        raise UserError(f"{output} holds another run: name another --output, or delete it")
    return record


def claim(output: Path, marker: Path, run: str) -> None:
    """Take an empty directory, or one that a run was begun in: nobody else's files are ever overwritten.

    Args:
        output: the run's directory.
        marker: a file in it by which a run that has begun is known.
        run: its `identity`, which becomes the marker's content.

    Raises:
        UserError: the directory is something else, or holds other files.
        PmpoOfflineError: the disk refuses.
    """
    try:
        foreign = output.exists() and not output.is_dir()
        if not foreign and not marker.is_file():
            # Empty folders are what a kill before the marker leaves.
            foreign = any(path.is_symlink() or not path.is_dir() for path in output.rglob("*"))
        if foreign:
            raise UserError(f"{output} exists and is no run: name another --output, it will not be overwritten")
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.write_text(run)
    except OSError as error:
        raise PmpoOfflineError(f"cannot write {marker}: {error.strerror or error}") from None


def labels_of(dataset: Dataset) -> dict[str, Any]:
    """Return the arguments of `Dataset.relabelled` that give the stored rows the labels of this dataset."""
    meta = dataset.metadata
    asked = "collected" if meta.imbalance.asked is None else meta.imbalance.asked
    return {"label": str(meta.label), "imbalance": asked, "noise": meta.noise, "seed": meta.seed}


def bound_text(bound: float | None) -> float | str | None:
    """Return a bound on β as JSON can hold it: "inf" where no β is enough, so that null is left to mean no bound."""
    return "inf" if bound == math.inf else bound
