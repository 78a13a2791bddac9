"""Rows of tokens from text: no second beginning, an optional end, and prompts that are never changed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import BPE, WordLevel
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from pmpo_offline.policies.language.tokens import Tokens, collate, prompt_tokens, tokenize, tokenize_jointly

WORDS = ["<s>", "</s>", "<unk>", "a", "b", "c", "▁", "▁a", "▁b", "▁c"]
BEGIN, END = 0, 1
A, B, C = 3, 4, 5


def make(begins: bool = False, blanks: bool = False, **special: str | None) -> PreTrainedTokenizerFast:
    """One token a word; `begins`: adds a beginning; `blanks`: writes a blank before a text, as Llama 2 does."""
    inner = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Metaspace() if blanks else pre_tokenizers.WhitespaceSplit()
    if begins:
        inner.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BEGIN)])
    names: dict[str, Any] = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", **special}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **names)


def test_prompt_and_completion_with_and_without_an_end():
    plain = make()
    assert tokenize(plain, "a b", " c", ends=False) == Tokens((A, B), (C,))
    assert tokenize(plain, "a b", " c", ends=True) == Tokens((A, B), (C, END))
    assert tokenize(plain, "a b", " c</s>", ends=True) == Tokens((A, B), (C, END))


def test_a_beginning_only_where_the_tokenizer_adds_one_and_never_two():
    assert prompt_tokens(make(), "a") == (A,)
    assert prompt_tokens(make(begins=True), "a") == (BEGIN, A)
    assert prompt_tokens(make(begins=True), "<s> a") == (BEGIN, A)
    assert tokenize(make(begins=True), "a", " b", ends=True) == Tokens((BEGIN, A), (B, END))
    assert tokenize(make(begins=True), "<s> a", " b", ends=True) == Tokens((BEGIN, A), (B, END))


def test_a_completion_that_is_too_long_loses_its_end_and_keeps_its_tokens():
    plain = make()
    assert tokenize(plain, "a", " a b c", ends=True, longest=4).completion == (A, B, C, END)
    assert tokenize(plain, "a", " a b c", ends=True, longest=3).completion == (A, B, C)
    assert tokenize(plain, "a", " a b c", ends=True, longest=2).completion == (A, B)


def test_no_blank_is_made_up_between_prompt_and_completion():
    blanks = make(blanks=True)
    assert prompt_tokens(blanks, "a") == (7,)
    assert tokenize(blanks, "a", " b", ends=False) == Tokens((7,), (8,))


def test_a_token_across_the_border_leaves_the_prompt_as_it_is():
    merging = Tokenizer(BPE({"<unk>": 0, "a": 1, "b": 2, "ab": 3, "</s>": 4}, [("a", "b")], unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=merging, eos_token="</s>", unk_token="<unk>")
    assert tokenizer("ab").input_ids == [3]
    assert tokenize(tokenizer, "a", "b", ends=True) == Tokens((1,), (2, 4))


def test_empty_texts():
    assert tokenize(make(), "a", "", ends=False) == Tokens((A,), ())
    assert tokenize(make(), "a", "", ends=True) == Tokens((A,), (END,))
    assert tokenize(make(), "", "b", ends=False) == Tokens((BEGIN,), (B,))
    assert tokenize(make(begins=True), "", "b", ends=False) == Tokens((BEGIN,), (B,))
    assert tokenize(make(bos_token=None), "", "b", ends=False) == Tokens((END,), (B,))
    with pytest.raises(ValueError, match="no end-of-sequence token"):
        tokenize(make(eos_token=None), "a", "b", ends=True)


def test_a_batch_by_hand():
    batch = collate([Tokens((5, 6, 7), (8, 9)), Tokens((4,), ()), Tokens((3,), (2, 1, 0))], pad=11)
    assert batch.ids.tolist() == [[5, 6, 7, 8], [4, 11, 11, 11], [3, 2, 1, 11]]
    assert batch.row.tolist() == [0, 0, 2, 2, 2]
    assert batch.place.tolist() == [2, 3, 0, 1, 2]
    assert batch.target.tolist() == [8, 9, 2, 1, 0]
    assert batch.length.tolist() == [2, 0, 3]


def test_reducing_by_hand_and_never_nan():
    batch = collate([Tokens((5,), (8, 9)), Tokens((4,), ()), Tokens((3,), (2, 1, 0))])
    values = torch.tensor([1.0, 2, 3, 4, 8], requires_grad=True)
    assert batch.reduce(values, "sum").tolist() == [3, 0, 15]
    mean = batch.reduce(values, "mean")
    assert mean.tolist() == [1.5, 0, 5]
    mean.sum().backward()
    torch.testing.assert_close(values.grad, torch.tensor([1 / 2, 1 / 2, 1 / 3, 1 / 3, 1 / 3]))


def test_a_batch_of_nothing_but_empty_completions():
    batch = collate([Tokens((5,), ()), Tokens((4,), ())])
    assert batch.ids.shape == (2, 1)
    assert batch.reduce(torch.zeros(0), "mean").tolist() == [0, 0]


@pytest.mark.parametrize("rows", [[], [Tokens((), (1,))]])
def test_rows_need_a_prompt(rows: list[Tokens]):
    with pytest.raises(ValueError, match="a prompt of one token"):
        collate(rows)


def test_jointly_a_token_that_spans_the_boundary_belongs_to_the_completion() -> None:
    words = {"a": 0, "b": 1, "ab": 2, "<end>": 3, "<bos>": 4}
    whole = Tokenizer(BPE(words, [("a", "b")]))
    whole.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 4)])
    read = PreTrainedTokenizerFast(tokenizer_object=whole, eos_token="<end>", bos_token="<bos>")
    assert tokenize_jointly(read, "ba", "a", chat=False) == Tokens((4, 1, 0), (0, 3))
    assert tokenize_jointly(read, "ba", "b", chat=False) == Tokens((4, 1), (2, 3))  # "ab" is one token
    assert tokenize_jointly(read, "ba", "b<end>", chat=False) == Tokens((4, 1), (2, 3))
    assert tokenize_jointly(read, "ba", "b<end>", chat=True) == Tokens((1,), (2, 3))  # the template writes them
    assert tokenize_jointly(read, "a", "b", chat=True) == Tokens((2,), ())
    assert tokenize(read, "ba", "b", ends=True) == Tokens((4, 1, 0), (1, 3))  # of our own prompts none changes
