"""What makes texts other than they seem is counted in the report of an import and warned of; nothing is altered."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers.imports import labels, refused, report, warned
from helpers.texts import jsonl, said

from pmpo_offline.build import show

Rows = list[dict[str, Any]]
pytestmark = pytest.mark.usefixtures("home")
imported = partial(warned, id="test/x-v0", overwrite=True)


def rows(count: int = 4, **columns: list[Any]) -> Rows:
    found: Rows = [{"prompt": f"p{i}", "completion": f"r{i}", "label": i % 2 == 0} for i in range(count)]
    return [row | {name: values[i] for name, values in columns.items()} for i, row in enumerate(found)]


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("finish_reason", ["stop", "length", "MAX_TOKENS", "eos"]),
        ("finishReason", ["STOP", "MAX_TOKENS", "content_filter", None]),
        ("stop_reason", ["end_turn", "max_tokens", "max_tokens", "tool_use"]),
        ("truncated", [False, True, True, False]),
    ],
)
def test_answers_that_were_cut_off_are_kept_and_counted(tmp_path: Path, column: str, values: list[Any]) -> None:
    dataset, said = imported(jsonl(tmp_path / "rows.jsonl", rows(**{column: values})))
    assert len(labels(dataset)) == 4
    assert report(dataset)["cut_off"] == 2
    assert show(dataset)["report"]["cut_off"] == 2
    assert "columns_not_used" not in report(dataset)
    assert any(line.startswith("2 responses were cut off, as the source says") for line in said)


def test_turns_that_were_cut_off_are_counted(tmp_path: Path) -> None:
    turns = said("q", "a", "r", "b")
    turns[1]["finish_reason"], turns[3]["finish_reason"] = "length", "stop"
    counts = {}
    for name, row in {
        "its last turn": {"messages": turns, "label": 1},
        "every turn": {"messages": turns},
        "the row": {"messages": said("q", "a", "r", "b"), "finish_reason": "length", "label": 1},
        "turns of a row": {"conversation": turns, "openai_moderation": None, "finish_reason": "length"},
    }.items():
        counts[name] = report(imported(jsonl(tmp_path / "rows.jsonl", [row]))[0]).get("cut_off", 0)
    assert counts == {"its last turn": 0, "every turn": 1, "the row": 1, "turns of a row": 2}


def test_repeated_responses_are_counted_with_their_labels(tmp_path: Path) -> None:
    once = rows()
    dataset, said = imported(jsonl(tmp_path / "rows.jsonl", [*once, once[0], {**once[0], "completion": " r0"}]))
    assert report(dataset)["repeated"] == 2
    assert any(line.startswith("2 responses repeat another one, with its label") for line in said)
    other = [*once, once[0] | {"label": False}, once[1] | {"label": None}, once[1] | {"label": None}]
    dataset, said = imported(jsonl(tmp_path / "rows.jsonl", other))
    assert (report(dataset)["repeated"], report(dataset)["contradicting"]) == (1, 2)
    one_in_many = rows(20) + rows(1)
    assert not any("repeat another" in line for line in imported(jsonl(tmp_path / "rows.jsonl", one_in_many))[1])


def test_splits_that_hold_the_same_rows_are_repetitions(tmp_path: Path) -> None:
    for name in ("train_prefs", "train_sft", "test_prefs", "test_sft"):  # as H4's ultrafeedback_binarized
        ask = name.partition("_")[0]
        jsonl(tmp_path / f"{name}.jsonl", [{"prompt": ask, "chosen": said(ask, "a"), "rejected": said(ask, "b")}])
    dataset, warnings = imported(tmp_path)
    assert report(dataset)["repeated"] == 4
    assert any("4 responses repeat another one" in line for line in warnings)


def test_responses_that_hold_their_prompt_are_counted(tmp_path: Path) -> None:
    whole = [row | {"completion": f"{row['prompt']} {row['completion']}"} for row in rows()]
    dataset, said = imported(jsonl(tmp_path / "rows.jsonl", whole))
    assert report(dataset)["responses_that_begin_with_the_prompt"] == 4
    assert any("4 responses begin with the whole prompt" in line for line in said)
    assert not any("whole prompt" in line for line in imported(jsonl(tmp_path / "a.jsonl", whole[:1] + rows()[1:]))[1])


@pytest.mark.parametrize("mark", ["</s>", "<|im_end|>\n", "<|eot_id|>"])
def test_marks_of_an_end_are_counted(tmp_path: Path, mark: str) -> None:
    marked = [row | {"completion": row["completion"] + mark} for row in rows()]
    dataset, said = imported(jsonl(tmp_path / "rows.jsonl", marked))
    assert report(dataset)["responses_with_marks_at_the_end"] == 4
    assert any("4 responses end with a mark such as </s>" in line for line in said)


@pytest.mark.parametrize("name", ["human_label", "is_correct", "userFeedback", "if_chosen"])
def test_columns_that_may_be_feedback_are_warned_of(tmp_path: Path, name: str) -> None:
    path = jsonl(tmp_path / "rows.jsonl", rows(**{name: [False] * 4}))
    assert any(f"{name} may be feedback and is not used: --columns label={name}" in line for line in imported(path)[1])
    assert set(labels(imported(path, columns=(f"label={name}",))[0]).values()) == {False}


@pytest.mark.parametrize("name", ["correct_answer", "label_model", "rank_str", "quality", "comment"])
def test_other_columns_are_listed_only(tmp_path: Path, name: str) -> None:
    dataset, said = imported(jsonl(tmp_path / "rows.jsonl", rows(**{name: ["x"] * 4})))
    assert report(dataset)["columns_not_used"] == [name]
    assert not any("may be feedback" in line for line in said)


def test_rows_whose_status_says_that_they_are_gone_are_dropped(tmp_path: Path) -> None:
    states = ["submitted", "Discarded", "deleted", "swapped"]
    dataset, _ = imported(jsonl(tmp_path / "rows.jsonl", rows(status=states)))
    assert labels(dataset) == {"r0": True, "r3": False}
    assert report(dataset)["dropped"] == {"column status says that the row is not to be used": 2}


@pytest.mark.parametrize("name", ["is_holdout", "held_out", "in_test_set", "is_val"])
def test_more_flags_are_splits(tmp_path: Path, name: str) -> None:
    dataset, _ = imported(jsonl(tmp_path / "rows.jsonl", rows(**{name: [False, False, False, True]})))
    assert report(dataset)["split"] == "as in the source"
    assert dataset.table["split"].to_pylist().count("test") == 1


def test_files_that_are_no_texts_say_what_to_do(tmp_path: Path) -> None:
    for name in ("a.xlsx", "a.zip", "a.jsonl.xz", "a.txt", "a.parquet.gz"):
        (tmp_path / name).write_bytes(b"PK")
        assert f"{name} is no file of text: export it as .jsonl or .csv" in refused(imported, tmp_path / name)
    (tmp_path / "a.csv").write_text("My export,,\nprompt,completion,label\nq,a,1\n")
    assert "has several columns without a name: is its first line the one of names?" in refused(
        imported, tmp_path / "a.csv"
    )


def test_folders_of_hive_are_columns(tmp_path: Path) -> None:
    for value in (0, 1):
        (tmp_path / f"label={value}").mkdir()
        jsonl(tmp_path / f"label={value}" / "part-0.jsonl", [{"prompt": "q", "completion": f"r{value}"}])
    assert labels(imported(tmp_path)[0]) == {"r0": False, "r1": True}


def test_folders_and_files_that_are_not_the_data_are_refused(tmp_path: Path) -> None:
    (tmp_path / "_delta_log").mkdir()
    jsonl(tmp_path / "part-0.jsonl", rows())
    assert "is a Delta table, whose folder holds deleted rows too" in refused(imported, tmp_path)
    for name in ("a.jsonl", "a.parquet", "a.csv"):
        (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n")
        assert f"{name} is a pointer of Git LFS and no data" in refused(imported, tmp_path / name)


def test_rows_without_a_response_are_counted(tmp_path: Path) -> None:
    several = [
        {"prompt": "q", "completions": []},
        {"prompt": "r", "completions": [{"response": f"r{i}", "score": i} for i in (1, 2)]},
    ]
    dataset, _ = imported(jsonl(tmp_path / "rows.jsonl", several))
    assert labels(dataset) == {"r1": False, "r2": True}
    assert report(dataset)["dropped"] == {"the row holds no response": 1}
    unrated = [{"prompt": "q", "responses": ["r0", "r1"], "scores": scores} for scores in ([1, 0], None)]
    unrated[1]["responses"] = ["r2", "r3"]
    found = labels(imported(jsonl(tmp_path / "rows.jsonl", unrated))[0])
    assert found == {"r0": True, "r1": False, "r2": None, "r3": None}
