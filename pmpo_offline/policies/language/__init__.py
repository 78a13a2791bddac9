"""Language models: a transformers model with its tokenizer, LoRA adapters, and log-probabilities of completions."""

from __future__ import annotations

from pmpo_offline.policies.language.model import (
    LanguageModel,
    Quantize,
    add_lora,
    load_adapter,
    model_hash,
    open_model,
    quiet,
    save_adapter,
)

__all__ = [
    "LanguageModel",
    "Quantize",
    "add_lora",
    "load_adapter",
    "model_hash",
    "open_model",
    "quiet",
    "save_adapter",
]
