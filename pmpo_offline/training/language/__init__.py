"""Language models: any objective on accept/reject responses, by a LoRA adapter or whole."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pmpo_offline.training.language.config import PMPOConfig, ResponseConfig
    from pmpo_offline.training.language.run import TrainedLanguage, train_language
    from pmpo_offline.training.language.settings import LanguageSettings
    from pmpo_offline.training.language.trainer import PMPOTrainer, ResponseTrainer

__all__ = [
    "LanguageSettings",
    "PMPOConfig",
    "PMPOTrainer",
    "ResponseConfig",
    "ResponseTrainer",
    "TrainedLanguage",
    "train_language",
]

_HOMES = {
    "LanguageSettings": "settings",
    "PMPOConfig": "config",
    "PMPOTrainer": "trainer",
    "ResponseConfig": "config",
    "ResponseTrainer": "trainer",
    "TrainedLanguage": "run",
    "train_language": "run",
}


def __getattr__(name: str) -> Any:
    # transformers' Trainer takes seconds to import: the cache and the divergences, which stand beside it, need none.
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
