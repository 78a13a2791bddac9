"""One run behind `train_language`: whole or resumable, never repeated, never mixed up with another."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from helpers.small_language import declared, labelled_rows
from safetensors.torch import load_file

from pmpo_offline.data import Dataset, columns
from pmpo_offline.evaluation.runs import evaluate_run
from pmpo_offline.policies.language import open_model
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.tasks.language.tiny import tokenizer
from pmpo_offline.training.language import TrainedLanguage, run, train_language
from pmpo_offline.training.language.trl_data import dataset_of

PMPO = declared("pmpo", training={"checkpoint_every": 2, "lora_layers": 1}, beta="1.05x", divergence="forward")


@pytest.fixture(scope="module")
def data() -> Dataset:
    return dataset_of(labelled_rows(), tokenizer(), "test/answers-v0")


def run(data: Dataset, model_folder: Path, cache: Path, output: Path, algorithm: Any = PMPO, **more: Any) -> Any:
    return train_language(data, algorithm, output=output, model=str(model_folder), cache=cache, **more)


def weights(trained: TrainedLanguage) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(trained.adapter / "adapter_model.safetensors")
    return found


def test_a_run_leaves_an_adapter_and_a_record(
    data: Dataset, model_folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run(data, model_folder, cache, tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["adapter", "run.json"]
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["kind"] == "responses"
    assert record["dataset"] == "test/answers-v0"
    assert record["settings"]["beta"] == pytest.approx(1.05 * record["bound"])
    assert record["training"]["lora_layers"] == 1
    assert record["dataset_digest"] == data.content_hash
    assert done.bound == record["bound"] == pytest.approx(0.75)
    assert [line["step"] for line in done.history] == list(range(1, 7))
    assert done.metrics == done.history[-1]
    assert all(".layers.1." in name for name in weights(done))  # the top layer alone
    policy = done.policy(open_model(model_folder, device="cpu"))
    assert not policy.model.training

    monkeypatch.setattr(run, "ResponseTrainer", None)  # a finished run is not run again
    again = run(data, model_folder, cache, tmp_path / "run")
    assert again == done
    with pytest.raises(UserError, match="holds another run"):
        run(data, model_folder, cache, tmp_path / "run", seed=1)
    with pytest.raises(UserError, match="holds another run"):
        run(data, model_folder, cache, tmp_path / "run", settings={"beta": 2.0})


def test_a_killed_run_goes_on_and_ends_with_the_same_weights(
    data: Dataset, model_folder: Path, cache: Path, tmp_path: Path
) -> None:
    whole = run(data, model_folder, cache, tmp_path / "whole")

    def killed() -> None:
        def progress(stage: str, done: int, total: int) -> None:
            if stage == "train pmpo" and done == 5:
                os.kill(os.getpid(), signal.SIGKILL)

        run(data, model_folder, cache, tmp_path / "run", progress=progress)

    process = multiprocessing.get_context("fork").Process(target=killed)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    left = tmp_path / "run" / "checkpoints"
    assert (left / "checkpoint-4").is_dir()
    assert not (tmp_path / "run" / "run.json").exists()
    # Another one that was being written when the power went: it has no state yet.
    (left / "checkpoint-5").mkdir()
    with pytest.raises(UserError, match="holds another run that was stopped"):
        run(data, model_folder, cache, tmp_path / "run", seed=1)
    steps: list[int] = []
    resumed = run(
        data,
        model_folder,
        cache,
        tmp_path / "run",
        progress=lambda stage, done, total: steps.append(done) if stage == "train pmpo" else None,
    )
    assert steps == [5, 6]
    assert all(torch.equal(value, weights(resumed)[name]) for name, value in weights(whole).items())
    ours, theirs = resumed.metrics, whole.metrics
    assert {name: ours[name] for name in theirs} == pytest.approx(theirs)


@pytest.mark.parametrize(("name", "cut"), [("adapter_model", True), ("optimizer", True), ("optimizer", False)])
def test_a_checkpoint_that_lost_a_file_is_not_gone_on_from(
    data: Dataset, model_folder: Path, cache: Path, tmp_path: Path, name: str, cut: bool
) -> None:
    """Fresh moments would end with other weights, and say nothing."""

    class Stopped(Exception):
        pass

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "train pmpo" and done == 3:
            raise Stopped

    with pytest.raises(Stopped):
        run(data, model_folder, cache, tmp_path / "run", progress=stop)
    path = tmp_path / "run" / "checkpoints" / "checkpoint-2" / f"{name}.safetensors"
    if cut:
        path.write_bytes(path.read_bytes()[:100])
    else:
        path.unlink()
    steps: list[int] = []
    run(
        data,
        model_folder,
        cache,
        tmp_path / "run",
        progress=lambda stage, done, total: steps.append(done) if stage == "train pmpo" else None,
    )
    assert steps == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    "name",
    ["notes.txt", "adapter/notes.txt", "checkpoints/checkpoint-best/weights", "checkpoints/checkpoint-7/weights"],
)
def test_nobody_elses_files_are_touched(
    data: Dataset, model_folder: Path, cache: Path, tmp_path: Path, name: str
) -> None:
    mine = tmp_path / "run" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(UserError, match="run exists and is no run: name another --output"):
        run(data, model_folder, cache, tmp_path / "run", overrides={"steps": 2})
    assert [path for path in (tmp_path / "run").rglob("*") if path.is_file()] == [mine]
    with pytest.raises(UserError, match="exists and is no run"):
        run(data, model_folder, cache, mine, overrides={"steps": 2})
    assert mine.read_text() == "mine"


def test_what_was_put_beside_a_begun_run_stays(data: Dataset, model_folder: Path, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown LoRA target"):
        run(data, model_folder, cache, tmp_path / "run", overrides={"lora_targets": ["q"]})
    mine = tmp_path / "run" / "checkpoints" / "best" / "weights"
    mine.parent.mkdir()
    mine.write_text("mine")
    run(data, model_folder, cache, tmp_path / "run", overrides={"steps": 2})
    assert [path for path in mine.parent.parent.rglob("*") if path.is_file()] == [mine]


def test_what_a_damaged_record_advises_helps(data: Dataset, model_folder: Path, cache: Path, tmp_path: Path) -> None:
    output, short = tmp_path / "run", {"steps": 1}
    run(data, model_folder, cache, output, overrides=short)
    (output / "run.json").write_text("{")
    for reading in (lambda: run(data, model_folder, cache, output, overrides=short), lambda: evaluate_run(output)):
        with pytest.raises(PmpoOfflineError, match=r"run\.json is damaged .*: remove the whole directory and train"):
            reading()
    (output / "run.json").unlink()
    with pytest.raises(UserError, match="exists and is no run"):  # without its record it is nobody's
        run(data, model_folder, cache, output, overrides=short)
    shutil.rmtree(output)
    run(data, model_folder, cache, output, overrides=short)
    assert json.loads((output / "run.json").read_text())["algorithm"] == "pmpo"


def test_seeds_settings_and_shuffled_labels_make_other_runs(
    data: Dataset, model_folder: Path, cache: Path, tmp_path: Path
) -> None:
    short = {"steps": 2}
    usual = run(data, model_folder, cache, tmp_path / "a", overrides=short)
    same = run(data, model_folder, cache, tmp_path / "b", overrides=short)
    changes: list[dict[str, Any]] = [{"seed": 1}, {"shuffle_labels": True}, {"settings": {"beta": 3.0}}]
    assert all(torch.equal(value, weights(same)[name]) for name, value in weights(usual).items())
    for number, change in enumerate(changes):
        other = weights(run(data, model_folder, cache, tmp_path / f"other{number}", overrides=short, **change))
        assert any(not torch.equal(value, other[name]) for name, value in weights(usual).items())


def test_test_prompts_are_not_learned_from(data: Dataset, model_folder: Path, cache: Path, tmp_path: Path) -> None:
    split = ["train" if number < 24 else "test" for number in range(len(data))]
    divided = replace(data, table=columns.replace(data.table, split=pa.array(split)))
    only = replace(data, table=data.table.slice(0, 24))
    short = {"steps": 2}
    one = weights(run(divided, model_folder, cache, tmp_path / "divided", overrides=short))
    other = weights(run(only, model_folder, cache, tmp_path / "only", overrides=short))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    nothing = replace(data, table=columns.replace(data.table, split=pa.array(["test"] * len(data))))
    with pytest.raises(UserError, match="no rows of the split train"):
        run(nothing, model_folder, cache, tmp_path / "nothing")


def test_held_out_prompts_that_cannot_be_evaluated_on_are_said_before_the_training(
    data: Dataset, model_folder: Path, cache: Path, tmp_path: Path
) -> None:
    """The context is 32: a prompt of 31 leaves room for an answer of one token."""

    def divided(last: int, **settings: Any) -> Dataset:
        texts = [*data.table["prompt"].to_pylist()[:-1], "a" * last]
        split = ["train"] * (len(data) - 4) + ["test"] * 4
        table = columns.replace(data.table, prompt=pa.array(texts), split=pa.array(split))
        made = data.metadata.provenance.model_copy(update={"settings": settings})
        return replace(data, table=table, metadata=data.metadata.model_copy(update={"provenance": made}))

    message = "the prompt of row 3 of the split test has {} tokens, and with {} of an answer .* context of 32: shorten"
    for dataset, numbers in ((divided(32), (32, 1)), (divided(31, tokens=6), (31, 6))):
        with pytest.raises(UserError, match=message.format(*numbers)):
            run(dataset, model_folder, cache, tmp_path / "run", overrides={"steps": 1})
        assert not (tmp_path / "run").exists()
    run(divided(31), model_folder, cache, tmp_path / "run", overrides={"steps": 1})


@pytest.mark.parametrize(
    ("algorithm", "more", "message"),
    [
        (PMPO, {"overrides": {"step": 3}}, "unknown training setting of pmpo 'step': did you mean steps"),
        (PMPO, {"overrides": {"batch": 10, "accumulation": 3}}, "a batch of 10 cannot be divided by 3"),
        (PMPO, {"overrides": {"lora_targets": ["q"]}}, "unknown LoRA target 'q'"),
        (PMPO, {"settings": {"gamma": 1.0}}, "unknown setting of pmpo 'gamma'"),
        (PMPO, {"settings": {"beta": "1.05x", "divergence": "reverse"}}, "unbounded .* at every β"),
        (declared("dpo", "all"), {}, "minibatches of ResponseBatch have no logp_chosen"),
        (declared("td3_bc"), {}, "have no policy_value"),
        (declared("bc"), {"shuffle_labels": True}, "bc uses no labels and no scores, so that shuffling"),
    ],
)
def test_mistakes_are_one_line(
    data: Dataset, model_folder: Path, cache: Path, tmp_path: Path, algorithm: Any, more: Any, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run(data, model_folder, cache, tmp_path, algorithm, **more)


def test_a_model_has_to_be_named_and_to_be_one(data: Dataset, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="names no model"):
        train_language(data, PMPO, output=tmp_path, cache=cache)
    with pytest.raises(UserError, match="holds no language model"):
        train_language(data, PMPO, output=tmp_path, cache=cache, model=str(tmp_path))
