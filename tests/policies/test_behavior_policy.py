"""Behaviour policies: what they compute, and what their files are."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pmpo_offline.policies.behavior import BehaviorPolicy
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError


def policy(observed: int = 24, hidden: int = 64, acted: int = 6, seed: int = 0) -> BehaviorPolicy:
    chance = np.random.default_rng(seed)
    sizes = (observed, hidden, hidden, acted)
    return BehaviorPolicy(
        center=chance.normal(size=observed).astype(np.float32),
        scale=chance.uniform(0.5, 2, observed).astype(np.float32),
        weights=tuple(chance.normal(size=pair).astype(np.float32) / 8 for pair in pairwise(sizes)),
        biases=tuple(chance.normal(size=size).astype(np.float32) for size in sizes[1:]),
        log_std=np.linspace(-1, 0, acted, dtype=np.float32),
        facts={"task": "dm_control/walker-walk", "frames": str(seed)},
    )


def test_the_mean_is_computed_as_by_hand() -> None:
    one = np.ones((1, 1), np.float32)
    tiny = BehaviorPolicy(
        center=np.array([1.0], np.float32),
        scale=np.array([2.0], np.float32),
        weights=(one * 3, one * 0.5, one * 4),
        biases=(np.array([0.1], np.float32), np.array([0.2], np.float32), np.array([0.3], np.float32)),
        log_std=np.zeros(1, np.float32),
    )
    seen = (1.5 - 1) / 2
    expected = 4 * np.tanh(0.5 * np.tanh(3 * seen + 0.1) + 0.2) + 0.3
    mean = tiny.mean(np.array([[1.5]]))
    assert mean.dtype == np.float64
    assert mean == pytest.approx(expected, rel=1e-6)
    assert mean > 1, "nothing clips or squashes it"
    assert tiny.normalised(np.array([[1e9], [-1e9]])).tolist() == [[10], [-10]]


def test_a_policy_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    path, saved = tmp_path / "deep" / "expert.safetensors", policy()
    saved.save(path)
    loaded = BehaviorPolicy.load(path)
    observation = np.random.default_rng(1).normal(size=(64, 24))
    assert np.array_equal(loaded.mean(observation), saved.mean(observation))
    assert np.array_equal(loaded.log_std, saved.log_std)
    assert (loaded.observation_dim, loaded.action_dim) == (24, 6)
    assert loaded.facts == saved.facts
    assert [each.name for each in path.parent.iterdir()] == ["expert.safetensors"], "nothing is left beside it"
    with pytest.raises(ValueError, match="read-only"):
        loaded.log_std[0] = 3


def test_equal_policies_are_equal_bytes(tmp_path: Path) -> None:
    """Their hashes enter the identity of what they collect."""
    saved, paths = replace(policy(), facts={f"fact {n}": str(n) for n in range(8)}), [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        saved.save(path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_ladder_keeps_its_order_and_fits(tmp_path: Path) -> None:
    path, rungs = tmp_path / "replay.safetensors", [policy(seed=seed) for seed in range(10)]
    BehaviorPolicy.save_ladder(path, rungs, {"task": "dm_control/walker-walk"})
    assert path.stat().st_size < 150_000
    loaded = BehaviorPolicy.load_ladder(path)
    assert [each.facts["frames"] for each in loaded] == [str(seed) for seed in range(10)]
    observation = np.random.default_rng(1).normal(size=(64, 24))
    for before, after in zip(rungs, loaded, strict=True):
        assert np.allclose(before.mean(observation), after.mean(observation), atol=2e-2)
        assert not np.array_equal(before.mean(observation), after.mean(observation)), "half precision"


def test_bad_files_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "policy.safetensors"

    def refused(error: type[PmpoOfflineError], words: str, ladder: bool = False) -> None:
        with pytest.raises(error, match=words) as caught:
            (BehaviorPolicy.load_ladder if ladder else BehaviorPolicy.load)(path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)

    refused(UserError, "does not exist")
    path.write_bytes(b"no safetensors at all")
    refused(PmpoOfflineError, "cannot be read as safetensors")
    save_file({"center": np.zeros(3, np.float32)}, path)
    refused(PmpoOfflineError, "scale, log_std, weight.0.* missing")
    policy().save(path)
    path.write_bytes(path.read_bytes()[:-100])
    refused(PmpoOfflineError, "cannot be read as safetensors")
    policy().save(path)
    good = load_file(path)
    for name, values, words in (
        ("weight.1", np.full_like(good["weight.1"], np.nan), "weight.1 holds values that are not finite"),
        ("weight.1", good["weight.1"][:-1], "do not lead from observations to actions"),
        ("weight.0", good["weight.0"][0, 0:1], "do not lead|expected"),
        ("bias.2", good["bias.2"][:-1], "do not lead from observations to actions"),
        ("scale", np.zeros_like(good["scale"]), "scale must be positive"),
        ("scale", good["scale"][:-1], "scale must be positive and as long"),
    ):
        save_file({**good, name: np.ascontiguousarray(values)}, path)
        refused(PmpoOfflineError, words)
    policy().save(path)
    refused(PmpoOfflineError, "no ladder", ladder=True)
    BehaviorPolicy.save_ladder(path, [policy()] * 2, {})
    refused(PmpoOfflineError, "no behaviour policy")


def test_a_policy_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PmpoOfflineError, match="cannot write"):
        policy().save(tmp_path / "file" / "expert.safetensors")


def test_numbers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not lead"):
        replace(policy(), log_std=np.zeros(5, np.float32))
