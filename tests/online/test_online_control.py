"""Learning control online: targets by hand, runs of a stack alone, exact resume, and that it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from pmpo_offline.objectives.divergences import gaussian_kl
from pmpo_offline.online import behavior, online_control
from pmpo_offline.online.behavior import random_returns, returns, train_behavior
from pmpo_offline.online.online_control import ALGORITHMS, ControlSettings, OnlineControl, one_run
from pmpo_offline.online.replay import GOES_ON, ReplayRows
from pmpo_offline.policies.behavior import BehaviorPolicy
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.tasks.control import RULES, Rules, rules

TASK = "dm_control/cartpole-swingup"
SMALL = ControlSettings(environments=4, warmup=6, length=4, stretches=3, critic_hidden=(16, 16), ticks=40)


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(online_control, "CHUNK", 20)


def small(algo: str, *seeds: int, task: str = TASK) -> OnlineControl:
    return OnlineControl(rules(task), seeds, ALGORITHMS[algo], settings=SMALL)


def test_the_critic_s_targets_by_hand() -> None:
    """Two stretches of four steps: the first is cut off by the clock, in the second the task ends."""
    control = small("pmpo", 0)
    control.advance()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 8, 1, generator=generator)
    rows = ReplayRows(
        observation=torch.randn(1, 2, 5, 5, generator=generator),
        action=2 * torch.randn(1, 2, 5, 1, generator=generator),
        logp=-torch.rand(1, 2, 5, generator=generator),
        reward=torch.rand(1, 2, 5, generator=generator),
        end=torch.tensor([[[0, 0, 1, 0, 0], [0, 0, 0, 2, 0]]], dtype=torch.uint8),
    )
    seen = control._normalised(rows.observation.flatten(1, 2)).view_as(rows.observation)
    target = control._targets(rows, seen[:, :, 1:].flatten(1, 2), noise).view(2, 4)
    reference, discount = control._improver.reference, SMALL.discount

    def least(state: Tensor, action: Tensor) -> float:
        """Q: average reward a control step, of which an action is held for two."""
        inputs = torch.cat([state, action.clamp(-1, 1)]).view(1, 1, -1)
        return min(float(network(inputs)) for network in control._critic._slow)

    with torch.no_grad():
        for s in range(2):
            expected = 0.0
            for t in (3, 2, 1, 0):
                state, action, end = seen[0, s, t + 1], rows.action[0, s, t + 1], int(rows.end[0, s, t + 1])
                gaussian = reference(state.view(1, 1, -1))
                away = gaussian.log_std.exp().flatten() * noise[0, 4 * s + t]
                value = (
                    least(state, gaussian.mean.flatten() + away) + least(state, gaussian.mean.flatten() - away)
                ) / 2
                ratio = float((gaussian.log_prob(action.view(1, 1, -1)) - rows.logp[0, s, t + 1]).exp())
                trace = 0.95 * min(1.0, ratio) if end == GOES_ON and t < 3 else 0.0
                beyond = value + trace * (expected - least(state, action))
                expected = (1 - discount) / 2 * float(rows.reward[0, s, t]) + (0 if end == 2 else discount * beyond)
                assert float(target[s, t]) == pytest.approx(expected, abs=1e-5)


def test_rows_without_an_action_teach_q_nothing() -> None:
    values = []
    for wrong in (0.0, 100.0):
        control = small("pmpo", 0)
        state, action = torch.ones(1, 2, 5), torch.zeros(1, 2, 1)
        control._fit(state, action, torch.tensor([[0.5, wrong]]), torch.tensor([[1.0, 0.0]]))
        values.append(control._critic(state, action)[0])
    assert torch.equal(*values)


def test_candidates_are_judged_clipped_by_the_lesser_q_less_the_cost_of_leaving_the_box() -> None:
    control = small("dpo", 0)
    control.advance()
    state, action = torch.randn(1, 3, 5), torch.tensor([-3.0, -1.0, 0.2, 1.5]).view(1, 1, 4, 1).expand(1, 3, 4, 1)
    score = control._score(state, action)
    inside = control._judge(state, action.clamp(-1, 1))
    torch.testing.assert_close(score, inside - 1e-3 * torch.tensor([4.0, 0, 0, 0.25]))
    values = torch.stack(control._critic(state, action[:, :, 2]))
    assert values.shape == (2, 1, 3)


def test_the_exported_policy_is_the_one_that_learns() -> None:
    control = small("mpo", 3, 8)
    control.advance()
    observation = torch.randn(2, 7, 5) * 3
    mean = control._improver.policy(control._normalised(observation)).mean.squeeze(-2).detach().numpy()
    for run in range(2):
        policy = control.policy(run)
        assert np.allclose(policy.mean(observation[run].numpy()), mean[run], atol=1e-5)
        assert np.array_equal(policy.log_std, control._improver.policy.log_std[run, 0].detach().numpy())
    before = control.policy(0).mean(observation[0].numpy())
    kept = control.policy(0)
    control.advance()
    assert np.array_equal(kept.mean(observation[0].numpy()), before)


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_resuming_equals_going_on_to_the_bit(algo: str) -> None:
    whole, resumed = small(algo, 0, 5), small(algo, 0, 5)
    whole.advance()
    resumed.load_state_dict(whole.state_dict())
    for _ in range(2):
        assert whole.advance() == resumed.advance()
    one, two = whole.state_dict(), resumed.state_dict()
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name
    assert whole.frames == resumed.frames == 2 * 4 * 60 * 2


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_a_run_is_alike_alone_and_in_a_stack(algo: str) -> None:
    together, alone = small(algo, 0, 5), small(algo, 5)
    together.advance()
    alone.advance()
    observation = np.random.default_rng(0).normal(size=(20, 5))
    assert np.allclose(together.policy(1).mean(observation), alone.policy().mean(observation), atol=1e-3)
    assert not np.allclose(together.policy(0).mean(observation), alone.policy().mean(observation), atol=1e-2)


def test_the_reference_moves_slowly_towards_the_policy() -> None:
    control = small("pmpo", 0)
    control.advance()
    state = torch.randn(1, 50, 5)
    both = (control._improver.reference(state), control._improver.policy(state))
    moments = [each.squeeze(-2).detach() for p in both for each in (p.mean, p.log_std)]
    assert 0 < float(gaussian_kl(*moments).mean()) < 10


def test_tasks_with_an_end_of_their_own_are_learned_too() -> None:
    control = small("pmpo", 0, task="mujoco/hopper")
    for _ in range(3):
        metrics = control.advance()
    assert all(np.isfinite(each) for each in metrics.values())


def test_it_learns_cartpole_above_random() -> None:
    task = rules(TASK)
    settings = ControlSettings(environments=16, stretches=4, critic_hidden=(64, 64))
    control = OnlineControl(task, [0], ALGORITHMS["pmpo"], settings=settings)
    for _ in range(20):
        control.advance()
    seeds = [1, 2, 3, 4]
    assert returns(control.policy(), task, seeds).mean() > random_returns(task, seeds).mean() + 30


def test_the_command_s_loop_trains_it_and_refuses_another_s_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    algo = "mpo"
    for name, number in (("EVALUATIONS", 2), ("EPISODES", 1), ("CONFIRMING", 1)):
        monkeypatch.setattr(behavior, name, number)
    monkeypatch.setitem(behavior.TARGETS, TASK, -50.0)
    short = replace(rules(TASK), horizon=100)
    monkeypatch.setitem(RULES, TASK, lambda: short)

    def quick(rules: Rules, seed: int, frames: int | None) -> OnlineControl:
        return OnlineControl(rules, [seed], ALGORITHMS[algo], frames, SMALL)

    monkeypatch.setitem(behavior.LEARNERS, algo, quick)
    done = train_behavior(TASK, algo, steps=600, output=tmp_path)
    assert (done.algo, done.finished) == (algo, True)
    assert BehaviorPolicy.load(tmp_path / "expert.safetensors").facts["algo"] == algo
    with pytest.raises(UserError, match="is the checkpoint of another training"):
        train_behavior(TASK, algo, steps=900, output=tmp_path)


def test_the_command_knows_the_algorithms() -> None:
    assert {"ppo", *ALGORITHMS} <= set(behavior.LEARNERS)
    with pytest.raises(UserError, match="unknown learner of behaviours 'pmop': did you mean"):
        train_behavior(TASK, "pmop")
    assert one_run("dpo", rules(TASK), 0, 1000).planned == 1000


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"length": 100}, "longer than the 100 ticks"),
        ({"ticks": 10}, "longer than the 10 ticks"),
        ({"discount": 1.0}, "less than 1"),
        ({"environments": 0}, "greater than or equal to 1"),
        ({"trase": 0.9}, "Extra inputs"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, float], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        ControlSettings(**wrong)  # type: ignore[arg-type]
