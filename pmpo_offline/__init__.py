"""pmpo-offline: datasets and an offline benchmark for learning from accept/reject feedback."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from pmpo_offline.benchmark import bench as bench
    from pmpo_offline.build import TextOptions as TextOptions
    from pmpo_offline.build import build_dataset as build_dataset
    from pmpo_offline.build import import_dataset as import_dataset
    from pmpo_offline.build import import_text as import_text
    from pmpo_offline.data import load_dataset as load_dataset
    from pmpo_offline.data.exchange import export_dataset as export_dataset
    from pmpo_offline.evaluation import evaluate as evaluate
    from pmpo_offline.runtime.progress import on_progress as on_progress
    from pmpo_offline.training import train as train
    from pmpo_offline.training.language import PMPOConfig as PMPOConfig
    from pmpo_offline.training.language import PMPOTrainer as PMPOTrainer
    from pmpo_offline.training.language import train_language as train_language

__version__ = "0.1.0"

# Torch and MuJoCo take a second to import: names are imported on first use, so that the command line starts fast.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules={"objectives"},
    submod_attrs={
        "benchmark": ["bench"],
        "build": ["TextOptions", "build_dataset", "import_dataset", "import_text"],
        "data": ["load_dataset"],
        "data.exchange": ["export_dataset"],
        "evaluation": ["evaluate"],
        "runtime.progress": ["on_progress"],
        "training": ["train"],
        "training.language": ["PMPOConfig", "PMPOTrainer", "train_language"],
    },
)
