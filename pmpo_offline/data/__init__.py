"""What is stored: schema, labels, imbalance, storage in two forms, and the tensors that learners gather from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pmpo_offline.data.consistency import problems
from pmpo_offline.data.dataset import Dataset, Share, load_dataset, open_dataset
from pmpo_offline.data.experience import Experience
from pmpo_offline.data.ids import dataset_path, home, resolve, standing, stands
from pmpo_offline.data.imbalance import Balanced, balance
from pmpo_offline.data.labelling import LabelledTables, label_tables
from pmpo_offline.data.labels import LabelRule, ScoreName, Unit
from pmpo_offline.data.schema import (
    SCHEMA_VERSION,
    CandidateLabels,
    Counts,
    FileInfo,
    Imbalance,
    Kind,
    Metadata,
    Provenance,
    References,
    ScoreRule,
    candidates_schema,
    episodes_schema,
    responses_schema,
    transitions_schema,
)
from pmpo_offline.data.storage import Format, read_metadata, write
from pmpo_offline.data.verify import verify

if TYPE_CHECKING:
    from pmpo_offline.data.sampling import Candidates, Rows, indices, pairs

__all__ = [
    "SCHEMA_VERSION",
    "Balanced",
    "CandidateLabels",
    "Candidates",
    "Counts",
    "Dataset",
    "Experience",
    "FileInfo",
    "Format",
    "Imbalance",
    "Kind",
    "LabelRule",
    "LabelledTables",
    "Metadata",
    "Provenance",
    "References",
    "Rows",
    "ScoreName",
    "ScoreRule",
    "Share",
    "Unit",
    "balance",
    "candidates_schema",
    "dataset_path",
    "episodes_schema",
    "home",
    "indices",
    "label_tables",
    "load_dataset",
    "open_dataset",
    "pairs",
    "problems",
    "read_metadata",
    "resolve",
    "responses_schema",
    "standing",
    "stands",
    "transitions_schema",
    "verify",
    "write",
]


def __getattr__(name: str) -> Any:
    # Only sampling needs torch at import, and the commands that list and verify datasets should start without it.
    if name in ("Candidates", "Rows", "indices", "pairs"):
        from pmpo_offline.data import sampling

        return getattr(sampling, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
