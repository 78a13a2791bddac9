"""A bandit as a task: one step an episode, exact candidates, the policy's draws scored, a dataset that keeps them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from pmpo_offline import data
from pmpo_offline.build import build_dataset
from pmpo_offline.declarations import catalog
from pmpo_offline.policies import MixturePolicy
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.progress import on_progress
from pmpo_offline.tasks import CollectionSpec, Task, get
from pmpo_offline.tasks.bandit import FUNCTIONS, SUCCESS, BanditTask

NAMES = list(FUNCTIONS)
every_name = pytest.mark.parametrize("name", NAMES)
GAUSSIAN = {"name": "near", "weight": 3, "distribution": "gaussian", "mean": 0.25, "std": 0.1}
UNIFORM = {"name": "anywhere", "weight": 1, "distribution": "uniform"}


def regret(task: Task, action: np.ndarray) -> np.ndarray:
    assert isinstance(task, BanditTask)
    return task.function.regret(torch.from_numpy(action)).numpy()


@every_name
def test_an_episode_is_one_action(name: str, tmp_path: Path):
    task = get(f"bandit/{name}")
    reported: list[tuple[str, int, int]] = []
    with on_progress(lambda *each: reported.append(each)):
        experience = task.collect(CollectionSpec([GAUSSIAN, UNIFORM], 4000, 3), tmp_path, 1)

    assert task.id == f"bandit/{name}"
    assert (
        experience.observation.shape == experience.final_observation.shape == (4000, task.observation_dim) == (4000, 1)
    )
    assert not experience.observation.any()
    assert not experience.final_observation.any()
    assert experience.action.shape == (4000, task.action_dim) == (4000, 10)
    assert np.abs(experience.action).max() <= 1
    np.testing.assert_array_equal(experience.reward, -regret(task, experience.action))
    np.testing.assert_array_equal(experience.success, experience.reward >= -SUCCESS)
    assert experience.length.tolist() == [1] * 4000
    assert experience.terminated.all()
    assert len(set(experience.seed.tolist())) == 4000
    assert reported == [("play episodes", 4000, 4000)]

    near, anywhere = (experience.action[experience.behavior == b] for b in ("near", "anywhere"))
    assert len(near) / 4000 == pytest.approx(0.75, abs=0.03)
    assert near.mean() == pytest.approx(0.25, abs=0.005)
    assert near.std() == pytest.approx(0.1, abs=0.005)
    assert anywhere.mean() == pytest.approx(0, abs=0.02)
    assert anywhere.std() == pytest.approx(3**-0.5, abs=0.02)


def test_seeds_make_the_experience(tmp_path: Path):
    task = get("bandit/sphere")
    one, again, other = (task.collect(CollectionSpec([GAUSSIAN], 50, seed), tmp_path, 1) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.action, again.action)
    assert not (one.action == other.action).any()
    assert not set(one.seed.tolist()) & set(other.seed.tolist())


@every_name
def test_candidates_are_fresh_draws_with_exact_scores(name: str, tmp_path: Path):
    task = get(f"bandit/{name}")
    experience = task.collect(
        CollectionSpec([GAUSSIAN, UNIFORM], 800, 0), tmp_path, 1
    )  # as many as candidates: a stream may not recur
    scored = task.candidates(CollectionSpec([GAUSSIAN, UNIFORM], 800, 0), experience, 200, 4)
    assert scored is not None
    assert scored.row.tolist() == list(range(200))
    assert scored.action.shape == (200, 4, 10)
    np.testing.assert_array_equal(scored.score, -regret(task, scored.action))
    recorded, fresh = ({row.tobytes() for row in each.reshape(-1, 10)} for each in (experience.action, scored.action))
    assert len(recorded) == len(fresh) == 800
    assert not recorded & fresh
    fewer = task.candidates(CollectionSpec([GAUSSIAN], 800, 0), experience, 1000, 2)
    assert fewer is not None
    assert fewer.action.shape == (800, 2, 10)


def test_candidates_stay_exact_where_critics_label_the_rows(tmp_path: Path):
    """The rows' scores are then advantages by critics, here of little training; candidates need no critic."""
    declared = catalog.root("datasets") / "bandit" / "schwefel-v0.toml"
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(declared.read_text() + "\n[critic]\nfolds = 2\nhidden = [8]\nupdates = 5\nsweeps = 1\n")
    stages: set[str] = set()
    with on_progress(lambda stage, *_: stages.add(stage)):
        dataset = build_dataset(str(recipe), label="advantage:q0.5", episodes=200, home=tmp_path, workers=1)
    assert "clone the behaviour" not in stages, "what would draw candidates elsewhere"

    assert dataset.metadata.score.name == "advantage"
    assert dataset.candidates is not None
    task = get(dataset.metadata.task)

    def columns(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        action = np.stack(table["action"].to_numpy()).astype(np.float32)
        return -regret(task, action), table["score"].to_numpy()

    exact, score = columns(dataset.candidates)
    assert len(score) == 800
    np.testing.assert_array_equal(score, exact)
    exact, score = columns(dataset.table)
    assert (score != exact).all()


@pytest.mark.parametrize(
    ("behaviors", "message"),
    [
        ([], "needs at least one"),
        ([{**GAUSSIAN, "distribution": "cauchy"}], "distribution"),
        ([{**GAUSSIAN, "std": 0}], "std"),
        ([{**GAUSSIAN, "mean": 2}], "mean"),
        ([{**GAUSSIAN, "speed": 2}], "speed"),
    ],
)
def test_a_malformed_declaration_is_said(behaviors: list[dict[str, object]], message: str, tmp_path: Path):
    with pytest.raises(UserError, match=message):
        get("bandit/sphere").collect(CollectionSpec(behaviors, 10, 0), tmp_path, 1)


def test_a_policy_is_scored_by_its_draws():
    """One run is at the best action with the narrowest head, the other beside it; both meet the same draws."""
    task = get("bandit/sphere")
    policy = MixturePolicy([0, 1], torch.zeros(1), torch.ones(1), task.action_dim, components=1, hidden=())
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.zero_()
        bias = policy.network[-1].bias
        bias[0, 0, 1:11] = 0.5
        bias[:, 0, 11:] = -20  # the deviation is at its floor of 0.05
    outcome, names = task.score(policy, 2000, 1)
    returns = outcome.returns.reshape(2, 2000)

    assert names == ["sphere"] * 2000
    assert outcome.length.tolist() == [1] * 4000
    assert returns[0].mean() == pytest.approx(-(0.05**2) * 12 / 7, rel=0.02)  # its variance is all that is lost
    assert returns[1].mean() == pytest.approx(-(0.25 + 0.05**2) * 12 / 7, rel=0.02)
    np.testing.assert_array_equal(outcome.success, outcome.returns >= -SUCCESS)
    assert outcome.success.reshape(2, 2000).all(axis=1).tolist() == [True, False]


def test_a_policy_that_diverged_is_scored():
    task = get("bandit/sphere")
    policy = MixturePolicy([0], torch.zeros(1), torch.ones(1), task.action_dim, components=1, hidden=())
    with torch.no_grad():
        policy.network[-1].bias.fill_(torch.nan)
    assert task.score(policy, 3, 1)[0].returns.tolist() == pytest.approx([-2.25 * 12 / 7] * 3)  # in the corner of -1


@every_name
def test_references_are_what_their_table_says(name: str):
    task = get(f"bandit/{name}")
    random, best = task.references(20_000, 0, 1)
    declared = catalog.references(task.id)
    assert declared is not None
    assert random.returns.mean() == pytest.approx(declared["min"], abs=0.01)
    assert best.returns == pytest.approx(declared["max"], abs=1e-12)
    assert best.success.all()


@every_name
def test_a_dataset_is_built_and_read_again(name: str, tmp_path: Path):
    built = build_dataset(f"bandit/{name}-v0", episodes=400, home=tmp_path)
    dataset = data.load_dataset(built.metadata.id, home=tmp_path)

    assert dataset.metadata.task == f"bandit/{name}"
    assert dataset.metadata.references is not None
    assert (dataset.metadata.references.min, dataset.metadata.references.max) == (-1, 0)
    counts = dataset.metadata.counts
    assert (counts.rows, counts.episodes, counts.accepted, counts.rejected) == (400, 400, 200, 200)
    assert dataset.candidates is not None
    assert dataset.candidates.num_rows == 1600

    task = get(dataset.metadata.task)
    for table, score in ((dataset.table, "reward"), (dataset.candidates, "score")):
        action = np.stack(table["action"].to_numpy()).astype(np.float32)
        np.testing.assert_array_equal(table[score].to_numpy(), -regret(task, action))
    rewards = dataset.table["reward"].to_numpy()
    accepted = np.array(dataset.table["label"].to_pylist())
    assert rewards[accepted].min() > rewards[~accepted].max()
    groups = dataset.candidates["score"].to_numpy().reshape(-1, 4)
    labels = np.array(dataset.candidates["label"].to_pylist()).reshape(-1, 4)
    assert (labels.sum(1) == 2).all()
    assert (np.where(labels, groups, 1).min(1) >= np.where(labels, -9, groups).max(1)).all()
