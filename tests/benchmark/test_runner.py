"""The whole way, with datasets of noise: three updates and two episodes are enough to see it run.

What is particular to simulated episodes (layouts, a run that is killed) is seen on stacking, all else on a bandit,
whose episodes take one step instead of 200.
"""

import re
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from helpers.labelled import saved

from pmpo_offline import data
from pmpo_offline.benchmark import EXECUTORS, Benchmark, Local, bench, report_on
from pmpo_offline.benchmark.plan import open_condition
from pmpo_offline.benchmark.results import Results
from pmpo_offline.benchmark.suite import Condition, Job, expand
from pmpo_offline.cli.main import run
from pmpo_offline.data import columns
from pmpo_offline.declarations import catalog
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.runtime.progress import on_progress

SUITE = """
title = "Small"
datasets = ["{dataset}"]
imbalance = [0.5]
algorithms = ["{learner}"]
reference = "{reference}"
shuffled = ["{learner}"]
seeds = 2
episodes = 2
updates = 3
"""
EPISODES, STEPS = 8, 6


def noise(directory: Path, task: str, **widths: int) -> Path:
    """Store episodes of noise with columns of these widths, 0s where it is 1; three episodes of the eight succeed."""
    rng = np.random.default_rng(0)
    rows, episodes = np.arange(EPISODES * STEPS), np.arange(EPISODES)
    wide = {
        name: columns.list_array(rng.normal(scale=n > 1, size=(len(rows), n)).clip(-0.9, 0.9))
        for name, n in widths.items()
    }
    transitions = {
        **wide,
        "reward": rng.random(len(rows)),
        "terminated": np.zeros(len(rows), bool),
        "truncated": rows % STEPS == STEPS - 1,
        "episode": rows // STEPS,
        "step": rows % STEPS,
        "score": pa.nulls(len(rows), pa.float32()),
        "label": pa.nulls(len(rows), pa.bool_()),
    }
    table = {
        "start": episodes * STEPS,
        "length": np.full(EPISODES, STEPS),
        "return": np.add.reduceat(transitions["reward"], episodes * STEPS),
        "success": episodes < 3,
        "terminated": np.zeros(EPISODES, bool),
        "final_observation": wide["observation"].slice(0, EPISODES),
        "behavior": ["noise"] * EPISODES,
        "seed": episodes,
        "score": pa.nulls(EPISODES, pa.float64()),
        "label": pa.nulls(EPISODES, pa.bool_()),
        "split": ["train"] * EPISODES,
    }
    saved(
        directory,
        pa.table({name: pa.array(column) for name, column in transitions.items()}).cast(
            data.transitions_schema(*widths.values())
        ),
        pa.table({name: pa.array(column) for name, column in table.items()}).cast(
            data.episodes_schema(widths["observation"])
        ),
        "success",
        id="test/noise-v0",
        task=task,
        references=data.References(min=0.0, max=100.0, how="made up"),
    )
    return directory


@pytest.fixture(scope="module")
def stacking_noise(tmp_path_factory) -> Path:
    task = catalog.dataset("rgb-stacking/proxy-v0").task
    return noise(tmp_path_factory.mktemp("home") / "test" / "noise-v0", task, observation=80, action=5)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    return noise(tmp_path_factory.mktemp("home") / "test" / "noise-v0", "bandit/sphere", observation=1, action=10)


@pytest.fixture(scope="session")
def small_suite(declare_in):
    """Write a suite of a clone, a learner and its control on a dataset into a folder."""

    def write(folder: Path, dataset: Path, family: str) -> str:
        clone = declare_in(folder, "clone", "bc", family=family)
        learner = declare_in(folder, "learner", "pmpo", "beta = 2", family=family)
        path = folder / "small.toml"
        path.write_text(SUITE.format(dataset=dataset, reference=clone, learner=learner))
        return str(path)

    return write


