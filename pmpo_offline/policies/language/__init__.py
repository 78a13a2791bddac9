"""Language models: a transformers model with its tokenizer, and LoRA adapters on top of it."""

from __future__ import annotations

from pmpo_offline.policies.language.model import (
    LanguageModel,
    Quantize,
    add_lora,
    load_adapter,
    open_model,
    save_adapter,
)

__all__ = ["LanguageModel", "Quantize", "add_lora", "load_adapter", "open_model", "save_adapter"]
