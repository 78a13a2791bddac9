"""Tokenize prompts and completions, and collate rows into one padded batch with the places of the completions.

::

    row          p p p | c c c e              prompt, completion, and the end-of-sequence token if it is trained on
    ids          p p p   c c c . .            input of the network: nothing follows the last token
    place            ^   ^ ^ ^              the state here predicts the next token
    target           c   c c e

Rows are padded on the right. Attention looks to the left only, so no state at a `place` ever sees the padding, and no
mask is needed.

A batch also knows how to put the completions of one prompt into one sequence, where that saves enough (`Packing`)::

    rows         p p p a a a     p p p b b          each reads its prompt
    packed       p p p a a a b b                    a and b both follow p, and do not see one another
    position     0 1 2 3 4 5 3 4
    segment      0 0 0 1 1 1 2 2                    0: the prompt, which every completion sees

The states are those of the separate rows, up to rounding. It takes a network that accepts positions and a mask
(`scoring.shares_prompts`).
"""

from __future__ import annotations

import copy
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Reduction = Literal["sum", "mean"]
"""Over the tokens of a completion: log-probability of the whole, or of the average token."""
LONGEST = 512
"""Tokens of a packed sequence, unless a row alone is longer: attention grows with their square."""
MOST_PACKED = 0.9
"""Rows are packed if that leaves at most this share of the places, padding counted."""
PREFIX = "prompt_prefix"
"""Key in a tokenizer's `init_kwargs`, and so in its tokenizer_config.json, of the text that it puts before prompts."""
_BEFORE = "{% set unprefixed +%}"
_AFTER = (
    "{%+ endset +%}{% set begin = bos_token if bos_token and unprefixed.startswith(bos_token) else '' +%}"
    "{{ begin + PREFIX + unprefixed[begin|length:] }}"
)
"""Around a chat template, in the language of these: what it writes, with the text behind its beginning token."""


class Tokens(NamedTuple):
    """One row."""

    prompt: tuple[int, ...]
    """At least one token: the first token of a completion is predicted from something."""
    completion: tuple[int, ...]
    """With the end-of-sequence token if it is trained on; may be empty."""


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


@dataclass(frozen=True)
class TokenBatch:
    """B rows side by side, and the N tokens of all their completions, row after row."""

    ids: Tensor
    """(B, T) int64, input of the network; see the diagram above."""
    row: Tensor
    """(N,) int64, the row of each completion token."""
    place: Tensor
    """(N,) int64, the position whose state predicts it."""
    target: Tensor
    """(N,) int64, the token itself."""
    length: Tensor
    """(B,) int64, the completion tokens of each row; they sum to N."""
    packing: Packing | None = None
    """How to read shared prompts once; None if that saves too little."""

    def reduce(self, values: Tensor, how: Reduction) -> Tensor:
        """Return the sum or mean over each completion's tokens: (N,) -> (B,). An empty completion has 0 of either."""
        total = values.new_zeros(len(self.length)).index_add(0, self.row, values)
        return total if how == "sum" else total / self.length.clamp(min=1)

    def to(self, device: torch.device | str) -> TokenBatch:
        """Return the batch on a device."""
        return replace(self, **{name: part.to(device) for name, part in vars(self).items() if part is not None})


