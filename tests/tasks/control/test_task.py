"""Control tasks: what is recorded plays back in the official environment; shares are exact; scores know no luck."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from helpers.experiences import assert_equal, part

from pmpo_offline.declarations import catalog
from pmpo_offline.policies import MixturePolicy
from pmpo_offline.policies.behavior import BehaviorPolicy
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.tasks import CollectionSpec, get
from pmpo_offline.tasks.control import begin_seed, held_out, play
from pmpo_offline.tasks.control.task import ControlBehavior, deal, record, weights_file

HOPPER = "mujoco/hopper"
RANDOM = (ControlBehavior(name="random", weight=1, policy="random"),)
MIXED = (
    ControlBehavior(name="random", weight=1, policy="random"),
    ControlBehavior(name="medium", weight=1, policy="medium"),
    ControlBehavior(name="replay", weight=2, policy="replay", noise=0.5),
)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Networks of random weights in the place of the shipped ones."""

    def policy(seed: int) -> BehaviorPolicy:
        rng = np.random.default_rng(seed)
        widths = (11, 8, 8, 3)
        layers = [rng.normal(0, 0.5, shape).astype(np.float32) for shape in pairwise(widths)]
        biases = [np.zeros(width, np.float32) for width in widths[1:]]
        center, scale = np.zeros(11, np.float32), np.ones(11, np.float32)
        return BehaviorPolicy(center, scale, tuple(layers), tuple(biases), np.full(3, -1.0, np.float32))

    folder = tmp_path / "datasets" / "behaviors" / HOPPER
    policy(0).save(folder / "medium.safetensors")
    BehaviorPolicy.save_ladder(folder / "replay.safetensors", [policy(1), policy(2)], {})
    monkeypatch.setattr(catalog, "root", lambda kind: tmp_path / kind)
    return folder


def test_recorded_actions_give_the_recorded_rewards_in_the_official_environment() -> None:
    experience = record(HOPPER, RANDOM, range(4))
    official = gymnasium.make("Hopper-v5")
    for episode in range(4):
        one = part(experience, episode)
        seen, _ = official.reset(seed=begin_seed(int(one.seed[0])))
        for t in range(int(one.length[0])):
            np.testing.assert_allclose(one.observation[t], seen, atol=1e-4)
            seen, reward, terminated, _, _ = official.step(one.action[t])
            assert one.reward[t] == pytest.approx(reward, abs=1e-3)
            assert terminated == (t == one.length[0] - 1)
        np.testing.assert_allclose(one.final_observation[0], seen, atol=1e-4)
        assert one.terminated[0]


@pytest.mark.usefixtures("weights")
def test_an_episode_is_a_function_of_its_seed_alone() -> None:
    recorded = record(HOPPER, MIXED, range(12))
    for episode in (3, 7, 11):
        assert_equal(record(HOPPER, MIXED, [episode]), part(recorded, episode))
    assert [name.partition("-")[0] for name in recorded.behavior[:4]].count("replay") == 2
    assert dict(zip(*np.unique(recorded.behavior, return_counts=True), strict=True)) == {
        "random": 3,
        "medium": 3,
        "replay-0": 3,
        "replay-1": 3,
    }


@pytest.mark.usefixtures("weights")
def test_the_policy_acts_as_its_weights_say() -> None:
    quiet = (ControlBehavior(name="medium", weight=1, policy="medium", noise=0),)
    experience = record(HOPPER, quiet, range(3))
    policy = BehaviorPolicy.load(weights_file(HOPPER, "medium"))
    expected = np.clip(policy.mean(experience.observation.astype(np.float64)), -1, 1)
    np.testing.assert_allclose(experience.action, expected, atol=1e-5)
    noisy = record(HOPPER, (ControlBehavior(name="medium", weight=1, policy="medium"),), range(40))
    mean = policy.mean(noisy.observation.astype(np.float64))
    inside = np.abs(noisy.action) < 1
    # Clipping hides part of the noise: compare where the mean is far from the border.
    middle = inside & (np.abs(mean) < 0.1)
    assert (noisy.action - mean)[middle].std() == pytest.approx(np.exp(-1), rel=0.15)


@pytest.mark.usefixtures("weights")
def test_other_weights_are_another_source() -> None:
    declared = [behavior.model_dump() for behavior in MIXED]
    task = get(HOPPER)
    before = task.sources(declared)
    assert sorted(before) == ["medium", "replay"]
    path = weights_file(HOPPER, "medium")
    BehaviorPolicy.load_ladder(weights_file(HOPPER, "replay"))[0].save(path)
    after = task.sources(declared)
    assert after["replay"] == before["replay"]
    assert after["medium"] != before["medium"]


def test_missing_weights_are_said_with_the_command_that_makes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "root", lambda kind: tmp_path)
    with pytest.raises(UserError, match=r"ships no expert behaviour.*pmpo-offline train-behavior mujoco/hopper"):
        get(HOPPER).collect(CollectionSpec([{"name": "x", "weight": 1, "policy": "expert"}], 1, 0), tmp_path, 1)


@pytest.mark.parametrize(
    ("shares", "episodes", "counts"),
    [([0.5, 0.5], 7, [4, 3]), ([0.1] * 10, 200, [20] * 10), ([0.25, 0.75], 8, [2, 6]), ([1.0], 3, [3])],
)
def test_turns_keep_the_shares(shares: list[float], episodes: int, counts: list[int]) -> None:
    turns = deal(tuple(shares), episodes)
    assert np.bincount(turns, minlength=len(shares)).tolist() == counts
    for length in range(1, episodes):
        played = np.bincount(turns[:length], minlength=len(shares))
        assert np.abs(played - np.array(shares) * length).max() < 1, "close to the shares all along"
        assert deal(tuple(shares), length) == turns[:length]


def test_scores_do_not_depend_on_the_stack_and_a_diverged_policy_stands_still() -> None:
    task = get(HOPPER)
    mean, std = torch.zeros(11), torch.ones(11)
    both = MixturePolicy([0, 1], mean, std, 3, components=1, hidden=(8,))
    with torch.no_grad():
        for weight in both.parameters():
            weight[1] = torch.nan
    outcome, layouts = task.score(both, 5, 1)
    assert len(layouts) == 5
    alone = MixturePolicy([0], mean, std, 3, components=1, hidden=(8,))
    again, _ = task.score(alone, 5, 1)
    np.testing.assert_allclose(outcome.returns[:5], again.returns, rtol=1e-6)
    zeros = play(task.rules, held_out(5), lambda observation, t: np.zeros((5, 3)))
    np.testing.assert_array_equal(outcome.returns[5:], zeros.returns)
    assert not set(held_out(100)) & set(held_out(100, stream=1))
