"""Completions of one prompt in one sequence, so that the prompt is read once.

::

    rows         p p p a a a     p p p b b          each reads its prompt
    packed       p p p a a a b b                    a and b both follow p, and do not see one another
    position     0 1 2 3 4 5 3 4
    segment      0 0 0 1 1 1 2 2                    0: the prompt, which every completion sees

The states are those of the rows apart, but for rounding. It takes a network that is told its positions and what to
attend to (`shares_prompts`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LONGEST = 512
"""Tokens of a packed sequence, unless a row alone is longer: attention grows with their square."""
WORTH = 0.9
"""Rows are packed where that leaves at most this share of the places, padding counted."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Packing:
    """Where each of S packed sequences of W places has its tokens from, and where the N completion tokens went."""

    row: Tensor
    """(S, W) int64, the row of the plain batch that a token is from."""
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
        """(S, W) bool, which places are no padding."""
        return self.segment >= 0

    def to(self, device: torch.device | str) -> Packing:
        """Return it on a device."""
        return Packing(*(getattr(self, field.name).to(device) for field in fields(self)))

    def take(self, values: Tensor) -> Tensor:
        """Return values of the plain batch, (B, T, …), in the places of the packed one: (S, W, …)."""
        return values[self.row, self.place]

    def mask(self, dtype: torch.dtype) -> Tensor:
        """Return what attention adds to its logits, (S, 1, W, W): 0 where a place may look, else the lowest number."""
        looking, seen = self.segment.unsqueeze(-1), self.segment.unsqueeze(-2)
        width = self.segment.shape[-1]
        earlier = torch.ones(width, width, dtype=torch.bool, device=self.segment.device).tril()
        allowed = ((seen == 0) | (seen == looking)) & earlier
        blank = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
        return blank.masked_fill(~allowed, torch.finfo(dtype).min).unsqueeze(1)


def pack(prompts: Sequence[tuple[int, ...]], lengths: Sequence[int]) -> Packing | None:
    """Return how to pack rows by their prompts; None where that is not worth it.

    Args:
        prompts: of each row.
        lengths: completion tokens of each row; the last one of a completion is not read.
    """
    read = [max(0, length - 1) for length in lengths]
    plain = max(len(prompt) + more for prompt, more in zip(prompts, read, strict=True))
    groups = _groups(prompts, read, max(LONGEST, plain))
    width = max(len(prompts[group[0]]) + sum(read[i] for i in group) for group in groups)
    if len(groups) == len(prompts) or len(groups) * width > WORTH * len(prompts) * plain:
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
    """Return whether a network takes positions and a mask of its own, for sequences of `width` places."""
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
