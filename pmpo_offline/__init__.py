"""pmpo-offline: datasets and an offline benchmark for learning from accept/reject feedback."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pmpo_offline.benchmark import bench
    from pmpo_offline.build import build_dataset
    from pmpo_offline.build.read import import_dataset
    from pmpo_offline.build.read_text import import_text
    from pmpo_offline.build.text_options import TextOptions
    from pmpo_offline.data import load_dataset
    from pmpo_offline.data.exchange import export_dataset
    from pmpo_offline.evaluation import evaluate
    from pmpo_offline.training import train
    from pmpo_offline.training.language import PMPOConfig, PMPOTrainer, train_language

__version__ = "0.1.0"
__all__ = [
    "PMPOConfig",
    "PMPOTrainer",
    "TextOptions",
    "bench",
    "build_dataset",
    "evaluate",
    "export_dataset",
    "import_dataset",
    "import_text",
    "load_dataset",
    "train",
    "train_language",
]

_HOMES = {
    "PMPOConfig": "training.language",
    "PMPOTrainer": "training.language",
    "TextOptions": "build",
    "bench": "benchmark",
    "build_dataset": "build",
    "evaluate": "evaluation",
    "export_dataset": "data.exchange",
    "import_dataset": "build",
    "import_text": "build",
    "load_dataset": "data",
    "train": "training",
    "train_language": "training.language",
}


def __getattr__(name: str) -> Any:
    # Torch and MuJoCo take a second to import: names are fetched on first use, so that the command line starts fast.
    if name in _HOMES:
        return getattr(importlib.import_module(f"pmpo_offline.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
