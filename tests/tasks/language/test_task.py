"""Rewards of other packages: a task without prompts is made of them, and what they return is checked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pmpo_offline.cli.main import run
from pmpo_offline.data import load_dataset
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.tasks import language
from pmpo_offline.tasks.language import LanguageTask, SamplingSettings


def test_a_reward_is_a_task_without_prompts():
    task = language.get("sentiment")
    texts = [" wonderful.", " horrible."]
    np.testing.assert_array_equal(task.reward(["", ""], texts), language.get("language/sentiment").reward([], texts))
    with pytest.raises(UserError, match="sentiment scores texts from elsewhere and has no prompts of its own"):
        task.prompts(3, 0)


def test_a_reward_scores_imported_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    texts = tmp_path / "texts.jsonl"
    rows = [{"prompt": "It was", "completion": text, "label": False} for text in (" wonderful.", " horrible.")]
    texts.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command = ["import", str(texts), "--task", "sentiment", "--label", "reward", "--home", str(tmp_path), "--json"]
    assert run(command) == 0
    imported = load_dataset(json.loads(capsys.readouterr().out)["id"], home=tmp_path)
    assert imported.metadata.task == "sentiment"
    found = dict(zip(imported.table["completion"].to_pylist(), imported.table["label"].to_pylist(), strict=True))
    assert found == {" wonderful.": True, " horrible.": False}


@pytest.mark.parametrize("rewards", [[1.0], [1.0, float("nan")], [[1.0], [2.0]]], ids=str)
def test_a_reward_that_is_not_a_number_for_each_text_is_refused(rewards: list):
    task = LanguageTask("mine/reward", lambda prompts, completions: rewards)
    with pytest.raises(UserError, match="the reward of mine/reward must return a finite number for each of 2 texts"):
        task.reward(["a", "b"], ["c", "d"])


def test_malformed_sampling_is_one_line():
    with pytest.raises(UserError, match=r"dataset x/y-v0: sampling: unknown key of \[sampling\] 'respones'"):
        SamplingSettings.of("x/y-v0", {"respones": 3})
    with pytest.raises(UserError, match=r"dataset x/y-v0: sampling: test: .*, not 2"):
        SamplingSettings.of("x/y-v0", {"test": 2})
