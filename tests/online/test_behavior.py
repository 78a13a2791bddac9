"""The loop around learners of behaviours: what it keeps, and that it resumes exactly."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pmpo_offline.cli.main import run
from pmpo_offline.online import behavior, behavior_record, ppo
from pmpo_offline.online.behavior import TARGETS, random_returns, returns, task_id, train_behavior
from pmpo_offline.online.behavior_record import RUNGS, BehaviorRecord
from pmpo_offline.online.ppo import PLANS, PPOConfig
from pmpo_offline.policies.behavior import BehaviorPolicy
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.runtime.progress import on_progress
from pmpo_offline.tasks.control import RULES, Rules, rules

TASK = "dm_control/cartpole-swingup"
FILES = ("medium", "expert", "replay")
STEPS = 4_000


@pytest.fixture(scope="module")
def short() -> Rules:
    """The task with episodes of 100 control steps."""
    return replace(rules(TASK), horizon=100)


@pytest.fixture(autouse=True)
def quick(short: Rules, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few, small improvements, short evaluations, and a target that a policy from nowhere reaches."""
    monkeypatch.setitem(RULES, TASK, lambda: short)
    monkeypatch.setitem(PLANS, TASK, PPOConfig(STEPS, episodes=8, decisions=64, epochs=1, minibatch=256))
    monkeypatch.setitem(TARGETS, TASK, -50.0)
    monkeypatch.setattr(behavior, "EVALUATIONS", 4)
    monkeypatch.setattr(ppo, "POOL", 8)
    for module in (behavior, behavior_record):
        for name, number in (("EPISODES", 2), ("CONFIRMING", 3)):
            monkeypatch.setattr(module, name, number)


def content(directory: Path) -> dict[str, Any]:
    """Return the policies' numbers and all facts that do not depend on the clock."""
    policies = {name: [BehaviorPolicy.load(directory / f"{name}.safetensors")] for name in FILES[:2]}
    policies["replay"] = BehaviorPolicy.load_ladder(directory / "replay.safetensors")
    return {
        name: [
            ({k: v.tolist() for k, v in each.arrays().items()}, {**each.facts, "cpu_seconds": ""}) for each in policy
        ]
        for name, policy in policies.items()
    }


def test_a_training_writes_medium_expert_and_the_way_to_medium(tmp_path: Path) -> None:
    reports: list[tuple[str, int, int]] = []
    with on_progress(lambda *report: reports.append(report)):
        done = train_behavior("cartpole-swingup", output=tmp_path)
    assert (done.task, done.finished, done.planned) == (TASK, True, STEPS)
    assert STEPS <= done.steps < STEPS + 8 * 64
    assert reports[-1][1:] == (2, 2)
    assert any(stage.startswith("ppo on dm_control/cartpole-swingup") and total == STEPS for stage, _, total in reports)
    for name in FILES:
        assert (tmp_path / f"{name}.safetensors").stat().st_size < 150_000

    expert = BehaviorPolicy.load(tmp_path / "expert.safetensors")
    assert expert.facts["task"] == TASK
    assert (expert.facts["algo"], expert.facts["seed"], expert.facts["episodes"]) == ("ppo", "0", "3")
    assert int(expert.facts["frames"]) <= int(expert.facts["steps"]) == done.steps
    assert float(expert.facts["cpu_seconds"]) >= 0
    assert expert.facts["mujoco"].startswith("3.")
    # What the file says was measured can be measured again.
    confirmed = returns(expert, rules(TASK), behavior._seeds("confirming", 0, 3))
    assert float(expert.facts["return"]) == pytest.approx(confirmed.mean())
    assert done.expert == pytest.approx(confirmed.mean())

    medium = BehaviorPolicy.load(tmp_path / "medium.safetensors")
    ladder = BehaviorPolicy.load_ladder(tmp_path / "replay.safetensors")
    assert len(ladder) == RUNGS
    frames = [int(each.facts["frames"]) for each in ladder]
    assert frames[0] == 0
    assert frames == sorted(frames)
    assert frames[-1] == int(medium.facts["frames"])


def test_after_a_kill_it_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    train_behavior(TASK, output=tmp_path / "whole")

    def interrupt(stage: str, done: int, total: int) -> None:
        if done > 0.6 * total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), on_progress(interrupt):
        train_behavior(TASK, output=tmp_path / "broken")
    seen: list[int] = []
    with on_progress(lambda _, done, total: seen.append(done)):
        resumed = train_behavior(TASK, output=tmp_path / "broken")
    assert seen[0] > STEPS / 2, "it was resumed"
    assert resumed.finished
    assert content(tmp_path / "broken") == content(tmp_path / "whole")


def test_it_stops_when_the_time_is_over_and_can_be_asked_again(tmp_path: Path) -> None:
    stopped = train_behavior(TASK, output=tmp_path, minutes=0)
    assert (stopped.steps, stopped.finished, stopped.expert, stopped.medium) == (0, False, None, None)
    assert [each.name for each in tmp_path.iterdir()] == [behavior.CHECKPOINT]
    assert train_behavior(TASK, output=tmp_path).finished
    again = train_behavior(TASK, output=tmp_path)
    assert (again.steps, again.finished) == (4096, True), "nothing is left to do"


def test_another_training_is_not_mixed_up_with_this_one(tmp_path: Path) -> None:
    train_behavior(TASK, output=tmp_path, minutes=0)
    with pytest.raises(UserError, match=r"is the checkpoint of another training: .*--fresh"):
        train_behavior(TASK, output=tmp_path, seed=1, minutes=0)
    assert train_behavior(TASK, output=tmp_path, seed=1, minutes=0, fresh=True).seed == 1
    (tmp_path / behavior.CHECKPOINT).write_bytes(b"rubbish")
    with pytest.raises(PmpoOfflineError, match="is damaged"):
        train_behavior(TASK, output=tmp_path)


