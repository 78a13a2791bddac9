"""Sample completions: temperature 1, the whole distribution, many rows at once, each with random numbers of its own.

```
prompts, sorted by length ─▶ read once each ─▶ K rows a prompt ─▶ one token a step, with the key-value cache
                             (left padding)                       rows that have ended leave the batch
```
Every token is drawn by inverting the distribution at a uniform number that depends on nothing but the seed, the prompt,
the number of the completion and the place in it. So the size of a batch and the other rows in it change nothing but the
last bits of floating-point sums (in a vocabulary of 49,152 words they turned 2 to 6 of 100 completions of SmolLM2), and
two models with the same prompts see common random numbers.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pmpo_offline.policies.language import LanguageModel
from pmpo_offline.policies.language.tokens import prompt_tokens
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.runtime.hashing import hash_bytes, uniforms

_CROWDED = 0.75
"""Rows that ended are taken out once fewer than this share of a batch is unfinished: each time the cache is copied."""


@dataclass(frozen=True)
class Samples:
    """Completions, prompt by prompt, per_prompt of each."""

    text: list[list[str]]
    """The tokens as text."""
    tokens: list[list[tuple[int, ...]]]
    """Drawn tokens, without the end-of-sequence token."""
    ended: list[list[bool]]
    """Whether that token was drawn; otherwise the completion was cut."""


@dataclass(frozen=True)
class SamplingSpec:
    """Settings of sampling."""

    per_prompt: int
    """Completions of each prompt."""
    tokens: int
    """The longest completion, its end counted."""
    ends: bool
    """Whether a completion may end: otherwise each is cut at `tokens`, and the end is never drawn."""
    seed: int = 0


def draw(model: LanguageModel, prompts: Sequence[str], spec: SamplingSpec, batch: int = 128) -> Samples:
    """Sample completions.

    Args:
        model: the model to sample from.
        prompts: as the model sees them. One that occurs twice gets other completions the second time.
        spec: how to sample.
        batch: rows at once; a matter of speed and memory alone.

    Raises:
        UserError: a prompt and its completion would be longer than the model's context.
        PmpoOfflineError: the model's probabilities are not numbers.
    """
    per_prompt, tokens = spec.per_prompt, spec.tokens
    rows = [prompt_tokens(model.tokenizer, prompt) for prompt in prompts]
    _check_lengths(model, rows, tokens)
    keys = _keys(prompts)
    result = Samples([[]] * len(prompts), [[]] * len(prompts), [[]] * len(prompts))
    order = sorted(range(len(prompts)), key=lambda i: len(rows[i]))
    at_once = max(1, batch // per_prompt)
    choose = _Choice(model, spec.ends)
    for start in range(0, len(order), at_once):
        chosen = order[start : start + at_once]
        noise = np.stack([uniforms(tokens, spec.seed, *keys[i], k) for i in chosen for k in range(per_prompt)])
        drawn = _batch(model, [rows[i] for i in chosen], per_prompt, torch.from_numpy(noise), choose)
        for place, i in enumerate(chosen):
            mine = drawn[place * per_prompt : (place + 1) * per_prompt]
            result.tokens[i] = [tuple(ids) for ids, _ in mine]
            result.ended[i] = [ended for _, ended in mine]
            result.text[i] = model.tokenizer.batch_decode(
                result.tokens[i], skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        progress.report("sample completions", start + len(chosen), len(order))
    return result


class _Choice:
    """The choice of the next token; `stops` are those that end a completion."""

    def __init__(self, model: LanguageModel, ends: bool) -> None:
        self._name = model.name
        declared = model.model.generation_config.eos_token_id
        stops = {model.tokenizer.eos_token_id, *(declared if isinstance(declared, list) else [declared])} - {None}
        self.stops = torch.tensor(sorted(stops) if ends else [], dtype=torch.int64, device=model.device)
        # Text cannot hold the other special tokens: read back, it would be other tokens.
        never = {*model.tokenizer.all_special_ids, *stops} - (stops if ends else set())
        self.never = torch.tensor(sorted(never), dtype=torch.int64, device=model.device)

    def __call__(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """Return tokens (B,) at logits (B, V) and uniform numbers (B,)."""
        logits = logits.float().index_fill(-1, self.never, -torch.inf)
        # Double precision: fifty thousand single-precision terms would leave steps of zero width.
        heights = logits.softmax(-1).double().cumsum(-1)
        if not heights[:, -1].isfinite().all():
            raise PmpoOfflineError(
                f"{self._name}: the probabilities of the next token are not numbers, as after a training that "
                "diverged: train again with a larger beta or a smaller learning rate"
            )
        target = (uniform * heights[:, -1])[:, None]
        return torch.searchsorted(heights, target, right=True)[:, 0]


@torch.inference_mode()
def _batch(
    model: LanguageModel, prompts: list[tuple[int, ...]], per_prompt: int, uniform: Tensor, choose: _Choice
) -> list[tuple[list[int], bool]]:
    """Return the tokens of each row, per_prompt rows a prompt, and whether it ended; `uniform` is (rows, tokens)."""
    device = model.device
    uniform = uniform.to(device)
    rows = [torch.tensor(prompt, device=device) for prompt in prompts]
    ids = pad_sequence(rows, batch_first=True, padding_side="left")
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side="left")
    read = _reader(model)
    logits, cache = read(ids, mask, None)
    logits, mask = (values.repeat_interleave(per_prompt, 0) for values in (logits, mask))
    cache.batch_repeat_interleave(per_prompt)

    drawn: list[list[int]] = [[] for _ in range(len(mask))]
    ended = [False] * len(mask)
    alive = torch.arange(len(mask), device=device)  # the row of the result that each row of the batch writes
    for step in range(uniform.shape[1]):
        token = choose(logits, uniform[alive, step])
        last = torch.isin(token, choose.stops)
        for row, one, stops in zip(alive.tolist(), token.tolist(), last.tolist(), strict=True):
            if not ended[row]:
                ended[row] = stops
                drawn[row] += [] if stops else [one]
        if step + 1 == uniform.shape[1] or all(ended):
            break
        going = torch.tensor([i for i, row in enumerate(alive.tolist()) if not ended[row]], device=device)
        if len(going) < _CROWDED * len(alive):
            alive, token, mask = alive[going], token[going], mask[going]
            cache.batch_select_indices(going)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        logits, cache = read(token[:, None], mask, cache)
    return list(zip(drawn, ended, strict=True))


def _reader(model: LanguageModel) -> Callable[[Tensor, Tensor, Any], tuple[Tensor, Any]]:
    """Return the function (ids, mask, cache) -> (logits at the last position, cache)."""
    network = model.model
    inner = network.get_base_model() if hasattr(network, "get_base_model") else network
    # Not every architecture can leave the logits of the other positions out.
    parameters = inspect.signature(inner.forward).parameters
    options = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}

    def read(ids: Tensor, mask: Tensor, cache: Any) -> tuple[Tensor, Any]:
        position = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        positions = {"position_ids": position} if "position_ids" in parameters else {}
        out = network(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **positions, **options)
        return out.logits[:, -1], out.past_key_values

    return read


def _keys(prompts: Sequence[str]) -> list[tuple[int, int]]:
    """Return a key for the random numbers of each prompt: its hash, and how often it occurred before."""
    seen: Counter[str] = Counter()
    keys = []
    for prompt in prompts:
        keys.append((int.from_bytes(bytes.fromhex(hash_bytes([prompt.encode()]))[:8], "little"), seen[prompt]))
        seen[prompt] += 1
    return keys


def _check_lengths(model: LanguageModel, rows: Sequence[Sequence[int]], tokens: int) -> None:
    most = model.context
    longest = max(map(len, rows), default=0)
    if most is not None and longest + tokens > most:
        raise UserError(
            f"{model.name} reads {most} tokens, and a prompt of {longest} with a completion of {tokens} is longer: "
            "leave long prompts out or sample shorter completions"
        )
