"""What runs did in some of their episodes is stored beside the scores, and only shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pmpo_offline.benchmark import bench, episodes
from pmpo_offline.benchmark.html import runs
from pmpo_offline.benchmark.results import Results
from pmpo_offline.tasks.trajectories import Trajectories


def trajectories(count: int, points: int = 3) -> Trajectories:
    """Episodes whose numbers say where they are from: observation d of step t of episode i is 100 i + 10 t + d."""
    step = np.tile(np.arange(1, points + 1, dtype=np.int32), (count, 1))
    step[0, 2:] = 0  # shorter than the others
    own = 100.0 * np.arange(count)[:, None] + 10 * np.arange(1, points + 1)
    observation = own[..., None] + np.arange(2)
    return Trajectories(step, *(each.astype(np.float32) for each in (own, observation[..., :1], observation)))


def scores(returns: list[list[float]]) -> pl.DataFrame:
    """Scores of runs 5, 6, … on episodes 2, 3, … of those that were played: the first two are left out."""
    played = 2 + len(returns[0])
    records = [
        {"seed": 5 + run, "episode": 2 + number, "place": run * played + 2 + number, "return": value}
        for run, own in enumerate(returns)
        for number, value in enumerate(own)
    ]
    return pl.DataFrame(records, {"seed": pl.Int32, "episode": pl.Int32, "place": pl.UInt32, "return": pl.Float64})


def test_of_each_run_the_worst_the_median_and_the_best_are_stored(tmp_path: Path) -> None:
    results = Results(tmp_path)
    episodes.store(results, "k", scores([[3.0, 1.0, 2.0, 9.0], [0.0, 0.0, 0.0, 0.0]]), trajectories(12), "test/none")
    found = episodes.load(results, ["k", "other"])["k"]
    assert found.select("seed", "which", "episode", "return").rows() == [
        *[(5, "worst", 3, 1.0), (5, "median", 2, 3.0), (5, "best", 5, 9.0)],
        *[(6, "worst", 2, 0.0), (6, "median", 4, 0.0), (6, "best", 5, 0.0)],
    ]
    assert found["step"][0].to_list() == [1, 2, 3]
    assert found["observation"][0].to_list() == pytest.approx([310, 320, 330, 311, 321, 331], rel=1e-3)
    assert found["action"][5].to_list() == pytest.approx([1110, 1120, 1130], rel=1e-3)
    done = runs.did([{}, {"k": found, "l": found}], 3)
    assert [*done] == [("k", 5), ("l", 5), ("k", 6)], "a row's second run comes after the first of all rows"
    shown = done["k", 5]["episodes"]
    assert [each["which"] for each in shown] == ["worst", "median", "best"]
    assert shown[0]["series"]["observation 1"] == pytest.approx([311, 321, 331], rel=1e-3)
    assert not shown[0]["film"], "no task of this name is known here"


@pytest.mark.parametrize(("returns", "which"), [([4.0], ["worst"]), ([4.0, 2.0], ["worst", "best"])])
def test_a_run_of_few_episodes_has_each_once(tmp_path: Path, returns: list[float], which: list[str]) -> None:
    episodes.store(Results(tmp_path), "k", scores([returns]), trajectories(4), "test/none")
    assert episodes.load(Results(tmp_path), ["k"])["k"]["which"].to_list() == which


def test_damaged_or_other_tables_are_left_out(tmp_path: Path) -> None:
    results = Results(tmp_path)
    episodes.store(results, "k", scores([[1.0]]), trajectories(3), "test/none")
    whole, content = episodes.load(results, ["k"])["k"], results.beside("episodes", "k").read_bytes()
    results.write_beside("episodes", "cut", whole.with_columns(pl.col("observation").list.head(2)))
    results.beside("episodes", "k").write_bytes(content[: len(content) // 2])
    results.write_beside("episodes", "other", pl.DataFrame({"seed": [1]}))
    results.write_beside("answers", "other", pl.DataFrame({"seed": [1]}))
    assert episodes.load(results, ["k", "cut", "other"]) == {}
    assert episodes.load_answers(results, ["k", "other"]) == {}


def test_answers_of_earlier_versions_have_no_reward(tmp_path: Path) -> None:
    results, older = Results(tmp_path), dict.fromkeys(episodes.ANSWERS.names()[1:-1], "text")
    results.write_beside("answers", "k", pl.DataFrame([{"seed": 3, **older}]))
    done = runs.did([episodes.load_answers(results, ["k"])], 9)
    assert done == {("k", 3): {"answers": [{**older, "return": None}]}}


def test_bench_stores_samples_of_a_bandit_within_kilobytes(tmp_path: Path) -> None:
    options = {"datasets": "bandit/gmm-v0", "seeds": 2, "episodes": 60, "updates": 5, "home": tmp_path / "home"}
    done = bench("bandit", algos="pmpo", output=tmp_path / "out", workers=1, **options)
    results = Results(done.output)
    found = episodes.load(results, [row["key"] for row in done.rows])
    assert {*found} == {row["key"] for row in done.rows}
    for key, table in found.items():
        raw = results.read([key])
        rewards = table.with_columns(reward=pl.col("reward").list.first()).select("seed", "episode", "reward")
        joined = rewards.join(raw, on=["seed", "episode"])
        assert len(joined) == 2 * episodes.SAMPLES
        assert joined["reward"].to_list() == pytest.approx(joined["return"].to_list(), rel=2e-3)
        assert results.beside("episodes", key).stat().st_size < 8_000
    done = runs.did([found], 99)
    assert {*done} == {(key, seed) for key in found for seed in (0, 1)}
    assert all({*each["samples"][0]} == {"first", "second", "reward"} for each in done.values())
