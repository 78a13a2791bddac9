"""Packed batches: shared prompts are encoded only once, and there is no padding.

Packing puts the completions of one prompt into one sequence::

    rows         p p p a a a     p p p b b          each reads its prompt
    packed       p p p a a a b b                    a and b both follow p, and do not see one another
    position     0 1 2 3 4 5 3 4
    segment      0 0 0 1 1 1 2 2                    0: the prompt, which every completion sees

The states are those of the separate rows, up to rounding. It takes a network that accepts positions and a mask
(`shares_prompts`).

Unpadding puts sequences of different lengths behind one another, each attending to itself alone::

    padded       a a a a . .          unpadded      a a a a b b b b b b c c
                 b b b b b b
                 c c . . . .

All layers but attention look at one place at a time, so only attention has to know where a sequence ends: it is called
once per sequence. On a GPU few large calls are faster than many small ones, padded or not, so this is for CPUs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

LONGEST = 512
"""Tokens of a packed sequence, unless a row alone is longer: attention grows with their square."""
MOST_PACKED = 0.9
"""Rows are packed if that leaves at most this share of the places, padding counted."""
MOST_FILLED = 0.97
"""Padding is left out if at most this share of the places is filled."""

_ATTENTION = "pmpo_offline_unpadded"
_SEQUENCES: ContextVar[tuple[list[int], list[Tensor | None]]] = ContextVar(_ATTENTION)
"""The length of each sequence that is read without padding, and its mask."""


@dataclass(frozen=True)
class Packing:
    """Source of each place in S packed sequences of W places, and the positions of the N completion tokens in them."""

    row: Tensor
    """(S, W) int64, the row of the plain batch that a token comes from."""
    place: Tensor
    """(S, W) int64, its place there."""
    position: Tensor
    """(S, W) int64, how many tokens of its own row come before it."""
    segment: Tensor
    """(S, W) int64: 0 for the prompt, 1, 2, … for the completions, -1 for padding."""
    sequence: Tensor
    """(N,) int64, the sequence of each completion token."""
    at: Tensor
    """(N,) int64, the place in it whose state predicts the token."""

    @property
    def filled(self) -> Tensor:
        """(S, W) bool, False for padding."""
        return self.segment >= 0

    def to(self, device: torch.device | str) -> Packing:
        """Return the packing on a device."""
        return Packing(**{name: part.to(device) for name, part in vars(self).items()})

    def take(self, values: Tensor) -> Tensor:
        """Gather values of the plain batch, (B, T, …), into the packed places: (S, W, …)."""
        return values[self.row, self.place]

    def mask(self, dtype: torch.dtype) -> Tensor:
        """Return the additive attention mask, (S, 1, W, W): 0 where a place may look, else the lowest number."""
        looking, seen = self.segment.unsqueeze(-1), self.segment.unsqueeze(-2)
        width = self.segment.shape[-1]
        earlier = torch.ones(width, width, dtype=torch.bool, device=self.segment.device).tril()
        allowed = ((seen == 0) | (seen == looking)) & earlier
        blank = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
        return blank.masked_fill(~allowed, torch.finfo(dtype).min).unsqueeze(1)


def pack(prompts: Sequence[tuple[int, ...]], lengths: Sequence[int]) -> Packing | None:
    """Return how to pack rows by their prompts; None if that saves too little.

    Args:
        prompts: of each row.
        lengths: completion tokens of each row; the last one of a completion is not read.
    """
    read = [max(0, length - 1) for length in lengths]
    plain = max(len(prompt) + more for prompt, more in zip(prompts, read, strict=True))
    groups = _groups(prompts, read, max(LONGEST, plain))
    width = max(len(prompts[group[0]]) + sum(read[i] for i in group) for group in groups)
    if len(groups) == len(prompts) or len(groups) * width > MOST_PACKED * len(prompts) * plain:
        return None
    row, place, position = (np.zeros((len(groups), width), np.int64) for _ in range(3))
    segment = np.full((len(groups), width), -1)
    sequence, at = ([np.empty(0, np.int64)] * len(prompts) for _ in range(2))
    for s, group in enumerate(groups):
        end = start = len(prompts[group[0]])
        row[s, :start], place[s, :start], position[s, :start] = group[0], np.arange(start), np.arange(start)
        segment[s, :start] = 0
        for number, i in enumerate(group, 1):
            there, here = slice(end, end + read[i]), np.arange(start, start + read[i])
            row[s, there], place[s, there], position[s, there], segment[s, there] = i, here, here, number
            sequence[i] = np.full(lengths[i], s)
            at[i] = np.arange(end - 1, end - 1 + lengths[i])
            at[i][:1] = start - 1  # the first token of every completion is predicted by the end of the prompt
            end += read[i]
    arrays = (row, place, position, segment, np.concatenate(sequence), np.concatenate(at))
    return Packing(*map(torch.from_numpy, arrays))


def shares_prompts(backbone: Any, width: int) -> bool:
    """Return whether a network accepts positions and a mask for sequences of `width` places."""
    config = backbone.config
    window = getattr(config, "sliding_window", None)
    return (
        hasattr(backbone, "rotary_emb")
        and config._attn_implementation in ("sdpa", "eager")
        and (window is None or window >= width)
    )


def _groups(prompts: Sequence[tuple[int, ...]], read: Sequence[int], longest: int) -> list[list[int]]:
    """Return the rows of each packed sequence."""
    same: dict[tuple[int, ...], list[list[int]]] = defaultdict(list)
    room: dict[tuple[int, ...], int] = {}
    for i, prompt in enumerate(prompts):
        if read[i] > room.get(prompt, -1):
            same[prompt].append([])
            room[prompt] = longest - len(prompt)
        same[prompt][-1].append(i)
        room[prompt] -= read[i]
    return [group for groups in same.values() for group in groups]


def is_unpadded(backbone: Any, filled: Tensor) -> bool:
    """Return whether a network can and should read sequences without padding; `filled` is (S, W) bool."""
    config = backbone.config
    return (
        filled.device.type == "cpu"
        and hasattr(backbone, "rotary_emb")
        and config._attn_implementation == "sdpa"
        and backbone._supports_attention_backend  # attention is called through transformers' `AttentionInterface`
        # Other kinds of layers carry state from one place to the next, or have a limited window.
        and set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
        and getattr(config, "sliding_window", None) is None
        # With checkpointing a layer runs again in the backward pass, when the model's own attention is restored.
        and not any(getattr(part, "gradient_checkpointing", False) for part in backbone.modules())
        and bool(filled.float().mean() <= MOST_FILLED)
    )


@contextmanager
def unpadded(backbone: Any, filled: Tensor, mask: Tensor | None) -> Iterator[None]:
    """Let a network read the filled places as one row, (1, P), sequence after sequence, inside the block.

    Args:
        backbone: see `is_unpadded`.
        filled: (S, W) bool, from the left.
        mask: (S, 1, W, W), added to the logits of attention; None: every place sees itself and those before it.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(_ATTENTION, _attend)
    lengths = filled.sum(-1).tolist()
    masks = [None if mask is None else mask[i : i + 1, :, :n, :n] for i, n in enumerate(lengths)]
    own = backbone.config._attn_implementation
    token = _SEQUENCES.set((lengths, masks))
    backbone.config._attn_implementation = _ATTENTION
    try:
        yield
    finally:
        backbone.config._attn_implementation = own
        _SEQUENCES.reset(token)


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Run transformers' SDPA attention on each sequence: (1, heads, P, width) -> (1, P, heads, width)."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    lengths, masks = _SEQUENCES.get()
    parts = zip(*(torch.split(part, lengths, dim=2) for part in (query, key, value)), masks, strict=True)
    return torch.cat([sdpa_attention_forward(module, *part, **options)[0] for part in parts], dim=1), None