@pytest.mark.parametrize("ingredient", ["steps", "learner", "target", "evaluations"])
def test_a_checkpoint_belongs_to_all_that_the_training_depends_on(
    ingredient: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_behavior(TASK, output=tmp_path, minutes=0)
    train_behavior(TASK, output=tmp_path, minutes=0)
    if ingredient == "learner":
        monkeypatch.setitem(PLANS, TASK, replace(PLANS[TASK], epochs=2))
    elif ingredient == "target":
        monkeypatch.setitem(TARGETS, TASK, -40.0)
    elif ingredient == "evaluations":
        monkeypatch.setattr(behavior, "EVALUATIONS", 5)
    with pytest.raises(UserError, match="is the checkpoint of another training"):
        train_behavior(TASK, output=tmp_path, minutes=0, steps=3_000 if ingredient == "steps" else None)


def test_a_target_out_of_reach_leaves_no_policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TARGETS, TASK, 1e9)
    done = train_behavior(TASK, output=tmp_path, steps=1_000)
    assert done.medium is None
    assert done.expert is not None
    assert [each.name for each in tmp_path.iterdir()] == [behavior.CHECKPOINT]


def test_tasks_go_by_either_name() -> None:
    assert task_id("cheetah-run") == task_id("dm_control/cheetah-run") == "dm_control/cheetah-run"
    assert task_id("hopper") == "mujoco/hopper"
    assert TARGETS.keys() == RULES.keys() == PLANS.keys()
    with pytest.raises(UserError, match=r"unknown control task 'cheeta-run': did you mean .*cheetah-run"):
        task_id("cheeta-run")


def test_the_record_thins_out_but_keeps_the_way() -> None:
    task = rules(TASK)
    policy = behavior.LEARNERS["ppo"](task, 0, 1_000).policy()
    record = BehaviorRecord(medium_from=10.0)
    with pytest.raises(ValueError, match="no medium policy"):
        record.ladder()
    for number in range(1001):
        record.improved(policy, 10 * number)
    assert 32 <= len(record.snapshots) <= 64
    record.evaluated(policy, 8_000, lambda *_: 5.0)
    # From 8,480 frames on the policies are medium, which a binary search finds at the next evaluation.
    asked = []

    def score(each: BehaviorPolicy, episodes: int) -> float:
        asked.append(int(each.facts["frames"]))
        # A few episodes may flatter; where it counts, more are played.
        return 12.0 if asked[-1] >= 8_480 or episodes == behavior_record.EPISODES else 7.0

    assert record.evaluated(policy, 10_000, score)
    assert not record.evaluated(policy, 10_010, lambda *_: 11.0), "not better"
    record.improved(policy, 10_020)
    assert len(asked) <= 6
    assert record.medium is not None
    medium = int(record.medium.facts["frames"])
    assert 8_480 <= medium < 8_480 + 160
    frames = [int(each.facts["frames"]) for each in record.ladder()]
    assert np.allclose(frames, np.linspace(0, medium, RUNGS), atol=160)
    assert frames[-1] == medium
    restored = BehaviorRecord.restored(*record.state())
    assert restored.curve == record.curve == [(8_000, 5.0), (10_000, 12.0), (10_010, 11.0)]
    assert [each.facts for each in restored.ladder()] == [each.facts for each in record.ladder()]
    assert restored.best is not None
    assert restored.best.facts["return"] == "12.0"


def test_a_medium_policy_is_kept_at_once_though_an_earlier_one_seemed_better(short: Rules) -> None:
    """Sixteen episodes may flatter the earlier one, which a hundred then find too bad."""
    record, policy = BehaviorRecord(medium_from=10.0), ppo.PPO(short, 0).policy()
    assert record.evaluated(policy, 100, lambda _, episodes: 15.0 if episodes == behavior_record.EPISODES else 9.0)
    assert record.medium is None
    assert record.evaluated(policy, 200, lambda *_: 12.0)
    assert record.medium is not None


def test_random_actions_are_the_same_every_time() -> None:
    task = rules("mujoco/hopper")
    first, second = (random_returns(task, [1, 2, 3]) for _ in range(2))
    assert np.array_equal(first, second)
    assert len(set(first)) == 3


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["train-behavior", "cartpole-swingup", "--steps", "1000", "--json"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert (out["task"], out["finished"], out["path"]) == (TASK, True, f"behaviors/{TASK}")
    assert run(["train-behavior", "cartpole-swingup", "--steps", "1000"]) == 0
    text = capsys.readouterr().out
    assert "expert.safetensors are in behaviors/dm_control/cartpole-swingup" in text
    (tmp_path / "file").write_text("in the way")
    for code, words, *arguments in (
        (2, "did you mean", "cheeta-run"),
        (2, "unknown learner of behaviours 'ppq': did you mean ppo", "cartpole-swingup", "--algo", "ppq"),
        (2, "is the checkpoint of another training", "cartpole-swingup", "--steps", "2000"),
        (1, "cannot write file/there", "cartpole-swingup", "--output", "file/there"),
        (2, "steps", "cartpole-swingup", "--steps", "0"),
    ):
        assert run(["train-behavior", *arguments]) == code
        error = capsys.readouterr().err.strip()
        assert words in error.splitlines()[-1]
        assert "Traceback" not in error
