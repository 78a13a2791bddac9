"""Datasets of responses: built, shared, shipped, resumed after a kill, and opened by other libraries."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import datasets
from pmpo_offline import data, load_dataset, on_progress
from pmpo_offline.build import build_dataset, sample
from pmpo_offline.build.collect import Recipe
from pmpo_offline.build.sample import Sampling
from pmpo_offline.cli.main import run
from pmpo_offline.data import Dataset
from pmpo_offline.declarations import catalog
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.tasks import language
from pmpo_offline.tasks.language import responses

RECIPE = """
id = "test/reversed-v0"
kind = "responses"
task = "language/tiny"
title = "Two chunks and a little of the tiny grammar"
licence = "Apache-2.0"
episodes = 140
seed = 0
label = "reward:0.5"
[sampling]
responses = 3
test = 0.2
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "reversed.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def home(tmp_path: Path, tiny, language_home: Path) -> Path:
    """A home of its own in which the tiny model stands already."""
    path = tmp_path / "home"
    shutil.copytree(language_home / ".models", path / ".models")
    return path


def frame(dataset: Dataset) -> pl.DataFrame:
    return pl.from_arrow(dataset.table)


def test_tiny_dataset_has_both_labels_on_most_prompts_of_the_judged_split(tiny_dataset):
    rows = frame(tiny_dataset)
    assert rows.columns == data.responses_schema().names
    assert rows.group_by("split").agg(pl.len(), pl.col("prompt_id").n_unique()).sort("split").rows() == [
        ("test", 400, 100),
        ("train", 1600, 400),
    ]
    assert rows.group_by("prompt_id").agg(pl.col("response_id").sort(), pl.col("split").n_unique()).select(
        (pl.col("response_id") == [0, 1, 2, 3]).all(), (pl.col("split") == 1).all()
    ).row(0) == (True, True)
    for split in ("train", "test"):
        both = rows.filter(split=split).group_by("prompt_id").agg(pl.col("label").n_unique())
        assert (both["label"] == 2).mean() > 0.7
    right = rows["completion"] == rows["prompt"].str.strip_suffix("=").str.reverse()
    assert rows["label"].to_list() == right.to_list()
    assert rows["score"].to_list() == right.cast(pl.Float32).to_list()
    assert 0.5 < right.mean() < 0.7


def test_rows_are_shuffled_so_that_batches_in_order_are_mixed(tiny_dataset):
    rows = frame(tiny_dataset)
    assert rows["prompt_id"].head(64).n_unique() > 50
    assert 0.1 < (rows["split"].head(200) == "test").mean() < 0.3
    assert 0.4 < rows["label"].head(200).mean() < 0.8


def test_metadata_tells_who_answered_and_what_is_0_and_100(tiny_dataset):
    metadata = tiny_dataset.metadata
    assert (metadata.kind, metadata.unit, metadata.threshold) == ("responses", "response", 0.5)
    assert metadata.provenance.settings == {
        "model": "tiny",
        "prompts": 500,
        "responses": 4,
        "tokens": 6,
        "ends": True,
        "temperature": 1.0,
        "test": 0.2,
    }
    assert len(metadata.provenance.hashes["model"]) == 64
    test = frame(tiny_dataset).filter(split="test")
    best = test.group_by("prompt_id").agg(pl.col("score").max())["score"]
    assert metadata.references.min == pytest.approx(test["score"].mean())
    assert metadata.references.max == pytest.approx(best.mean())
    assert "best of 4" in metadata.references.how
    assert data.verify(tiny_dataset.path) == []


def test_equal_settings_open_what_stands_and_other_labels_share_the_responses(tiny_dataset, language_home, monkeypatch):
    def no_model(*_, **__):
        raise AssertionError("the model was opened")

    monkeypatch.setattr(sample, "open_model", no_model)
    again = build_dataset("language/tiny-v0", home=language_home)
    assert again.path == tiny_dataset.path
    assert (again.path / "dataset.json").stat().st_mtime_ns == (tiny_dataset.path / "dataset.json").stat().st_mtime_ns

    rare = build_dataset("language/tiny-v0", imbalance=0.1, noise=0.05, home=language_home, format="hdf5")
    assert rare.metadata.imbalance.achieved == pytest.approx(0.1, abs=1e-3)
    assert rare.metadata.id.startswith("language/tiny-")
    assert rare.table.drop_columns(["label"]).equals(tiny_dataset.table.drop_columns(["label"]))
    assert load_dataset(tiny_dataset.path, imbalance=0.1, noise=0.05).table.equals(rare.table)


