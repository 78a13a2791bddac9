"""The tiny language: five letters, `=`, and the same letters backwards; and a model that has half learned it.

    prompt  hbcad=      completion  dacbh

A Llama of about 330,000 parameters learns from a corpus in which every other completion has one wrong letter. So a
little more than half of its samples are right, most prompts have both kinds, and an algorithm that learns from
accept/reject feedback shows in seconds what it does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pmpo_offline.policies.language import quiet
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.hashing import hash_json
from pmpo_offline.tasks.language.task import LanguageTask

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

LETTERS = "abcdefgh"
LENGTH = 5
_PAD, _END, _UNKNOWN = "<pad>", "</s>", "<unk>"
_WORDS = (_PAD, _END, _UNKNOWN, "=", *LETTERS)
_SIZE = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 32,
}
_TRAINING = {"steps": 600, "batch": 64, "learning_rate": 3e-3, "weight_decay": 0.01, "clip": 1.0, "corrupted": 0.5}
_VERSION = 1
"""Raise it when anything else that the model depends on changes."""


def every_prompt() -> list[str]:
    """Return all prompts: every word of `LENGTH` letters, and `=`."""
    return ["".join(letters) + "=" for letters in product(LETTERS, repeat=LENGTH)]


def reward(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    """Return 1 where the completion is the prompt's letters backwards and nothing else, else 0."""
    return [float(text == prompt.removesuffix("=")[::-1]) for prompt, text in zip(prompts, completions, strict=True)]


TASK = LanguageTask("language/tiny", reward, every_prompt, model="tiny", tokens=LENGTH + 1)
"""Write the letters of the prompt backwards."""


def identity() -> str:
    """Return a hash of everything that the model is made from."""
    return hash_json([_VERSION, _WORDS, _SIZE, _TRAINING], sort_keys=False)


def check(texts: Iterable[str]) -> None:
    """Raise `UserError` for a text that has other characters than the model knows, or does not fit its context."""
    for text in texts:
        if set(text) - set(_WORDS) or len(text) >= _SIZE["max_position_embeddings"]:
            raise UserError(
                f"the model tiny cannot read {text[:40]!r}: it reads the letters {LETTERS} and =, fewer than "
                f"{_SIZE['max_position_embeddings']} at once; choose another --model"
            )


def make(directory: Path, steps: int = int(_TRAINING["steps"])) -> None:
    """Train the model and write it into `directory` with its tokenizer, as any transformers model."""
    with quiet():
        train(steps).save_pretrained(directory)
        tokenizer().save_pretrained(directory)


def tokenizer() -> PreTrainedTokenizerBase:
    """Return a tokenizer of characters."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    characters = Tokenizer(models.WordLevel({word: i for i, word in enumerate(_WORDS)}, unk_token=_UNKNOWN))
    characters.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    characters.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=characters,
        pad_token=_PAD,
        eos_token=_END,
        unk_token=_UNKNOWN,
        clean_up_tokenization_spaces=False,
    )


def train(steps: int) -> LlamaForCausalLM:
    """Return the model, trained from scratch on the corrupted corpus; the global random state does not change."""
    from transformers import LlamaConfig, LlamaForCausalLM

    end, pad = _WORDS.index(_END), _WORDS.index(_PAD)
    ends: dict[str, Any] = {"bos_token_id": None, "eos_token_id": end, "pad_token_id": pad}
    config = LlamaConfig(vocab_size=len(_WORDS), tie_word_embeddings=True, **_SIZE, **ends)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    rate, batch = _TRAINING["learning_rate"], int(_TRAINING["batch"])
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=_TRAINING["weight_decay"])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        ids = _corpus(batch, generator)
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits[:, LENGTH:]  # of the completion and its end
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, LENGTH + 1 :].flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), _TRAINING["clip"])
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        progress.report("train the tiny language model", step + 1, steps)
    return model.eval()


def _corpus(rows: int, generator: torch.Generator) -> Tensor:
    """Return sentences (rows, 2 · LENGTH + 2): letters, `=`, the letters backwards or nearly so, the end."""
    first, count = _WORDS.index(LETTERS[0]), len(LETTERS)
    letters = torch.randint(count, (rows, LENGTH), generator=generator)
    answer = letters.flip(1)
    place = torch.randint(LENGTH, (rows, 1), generator=generator)
    other = (answer.gather(1, place) + torch.randint(1, count, (rows, 1), generator=generator)) % count
    corrupted = torch.rand(rows, 1, generator=generator) < _TRAINING["corrupted"]
    answer = torch.where(corrupted, answer.scatter(1, place, other), answer)
    equals, end = (torch.full((rows, 1), _WORDS.index(word)) for word in ("=", _END))
    return torch.cat([first + letters, equals, first + answer, end], 1)
