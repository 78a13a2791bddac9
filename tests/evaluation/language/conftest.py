"""Random Llamas over the tiny language and over bytes, and small datasets of responses, made in a second."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pyarrow as pa
import pytest
import torch
from helpers.labelled import labelled
from helpers.small_language import byte_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from pmpo_offline.data import (
    Dataset,
    Provenance,
    References,
    responses_schema,
)
from pmpo_offline.policies.language import LanguageModel
from pmpo_offline.tasks.language import tiny


def language_model(seed: int, tokenizer: PreTrainedTokenizerBase, spread: float = 0.4, **shape: Any) -> LanguageModel:
    """A random Llama in evaluation mode; two seeds disagree."""
    torch.manual_seed(seed)
    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = LlamaConfig(vocab_size=len(tokenizer), initializer_range=spread, **{**size, **ends, **shape})
    return LanguageModel(LlamaForCausalLM(config).eval(), tokenizer, f"random-{seed}", f"digest-{seed}")


@pytest.fixture(scope="session")
def random_model() -> Callable[..., LanguageModel]:
    """Makes a random Llama that reads and writes the tiny language."""
    return lambda seed, **shape: language_model(seed, tiny.tokenizer(), **shape)


@pytest.fixture(scope="session")
def byte_model() -> Callable[..., LanguageModel]:
    """Makes a random Llama that reads and writes bytes."""
    return lambda seed, **shape: language_model(seed, byte_tokenizer(), **shape)


def responses(
    rows: Sequence[tuple[str, str, float, str]],
    *,
    task: str = "language/tiny",
    label: str = "reward:0.5",
    settings: dict[str, Any] | None = None,
    references: References | None = None,
) -> Dataset:
    """A dataset in memory of (prompt, completion, score, split)."""
    prompts, completions, scores, splits = zip(*rows, strict=True)
    first = {prompt: i for i, prompt in reversed(list(enumerate(dict.fromkeys(prompts))))}
    table = pa.table(
        {
            "prompt": list(prompts),
            "completion": list(completions),
            "score": pa.array(np.array(scores, np.float32), mask=np.isnan(scores)),
            "label": pa.nulls(len(rows), pa.bool_()),
            "prompt_id": pa.array([first[prompt] for prompt in prompts], pa.int32()),
            "response_id": pa.array(range(len(rows)), pa.int32()),
            "source": ["test"] * len(rows),
            "split": list(splits),
        },
        schema=responses_schema(),
    )
    made = {"model": "random", "ends": True, "tokens": 6} if settings is None else settings
    about = {"id": "language/test-v0", "task": task, "references": references}
    metadata, tables = labelled(table, None, label, provenance=Provenance(settings=made), **about)
    return Dataset(metadata, Path("nowhere"), tables["responses"])


def reversals(train: int = 2, test: int = 6, **changes: Any) -> Dataset:
    """Prompts of the tiny language with a right and a wrong completion each; the first ones are trained on."""
    prompts = tiny.TASK.prompts(train + test, seed=0)
    rows = []
    for i, prompt in enumerate(prompts):
        right, split = prompt[-2::-1], "train" if i < train else "test"
        rows += [(prompt, right, 1.0, split), (prompt, right[:-1] + ("a" if right[-1] != "a" else "b"), 0.0, split)]
    return responses(rows, **changes)


@pytest.fixture(scope="session", name="responses")
def _responses() -> Callable[..., Dataset]:
    """Makes a dataset of (prompt, completion, score, split)."""
    return responses


@pytest.fixture(scope="session", name="reversals")
def _reversals() -> Callable[..., Dataset]:
    """Makes a dataset of the tiny language, a right and a wrong completion a prompt."""
    return reversals
