"""Feedback that is easily read the wrong way round: kinds of scores, their direction, disagreement, splits, classes."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.imports import refused, warned
from helpers.texts import Rows, jsonl, said, save

from pmpo_offline.data import Dataset
from pmpo_offline.data.exchange.forms.templates import side_of
from pmpo_offline.runtime.errors import UserError

CARD = "---\ndataset_info:\n  features:\n  - name: label\n    dtype:\n      class_label:\n        names:\n"


imported = partial(warned, id="test/x-v0", overwrite=True)
refusal = partial(refused, imported)


def by_completion(dataset: Dataset, column: str) -> dict[str, Any]:
    texts = [text.strip() for text in dataset.table["completion"].to_pylist()]
    return dict(zip(texts, dataset.table[column].to_pylist(), strict=True))


def rows_with(name: str, *values: Any) -> Rows:
    return [{"prompt": f"p{i}", "completion": f"r{i}", name: value} for i, value in enumerate(values)]


@pytest.mark.parametrize("scores", [(5, True, 3), (True, 5, 3), (4, "false", 2), (0.5, 1, False)])
def test_true_beside_numbers_is_refused(home: Path, tmp_path: Path, scores: tuple[Any, ...]) -> None:
    assert "column rating holds" in refusal(jsonl(tmp_path / "rows.jsonl", rows_with("rating", *scores)))


def test_true_beside_one_and_zero_is_a_score(home: Path, tmp_path: Path) -> None:
    dataset, _ = imported(jsonl(tmp_path / "rows.jsonl", rows_with("rating", True, False, 1, 0)))
    assert by_completion(dataset, "label") == {"r0": True, "r1": False, "r2": True, "r3": False}


def test_an_underscore_is_no_digit(home: Path, tmp_path: Path) -> None:
    assert "found '1_0'" in refusal(jsonl(tmp_path / "rows.jsonl", rows_with("rating", "1_0")))


@pytest.mark.parametrize("name", ["rank", "ranking", "judge_rank"])
def test_ranks_count_from_the_best_down(home: Path, tmp_path: Path, name: str) -> None:
    dataset, _ = imported(jsonl(tmp_path / "rows.jsonl", rows_with(name, 1, 2, 3)), score=name)
    assert by_completion(dataset, "score") == {"r0": -1, "r1": -2, "r2": -3}
    assert by_completion(dataset, "label")["r0"] is True


@pytest.mark.parametrize("name", ["loss", "eval_loss", "perplexity", "toxicity", "position"])
def test_less_is_better_has_to_be_said(home: Path, tmp_path: Path, name: str) -> None:
    source = jsonl(tmp_path / "rows.jsonl", rows_with(name, 1, 2, 3))
    assert f"score=-{name}" in refusal(source, score=name)
    assert by_completion(imported(source, score=f"-{name}")[0], "score") == {"r0": -1, "r1": -2, "r2": -3}
    assert by_completion(imported(source, score=f"+{name}")[0], "score") == {"r0": 1, "r1": 2, "r2": 3}


@pytest.mark.parametrize("pattern", ["score_{}", "{}_score", "{}-rating"])
def test_pairs_whose_scores_say_otherwise_are_counted(home: Path, tmp_path: Path, pattern: str) -> None:
    chosen, rejected = pattern.format("chosen"), pattern.format("rejected")
    rows = [
        {"prompt": f"p{i}", "chosen": "a", "rejected": "b", chosen: high, rejected: low}
        for i, (high, low) in enumerate([(5.0, 1.0), (1.0, 5.0), (3.0, 3.0), (2.0, 4.0)])
    ]
    dataset, said = imported(jsonl(tmp_path / "rows.jsonl", rows))
    report = dataset.metadata.provenance.settings["report"]
    assert report["pairs_by_own_scores"] == {"chosen lower": 2, "chosen equal": 1}  # type: ignore[index, call-overload]
    assert any("2 lower and 1 equal" in each for each in said)


def test_equal_responses_with_other_scores_are_counted(home: Path, tmp_path: Path) -> None:
    rows = [*rows_with("rating", 5, 1, 3), {"prompt": "p0 ", "completion": " r0", "rating": 1}]
    dataset, said = imported(jsonl(tmp_path / "rows.jsonl", rows))
    assert dataset.metadata.provenance.settings["report"]["contradicting"] == 2  # type: ignore[index, call-overload]
    assert any("2 responses are the same text" in each for each in said)


def test_scores_that_float32_rounds_are_counted(home: Path, tmp_path: Path) -> None:
    dataset, said = imported(jsonl(tmp_path / "rows.jsonl", rows_with("score", 2**24 + 1, 2**24, 3)))
    assert dataset.metadata.provenance.settings["report"]["scores_rounded"] == 1  # type: ignore[index, call-overload]
    assert any("1 scores beyond 2^24" in each for each in said)


def test_columns_that_no_form_reads_are_listed(home: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "p", "completion": "r", "label": True, "weight": 0.5, "note": None, "source": "me"}]
    report = imported(jsonl(tmp_path / "rows.jsonl", rows))[0].metadata.provenance.settings["report"]
    assert report["columns_not_used"] == ["weight"]  # type: ignore[index, call-overload]


SPLITS = {
    "subset": ("train", "test"),
    "partition": ("train", "valid"),
    "set": ("training", "dev"),
    "fold": ("train", "test"),
    "isTest": (False, True),
    "is_train": (1, 0),
    "held_out": ("false", "true"),
    "data_split": ("train_prefs", "test_prefs"),
}


@pytest.mark.parametrize("name", SPLITS)
def test_columns_that_are_splits_are_kept(home: Path, tmp_path: Path, name: str) -> None:
    rows = [{**row, "label": True} for row in rows_with(name, *SPLITS[name] * 4)]
    dataset, _ = imported(jsonl(tmp_path / "rows.jsonl", rows))
    assert by_completion(dataset, "split") == {f"r{i}": ("train", "test")[i % 2] for i in range(8)}


def test_folds_and_splits_that_differ_are_refused(home: Path, tmp_path: Path) -> None:
    folds = jsonl(tmp_path / "rows.jsonl", [{**row, "label": True} for row in rows_with("fold", 0, 1, 2)])
    assert "line 1: column fold numbers the folds" in refusal(folds)
    assert len(imported(folds, test_share=0.5)[0]) == 3
    rows = [{**row, "label": True, "split": "test"} for row in rows_with("is_test", True, False)]
    assert "line 2: columns split and is_test say different splits" in refusal(jsonl(tmp_path / "b.jsonl", rows))
    other = jsonl(tmp_path / "c.jsonl", [{**row, "label": True} for row in rows_with("subset", "math", "code")])
    assert len(imported(other)[0]) == 2


TURNS = {
    "another value": ({"role": "user", "content": "q", "from": "human", "value": "p"}, "a content and another value"),
    "another role": ({"role": "user", "content": "q", "from": "gpt", "value": "q"}, "role 'user' and from 'gpt'"),
    "the same": ({"role": "user", "content": "q", "from": "human", "value": "q"}, None),
}


@pytest.mark.parametrize("case", TURNS)
def test_turns_that_say_two_things_are_refused(home: Path, tmp_path: Path, case: str) -> None:
    turn, problem = TURNS[case]
    source = jsonl(tmp_path / "rows.jsonl", [{"messages": [turn, said("q", "a")[1]], "label": True}])
    if problem is None:
        assert imported(source)[0].table["prompt"].to_pylist() == ["\n\nHuman: q\n\nAssistant:"]
    else:
        assert problem in refusal(source)


@pytest.mark.parametrize("beside", [{"rating": 1}, {"on the turn": {"feedback": "down"}}])
def test_own_feedback_beside_moderation_is_refused(home: Path, tmp_path: Path, beside: dict[str, Any]) -> None:
    turns = said("q", "a")
    turns[1] |= beside.pop("on the turn", {})
    row = {"conversation": turns, "openai_moderation": [{"flagged": False}] * 2, **beside}
    assert "both say what the answers are worth" in refusal(jsonl(tmp_path / "rows.jsonl", [row]))


CHAT = said("q", "a")
SHAREGPT = [{"value": "q", "from": "human"}, {"value": "a", "from": "gpt"}]
CELLS = {
    "values before names": (json.dumps(SHAREGPT), {"a": True}),
    "other keys first": (json.dumps([{"id": 1, **turn} for turn in CHAT]), {"a": True}),
    "a list for each key": (repr({"role": ["user", "assistant"], "content": ["q", "a"]}), {"a": True}),
    "an array of objects": (f"array({CHAT!r}, dtype=object)", {"a": True}),
    "broken off": (json.dumps(CHAT)[:-9], None),
    "without commas": (repr(CHAT).replace("}, {", "}\n {"), None),
}


@pytest.mark.parametrize("case", CELLS)
def test_conversations_in_cells_are_parsed_or_refused(home: Path, tmp_path: Path, case: str) -> None:
    cell, right = CELLS[case]
    source = save(tmp_path / "rows.csv", [{"messages": cell, "label": "1"}])
    if right is None:
        assert "line 2: expected a list as JSON or a Python literal" in refusal(source)
    else:
        assert by_completion(imported(source)[0], "label") == right


def test_other_literals_in_cells(home: Path, tmp_path: Path) -> None:
    rows = [
        {"prompt": "p", "completion": json.dumps([{"type": "text", "text": "Seven."}]), "feedback": '{"rating": "up"}'},
        {"prompt": "p", "completion": "b'Nine.'", "feedback": "down"},
        {"prompt": "p", "completion": "[1, 2]", "feedback": "{'rating': 'down'}"},
    ]
    dataset, _ = imported(save(tmp_path / "rows.csv", rows))
    assert by_completion(dataset, "label") == {"Seven.": True, "[1, 2]": False}
    assert dataset.metadata.provenance.settings["report"]["dropped"] == {  # type: ignore[index, call-overload]
        "completion is a Python literal of bytes, b'…': decode the column": 1
    }


def test_a_quote_that_swallows_rows_of_a_table_of_tabs_is_refused(home: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.tsv").write_text('prompt\tcompletion\tlabel\np\t"Hello\t1\nq\tx"\t0\n')
    assert "lines 2 to 3: a tab and a line break between two quotes" in refusal(tmp_path / "rows.tsv")


DESCRIBED = {
    "README.md": CARD + "          '0': accept\n          '1': reject\n---\n",
    "dataset_info.json": json.dumps({"features": {"label": {"_type": "ClassLabel", "names": ["accept", "reject"]}}}),
    "dataset_infos.json": json.dumps(
        {"default": {"features": {"label": {"_type": "ClassLabel", "names": ["accept", "reject"]}}}}
    ),
}


def test_classes_in_a_card_are_counted_by_their_numbers(home: Path, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    source, page = save(tmp_path / "set/train.jsonl", rows_with("label", 0, 1)), tmp_path / "set/README.md"
    page.write_text(CARD + "          '0': accept\n          '1': reject\n---\n")
    in_order = by_completion(imported(source)[0], "label")
    page.write_text(CARD + "          '1': reject\n          '0': accept\n---\n")
    assert by_completion(imported(source)[0], "label") == in_order
    page.write_text(CARD + "          '0': accept\n          '2': reject\n---\n")
    with pytest.raises(UserError, match=r"README.md: no class has the number 1, and 2 has a name"):
        imported(source)


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize("name", DESCRIBED)
def test_classes_that_a_folder_describes(home: Path, tmp_path: Path, name: str, ending: str) -> None:
    (tmp_path / "set/data").mkdir(parents=True)
    (tmp_path / "set" / name).write_text(DESCRIBED[name])
    save(tmp_path / f"set/data/train.{ending}", rows_with("label", 0, 1))
    for source in (tmp_path / "set", tmp_path / "set/data", tmp_path / f"set/data/train.{ending}"):
        dataset, _ = imported(source)
        assert by_completion(dataset, "label") == {"r0": True, "r1": False}
        assert name in dataset.metadata.provenance.hashes


def test_a_number_that_no_class_has_is_refused(home: Path, tmp_path: Path) -> None:
    table = pa.table({"prompt": ["p", "q"], "completion": ["a", "b"], "label": [0, 7]})
    features = {"label": {"names": ["good", "bad"], "_type": "ClassLabel"}}
    said = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(said), tmp_path / "a.parquet")
    assert "row 2: expected true, false, 1, 0, -1" in refused(imported, tmp_path / "a.parquet")
    assert "found 'class 7 of 2'" in refused(imported, tmp_path / "a.parquet")


def test_classes_that_differ_between_configurations_are_refused(home: Path, tmp_path: Path) -> None:
    feature = {"features": {"label": {"_type": "ClassLabel", "names": ["accept", "reject"]}}}
    other = {"features": {"label": {"_type": "ClassLabel", "names": ["no", "yes"]}}}
    save(tmp_path / "train.csv", rows_with("label", 0, 1))
    (tmp_path / "dataset_infos.json").write_text(json.dumps({"a": feature, "b": other}))
    assert "column label has other classes in other configurations" in refusal(tmp_path)


MARKUPS = {
    "Llama 4": (
        "<|header_start|>user<|header_end|>\n\n{}<|eot|><|header_start|>assistant<|header_end|>\n\n",
        "<|eot|>",
    ),
    "OpenAssistant": ("<|prompter|>{}<|endoftext|><|assistant|>", "<|endoftext|>"),
    "OpenChatKit": ("<human>: {}\n<bot>:", "\n"),
    "Granite": (
        "<|start_of_role|>user<|end_of_role|>{}<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>",
        "\n",
    ),
    "gpt-oss": ("<|start|>user<|message|>{}<|end|><|start|>assistant", "<|return|>"),
    "Human and AI": ("Human: {}\nAI:", "\n"),
    "a shop": ("Customer: {}\nAgent:", "\n"),
}


@pytest.mark.parametrize("name", MARKUPS)
def test_turns_of_one_conversation_fall_on_one_side(name: str) -> None:
    turn, end = MARKUPS[name]
    for i in range(20):
        first = turn.format(f"question {i}")
        assert side_of(first) == side_of(f"{first} answer {7 * i}{end}{turn.format('and then?')}")
    assert len({side_of(turn.format(f"question {i}")) for i in range(20)}) == 20


def test_answers_of_a_chat_front_end_follow_what_they_answer(home: Path, tmp_path: Path) -> None:
    """LibreChat's messages lie in order of time; two answers to one question are siblings."""
    turns = [
        {"messageId": "1", "parentMessageId": "0" * 8 + "-0000-0000-0000-" + "0" * 12, "isCreatedByUser": True},
        {"messageId": "2", "parentMessageId": "1", "isCreatedByUser": False, "feedback": {"rating": "thumbsDown"}},
        {"messageId": "3", "parentMessageId": "1", "isCreatedByUser": False, "feedback": {"rating": "thumbsUp"}},
        {"messageId": "4", "parentMessageId": "3", "isCreatedByUser": True},
        {"messageId": "5", "parentMessageId": "4", "isCreatedByUser": False},
    ]
    row = {"conversationId": "c", "messages": [{**turn, "text": f"text {turn['messageId']}"} for turn in turns]}
    dataset, _ = imported(jsonl(tmp_path / "rows.jsonl", [row]))
    assert by_completion(dataset, "label") == {"text 2": False, "text 3": True, "text 5": None}
    before = "\n\nHuman: text 1\n\nAssistant: text 3\n\nHuman: text 4\n\nAssistant:"
    assert by_completion(dataset, "prompt")["text 5"] == before


