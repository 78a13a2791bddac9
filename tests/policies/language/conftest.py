"""Random Llamas of two layers, and rows of tokens of all lengths."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pmpo_offline.policies.language.tokens import Tokens

VOCABULARY = 37


def random_llama(seed: int = 0, **settings: Any) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    config = LlamaConfig(vocab_size=VOCABULARY, initializer_range=0.3, **{**shape, **ids, **settings})
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="session")
def llama() -> Callable[..., LlamaForCausalLM]:
    """Makes random Llamas by seed and changes of their configuration."""
    return random_llama


@pytest.fixture
def rows() -> list[Tokens]:
    """Prompts of 1 to 7 tokens; one completion is empty, one is the end alone."""
    generator = torch.Generator().manual_seed(1)

    def some(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, VOCABULARY, (count,), generator=generator).tolist())

    lengths = [(3, 5), (1, 9), (7, 0), (4, 1), (2, 6)]
    return [Tokens(some(p), some(c)) for p, c in lengths] + [Tokens(some(5), (2,))]
