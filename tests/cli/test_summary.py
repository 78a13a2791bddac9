"""The summary of a dataset that `show`, `import`, `build-dataset`, `pull` and the verbs print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pmpo_offline import build
from pmpo_offline.cli.main import run
from pmpo_offline.cli.summary import print_summary
from pmpo_offline.data.exchange.forms.report import Report

ROWS = [{"prompt": f"q{i // 2}", "response": f"a{i}" * (i > 2), "thumb": ["up", "down"][i % 2]} for i in range(12)]


@pytest.fixture
def thumbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve responses, three of them empty, with columns that nothing reads."""
    monkeypatch.setenv("PMPO_OFFLINE_DATASETS", str(tmp_path / "home"))
    path = tmp_path / "thumbs.jsonl"
    path.write_text("".join(json.dumps({**row, "latency": 1.5, "cost": 2, "": 0}) + "\n" for row in ROWS))
    return path


def test_a_summary_says_what_there_is_and_what_was_lost(thumbs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["import", str(thumbs), "--id", "my/thumbs-v0", "--test-share", "0"]) == 0
    printed, warned = capsys.readouterr()
    assert "completion is empty" not in warned, "it is said once"
    assert printed.splitlines() == [
        "id        my/thumbs-v0",
        "holds     9 responses to 5 prompts, of task language/thumbs",
        "labels    4 accepted, 5 rejected, 0 unlabelled, one per response",
        "rule      column:sign: up accept, down reject",
        "from      TRL unpaired: thumbs",
        "dropped   3 of 12 responses: completion is empty, first at thumbs.jsonl, line 1",
        "not used  3 columns: (no name), cost, latency",
        "splits    9 train",
        "licence   unknown",
        f"path      {thumbs.parent / 'home/my/thumbs-v0'}",
        "next      pmpo-offline doctor my/thumbs-v0",
        "more      pmpo-offline show my/thumbs-v0 --full",
    ]
    assert run(["show", "my/thumbs-v0"]) == 0
    assert capsys.readouterr().out == printed
    page = str(thumbs.parent / "page.html")
    assert run(["show", "my/thumbs-v0", "--html", page]) == 0
    assert f"page      {page}" in capsys.readouterr().out.splitlines()
    assert run(["relabel", "my/thumbs-v0", "my/few-v0", "--imbalance", "0.2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "balance   0.1667 accepted, 0.2 asked: 3 accepts and 0 rejects left unlabelled" in lines
    assert "left unlabelled" not in (thumbs.parent / "home/my/thumbs-v0/README.md").read_text(), "nothing was asked for"
    assert "from      relabel of my/thumbs-v0 (imbalance 0.2); TRL unpaired: thumbs" in lines
    lost = "dropped   3 of 12 responses: completion is empty, first at thumbs.jsonl, line 1"
    assert lost in lines, "of the import that it is made of"


def test_the_next_command_works_where_the_id_alone_would_not(
    thumbs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["import", str(thumbs), "--id", "my/thumbs-v0", "--home", str(tmp_path / "other home")]) == 0
    assert f"\nnext      pmpo-offline doctor '{tmp_path}/other home/my/thumbs-v0'\n" in capsys.readouterr().out


def test_no_count_of_what_is_lost_or_doubtful_is_left_out(thumbs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every entry of a report that is no plain count is among the lines, whatever readers add."""
    facts = build.show(build.import_text(thumbs))
    report = Report("a form", redacted=11, contradicting=12, scores_rounded=13, prompts_in_both_splits=14)
    report.columns_not_used = ["spare"]
    report.pairs_by_own_scores["chosen lower"], report.splits_not_understood["fold: 3"] = 15, 16
    report.dropped["too long"] = 17
    read: dict[str, Any] = {**report.content(), "rounded": {"observations": 18}, "anything_new": 19}
    print_summary({**facts, "dropped": report.dropped, "report": read})
    shown = capsys.readouterr().out
    assert all(f"{count}" in shown for count in range(11, 20))
    assert "1 column: spare" in shown


def test_many_values_of_a_label_are_cut_short_accepts_first(thumbs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = build.show(build.import_text(thumbs))
    meant = {f"{stars} stars": "accept" if stars > 7 else "reject" for stars in range(10)}
    print_summary({**facts, "report": {**facts["report"], "labels": meant}})
    rule = "column:sign: 8 stars accept, 9 stars accept, 0 stars reject, 1 stars reject, 2 stars reject, 3 stars reject"
    assert f"\nrule      {rule}, 4 stars reject, 5 stars reject and 2 more\n" in capsys.readouterr().out


def test_the_train_split_comes_first(thumbs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    thumbs.write_text("".join(json.dumps({**ROWS[-1], "split": part}) + "\n" for part in ("test", "train", "train")))
    print_summary(build.show(build.import_text(thumbs)))
    assert "\nsplits   2 train, 1 test\n" in capsys.readouterr().out


def test_of_a_dataset_that_is_not_built_the_recipe_in_short(thumbs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", "bandit/sphere-v0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "id       bandit/sphere-v0 (not built)"
    assert lines[-2] == "next     pmpo-offline build-dataset bandit/sphere-v0"
