"""The 45 control datasets as they ship: declarations, weights, and reference scores that belong to those weights."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.version import Version

from pmpo_offline.declarations import catalog
from pmpo_offline.policies.behavior import BehaviorPolicy
from pmpo_offline.tasks import CollectionSpec, get
from pmpo_offline.tasks.control import RULES
from pmpo_offline.tasks.control.task import weights_file

LEVELS = {
    "random": {"random"},
    "medium": {"medium"},
    "medium-replay": {"replay"},
    "medium-expert": {"medium", "expert"},
    "expert": {"expert"},
}
WANTED = {
    "dm_control/cartpole-swingup": 860,
    "dm_control/cheetah-run": 750,
    "dm_control/walker-walk": 870,  # the aim was 930
    "dm_control/finger-spin": 800,
    "dm_control/reacher-easy": 970,
    "dm_control/hopper-hop": 100,
    "mujoco/halfcheetah": 5000,
    "mujoco/hopper": 2500,
    "mujoco/walker2d": 3000,
}
"""What an expert returns at least."""


@pytest.mark.parametrize("task", RULES)
def test_every_level_of_a_task_is_declared(task: str) -> None:
    for level, policies in LEVELS.items():
        declared = catalog.dataset(f"{task}-{level}-v0")
        assert declared.task == task
        assert {each["policy"] for each in declared.behavior} == policies
        assert len({each["weight"] for each in declared.behavior}) == 1, "half of each"
        assert declared.label == "advantage"


@pytest.mark.parametrize("task", RULES)
def test_weights_ship_small_and_fit_their_task(task: str) -> None:
    shape = get(task).observation_dim, get(task).action_dim
    ladder = BehaviorPolicy.load_ladder(weights_file(task, "replay"))
    assert len(ladder) == 10
    policies = [BehaviorPolicy.load(weights_file(task, name)) for name in ("medium", "expert")]
    for policy in (*policies, *ladder):
        assert (policy.observation_dim, policy.action_dim) == shape
    for name in ("medium", "expert", "replay"):
        assert weights_file(task, name).stat().st_size < 150_000


older = pytest.mark.skipif(
    Version(version("gymnasium")) < Version("1.4"), reason="references are measured with gymnasium 1.4 and later"
)


@older
@pytest.mark.parametrize("task", RULES)
def test_the_upper_reference_is_the_shipped_expert(task: str) -> None:
    references = catalog.references(task)
    assert references is not None
    digest = get(task).sources([{"name": "x", "weight": 1, "policy": "expert"}])["expert"]
    assert digest[:12] in references["how"], "other weights: run benchmarks.experiments.references.run"
    assert "1000 held-out episodes" in references["how"]
    assert references["max"] >= WANTED[task]
    assert references["min"] < 0.1 * references["max"]


@older
@pytest.mark.parametrize("level", ["random", "medium-expert"])
def test_what_is_declared_is_collected(level: str, tmp_path: Path) -> None:
    task = get("mujoco/hopper")
    declared = catalog.dataset(f"mujoco/hopper-{level}-v0")
    experience = task.collect(CollectionSpec(declared.behavior, 6, declared.seed), tmp_path, 1)
    _, ends = experience.tables()
    returns = ends["return"].to_pylist()
    references = catalog.references("mujoco/hopper")
    assert references is not None
    assert set(references["versions"]) == {"mujoco", "gymnasium"}
    if level == "random":
        assert experience.behavior.tolist() == ["random"] * 6
        assert max(returns) < 0.1 * references["max"]
        assert experience.terminated.all()
    else:
        assert experience.behavior.tolist() == ["medium", "expert"] * 3
        assert min(returns[1::2]) > max(returns[::2]), "an expert's episode beats every medium one"
