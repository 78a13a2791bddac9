"""The protocol's own example is a task, and every task keeps what the protocol promises of specs and behaviours."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import Field

from pmpo_offline.policies import MixturePolicy
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.tasks import TASKS, Behavior, CollectionSpec, Experience, Outcome, Task, get, task
from pmpo_offline.tasks.control import RULES


def test_the_example_of_the_docstring_is_a_task(tmp_path: Path) -> None:
    lines = task.__doc__.splitlines()
    begin = next(i for i, line in enumerate(lines) if line.startswith("    class Drawn"))
    end = next(i for i, line in enumerate(lines) if line.startswith("Everything is NumPy"))
    space: dict[str, Any] = {"np": np, "torch": torch}
    space |= {each.__name__: each for each in (Behavior, Experience, Outcome, Task)} | {"Field": Field}
    exec(textwrap.dedent("\n".join(lines[begin:end])), space)
    example: Task = space["TargetTask"]()

    declared = [{"name": "near", "weight": 3, "std": 0.1}, {"name": "far", "weight": 1}]
    spec = CollectionSpec(declared, 400, 2)
    experience = example.collect(spec, tmp_path, 1)
    assert experience.action.shape == (400, 2)
    assert 0.68 < (experience.behavior == "near").mean() < 0.82
    np.testing.assert_array_equal(experience.seed, spec.seeds)
    transitions, episodes = experience.tables()
    assert (transitions.num_rows, episodes.num_rows) == (400, 400)
    assert example.sources(declared) == {}
    assert example.candidates(spec, experience, 3, 2) is None
    low, high = example.references(50, 0, 1)
    assert low.returns.mean() < -0.5
    assert high.returns == pytest.approx(0, abs=1e-6)
    policy = MixturePolicy([0, 1], torch.zeros(1), torch.ones(1), 2, components=1, hidden=())
    outcome, names = example.score(policy, 5, 1)
    assert (len(outcome.returns), names) == (10, ["mine/target"] * 5)
    with pytest.raises(UserError, match="task mine/target: behavior: unknown key 'stdd': did you mean std"):
        example.collect(CollectionSpec([{"name": "x", "weight": 1, "stdd": 0.1}], 1, 0), tmp_path, 1)


def test_every_task_is_made_under_its_id() -> None:
    assert {name for name in TASKS if name.startswith(("dm_control/", "mujoco/"))} == RULES.keys()
    for name in TASKS:
        made = get(name)
        assert made.id == name
        assert made.simulators
