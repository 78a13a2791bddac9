"""One run behind `train_language`: whole or resumable, never repeated, never mixed up with another."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pyarrow as pa
import pytest
import torch
from helpers.small_language import declared, labelled_rows, random_model
from safetensors.torch import load_file

from pmpo_offline.data import Dataset, columns
from pmpo_offline.evaluation.runs import evaluate_run
from pmpo_offline.policies.language import open_model
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.runtime.progress import on_progress
from pmpo_offline.tasks.language.tiny import tokenizer
from pmpo_offline.training import config
from pmpo_offline.training.language import TrainedLanguage, train_language
from pmpo_offline.training.language.trl_data import dataset_of
from pmpo_offline.training.tracking import read_metrics

PMPO = declared("pmpo", training={"checkpoint_every": 2, "lora_layers": 1}, beta="1.05x", divergence="forward")


@pytest.fixture(scope="module")
def data() -> Dataset:
    return dataset_of(labelled_rows(), tokenizer(), "test/answers-v0")


def train(data: Dataset, model_folder: Path, cache: Path, output: Path, algorithm: Any = PMPO, **more: Any) -> Any:
    return train_language(data, algorithm, output=output, model=str(model_folder), cache=cache, **more)


@contextmanager
def counted_steps() -> Iterator[list[int]]:
    """Collect the training steps inside the block."""
    steps: list[int] = []
    with on_progress(lambda stage, done, total: steps.append(done) if stage == "train pmpo" else None):
        yield steps


def weights(trained: TrainedLanguage) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(trained.adapter / "adapter_model.safetensors")
    return found


def test_a_run_leaves_an_adapter_and_a_record(
    data: Dataset, model_folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = train(data, model_folder, cache, tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["adapter", "metrics.csv", "run.json"]
    recorded = read_metrics(tmp_path / "run" / "metrics.csv")
    assert recorded is not None
    assert {"loss", "learning_rate", "logps/chosen"} <= {*recorded.columns}
    assert recorded["loss"].to_list() == pytest.approx([line["loss"] for line in done.history], rel=1e-5)
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

    monkeypatch.setattr("pmpo_offline.training.language.run.ResponseTrainer", None)  # a finished run is not run again
    again = train(data, model_folder, cache, tmp_path / "run")
    assert again == done
    with pytest.raises(UserError, match="holds another run"):
        train(data, model_folder, cache, tmp_path / "run", seed=1)
    with pytest.raises(UserError, match="holds another run"):
        train(data, model_folder, cache, tmp_path / "run", settings={"beta": 2.0})


@pytest.mark.parametrize("text", ["hello", "abcd" * 8])
def test_texts_that_tiny_cannot_read_are_refused_before_it_is_made(tmp_path: Path, text: str) -> None:
    data = dataset_of([{**row, "prompt": text} for row in labelled_rows()], tokenizer(), "test/answers-v0")
    with pytest.raises(
        UserError, match=r"^the model tiny cannot read '\w+': it reads the letters abcdefgh and =, fewer"
    ):
        train_language(data, PMPO, output=tmp_path / "run", model="tiny", home=tmp_path)
    assert list(tmp_path.iterdir()) == []


def train_until_killed(model_folder: Path, cache: Path, output: Path) -> None:
    """Train as the test does, and kill this process after five updates."""

    def kill(stage: str, done: int, total: int) -> None:
        if stage == "train pmpo" and done == 5:
            os.kill(os.getpid(), signal.SIGKILL)

    with on_progress(kill):
        train(dataset_of(labelled_rows(), tokenizer(), "test/answers-v0"), model_folder, cache, output)


def test_a_killed_run_resumes_and_ends_with_the_same_weights(
    data: Dataset, model_folder: Path, cache: Path, tmp_path: Path, forkserver: Any
) -> None:
    whole = train(data, model_folder, cache, tmp_path / "whole")

    process = forkserver.Process(target=train_until_killed, args=(model_folder, cache, tmp_path / "run"))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    left = tmp_path / "run" / "checkpoints"
    assert (left / "checkpoint-4").is_dir()
    assert not (tmp_path / "run" / "run.json").exists()
    # Another one that was being written when the power went: it has no state yet.
    (left / "checkpoint-5").mkdir()
    with pytest.raises(UserError, match="holds another run that was stopped"):
        train(data, model_folder, cache, tmp_path / "run", seed=1)
    with counted_steps() as steps:
        resumed = train(data, model_folder, cache, tmp_path / "run")
    assert steps == [5, 6]
    assert all(torch.equal(value, weights(resumed)[name]) for name, value in weights(whole).items())
    ours, theirs = resumed.metrics, whole.metrics
    assert {name: ours[name] for name in theirs} == pytest.approx(theirs)


@pytest.mark.parametrize(("name", "cut"), [("adapter_model", True), ("optimizer", True), ("optimizer", False)])
def test_a_checkpoint_that_lost_a_file_is_not_resumed_from(
    data: Dataset, model_folder: Path, cache: Path, tmp_path: Path, name: str, cut: bool
) -> None:
    """Fresh optimizer moments would silently end with other weights."""

    class Stopped(Exception):
        pass

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "train pmpo" and done == 3:
            raise Stopped

    with pytest.raises(Stopped), on_progress(stop):
        train(data, model_folder, cache, tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / "checkpoint-2" / f"{name}.safetensors"
    if cut:
        path.write_bytes(path.read_bytes()[:100])
    else:
        path.unlink()
    with counted_steps() as steps:
        train(data, model_folder, cache, tmp_path / "run")
    assert steps == [1, 2, 3, 4, 5, 6]


def test_two_processes_do_not_train_in_one_directory(
    data: Dataset, model_folder: Path, cache: Path, tmp_path: Path
) -> None:
    refused: list[BaseException] = []

    def other() -> None:
        with pytest.raises(UserError, match="holds another run: name another output") as caught:
            train(data, model_folder, cache, tmp_path / "run", seed=1)
        refused.append(caught.value)

    second = Thread(target=other)

    def start(stage: str, done: int, total: int) -> None:
        if stage.startswith("train") and not second.ident:
            second.start()
            second.join(1)  # time enough to be refused as a stopped run, if it did not wait

    with on_progress(start):
        train(data, model_folder, cache, tmp_path / "run")
    second.join()
    assert len(refused) == 1
    assert not list(tmp_path.glob(".run*"))


@pytest.mark.parametrize(
    "name",
    ["notes.txt", "adapter/notes.txt", "checkpoints/checkpoint-best/weights", "checkpoints/checkpoint-7/weights"],
)
def test_foreign_files_are_not_touched(
    data: Dataset, model_folder: Path, cache: Path, tmp_path: Path, name: str
) -> None:
    mine = tmp_path / "run" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(UserError, match="run exists and is no run: name another output"):
        train(data, model_folder, cache, tmp_path / "run", overrides={"steps": 2})
    assert [path for path in (tmp_path / "run").rglob("*") if path.is_file()] == [mine]
    with pytest.raises(UserError, match="exists and is no run"):
        train(data, model_folder, cache, mine, overrides={"steps": 2})
    assert mine.read_text() == "mine"


def test_what_was_put_beside_a_begun_run_stays(data: Dataset, model_folder: Path, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown LoRA target"):
        train(data, model_folder, cache, tmp_path / "run", overrides={"lora_targets": ["q"]})
    mine = tmp_path / "run" / "checkpoints" / "best" / "weights"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    train(data, model_folder, cache, tmp_path / "run", overrides={"steps": 2})
    assert [path for path in mine.parent.parent.rglob("*") if path.is_file()] == [mine]


def test_the_remedy_for_a_damaged_record_helps(data: Dataset, model_folder: Path, cache: Path, tmp_path: Path) -> None:
    output, short = tmp_path / "run", {"steps": 1}
    train(data, model_folder, cache, output, overrides=short)
    (output / "run.json").write_text("{")
    for reading in (lambda: train(data, model_folder, cache, output, overrides=short), lambda: evaluate_run(output)):
        with pytest.raises(PmpoOfflineError, match=r"run\.json is damaged .*: remove the whole directory and train"):
            reading()
    (output / "run.json").unlink()
    with pytest.raises(UserError, match="exists and is no run"):  # without its record it is not recognised as a run
        train(data, model_folder, cache, output, overrides=short)
    shutil.rmtree(output)
    train(data, model_folder, cache, output, overrides=short)
    assert json.loads((output / "run.json").read_text())["algorithm"] == "pmpo"


def test_seeds_settings_and_shuffled_labels_make_other_runs(
    data: Dataset, model_folder: Path, cache: Path, tmp_path: Path
) -> None:
    short = {"steps": 2}
    usual = train(data, model_folder, cache, tmp_path / "a", overrides=short)
    same = train(data, model_folder, cache, tmp_path / "b", overrides=short)
    changes: list[dict[str, Any]] = [{"seed": 1}, {"shuffle_labels": True}, {"settings": {"beta": 3.0}}]
    assert all(torch.equal(value, weights(same)[name]) for name, value in weights(usual).items())
    for number, change in enumerate(changes):
        other = weights(train(data, model_folder, cache, tmp_path / f"other{number}", overrides=short, **change))
        assert any(not torch.equal(value, other[name]) for name, value in weights(usual).items())


@pytest.mark.parametrize(
    "change",
    ["seed", "setting", "training", "shuffling", "label", "held-out row", "order", "weights", "precision", "version"],
)
def test_a_finished_run_is_found_by_all_that_it_depends_on(
    data: Dataset, model_folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    split = pa.array(["train"] * (len(data) - 4) + ["test"] * 4)
    divided = replace(data, table=columns.replace(data.table, split=split))
    model = shutil.copytree(model_folder, tmp_path / "model")
    short = {"steps": 1}
    train(divided, model, cache, tmp_path / "run", overrides=short)
    monkeypatch.setattr("pmpo_offline.training.language.run.ResponseTrainer", None)
    train(divided, model, cache, tmp_path / "run", overrides=short)  # found
    more: dict[str, Any] = {"overrides": short}
    labels, texts = divided.table["label"].to_pylist(), divided.table["completion"].to_pylist()
    match change:
        case "seed":
            more["seed"] = 1
        case "setting":
            more["settings"] = {"beta": 3.0}
        case "training":
            more["overrides"] = {**short, "learning_rate": 2e-2}
        case "shuffling":
            more["shuffle_labels"] = True
        case "precision":
            more["overrides"] = {**short, "dtype": "bfloat16"}
        case "label":
            divided = replace(
                divided, table=columns.replace(divided.table, label=pa.array([not labels[0], *labels[1:]]))
            )
        case "held-out row":
            divided = replace(divided, table=columns.replace(divided.table, completion=pa.array([*texts[:-1], "zz"])))
        case "order":
            divided = replace(divided, table=divided.table.take(list(range(len(divided)))[::-1]))
        case "weights":
            random_model(1).save_pretrained(model)  # under the same name
        case "version":
            installed = config.version
            monkeypatch.setattr(config, "version", lambda name: "0.1" if name == "peft" else installed(name))
    with pytest.raises(UserError, match="holds another run"):
        train(divided, model, cache, tmp_path / "run", **more)


@pytest.mark.parametrize(("logged", "message"), [(True, "the loss is nan at step 2"), (False, "the weights are not")])
def test_a_run_that_diverges_fails_and_is_never_finished(
    data: Dataset,
    model_folder: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    logged: bool,
    message: str,
) -> None:
    if not logged:
        monkeypatch.setattr("pmpo_offline.training.language.run._Monitor.on_log", lambda *_, **__: None)
    huge = {"steps": 2, "learning_rate": 1e38, "checkpoint_every": 1}
    for _ in range(2):  # resumed the second time
        with pytest.raises(
            PmpoOfflineError, match=rf"^pmpo diverged: {message} .*alpha = 0.5, .*: raise beta or lower"
        ):
            train(data, model_folder, cache, tmp_path / "run", overrides=huge)
        assert not (tmp_path / "run" / "run.json").exists()


def test_test_prompts_are_not_learned_from(data: Dataset, model_folder: Path, cache: Path, tmp_path: Path) -> None:
    split = ["train" if number < 24 else "test" for number in range(len(data))]
    divided = replace(data, table=columns.replace(data.table, split=pa.array(split)))
    only = replace(data, table=data.table.slice(0, 24))
    short = {"steps": 2}
    one = weights(train(divided, model_folder, cache, tmp_path / "divided", overrides=short))
    other = weights(train(only, model_folder, cache, tmp_path / "only", overrides=short))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    nothing = replace(data, table=columns.replace(data.table, split=pa.array(["test"] * len(data))))
    with pytest.raises(UserError, match="no rows of the split train"):
        train(nothing, model_folder, cache, tmp_path / "nothing")


def test_held_out_prompts_that_cannot_be_evaluated_on_are_refused_before_the_training(
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
            train(dataset, model_folder, cache, tmp_path / "run", overrides={"steps": 1})
        assert not (tmp_path / "run").exists()
    train(divided(31), model_folder, cache, tmp_path / "run", overrides={"steps": 1})


@pytest.mark.parametrize(
    ("algorithm", "more", "message"),
    [
        (PMPO, {"overrides": {"step": 3}}, "training of pmpo: unknown setting 'step': did you mean steps"),
        (PMPO, {"overrides": {"batch": 10, "accumulation": 3}}, "a batch of 10 cannot be divided by 3"),
        (PMPO, {"overrides": {"lora_targets": ["q"]}}, "unknown LoRA target 'q'"),
        (PMPO, {"settings": {"gamma": 1.0}}, "unknown setting of pmpo 'gamma'"),
        (PMPO, {"settings": {"beta": "1.05x", "divergence": "reverse"}}, "unbounded .* at every β"),
        (declared("dpo", "all"), {}, "dpo: minibatches of all rows have no logp_chosen, an input of dpo: set `rows`"),
        (declared("td3_bc"), {}, "td3_bc needs policy_value, distance, which .* cannot give: it is for control"),
        (declared("bc"), {"shuffle_labels": True}, "bc uses no labels and no scores, so that shuffling"),
    ],
)
def test_mistakes_are_one_line(
    data: Dataset, model_folder: Path, cache: Path, tmp_path: Path, algorithm: Any, more: Any, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        train(data, model_folder, cache, tmp_path, algorithm, **more)


def test_a_model_has_to_be_named_and_to_be_one(data: Dataset, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="names no model"):
        train_language(data, PMPO, output=tmp_path, cache=cache)
    with pytest.raises(UserError, match="holds no language model"):
        train_language(data, PMPO, output=tmp_path, cache=cache, model=str(tmp_path))