def test_pairs_of_wildfeedback(home: Path, tmp_path: Path) -> None:
    sides = {name: {"from": "gpt", "value": name} for name in ("chosen", "rejected")}
    row = {"conversations": [{"from": "human", "value": "q"}], **sides}
    dataset, _ = imported(jsonl(tmp_path / "rows.jsonl", [row]))
    assert by_completion(dataset, "label") == {"chosen": True, "rejected": False}
    assert set(dataset.table["prompt"].to_pylist()) == {"\n\nHuman: q\n\nAssistant:"}


def test_candidates_of_a_step_follow_the_steps_that_were_chosen(home: Path, tmp_path: Path) -> None:
    def step(chosen: int | None, human: str | None = None, **rated: int) -> dict[str, Any]:
        candidates = [{"text": text, "rating": rating} for text, rating in rated.items()]
        return {"completions": candidates, "chosen_completion": chosen, "human_completion": human}

    steps = [step(1, a=-1, b=0), step(None, "written", c=-1), step(None, d=1)]
    row = {"question": {"problem": "P?"}, "label": {"steps": steps, "finish_reason": "solution"}}
    dataset, _ = imported(jsonl(tmp_path / "rows.jsonl", [row]))
    assert by_completion(dataset, "label") == {"a": False, "b": None, "c": False, "d": True}
    assert by_completion(dataset, "prompt") == {"a": "P?\n", "b": "P?\n", "c": "P?\nb\n", "d": "P?\nb\nwritten\n"}


def test_a_system_message_that_says_nothing_is_none(home: Path, tmp_path: Path) -> None:
    turns = [{"role": "system", "content": ""}, *said("q", "a")]
    rated = [turns[0], turns[1], turns[2] | {"feedback": "up"}]
    for name, row in {"whole": {"messages": turns, "label": True}, "turns": {"messages": rated}}.items():
        dataset, _ = imported(jsonl(tmp_path / f"{name}.jsonl", [row]))
        assert by_completion(dataset, "prompt") == {"a": "\n\nHuman: q\n\nAssistant:"}
        assert by_completion(dataset, "label") == {"a": True}
