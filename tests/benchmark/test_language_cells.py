"""Cells of language models: a random Llama over the tiny language, three updates a run, four held-out prompts."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import torch
from helpers.labelled import saved
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from pmpo_offline import data
from pmpo_offline.benchmark import Benchmark, bench, language_cells
from pmpo_offline.benchmark.results import DRIFT
from pmpo_offline.declarations import catalog
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.runtime.progress import on_progress
from pmpo_offline.tasks.language import tiny

SUITE = """
title = "Small"
datasets = ["{dataset}"]
algorithms = ["pmpo"]
reference = "bc"
shuffled = ["pmpo"]
seeds = 2
episodes = 6
updates = 3
"""
PROMPTS, TESTS, RESPONSES = 12, 4, 3


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("language")
    tokenizer = tiny.tokenizer()
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    model = root / "model"
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), initializer_range=0.4, **size, **ends)).save_pretrained(
        model
    )
    tokenizer.save_pretrained(model)

    prompts = tiny.TASK.prompts(PROMPTS, seed=0)
    rows = [(prompt, number) for prompt in prompts for number in range(RESPONSES)]
    completions = [prompt[4::-1] if number else prompt[:5] for prompt, number in rows]
    count = len(rows)
    table = pa.table(
        {
            "prompt": [prompt for prompt, _ in rows],
            "completion": completions,
            "score": pa.array(tiny.TASK.reward([prompt for prompt, _ in rows], completions)),
            "label": pa.nulls(count, pa.bool_()),
            "prompt_id": pa.array(np.arange(count) // RESPONSES, pa.int32()),
            "response_id": pa.array(np.arange(count) % RESPONSES, pa.int32()),
            "source": ["made up"] * count,
            "split": ["test" if i // RESPONSES < TESTS else "train" for i in range(count)],
        }
    ).cast(data.responses_schema())
    directory = root / "home" / "language" / "small-v0"
    provenance = data.Provenance(settings={"model": str(model), "ends": True, "tokens": 6})
    references = data.References(min=0.0, max=1.0, how="made up")
    about = {"id": "language/small-v0", "task": "language/tiny", "references": references, "provenance": provenance}
    return saved(directory, table, None, "reward:0.5", **about).path


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory, dataset: Path) -> str:
    path = tmp_path_factory.mktemp("suite") / "small.toml"
    path.write_text(SUITE.format(dataset=dataset))
    return str(path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, suite: str) -> tuple[Benchmark, list[str]]:
    """The suite, run without an interruption, and its stages."""
    output, stages = tmp_path_factory.mktemp("whole"), []
    with on_progress(lambda stage, done, total: stages.append(stage)):
        return bench(suite, output=output / "out", home=output / "home", workers=1), stages


def test_runs_are_scored_with_their_drift_and_not_repeated(suite: str, whole: tuple[Benchmark, list[str]]) -> None:
    first, stages = whole
    assert not first.failures
    assert [(row["algo"], row["seeds"], row["episodes"]) for row in first.rows] == [
        ("bc", 2, 6),
        ("pmpo", 2, 6),
        ("pmpo (shuffled)", 2, 6),
    ]
    assert first.rows[1]["bounded"]
    assert first.rows[1]["training"]["steps"] == 3
    assert set(first.rows[1]["versions"]) == {"pmpo-offline", "numpy", "peft", "torch", "transformers"}
    assert "pmpo, {}: training runs".format(first.rows[0]["dataset"]) in stages
    raw = pl.read_parquet(first.raw / "*.parquet")
    assert raw.select(DRIFT[:3]).null_count().row(0) == (0, 0, 0)
    assert raw["perplexity"].null_count() == len(raw), "its letters cannot write prose"
    assert raw["kl"].abs().max() > 0
    layouts = raw.group_by("key", "seed").agg(pl.col("layout").sort_by("episode"))["layout"].to_list()
    assert all(each == layouts[0] for each in layouts), "every run is evaluated on the same held-out prompts"
    assert len(set(layouts[0])) == TESTS - 1, "six samples are two of each of three prompts"
    assert not (first.output / "checkpoints").exists()

    files = {path: path.stat().st_mtime_ns for path in first.raw.iterdir()}
    home = first.output.parent / "home"
    assert bench(suite, output=first.output, home=home, workers=1).rows == first.rows
    assert {path: path.stat().st_mtime_ns for path in first.raw.iterdir()} == files


@pytest.mark.usefixtures("forkserver")
def test_interrupted_and_continued_in_two_processes_it_comes_out_the_same(
    tmp_path: Path, suite: str, whole: tuple[Benchmark, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, output = tmp_path / "home", tmp_path / "interrupted"
    begun: list[int] = []

    def execute(run: language_cells.Run) -> None:
        begun.append(run.seed)
        if len(begun) == 4:  # one row is written, and half of the next one is in its folder
            raise KeyboardInterrupt
        original(run)

    original = language_cells.execute
    with monkeypatch.context() as patched:
        patched.setattr(language_cells, "execute", execute)
        with pytest.raises(KeyboardInterrupt):
            bench(suite, output=output, home=home, workers=1)
        assert len(list(output.glob("raw/*.parquet"))) == 1
        (_,) = output.glob("checkpoints/*/run-*/scores.parquet")
        two = shutil.copytree(output, tmp_path / "two")
        assert bench(suite, output=output, home=home, workers=1).rows == whole[0].rows
        assert begun[4:] == [1, 0, 1], "of four missing runs one was finished"
    assert bench(suite, output=two, home=home, workers=2).rows == whole[0].rows
    assert not (output / "checkpoints").exists()


def test_algorithm_that_finds_nothing_to_learn_does_not_stop_the_others(tmp_path: Path, suite: str) -> None:
    options = {"output": tmp_path / "out", "home": tmp_path / "home", "workers": 1, "seeds": 1}
    done = bench(suite, algos=["dpo"], imbalance=[1.0], **options)
    assert [row["algo"] for row in done.rows] == ["bc"]
    (failure,) = done.failures
    assert failure.startswith("dpo, ")
    assert "\n" not in failure


def test_a_setting_that_diverges_is_a_line_and_the_others_are_rows(
    tmp_path: Path, suite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"output": tmp_path / "out", "home": tmp_path / "home", "workers": 1, "seeds": 1}
    whole = language_cells.execute

    def execute(run: language_cells.Run) -> None:
        if run.settings.get("beta") == 2.0:
            raise PmpoOfflineError("not numbers")
        whole(run)

    monkeypatch.setattr(language_cells, "execute", execute)
    for _ in range(2):  # the second time from stored scores
        done = bench(suite, algos=["pmpo"], settings={"pmpo": {"beta": [2.0, 1.0]}}, **options)
        rows = [(row["algo"], row["beta"]) for row in done.rows if not row["shuffled"]]
        assert sorted(rows) == [("bc", None), ("pmpo", 1.0)]
        assert all(failure.endswith("not numbers") for failure in done.failures)
        assert done.failures


def test_responses_of_an_undeclared_model_are_refused(tmp_path: Path, suite: str, dataset: Path) -> None:
    found = data.open_dataset(dataset)
    metadata = found.metadata.model_copy(update={"provenance": data.Provenance()})
    elsewhere = tmp_path / "language" / "small-v0"
    data.write(elsewhere, metadata, {"responses": found.table})
    with pytest.raises(PmpoOfflineError, match="does not say which model its responses are of"):
        bench(suite, datasets=[str(elsewhere)], output=tmp_path / "out", workers=1)


def test_scores_and_half_runs_of_a_model_that_changed_are_made_again(tmp_path: Path, dataset: Path, suite: str) -> None:
    """Keys hold the name of the base model; its weights may be others the next time."""
    found = data.open_dataset(dataset)
    model = tmp_path / "model"
    shutil.copytree(found.metadata.provenance.settings["model"], model)
    settings = {**found.metadata.provenance.settings, "model": str(model)}
    metadata = found.metadata.model_copy(update={"provenance": data.Provenance(settings=settings)})
    elsewhere = tmp_path / "language" / "small-v0"
    data.write(elsewhere, metadata, {"responses": found.table})
    options = {"output": tmp_path / "out", "home": tmp_path / "home", "workers": 1, "seeds": 1}
    options |= {"datasets": [str(elsewhere)], "algos": ["bc"]}
    first = bench(suite, **options)
    (key,) = (row["key"] for row in first.rows)
    half = tmp_path / "out" / "checkpoints" / f"{key}-{'0' * 16}" / "run-0"
    half.mkdir(parents=True)
    pl.DataFrame({"return": [1.0]}).write_parquet(half / "scores.parquet")  # of yet another model

    weights = load_file(model / "model.safetensors")
    save_file({name: -value for name, value in weights.items()}, model / "model.safetensors", {"format": "pt"})
    with pytest.warns(UserWarning, match="has changed since it was scored: run again"):
        again = bench(suite, **options)
    assert [row["key"] for row in again.rows] == [key]
    assert again.rows[0]["reference_logp"] != first.rows[0]["reference_logp"]
    assert not (tmp_path / "out" / "checkpoints").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert bench(suite, **options).rows == again.rows
    shutil.rmtree(model)
    assert bench(suite, **options).rows == again.rows, "scores are shown where the model is not"


def test_nothing_is_trained_for_responses_that_nothing_scores(tmp_path: Path, suite: str, dataset: Path) -> None:
    found = data.open_dataset(dataset)
    elsewhere = tmp_path / "language" / "small-v0"
    data.write(elsewhere, found.metadata.model_copy(update={"task": "hf/other"}), {"responses": found.table})
    with pytest.raises(UserError, match="its task hf/other has no reward function"):
        bench(suite, datasets=[str(elsewhere)], output=tmp_path / "out", workers=2)
    assert not list(tmp_path.glob("out/checkpoints/*/*"))


def test_declared_algorithms_are_those_of_the_suite_and_can_be_trained() -> None:
    from pmpo_offline.objectives import OBJECTIVES
    from pmpo_offline.training.config import complete, hyperparameters
    from pmpo_offline.training.language import LanguageSettings

    declared = {each.name: each for each in catalog.algorithms("language")}
    assert set(catalog.suite("language").algorithms) < set(declared)
    for each in declared.values():
        assert each.start == "reference"
        assert each.objective in OBJECTIVES
        complete(each, {})
        hyperparameters(each, {}, LanguageSettings)
