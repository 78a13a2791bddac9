"""Tokenize prompts and completions, and collate rows into one padded batch with the places of the completions.

::

    row          p p p | c c c e              prompt, completion, and the end-of-sequence token if it is trained on
    ids          p p p   c c c . .            input of the network: nothing follows the last token
    place            ^   ^ ^ ^              the state here predicts the next token
    target           c   c c e

Rows are padded on the right. Attention looks to the left only, so no state at a `place` ever sees the padding, and no
mask is needed.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from pmpo_offline.policies.language.packing import Packing, pack

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Reduction = Literal["sum", "mean"]
"""Over the tokens of a completion: log-probability of the whole, or of the average token."""
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


def _plain(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    return ids


def _end(tokenizer: PreTrainedTokenizerBase) -> int:
    if (end := tokenizer.eos_token_id) is None:
        raise ValueError("the tokenizer has no end-of-sequence token")
    return int(end)