@pytest.fixture
def suite(tmp_path, small_suite, dataset) -> str:
    return small_suite(tmp_path, dataset, "bandit")


@pytest.fixture(scope="module")
def stacking_suite(tmp_path_factory, small_suite, stacking_noise) -> str:
    return small_suite(tmp_path_factory.mktemp("suite"), stacking_noise, "rgb-stacking")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, stacking_suite) -> tuple[Benchmark, list[str]]:
    """The suite on stacking, run without an interruption, and its stages."""
    stages = []
    with on_progress(lambda stage, done, total: stages.append(stage)):
        return bench(stacking_suite, output=tmp_path_factory.mktemp("whole") / "out", workers=1), stages


def written(output: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (output / "raw").iterdir()}


def test_returns_are_not_compared_with_references_of_another_simulator(tmp_path, stacking_suite, stacking_noise):
    found = data.open_dataset(stacking_noise)
    references = data.References(min=0.0, max=100.0, how="made up", versions={"mujoco": "3.0.0"})
    metadata = found.metadata.model_copy(update={"references": references})
    elsewhere = tmp_path / "test" / "noise-v0"
    data.write(elsewhere, metadata, {"transitions": found.table, "episodes": found.episodes})
    with pytest.raises(UserError, match=r"test/noise-v0: its reference scores are of mujoco 3\.0\.0"):
        bench(stacking_suite, datasets=[str(elsewhere)], output=tmp_path / "out", workers=1)
    assert not (tmp_path / "out" / "raw").exists()


def test_nothing_is_trained_for_a_task_that_nothing_plays(tmp_path, stacking_suite, stacking_noise):
    found, told = data.open_dataset(stacking_noise), []
    metadata = found.metadata.model_copy(update={"task": "rgb-stacking/real", "references": None})
    imported = tmp_path / "test" / "noise-v0"
    data.write(imported, metadata, {"transitions": found.table, "episodes": found.episodes})
    message = "nothing here simulates its task rgb-stacking/real"
    with pytest.raises(UserError, match=message), on_progress(lambda *stage: told.append(stage)):
        bench(stacking_suite, datasets=[str(imported)], output=tmp_path / "out", workers=1)
    assert not [stage for stage, *_ in told if "train" in stage]


def test_bench_runs_what_is_missing_and_nothing_twice(tmp_path, stacking_suite, stacking_noise, whole):
    first, stages = whole
    output = Path(shutil.copytree(first.output, tmp_path / "out"))
    assert [(row["algo"], row["seeds"], row["episodes"]) for row in first.rows] == [
        ("clone", 2, 2),
        ("learner", 2, 2),
        ("learner (shuffled)", 2, 2),
    ]
    assert [row["bounded"] for row in first.rows] == [None, True, True]
    assert {row["dataset"] for row in first.rows} == {str(stacking_noise)}
    assert {(row["imbalance"], row["share"]) for row in first.rows} == {(0.5, 0.5)}
    assert "benchmark" in stages
    assert not first.failures
    assert not (output / "checkpoints").exists()

    raw = pl.read_parquet(first.raw / "*.parquet")
    assert len(raw) == 3 * 2 * 2
    assert raw.group_by("key", "seed").len()["len"].to_list() == [2] * 6
    layouts = raw.group_by("key", "seed").agg(pl.col("layout").sort_by("episode"))["layout"].to_list()
    assert all(each == layouts[0] for each in layouts), "every run is evaluated on the same held-out layouts"

    files = written(output)
    again = bench(stacking_suite, output=output, workers=1)
    assert again.rows == first.rows
    assert written(output) == files

    # Half of the labels are rejects, 3 episodes of 8: the bound is 0.5 · 0.5 / (3 / 8), and 3 times that is 2 again.
    wider = bench(stacking_suite, output=output, workers=1, settings={"learner": {"beta": [2, 3, "3x"]}})
    assert files.items() < written(output).items()
    assert len(wider.rows) == 5
    assert all(row in wider.rows for row in first.rows)
    assert {row["episodes"] for row in wider.rows} == {2}
    assert report_on(output).rows == wider.rows


