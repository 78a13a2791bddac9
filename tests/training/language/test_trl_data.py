"""TRL's forms of a dataset: what is read from them, and the one line that says what is wrong with one."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from helpers.small_language import byte_tokenizer
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

import datasets
from pmpo_offline.data import Dataset
from pmpo_offline.policies.language.tokens import Tokens
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.tasks.language.tiny import tokenizer
from pmpo_offline.training.language.responses import TokenizedResponses, take_split, tokenize_responses
from pmpo_offline.training.language.trl_data import dataset_of

TEMPLATE = (
    "{% for m in messages %}{{ m['content'] }}{% if m['role'] == 'user' %}={% else %}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{% endif %}"
)


def tokens_of(dataset: Dataset, read_by: Any = None) -> TokenizedResponses:
    return tokenize_responses(take_split(dataset, "train"), read_by or tokenizer(), 32)


def test_unpaired_rows_keep_their_order_and_their_labels() -> None:
    rows = datasets.Dataset.from_dict(
        {"prompt": ["ab=", "ab=", "cd="], "completion": ["ba", "ab", "dc"], "label": [True, False, None]}
    )
    found = tokens_of(dataset_of(rows, tokenizer()))
    assert found.label.tolist() == [1, -1, 0]
    assert found.prompt.tolist() == [0, 0, 1]
    end = tokenizer().eos_token_id
    assert all(completion[-1] == end and len(completion) == 3 for _, completion in found.tokens)
    zero_one = [{"prompt": "ab=", "completion": "ba", "label": value} for value in (1, 0, 1.0)]
    assert tokens_of(dataset_of(zero_one, tokenizer())).label.tolist() == [1, -1, 1]


@pytest.mark.parametrize(
    ("names", "right"),
    [
        (["reject", "accept"], [-1, 1, 0]),
        (["accept", "reject"], [1, -1, 0]),
        (["good", "neutral"], [1, 0, 0]),
        (["0", "1"], [-1, 1, 0]),
    ],
)
def test_names_of_classes_say_which_label_is_accept(names: list[str], right: list[int]) -> None:
    features = {name: datasets.Value("string") for name in ("prompt", "completion")}
    features |= {"label": datasets.ClassLabel(names=names)}
    columns = {"prompt": ["ab="] * 3, "completion": ["ba", "ab", "b"], "label": [0, 1, None]}
    rows = datasets.Dataset.from_dict(columns, datasets.Features(features))
    assert tokens_of(dataset_of(rows, tokenizer())).label.tolist() == right


def test_names_of_classes_that_mean_nothing_are_refused() -> None:
    features = {name: datasets.Value("string") for name in ("prompt", "completion")}
    features |= {"label": datasets.ClassLabel(names=["label_0", "label_1"])}
    columns = {"prompt": ["ab="], "completion": ["ba"], "label": [1]}
    rows = datasets.Dataset.from_dict(columns, datasets.Features(features))
    with pytest.raises(UserError, match="row 0: label is of a class 'label_1', which is not known to mean accept"):
        dataset_of(rows, tokenizer())


def test_columns_that_would_change_a_prompt_are_warned_of() -> None:
    row = {"prompt": "ab=", "completion": "ba", "label": True, "source": "x", "images": []}
    with pytest.warns(UserWarning, match="not read: input, system; put what they say into prompt"):
        dataset_of([row | {"system": "a"}, row | {"system": None, "input": "b"}], tokenizer())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset_of([row], tokenizer())


def test_paired_rows_are_pairs_of_their_own() -> None:
    rows = [{"prompt": "ab=", "chosen": "ba", "rejected": bad} for bad in ("ab", "aa")]
    found = tokens_of(dataset_of(rows, tokenizer()))
    assert found.label.tolist() == [1, -1, 1, -1]
    assert found.pairs.tolist() == [[0, 1], [2, 3]]  # not all four that the prompt would make


@pytest.mark.parametrize("form", ["unpaired", "paired"])
def test_conversations_go_through_the_chat_template_and_end_as_it_ends(form: str) -> None:
    own = tokenizer()
    own.chat_template = TEMPLATE

    def says(role: str, text: str) -> list[dict[str, str]]:
        return [{"role": role, "content": text}]

    good, bad = says("assistant", "ba"), says("assistant", "a")
    row: dict[str, Any] = {"prompt": says("user", "ab")}
    if form == "paired":
        rows = [{**row, "chosen": good, "rejected": bad}]
    else:
        rows = [{**row, "completion": good, "label": True}, {**row, "completion": bad, "label": False}]
    found = tokens_of(dataset_of(datasets.Dataset.from_list(rows), own), own)
    plain = tokens_of(dataset_of([{"prompt": "ab=", "chosen": "ba", "rejected": "a"}], own), own)
    assert found.tokens == plain.tokens  # one end, not two
    assert np.array_equal(found.pairs, [[0, 1]])


def test_conversations_without_a_prompt_share_their_first_messages() -> None:
    own = tokenizer()
    own.chat_template = TEMPLATE
    asked, good, bad = (
        {"role": role, "content": text} for role, text in (("user", "ab"), ("assistant", "ba"), ("assistant", "a"))
    )
    implied = dataset_of([{"chosen": [asked, good], "rejected": [asked, bad]}], own)
    plain = dataset_of([{"prompt": "ab=", "chosen": "ba", "rejected": "a"}], own)
    assert tokens_of(implied, own).tokens == tokens_of(plain, own).tokens
    beside_a_text = dataset_of([{"prompt": "ab", "chosen": [asked, good], "rejected": [asked, bad]}], own)
    assert tokens_of(beside_a_text, own).tokens == tokens_of(plain, own).tokens
    equal = tokens_of(dataset_of([{"chosen": [asked, good], "rejected": [asked, good]}], own), own)
    assert equal.tokens[0] == equal.tokens[1] == tokens_of(plain, own).tokens[0]  # as in TRL: the last message differs
    with pytest.raises(UserError, match="has no rows that can be used: 1 with an empty rejected"):
        dataset_of([{"chosen": [asked, good], "rejected": [asked]}], own)
    with pytest.raises(UserError, match="row 0 has chosen, rejected: it needs prompt"):
        dataset_of([{"chosen": [asked, good], "rejected": [good, bad]}], own)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"train": [], "test": []}, r'mine is a dictionary of train, test: choose a split, as in dataset\["train"\]'),
        ("train.jsonl", "row 0 is a str: give a datasets.Dataset"),
        (3, "mine is a int: give a datasets.Dataset"),
    ],
)
def test_what_is_no_rows_is_said_in_one_line(rows: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        dataset_of(rows, tokenizer(), "mine")


def test_a_beginning_that_the_template_writes_is_not_doubled() -> None:
    own = tokenizer()
    own.add_special_tokens({"bos_token": "<s>"})
    own.chat_template = "<s>" + TEMPLATE
    messages = [{"role": "user", "content": "ab"}], [{"role": "assistant", "content": "ba"}]
    found = tokens_of(dataset_of([{"prompt": messages[0], "completion": messages[1], "label": True}], own), own)
    ids = found.tokens[0].prompt + found.tokens[0].completion
    assert ids.count(own.bos_token_id) == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a=", "label": True}, "row 1 has label, prompt: it needs prompt, completion and label"),
        ({"completion": "a", "label": True}, "it needs prompt, completion and label"),
        ({"prompt": "a=", "chosen": "a"}, "it needs prompt"),
        ({"prompt": "a=", "completion": None, "label": True}, "row 1 has label, prompt"),
        ({"prompt": "a=", "completion": "a", "label": "good"}, "label 'good' is neither a Boolean nor 0 or 1"),
        ({"prompt": "a=", "completion": "a", "label": 0.5}, "label 0.5 is neither"),
        ({"prompt": "a=", "completion": 3, "label": True}, "row 1, completion: a int is neither a text nor a list"),
        ({"prompt": {"a": 1}, "completion": "a", "label": True}, "row 1, prompt: a dict is neither a text nor a list"),
        ({"prompt": "a=", "chosen": "a", "rejected": "b"}, "row 1: rows with a label and pairs do not go together"),
        ({"chosen": "a=a", "rejected": "b=b"}, "row 1 has chosen, rejected: it needs prompt"),
        ({"prompt": [{"role": "user", "content": "a"}], "completion": "a", "label": True}, "one form for all rows"),
        (
            {"prompt": [{"role": "user", "content": "a"}], "completion": [], "label": True},
            "one form for all rows",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(row: dict[str, Any], message: str) -> None:
    good = {"prompt": "a=", "completion": "a", "label": True}
    with pytest.raises(UserError, match=message) as caught:
        dataset_of([good, row], tokenizer(), "mine")
    assert "\n" not in str(caught.value)


def test_tools_and_options_of_a_row_reach_the_template() -> None:
    own = tokenizer()
    own.chat_template = "{% if tools %}{{ tools[0]['name'] }}{% endif %}{{ mark }}" + TEMPLATE
    row = {"prompt": [{"role": "user", "content": "ab"}], "completion": [{"role": "assistant", "content": "ba"}]}
    for tools in ([{"name": "f"}], '[{"name": "f"}]'):
        rows = [{**row, "label": True, "tools": tools, "chat_template_kwargs": {"mark": "h"}}]
        assert dataset_of(rows, own).table["prompt"].to_pylist() == ["fhab="]
    for tools in (None, [], "[]", " "):
        assert dataset_of([{**row, "label": True, "tools": tools}], own).table["prompt"].to_pylist() == ["ab="]
    with pytest.raises(UserError, match="the chat template refuses it"):
        dataset_of([{**row, "label": True, "tools": "f"}], own)


def test_rows_that_cannot_be_learned_from_are_left_out_and_counted() -> None:
    good = {"prompt": "a=", "completion": "a", "label": True}
    rows = [good, {**good, "completion": " "}, {**good, "prompt": ""}, {**good, "prompt": "abcdefgh="}, good]
    reasons = "1 with an empty completion, 1 with an empty prompt, 1 with a prompt that leaves no room in 9 tokens"
    with pytest.warns(UserWarning, match=f"mine: left out 3 of 5 rows: {reasons}"):
        found = dataset_of(rows, tokenizer(), "mine", 9)
    assert found.table["prompt"].to_pylist() == ["a=", "a="]
    with pytest.raises(UserError, match="mine has no rows that can be used: 1 with an empty completion"):
        dataset_of(rows[1:2], tokenizer(), "mine")
    own = tokenizer()
    own.chat_template = TEMPLATE
    row = {"prompt": [{"role": "user", "content": "a"}], "label": True}
    answers = [{"role": "assistant", "content": text} for text in ("a", "", None)]
    chats = [{**row, "completion": [answer]} for answer in answers]
    with pytest.warns(UserWarning, match="left out 2 of 3 rows: 2 with an empty completion"):
        assert len(dataset_of(chats, own)) == 1


def test_pairs_of_texts_share_their_beginning_as_the_prompt() -> None:
    own = byte_tokenizer()
    rows = [{"chosen": "The sky is blue.", "rejected": "The sky is green."}]
    implied, plain = dataset_of(rows, own), {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}
    assert implied.table.equals(dataset_of([plain], own).table)


def test_a_text_prompt_beside_answers_is_the_users_message() -> None:
    own = tokenizer()
    own.chat_template = TEMPLATE
    good, bad = ([{"role": "assistant", "content": text}] for text in ("ba", "a"))
    asked = [{"role": "user", "content": "ab"}]
    for form in ({"chosen": good, "rejected": bad}, {"completion": good, "label": True}):
        found = dataset_of([{"prompt": "ab", **form}], own)
        assert found.table.equals(dataset_of([{"prompt": asked, **form}], own).table)


def test_a_prompt_that_the_template_writes_otherwise_ends_where_they_differ() -> None:
    own = tokenizer()
    own.chat_template = (
        "{% for m in messages %}{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}=c{% endif %}"
    )
    row = {"prompt": [{"role": "user", "content": "ab"}], "completion": [{"role": "assistant", "content": "=d"}]}
    found = dataset_of([{**row, "label": True}], own)
    assert found.table.select(["prompt", "completion"]).to_pylist() == [{"prompt": "ab=", "completion": "d"}]


def test_the_completions_of_a_pair_begin_at_one_place() -> None:
    words = Tokenizer(BPE({letter: n for n, letter in enumerate(["a", "b", "ab", "<end>"])}, [("a", "b")]))
    read = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>")
    found = tokens_of(dataset_of([{"prompt": "ba", "chosen": "a", "rejected": "b"}], read), read)
    assert found.tokens == [Tokens((1,), (0, 0, 3)), Tokens((1,), (2, 3))]
    assert found.paired


def test_a_conversation_needs_a_template_and_a_prompt_needs_room() -> None:
    chat = {"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "a"}]}
    chat["label"] = True
    with pytest.raises(UserError, match="needs a chat template"):
        dataset_of([chat], tokenizer())
    with pytest.raises(UserError, match="has no rows"):
        dataset_of([], tokenizer(), "mine")
    rows = dataset_of([{"prompt": "abcdefgh=", "completion": "abc", "label": True}], tokenizer(), "mine")
    with pytest.raises(UserError, match="prompt of row 0 has 9 tokens and the context 9"):
        tokenize_responses(rows, tokenizer(), 9)
    cut = tokenize_responses(rows, tokenizer(), 11).tokens[0]
    assert len(cut.completion) == 2
    assert tokenizer().eos_token_id not in cut.completion
