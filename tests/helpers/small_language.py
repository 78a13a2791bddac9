"""A random Llama of two layers that reads the tiny grammar, a tokenizer of bytes, and a few labelled answers."""

from __future__ import annotations

import os
import random
from functools import cache, lru_cache
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from pmpo_offline.data import Dataset
from pmpo_offline.declarations.catalog import AlgorithmDeclaration
from pmpo_offline.policies.language.tokens import Tokens
from pmpo_offline.tasks.language.tiny import TASK, tokenizer
from pmpo_offline.training.language.responses import take_split
from pmpo_offline.training.language.trl_data import dataset_of

SIZE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


def random_model(seed: int = 0) -> LlamaForCausalLM:
    """Return a model of the tiny grammar that has learned nothing."""
    torch.manual_seed(seed)
    read = tokenizer()
    ids = {"bos_token_id": None, "eos_token_id": read.eos_token_id, "pad_token_id": read.pad_token_id}
    config = LlamaConfig(vocab_size=len(read), max_position_embeddings=32, initializer_range=0.2, **SIZE, **ids)
    return LlamaForCausalLM(config).eval()


def byte_tokenizer() -> PreTrainedTokenizerBase:
    """One token a byte, so that every text can be written."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    whole = Tokenizer(models.BPE({word: i for i, word in enumerate([*alphabet, "<end>"])}, []))
    whole.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    whole.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=whole, eos_token="<end>", pad_token="<end>")


@cache
def _prompts(count: int) -> list[str]:
    return TASK.prompts(count, 0)  # chosen from all 32,768, which takes longer than a small training


def labelled_rows(prompts: int = 12, answers: int = 4) -> list[dict[str, Any]]:
    """Return TRL's unpaired form: a third of the rows accepted, a third rejected, others unlabelled."""
    chance = random.Random(0)
    rows = []
    for number, prompt in enumerate(_prompts(prompts)):
        for answer in range(answers):
            text = "".join(chance.choice("abcdefgh") for _ in range(chance.randint(1, 6)))
            label = {0: True, 1: False}.get((number + answer) % 3)
            rows.append({"prompt": prompt, "completion": text, "label": label})
    return rows


def declared(objective: str, rows: str = "all", training: dict[str, Any] | None = None, **settings: Any) -> Any:
    """Return an algorithm as baselines/language/*.toml would declare it."""
    return AlgorithmDeclaration(
        name=objective,
        family="language",
        title=objective,
        objective=objective,
        rows=rows,
        start="reference",
        settings=settings,
        training={"steps": 6, "batch": 12, "learning_rate": 1e-2, **(training or {})},
    )


@lru_cache
def train_dataset() -> Dataset:
    """Return the training split of `labelled_rows`."""
    return take_split(dataset_of(labelled_rows(), tokenizer()), "train")


def log_probs(model: Any, row: Tokens) -> Tensor:
    """Return the distributions that predict a row's completion, (T, V), from the model's own logits."""
    ids = torch.tensor([row.prompt + row.completion])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0]
    return logits[len(row.prompt) - 1 : -1].log_softmax(-1)


def by_hand(model: Any, row: Tokens, reduction: str) -> float:
    """Return the log-probability of a row's completion from the model's own logits, their sum or mean."""
    chosen = log_probs(model, row)[range(len(row.completion)), list(row.completion)]
    return float(chosen.sum() if reduction == "sum" else chosen.mean())
