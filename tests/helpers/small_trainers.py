"""Trainers of language models of a few updates, and what they logged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peft import LoraConfig

import datasets
from helpers.small_language import labelled_rows, random_model
from pmpo_offline.policies.language import quiet
from pmpo_offline.tasks.language.tiny import tokenizer
from pmpo_offline.training.language import PMPOConfig, PMPOTrainer

LORA = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}


def arguments(kind: type[Any], folder: Path, **changes: Any) -> Any:
    """Return a configuration of four updates on the processor, with changes."""
    usual = {
        "output_dir": str(folder / "out"),
        "reference_cache": str(folder / "cache"),
        "per_device_train_batch_size": 12,
        "learning_rate": 1e-2,
        "max_steps": 4,
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
    }
    return kind(**{**usual, **changes})


def pmpo(folder: Path, model: Any = None, rows: Any = None, lora: bool = True, **changes: Any) -> PMPOTrainer:
    """Return a trainer of a fresh adapter, or of all weights, on labelled rows."""
    own = labelled_rows()
    trainer = PMPOTrainer(
        model or random_model(),
        args=arguments(PMPOConfig, folder, **changes),
        train_dataset=rows if isinstance(rows, datasets.IterableDataset) else datasets.Dataset.from_list(rows or own),
        processing_class=tokenizer(),
        peft_config=LoraConfig(**LORA) if lora else None,
    )
    return trainer


def trained(trainer: Any) -> list[dict[str, float]]:
    """Train, and return the lines of the log that have a loss."""
    with quiet():
        trainer.train()
    return [line for line in trainer.state.log_history if "loss" in line]