def test_other_libraries_open_the_files_unchanged(tiny_dataset, tmp_path):
    theirs = datasets.load_dataset(str(tiny_dataset.path), split="train", cache_dir=str(tmp_path))
    assert {"prompt", "completion", "label"} <= set(theirs.column_names)
    assert theirs.data.table.combine_chunks().cast(tiny_dataset.table.schema).equals(tiny_dataset.table)
    scanned = pl.scan_ipc(tiny_dataset.path / "responses.arrow").collect()
    assert scanned.equals(frame(tiny_dataset))


def build_until_killed(recipe: Path, home: Path) -> None:
    """Build, and kill this process after the first chunk."""

    def kill(stage: str, done: int, total: int) -> None:
        if stage == "sample completions":
            os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    with on_progress(kill):
        build_dataset(str(recipe), home=home)


def test_killed_build_goes_on_where_it_stopped_and_gives_the_same(recipe, home, tmp_path, forkserver):
    process = forkserver.Process(target=build_until_killed, args=(recipe, home))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    [chunk] = (home / ".raw").rglob("responses-*.npz")
    before = chunk.stat().st_mtime_ns
    assert data.stored_ids(home) == []

    told = []
    with on_progress(lambda *what: told.append(what)):
        went_on = build_dataset(str(recipe), home=home)
    assert [what for what in told if what[0] == "sample completions"] == [
        ("sample completions", done, 140) for done in (64, 128, 140)
    ]
    assert chunk.stat().st_mtime_ns == before
    other = tmp_path / "other"
    shutil.copytree(home / ".models", other / ".models")
    assert build_dataset(str(recipe), home=other).table.equals(went_on.table)
    assert frame(went_on).filter(split="test")["prompt_id"].n_unique() == 28


def test_more_prompts_begin_with_fewer_and_a_seed_changes_all(recipe, home):
    few = frame(build_dataset(str(recipe), home=home, episodes=64))
    more = frame(build_dataset(str(recipe), home=home))
    columns = ["prompt_id", "response_id", "prompt", "completion", "score", "split"]
    order = ["prompt_id", "response_id"]
    assert more.filter(pl.col("prompt_id") < 64).select(columns).sort(order).equals(few.select(columns).sort(order))
    other = frame(build_dataset(str(recipe), home=home, episodes=64, seed=1))
    assert not set(other["prompt"]) <= set(more["prompt"])


