"""Language models: any objective on accept/reject responses, training a LoRA adapter or all weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from pmpo_offline.training.language.config import LanguageSettings as LanguageSettings
    from pmpo_offline.training.language.config import PMPOConfig as PMPOConfig
    from pmpo_offline.training.language.config import ResponseConfig as ResponseConfig
    from pmpo_offline.training.language.run import TrainedLanguage as TrainedLanguage
    from pmpo_offline.training.language.run import train_language as train_language
    from pmpo_offline.training.language.trainer import PMPOTrainer as PMPOTrainer
    from pmpo_offline.training.language.trainer import ResponseTrainer as ResponseTrainer

# transformers' Trainer takes seconds to import, and the reference and its divergences do not need it.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "config": ["LanguageSettings", "PMPOConfig", "ResponseConfig"],
        "run": ["TrainedLanguage", "train_language"],
        "trainer": ["PMPOTrainer", "ResponseTrainer"],
    },
)
