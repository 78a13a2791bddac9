"""What runs did in some of their episodes is stored beside the scores, and only shown."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pmpo_offline.benchmark import bench, episodes
from pmpo_offline.benchmark.html import runs, steps
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
    kinds = {"seed": pl.Int32, "episode": pl.Int32, "place": pl.UInt32, "return": pl.Float64}
    return pl.DataFrame(records, kinds).with_columns(key=pl.lit("k"))


def test_of_each_run_the_worst_the_median_and_the_best_are_stored(tmp_path: Path) -> None:
    results, raw = Results(tmp_path), scores([[3.0, 1.0, 2.0, 9.0], [0.0, 0.0, 0.0, 0.0]])
    episodes.store(results, "k", raw, trajectories(12), "test/none")
    found = episodes.load(results, raw)["k"]
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
    assert episodes.load(Results(tmp_path), scores([returns]))["k"]["which"].to_list() == which


RECORD: dict[str, object] = {
    **{"task": "test/none", "seed": 5, "episode": 2, "which": "worst", "return": 1.0},
    **{"step": [1, 2], "reward": [1.0, 2.0], "action": [0.0, 1.0], "observation": [1.0, 2.0]},
}
ANSWER: dict[str, object] = {"seed": 5, **dict.fromkeys(episodes.ANSWERS.names()[1:-1], "text"), "return": 1.0}
SHORT: dict[str, object] = {"which": "sample", "step": [1], "reward": [1.0], "observation": [1.0]}


@pytest.mark.parametrize(
    "changed",
    [
        *({name: [1, None]} for name in ("step", "reward", "action", "observation")),
        *({"observation": [1.0]}, {"reward": [1.0]}, {"step": [], "reward": [], "action": [], "observation": []}),
        *({"which": "else"}, {"which": "sample"}, {**SHORT, "action": []}, {"task": None}),
        *({"return": math.nan}, {"return": 2.0}, {"seed": 6}, {"episode": 3}),
    ],
)
def test_episodes_that_are_not_whole_or_of_other_runs_are_left_out(tmp_path: Path, changed: dict[str, object]) -> None:
    results, raw = Results(tmp_path), scores([[1.0]])
    for record in (RECORD, {**RECORD, **SHORT, "action": [1.0]}):
        results.write_beside("episodes", "k", pl.DataFrame([record], episodes.SCHEMA))
        assert runs.did([episodes.load(results, raw)], 9)
    results.write_beside("episodes", "k", pl.DataFrame([RECORD, {**RECORD, **changed}], episodes.SCHEMA))
    assert episodes.load(results, raw) == {}


def test_damaged_or_other_tables_are_left_out(tmp_path: Path) -> None:
    results, raw = Results(tmp_path), scores([[1.0]])
    for folder, load in (("episodes", episodes.load), ("answers", episodes.load_answers)):
        whole = pl.DataFrame([RECORD], episodes.SCHEMA) if folder == "episodes" else pl.DataFrame([ANSWER])
        results.write_beside(folder, "k", whole)
        assert {*load(results, raw)} == {"k"}
        content = results.beside(folder, "k").read_bytes()
        results.beside(folder, "k").write_bytes(content[: len(content) // 2])
        assert load(results, raw) == {}
        for other in (pl.DataFrame({"seed": [5]}), whole.with_columns(seed=pl.lit(6, whole.schema["seed"]))):
            results.write_beside(folder, "k", other)
            assert load(results, raw) == {}


def test_a_state_that_a_task_cannot_draw_has_no_picture() -> None:
    flat = np.zeros((3, 80), np.float32)  # objects without an extent
    assert steps.filmstrip("rgb-stacking/proxy", np.arange(1, 4), flat) == {}


def test_answers_of_earlier_versions_have_no_reward(tmp_path: Path) -> None:
    results, older = Results(tmp_path), dict.fromkeys(episodes.ANSWERS.names()[1:-1], "text")
    results.write_beside("answers", "k", pl.DataFrame([{"seed": 5, **older}]))
    done = runs.did([episodes.load_answers(results, scores([[1.0]]))], 9)
    assert done == {("k", 5): {"answers": [{**older, "return": None}]}}


def test_bench_stores_samples_of_a_bandit_within_kilobytes(tmp_path: Path) -> None:
    options = {"datasets": "bandit/gmm-v0", "seeds": 2, "episodes": 60, "updates": 5, "home": tmp_path / "home"}
    done = bench("bandit", algos="pmpo", output=tmp_path / "out", workers=1, **options)
    results = Results(done.output)
    found = episodes.load(results, results.read())
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
