"""What TRL's trainers can be built from without a network: a word tokenizer, a tiny Llama and random texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from datasets import Dataset

WORDS = [f"w{i}" for i in range(30)]


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token a word, and tokens for the end, padding and unknown words."""
    vocabulary = {word: i for i, word in enumerate([*WORDS, "<end>", "<pad>", "<unknown>"])}
    model = Tokenizer(WordLevel(vocabulary, unk_token="<unknown>"))
    model.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=model, eos_token="<end>", pad_token="<pad>", unk_token="<unknown>")


def llama(seed: int) -> LlamaForCausalLM:
    """Return a random Llama of two layers in float64."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(WORDS) + 3,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.5,
        bos_token_id=None,
        eos_token_id=len(WORDS),
        pad_token_id=len(WORDS) + 1,
    )
    return LlamaForCausalLM(config).double()


def texts(rows: int, seed: int, *columns: str) -> Dataset:
    """Return rows of random texts of 2 to 8 words, the prompt first; a column `label` alternates at random."""
    generator = torch.Generator().manual_seed(seed)

    def text(lead: str = "") -> str:
        count = int(torch.randint(2, 9, (), generator=generator))
        return lead + " ".join(WORDS[i] for i in torch.randint(len(WORDS), (count,), generator=generator).tolist())

    data: dict[str, list[Any]] = {}
    for column in columns:
        if column == "label":
            data[column] = (torch.rand(rows, generator=generator) < 0.4).tolist()
        else:
            data[column] = [text("" if column == "prompt" else " ") for _ in range(rows)]
    return Dataset.from_dict(data)


def arguments(folder: Path, rows: int) -> dict[str, Any]:
    """Return what every trainer's configuration needs to stay on one CPU, in full precision and off the network."""
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": rows,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
