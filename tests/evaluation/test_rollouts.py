"""Held-out rollouts: the same layouts for everybody, whatever is stacked beside a run and however many threads play."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from pmpo_offline.build import build_dataset
from pmpo_offline.data import Dataset, Rows
from pmpo_offline.evaluation import evaluate
from pmpo_offline.policies import MixturePolicy
from pmpo_offline.runtime.progress import on_progress
from pmpo_offline.tasks import get
from pmpo_offline.tasks.stacking.scene import TRIPLETS
from pmpo_offline.tasks.stacking.task import StackingBehavior, held_out_layouts, record
from pmpo_offline.training import train

TASK, EPISODES = "rgb-stacking/proxy", 6


def policies(dataset: Dataset, seeds: list[int]) -> MixturePolicy:
    observation = Rows.of(dataset).observation
    made = MixturePolicy(seeds, observation.mean(0), observation.std(0), 5, components=3, hidden=(16,))
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(1.5)  # louder, so that the runs do not all stand still
    return made.eval()


@pytest.fixture(scope="module")
def scores(stacking: Dataset) -> pl.DataFrame:
    return evaluate(policies(stacking, [0, 1, 2]), TASK, episodes=EPISODES, workers=1)


def test_one_row_a_run_and_episode(scores: pl.DataFrame) -> None:
    assert scores.schema == {
        "run": pl.Int32,
        "episode": pl.Int32,
        "return": pl.Float64,
        "success": pl.Boolean,
        "length": pl.Int32,
        "layout": pl.String,
    }
    assert scores["run"].to_list() == [run for run in range(3) for _ in range(EPISODES)]
    assert scores["episode"].to_list() == list(range(EPISODES)) * 3
    assert scores["return"].is_between(-200, 0).all()
    assert (scores["length"] == 200).all() == (not scores["success"].any())


def test_what_train_returns_is_evaluated_as_its_policy(tmp_path: Path) -> None:
    dataset = build_dataset("bandit/sphere-v0", episodes=60, workers=1, home=tmp_path)
    trained = train(dataset, "bc", seeds=[0, 1], updates=5)
    assert evaluate(trained, "bandit/sphere", episodes=4).equals(evaluate(trained.policy, "bandit/sphere", episodes=4))


def test_every_run_plays_the_same_layouts(scores: pl.DataFrame) -> None:
    names = list(TRIPLETS)
    for run in range(3):
        own = scores.filter(pl.col("run") == run)
        assert own["layout"].to_list() == [names[i % 5] for i in range(EPISODES)]
    assert scores["return"].n_unique() == 3 * EPISODES, "and each plays them its own way"


def test_scores_do_not_depend_on_what_is_stacked(stacking: Dataset, scores: pl.DataFrame) -> None:
    alone = evaluate(policies(stacking, [1]), TASK, episodes=EPISODES, workers=1)
    beside = scores.filter(pl.col("run") == 1).with_columns(run=pl.lit(0, pl.Int32))
    assert alone.equals(beside), "as the second of three"


def test_scores_do_not_depend_on_threads(stacking: Dataset, scores: pl.DataFrame) -> None:
    told: list[tuple[str, int, int]] = []
    with on_progress(lambda *each: told.append(each)):
        again = evaluate(policies(stacking, [0, 1, 2]), TASK, episodes=EPISODES, workers=2)
    assert again.equals(scores)
    assert told[-1] == ("play episodes", 200, 200)


def test_a_policy_that_diverged_stands_still(stacking: Dataset) -> None:
    broken = policies(stacking, [0, 1])
    with torch.no_grad():
        for weight in broken.parameters():
            weight[0] = torch.nan
    scores = evaluate(broken, TASK, episodes=2, workers=1)
    assert scores["return"].is_finite().all()
    assert not scores["success"][:2].any()
    sound = evaluate(policies(stacking, [1]), TASK, episodes=2, workers=1)
    assert scores["return"][2:].to_list() == sound["return"].to_list(), "its neighbour does not notice"


def test_held_out_layouts_are_nobodys_training_layouts() -> None:
    held_out, _ = held_out_layouts(200)
    starts = {each.qpos.tobytes() for each in held_out}
    assert len(starts) == 200
    assert {each.triplet for each in held_out} == set(TRIPLETS.values())
    # A longer evaluation begins with the shorter one, so that more episodes are more of the same.
    assert [each.qpos.tobytes() for each in held_out_layouts(7)[0]] == [each.qpos.tobytes() for each in held_out[:7]]
    references, _ = held_out_layouts(200, 7_310_000_000 + 1_000_000)
    assert not starts & {each.qpos.tobytes() for each in references}, "nor those that 0 and 100 were measured on"


@pytest.mark.parametrize("seed", [0, 7310])
def test_collection_never_starts_where_the_evaluation_does(seed: int) -> None:
    # 7310 is the dataset seed whose episodes have the very numbers of the held-out ones.
    recorded = record([StackingBehavior(name="script", weight=1)], [seed * 1_000_000 + i for i in range(3)])
    firsts = recorded.observation[np.cumsum(recorded.length) - recorded.length]
    for layout in held_out_layouts(3)[0]:
        assert np.abs(firsts[:, :2] - layout.qpos[:2]).max(axis=1).min() > 1e-4


def test_references_bracket_the_task() -> None:
    low, high = get(TASK).references(4, 0, 1)
    assert (low.returns < high.returns).all()
    assert not low.success.any()
    assert high.success.all()