def test_runs_of_a_killed_benchmark_are_kept_and_the_rest_comes_out_the_same(
    tmp_path, stacking_suite, whole, forkserver
):
    output = tmp_path / "killed"
    command = ["bench", stacking_suite, "--output", str(output), "--workers", "1"]
    process = forkserver.Process(target=run, args=(command,))
    process.start()
    while process.is_alive() and not list((output / "raw").glob("*.parquet")):
        time.sleep(0.01)
    process.kill()
    process.join()
    kept = written(output)
    assert kept
    resumed = bench(stacking_suite, output=output, workers=1)
    assert kept.items() <= written(output).items()
    assert resumed.rows == whole[0].rows


def test_cell_that_is_impossible_does_not_stop_the_others(tmp_path, suite, declare_in):
    pairs = Path(declare_in(tmp_path, "pairs", "dpo", family="bandit"))
    pairs.write_text(pairs.read_text().replace('rows = "all"', 'rows = "pairs"'))
    done = bench(suite, algos=[str(pairs)], output=tmp_path / "out", workers=1)
    assert [row["algo"] for row in done.rows] == ["clone"]
    assert len(done.failures) == 1
    assert done.failures[0].startswith("pairs, ")


def test_share_that_is_impossible_does_not_stop_the_others(tmp_path, suite, dataset):
    clone = str(tmp_path / "bandit" / "clone.toml")
    done = bench(suite, algos=[clone], imbalance=[0.5, 0.001, 0.4], output=tmp_path / "out", workers=1)
    assert [row["imbalance"] for row in done.rows] == [0.4, 0.5]
    (failure,) = done.failures
    assert failure.startswith(f"{dataset} at 0.001: imbalance 0.001 is impossible with 3 accepted and 5 rejected")
    with pytest.raises(UserError, match=r"imbalance 0\.001 is impossible"):
        bench(suite, algos=[clone], imbalance=[0.001], output=tmp_path / "none", workers=1)


def test_a_share_reached_by_dropping_rows_is_a_section_of_its_own(tmp_path, suite, dataset):
    clone = str(tmp_path / "bandit" / "clone.toml")
    shares = {"imbalance": [0.5], "balance": ["labels", "rows"]}
    done = bench(suite, algos=[clone], **shares, output=tmp_path / "out", workers=1)
    assert [(row["balance"], row["share"]) for row in done.rows] == [("labels", 0.5), ("rows", 0.5)]
    assert len({row["dataset_sha"] for row in done.rows}) == 2
    assert "0.50 (rows)" in done.report.read_text()


def test_labels_as_the_dataset_has_them_and_as_collected(tmp_path, dataset):
    whole = data.load_dataset(dataset)
    balanced = whole.relabelled(imbalance=0.5)
    tables = {"transitions": balanced.table, "episodes": balanced.episodes}
    path = tmp_path / "balanced"
    data.write(path, balanced.metadata, tables)

    for share, expected in ((None, balanced), ("collected", whole)):
        found = open_condition(Condition(str(path), share, None))
        assert found.episodes.equals(expected.episodes)
        assert found.metadata.imbalance.asked == expected.metadata.imbalance.asked


def test_balance_that_a_recipe_declares_is_kept_or_undone(tmp_path, recipe, stacking, stacking_home):
    balanced = tmp_path / "balanced.toml"
    text = recipe.read_text().replace(stacking.metadata.id, "test/balanced-v0")
    balanced.write_text(f"imbalance = 0.5\n{text}")
    found = open_condition(Condition(str(balanced), None, None), stacking_home, workers=1)
    assert found.metadata.imbalance.asked == 0.5
    found = open_condition(Condition(str(balanced), "collected", None), stacking_home, workers=1)
    assert found.metadata.imbalance.asked is None
    assert found.episodes.equals(stacking.episodes)