def prefix_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the text that a tokenizer puts before every prompt, empty if none."""
    return str(tokenizer.init_kwargs.get(PREFIX, ""))


def with_prefix(tokenizer: PreTrainedTokenizerBase, text: str) -> PreTrainedTokenizerBase:
    """Return a tokenizer that puts this text, and no other, before every prompt, in its chat template too.

    A model that was trained behind the text is thus asked behind it wherever its tokenizer goes, on the disk as well.
    Elsewhere than in `prompt_tokens` and the template, a text is tokenized as it is. The tokenizer itself stays as it
    is; an empty text gives it without one.
    """
    if prefix_of(tokenizer) == text:
        return tokenizer
    changed, templates = copy.deepcopy(tokenizer), tokenizer.chat_template
    changed.init_kwargs.pop(PREFIX, None)
    if text:
        changed.init_kwargs[PREFIX] = text
    if isinstance(templates, dict):  # by name
        changed.chat_template = {name: _rewritten(each, prefix_of(tokenizer), text) for name, each in templates.items()}
    elif templates:
        changed.chat_template = _rewritten(templates, prefix_of(tokenizer), text)
    return changed


def _rewritten(template: str, old: str, new: str) -> str:
    """Return a chat template with another text before its prompts."""
    after = [_AFTER.replace("PREFIX", json.dumps(text, ensure_ascii=False)) for text in (old, new)]
    if old:
        template = template.removeprefix(_BEFORE).removesuffix(after[0])
    return _BEFORE + template.removesuffix("\n") + after[1] if new else template


def _prefixed(tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    """Return a prompt behind its text, which goes after a beginning token that the prompt spells out."""
    begin = tokenizer.bos_token if tokenizer.bos_token and prompt.startswith(tokenizer.bos_token) else ""
    return begin + prefix_of(tokenizer) + prompt.removeprefix(begin)


def tokenize(
    tokenizer: PreTrainedTokenizerBase, prompt: str, completion: str, *, ends: bool, longest: int | None = None
) -> Tokens:
    """Return the tokens of a row, the prompt's being `prompt_tokens`.

    The completion is tokenized together with its prompt, as the network wrote it, because some tokenizers put a blank
    before a text of its own. If a token would span both, it is tokenized alone instead: prompts never change.

    Args:
        tokenizer: any of transformers'.
        prompt: what the network continues, in its own chat template if it has one.
        completion: without the end-of-sequence token (if it is there it is not doubled).
        ends: whether the end-of-sequence token follows.
        longest: the largest number of completion tokens, the end counted. A longer completion is cut, and then does not
            end: no token is overwritten.

    Raises:
        ValueError: an empty prompt, or an end, for a tokenizer that has no token for it.
    """
    head, prompt = prompt_tokens(tokenizer, prompt), _prefixed(tokenizer, prompt)
    start = len(head)
    tail: list[int] = _plain(tokenizer, prompt + completion)
    if head[0] == tokenizer.bos_token_id and tail[:1] != [tokenizer.bos_token_id]:
        tail = [tokenizer.bos_token_id, *tail]
    tail = tail[start:] if prompt and tuple(tail[:start]) == head else _plain(tokenizer, completion)
    if ends and tail[-1:] != [_end(tokenizer)]:
        tail = [*tail, _end(tokenizer)]
    return Tokens(head, tuple(tail[:longest]))


def tokenize_jointly(tokenizer: PreTrainedTokenizerBase, prompt: str, completion: str, *, chat: bool) -> Tokens:
    """Return the tokens of a row as TRL has them: the completion begins at the first token that is not the prompt's.

    A token that spans both belongs to the completion, and the end of the prompt that it covers is left out.

    Args:
        tokenizer: any of transformers'.
        prompt: a text, or what the chat template made of the messages.
        completion: likewise.
        chat: whether the template has written the special tokens. If not the tokenizer adds its own, and the
            end-of-sequence token follows.
    """
    prompt = _prefixed(tokenizer, prompt)
    end = "" if chat or completion.endswith(tokenizer.eos_token) else tokenizer.eos_token
    head: list[int] = tokenizer(prompt, add_special_tokens=not chat).input_ids
    whole: list[int] = tokenizer(prompt + completion + end, add_special_tokens=not chat).input_ids
    start = max(1, common_prefix(head, whole))  # the first token of all is predicted from nothing
    return Tokens(tuple(whole[:start]), tuple(whole[start:]))


def common_prefix(one: Sequence[Any], other: Sequence[Any]) -> int:
    """Return how many elements two sequences begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (mine, theirs) in pairs if mine != theirs), min(len(one), len(other)))


def prompt_tokens(tokenizer: PreTrainedTokenizerBase, prompt: str) -> tuple[int, ...]:
    """Return the tokens of a prompt, behind the text of a tokenizer that has one (`with_prefix`).

    It begins with the beginning-of-sequence token only if the tokenizer itself would add one, and not twice if the text
    already spells it out. An empty prompt is the beginning token, or else the end token.

    Raises:
        ValueError: an empty prompt for a tokenizer that has neither.
    """
    ids, begin = _plain(tokenizer, _prefixed(tokenizer, prompt)), tokenizer.bos_token_id
    adds = begin is not None and tokenizer("").input_ids[:1] == [begin]
    if adds and ids[:1] != [begin]:
        ids = [begin, *ids]
    return tuple(ids) or (_end(tokenizer) if begin is None else begin,)


def collate(rows: Sequence[Tokens], pad: int = 0) -> TokenBatch:
    """Return rows as one batch.

    Args:
        rows: one or more.
        pad: fills `ids` on the right; any token does.

    Raises:
        ValueError: no rows, or a row without a prompt.
    """
    if not rows or not all(row.prompt for row in rows):
        raise ValueError("a batch needs rows, and every row a prompt of one token or more")
    read = [prompt + completion[:-1] for prompt, completion in rows]
    ids = torch.full((len(rows), max(map(len, read))), pad)
    for i, tokens in enumerate(read):
        ids[i, : len(tokens)] = torch.tensor(tokens)
    length = torch.tensor([len(row.completion) for row in rows])
    row = torch.arange(len(rows)).repeat_interleave(length)
    first = torch.tensor([len(row.prompt) - 1 for row in rows])
    before = length.cumsum(0) - length  # completion tokens of all rows above
    place = torch.arange(len(row)) - before[row] + first[row]
    target = torch.tensor([token for tokens in rows for token in tokens.completion], dtype=torch.int64)
    packing = pack([row.prompt for row in rows], length.tolist())
    return TokenBatch(ids, row, place, target, length, packing)


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


def _plain(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    return ids


def _end(tokenizer: PreTrainedTokenizerBase) -> int:
    if (end := tokenizer.eos_token_id) is None:
        raise ValueError("the tokenizer has no end-of-sequence token")
    return int(end)
