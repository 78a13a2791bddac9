"""Labels that critics gave once, for every machine: a critic that is trained on another processor labels differently.

```
datasets/labels/<raw>-<critic>.npz    accepted: packed bits, a row each; ties: rows of neither label; experience: a hash
```
They are found by the hash of the recipe and of the critic's settings, and taken where the recorded experience is the
same to the bit. Scores are this machine's own; one on the other side of zero than its label becomes the number nearest
to zero on its side.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pmpo_offline.data import Dataset, columns
from pmpo_offline.data.schema import LabelRule
from pmpo_offline.declarations import catalog
from pmpo_offline.runtime.arrays import load_arrays, save_arrays
from pmpo_offline.runtime.errors import Notice, PmpoOfflineError, UserError
from pmpo_offline.runtime.hashing import hash_json

if TYPE_CHECKING:
    from pmpo_offline.build.pipeline import Content

RULE = LabelRule.parse("advantage")
"""The rule of the labels: accepted if the advantage is positive."""
MARK = {"labels": "shipped"}
"""In the settings of the score of a dataset with such labels."""
_ARRAYS = ("accepted", "ties", "experience")
_LEAST = np.finfo(np.float32).tiny


def folder() -> Path:
    """Return the folder of shipped labels."""
    return catalog.root("datasets") / "labels"


def labels_path(raw: str, critic: Mapping[str, Any]) -> Path:
    """Return the file of the labels of a recipe's experience, named by its hash, by a critic of these settings."""
    return folder() / f"{raw}-{hash_json(critic)[:16]}.npz"


def with_shipped_labels(advantage: NDArray[np.float32], path: Path, content: Content) -> NDArray[np.float32] | None:
    """Return advantages with the signs of the shipped labels; None if there are none of this experience.

    Warns of labels of other experience: those of here, and what is learned from them, are not those of the results.
    """
    if not path.exists():
        return None
    stored = load_arrays(path, _ARRAYS)
    if str(stored["experience"]) != experience_hash(content.table, content.episodes):
        warnings.warn(
            f"{path.name}, the labels of the committed results, are of other episodes than this processor records "
            "(NumPy's matrix products differ in their last bits; with AVX-512, try OPENBLAS_CORETYPE=SkylakeX in the "
            "environment): a critic that is trained here gives the labels",
            Notice,
            stacklevel=2,
        )
        return None
    bits, ties = stored["accepted"], stored["ties"]
    whole = bits.dtype == np.uint8 and bits.shape == (-(-len(advantage) // 8),)
    if not whole or ties.dtype.kind != "i" or not ((ties >= 0) & (ties < len(advantage))).all():
        raise PmpoOfflineError(f"{path} is damaged: it is not of {len(advantage):,} rows; get it again")
    accepted = np.unpackbits(stored["accepted"], count=len(advantage)).astype(bool)
    signed = np.where(accepted, np.maximum(advantage, _LEAST), np.minimum(advantage, -_LEAST)).astype(np.float32)
    signed[stored["ties"]] = 0
    return signed


def save_labels(dataset: Dataset) -> Path:
    """Write the labels of a dataset that was built here, as they will be everywhere; `UserError` for other labels."""
    meta = dataset.metadata
    if meta.label != RULE or meta.noise or meta.imbalance.asked is not None:
        raise UserError(f"{meta.id}: only labels 'advantage:sign' without noise and balance are shipped")
    advantage = columns.vector(dataset.table, "score")
    path = labels_path(meta.provenance.hashes["experience"], cast(Mapping[str, Any], meta.score.settings["critic"]))
    arrays = {
        "accepted": np.packbits(advantage > 0),
        "ties": np.flatnonzero(advantage == 0).astype(np.int32),
        "experience": np.array(experience_hash(dataset.table, dataset.episodes)),
    }
    save_arrays(path, arrays)
    return path


def experience_hash(transitions: pa.Table, episodes: pa.Table | None) -> str:
    """Return the hash of what was recorded, without labels and scores."""
    tables = {"transitions": transitions, "episodes": episodes}
    return columns.hash_tables(
        {
            name: table.drop_columns([each for each in ("label", "score") if each in table.column_names])
            for name, table in tables.items()
            if table is not None
        }
    )