def test_damaged_chunk_is_one_line(recipe, home):
    build_dataset(str(recipe), home=home)
    for chunk in (home / ".raw").rglob("responses-*.npz"):
        chunk.write_bytes(chunk.read_bytes()[:100])
    with pytest.raises(PmpoOfflineError, match=r"responses-0000000-0000064\.npz is damaged .*: delete it") as error:
        build_dataset(str(recipe), home=home, overwrite=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (("responses = 3", "answers = 3"), {}, "unknown key of [sampling] 'answers'"),
        (("responses = 3", "responses = 0"), {}, "sampling: responses: input should be greater than or equal to 1"),
        (("test = 0.2", "test = 1.0"), {}, "sampling: test: input should be less than 1"),
        (("test = 0.2", 'model = "tinny"'), {}, "unknown language model 'tinny': did you mean tiny?"),
        (("test = 0.2", 'model = "/"'), {}, "/ holds no language model: there is no config.json in it"),
        (("language/tiny", "language/tinny"), {}, "unknown language task 'language/tinny': did you mean language/tiny"),
        (("[sampling]", "[critic]\nhidden = [8]\n[sampling]"), {}, "critic: means nothing for responses; remove it"),
        (("episodes = 140", "episodes = 40000"), {}, "language/tiny has 32,768 different prompts"),
        (("", ""), {"label": "return:q0.5"}, "label 'return:q0.5': sampled responses are scored by reward"),
        (("", ""), {"imbalance": 0.0001}, "imbalance 0.0001 is impossible with"),
    ],
)
def test_bad_recipes_and_options_are_one_line(recipe, home, change, options, message):
    recipe.write_text(recipe.read_text().replace(*change))
    with pytest.raises(UserError) as error:
        build_dataset(str(recipe), home=home, **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert data.stored_ids(home) == []


SHIPPED = ["language/sentiment-v0", "language/instructions-v0"]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_responses_are_what_the_recipe_says(name, tmp_path, capsys):
    recipe = Sampling(Recipe.of(catalog.dataset(name)), tmp_path)
    path = responses.shipped_file(recipe.task.id, recipe.raw)
    assert path.stat().st_size < 1_000_000
    found, facts = responses.read_shipped(path)
    assert found.prompt.tolist() == recipe.prompts
    assert found.completion.shape == (2000, 4)
    assert found.ended.any() == recipe.task.ends
    assert len(facts["model"]) == 64

    assert run(["build-dataset", name, "--home", str(tmp_path), "--json"]) == 0
    assert "sample completions" not in capsys.readouterr().err
    built = load_dataset(name, home=tmp_path)
    assert not (tmp_path / ".models").exists(), "nobody needs the model"
    rows = frame(built)
    assert rows.group_by("split").agg(pl.len()).sort("split").rows() == [("test", 800), ("train", 7200)]
    text = pa.table(rows.sort("prompt_id", "response_id").select("prompt", "completion").to_arrow())
    assert text["completion"].to_pylist() == found.completion.reshape(-1).tolist()

    threshold = 0.5 if recipe.task.ends else float(np.median(rows["score"]))
    assert built.metadata.threshold == pytest.approx(threshold)
    assert (rows["label"] == (rows["score"] > threshold)).all()
    assert 0.4 < rows["label"].mean() <= 0.5
    both = rows.group_by("prompt_id").agg(pl.col("label").n_unique() == 2)["label"].mean()
    assert both > 0.75, "most prompts have responses of both kinds"
    assert data.verify(name, tmp_path) == []


def test_the_tiny_language_is_the_same_on_every_processor_though_its_model_is_trained_there(tmp_path):
    built = build_dataset("language/tiny-v0", home=tmp_path, imbalance=0.1)
    assert built.labels_hash.startswith("fc547ecf2f170c94")
    assert not (tmp_path / ".models").exists()


def test_fewer_shipped_prompts_need_no_model_either(tmp_path):
    few = build_dataset("language/sentiment-v0", home=tmp_path, episodes=100)
    assert few.metadata.counts.rows == 400
    assert few.metadata.provenance.settings["prompts"] == 100
    assert not (tmp_path / ".models").exists()


def test_shipped_file_comes_back_as_it_was_and_says_when_it_is_damaged(tmp_path):
    rng = np.random.default_rng(0)
    some = responses.Responses(np.array(["a", "b"]), np.array([["x", ""], ["é\n", "y"]]), rng.random((2, 2)) < 0.5)
    path = tmp_path / "some.parquet"
    responses.write_shipped(path, some, {"model": "m"})
    found, facts = responses.read_shipped(path)
    assert facts == {"model": "m"}
    assert all((getattr(found, name) == getattr(some, name)).all() for name in vars(some))
    assert pq.read_schema(path).names == ["prompt", "completion", "ended"]
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(PmpoOfflineError, match=r"some\.parquet is damaged"):
        responses.read_shipped(path)


def test_tasks_are_found_by_their_id():
    assert {"language/tiny", "language/sentiment", "language/instructions"} <= language.TASKS.keys()
    assert language.get("language/sentiment").ends is False
    with pytest.raises(UserError, match="unknown language task 'language/tyni': did you mean language/tiny"):
        language.get("language/tyni")