def test_a_cell_that_failed_is_reported_after_the_table(tmp_path, suite, dataset, monkeypatch):
    """Also if both streams go to one file, where stdout is buffered."""
    log = tmp_path / "log.txt"
    arguments = ["bench", suite, "--algos", "bc-accepted", "--imbalance", "0", "--output", str(tmp_path / "out")]
    with log.open("a") as out, log.open("a", buffering=1) as err, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", out)
        patched.setattr(sys, "stderr", err)
        assert run([*arguments, "--workers", "1"]) == 1
    *_, report, failure, _ = log.read_text().splitlines()
    assert report.startswith("report: ")
    assert failure.startswith(f"error: bc-accepted, {dataset} at 0: the labels leave this algorithm nothing to learn")


def test_a_suite_sets_the_trainer_s_hyperparameters(suite, dataset):
    path = Path(suite)
    path.write_text(path.read_text() + "[training]\nhidden = [8]\nbatch = 16\n")
    declared = catalog.suite(suite)
    (cell, *_) = expand(declared, {str(dataset): "bandit"})
    job = Job(declared, cell, data.open_dataset(dataset))
    assert job.overrides == {"updates": 3, "hidden": [8], "batch": 16}
    assert job.training == job.overrides  # in place of the algorithm's own updates = 100


def test_cells_run_by_the_executor_that_is_named(tmp_path, suite, monkeypatch):
    ran = []

    class Elsewhere(Local):
        def run(self, units):
            ran.extend(units)
            return super().run(units)

    monkeypatch.setitem(EXECUTORS._loaded, "elsewhere", Elsewhere)
    assert len(bench(suite, output=tmp_path / "out", workers=1, executor="elsewhere").rows) == len(ran) == 3
    with pytest.raises(UserError, match="unknown executor 'locale': did you mean local"):
        bench(suite, output=tmp_path / "out", executor="locale")


def test_returns_that_are_not_numbers_are_reported_as_failures_every_time(tmp_path, stacking_suite, whole):
    output = Path(shutil.copytree(whole[0].output, tmp_path / "out"))
    results, key = Results(output), whole[0].rows[1]["key"]
    broken = pl.when(pl.col("episode") == 0).then(float("nan")).otherwise("return").alias("return")
    results.write(key, results.read([key]).with_columns(broken))
    for done in (bench(stacking_suite, output=output, workers=1), report_on(output)):
        (failure,) = done.failures
        assert failure.startswith("learner, ")
        assert f"2 returns are not numbers: its score means nothing (raw/{key}.parquet)" in failure


def test_a_setting_that_diverges_has_no_scores_and_does_not_stop_the_others(tmp_path, declare_in, suite):
    declare_in(tmp_path, "learner", "sppo_unpaired", "beta = 2", family="bandit")
    with pytest.warns(UserWarning, match="diverged"):  # 1 / (2 β), squared, is infinite in single precision
        done = bench(suite, output=tmp_path / "out", workers=1, settings={"learner": {"beta": [2, 1e-30]}})
    assert len(done.failures) == 2, "on true and on shuffled labels"
    assert re.match(
        r'learner, .*: training diverged with .*"beta": 1e-30.*: no scores of these settings', done.failures[0]
    )
    assert sorted(row["beta"] for row in done.rows if row["algo"] == "learner" and not row["shuffled"]) == [2]


def test_a_folder_that_cannot_be_written_is_refused_before_datasets_are_built(tmp_path, suite, monkeypatch):
    monkeypatch.setattr("pmpo_offline.benchmark.runner.prepare", lambda *_: pytest.fail("it built"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/checkpoints").write_text("in the way")
    with pytest.raises(PmpoOfflineError, match="checkpoints"):
        bench(suite, output=tmp_path / "out", workers=2)
