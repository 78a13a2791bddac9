"""Language models: a transformers model with its tokenizer, LoRA adapters, and log-probabilities of completions."""

from __future__ import annotations

from pmpo_offline.policies.language.model import LanguageModel as LanguageModel
from pmpo_offline.policies.language.model import Quantize as Quantize
from pmpo_offline.policies.language.model import add_lora as add_lora
from pmpo_offline.policies.language.model import load_adapter as load_adapter
from pmpo_offline.policies.language.model import model_hash as model_hash
from pmpo_offline.policies.language.model import open_model as open_model
from pmpo_offline.policies.language.model import quiet as quiet
from pmpo_offline.policies.language.model import save_adapter as save_adapter
