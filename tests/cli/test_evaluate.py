"""`pmpo-offline evaluate`: a run of a language model and one of a control policy, and what cannot be evaluated."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
import torch
from helpers.labelled import saved
from helpers.small_language import byte_tokenizer
from peft import IA3Config, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from pmpo_offline.build import build_dataset
from pmpo_offline.cli.main import run
from pmpo_offline.data import (
    Provenance,
    References,
    columns,
    open_dataset,
    responses_schema,
    write,
)
from pmpo_offline.policies import MixturePolicy
from pmpo_offline.policies.language import LanguageModel, add_lora, open_model, save_adapter
from pmpo_offline.tasks.language import tiny
from pmpo_offline.training.language import train_language
from pmpo_offline.training.run import read_record, write_record


def save_model(directory: Path, seed: int, tokenizer: PreTrainedTokenizerBase | None = None) -> Path:
    """A random Llama that reads and writes the tiny language, or what the tokenizer does."""
    torch.manual_seed(seed)
    tokenizer = tokenizer or tiny.tokenizer()
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = LlamaConfig(vocab_size=len(tokenizer), initializer_range=0.4, **shape, **ends)
    LlamaForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def save_dataset(directory: Path, task: str = "language/tiny", label: str = "reward:0.5") -> Path:
    """Eight prompts with a right and a wrong response, six of them held out."""
    prompts = [prompt for prompt in tiny.TASK.prompts(8, seed=0) for _ in range(2)]
    right = [i % 2 == 0 for i in range(16)]
    rows = {
        "prompt": prompts,
        "completion": [prompt[-2::-1] if good else "aa" for prompt, good in zip(prompts, right, strict=True)],
        "score": [float(good) for good in right],
        "label": pa.nulls(16, pa.bool_()),
        "prompt_id": [i // 2 for i in range(16)],
        "response_id": list(range(16)),
        "source": ["test"] * 16,
        "split": ["train"] * 4 + ["test"] * 12,
    }
    provenance = Provenance(settings={"model": "random", "ends": True, "tokens": 6})
    about = {"id": "language/test-v0", "task": task, "provenance": provenance}
    references = References(min=0.5, max=1.0, how="test")
    saved(directory, pa.table(rows, schema=responses_schema()), None, label, references=references, **about)
    return directory


def save_run(directory: Path, dataset: Path, model: Path) -> Path:
    """What a training of an adapter leaves."""
    base = open_model(model, device="cpu")
    adapted = add_lora(base.model, 2, 4, ["q_proj", "v_proj"])
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    directory.mkdir()
    save_adapter(adapted, directory / "adapter")
    record = {
        "kind": "responses",
        "dataset": "language/test-v0",
        "dataset_path": str(dataset),
        "task": "language/tiny",
        "algorithm": "pmpo",
        "settings": {"alpha": 0.5, "beta": 0.5},
        "seed": 3,
        "model": str(model),
        "model_digest": base.digest,
        "adapter": "adapter",
    }
    write_record(directory, record)
    return directory


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the reference cache goes."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("PMPO_OFFLINE_DATASETS", str(home))
    return home


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a dataset, and a run."""
    place = tmp_path_factory.mktemp("evaluate")
    save_run(place / "run", save_dataset(place / "dataset"), save_model(place / "model", 0))
    return place


def answer(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    assert run(["evaluate", *map(str, arguments), "--json"]) == 0
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 2) -> str:
    assert run(["evaluate", *map(str, arguments)]) == code
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    return lines[0]


def test_a_language_model(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, place / "run", "--samples", "2", "--prompts", "0")
    assert (found["kind"], found["algorithm"], found["seed"], found["prompts"]) == ("responses", "pmpo", 3, 6)
    policy, reference = found["policy"], found["reference"]
    assert policy["normalized"] == pytest.approx((policy["reward"] - 0.5) * 200)
    assert policy["kl"] != 0
    assert policy["token_kl"] > 0
    assert reference["kl"] == reference["token_kl"] == pytest.approx(0, abs=1e-6)
    assert found["implicit"]["pairs"] == 6
    assert policy["perplexity"] is None
    assert ["no words" in note for note in found["notes"]] == [True]
    assert found["judge"] is None
    kept = pl.read_parquet(place / "run" / "evaluation" / "policy.parquet")
    assert kept.height == 12
    assert kept["return"].mean() == policy["reward"]
    assert answer(capsys, place / "run", "--samples", "2", "--prompts", "0") == found

    assert run(["evaluate", str(place / "run"), "--prompts", "3"]) == 0
    table = capsys.readouterr().out
    assert all(text in table for text in ("normalized score", "beta 0.5", "3 held-out prompts × 1", "note: ", "AUC"))


def test_weights_are_read_once(
    place: Path, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def counted(directory: Path, **options: Any) -> LanguageModel:
        opened.append(directory)
        return open_model(directory, **options)

    monkeypatch.setattr("pmpo_offline.policies.language.model.open_model", counted)
    answer(capsys, place / "run", "--prompts", "1")
    assert opened == [place / "model"]
    assert list((home / ".reference").glob("*/*.safetensors")), "the next run reads the values of stored rows"


def test_a_judge(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judge = save_model(place / "judge", 5, byte_tokenizer())
    found = answer(capsys, place / "run", "--judge", judge)["judge"]
    assert found["samples"]["wins"] + found["samples"]["losses"] + found["samples"]["ties"] == 6
    assert found["labels"]["single"]["n"] == 12
    lines = (place / "run" / "evaluation" / "judge.jsonl").read_text().splitlines()
    assert answer(capsys, place / "run", "--judge", judge)["judge"] == found
    assert (place / "run" / "evaluation" / "judge.jsonl").read_text().splitlines() == lines  # asked nothing twice
    assert run(["evaluate", str(place / "run"), "--judge", str(judge)]) == 0
    assert "win rate" in capsys.readouterr().out


def test_without_a_reward_function(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = save_dataset(tmp_path / "dataset", task="hf/imported")
    found = answer(capsys, save_run(tmp_path / "run", dataset, place / "model"))
    assert found["policy"]["reward"] is found["policy"]["normalized"] is None
    assert found["policy"]["kl"] is not None
    assert found["notes"][0] == "task hf/imported has no reward function: no reward, success and normalized score"


def test_of_labels_that_are_no_threshold_on_the_reward(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = save_dataset(tmp_path / "dataset", label="column:0.5")
    found = answer(capsys, save_run(tmp_path / "run", dataset, place / "model"))
    assert found["policy"]["success"] is None
    assert found["notes"][0].startswith("its labels are no threshold on the reward of language/tiny")


def test_what_cannot_be_evaluated(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such directory" in refusal(capsys, tmp_path / "none")
    assert "no finished run" in refusal(capsys, tmp_path)
    whole, model = place / "run", place / "model"
    assert "language model" in refusal(capsys, whole, "--judge", "smolm2")
    assert "no such file" in refusal(capsys, whole, "--judge", model, "--judge-questions", tmp_path / "q").lower()
    assert "Connection refused" in refusal(capsys, whole, "--judge", "http://127.0.0.1:1/v1", code=1)
    other = save_run(tmp_path / "other", place / "dataset", save_model(tmp_path / "model", 0))
    save_model(tmp_path / "model", 1)
    assert "another model" in refusal(capsys, other)
    gone = save_run(tmp_path / "gone", tmp_path / "nowhere", model)
    assert "language/test-v0" in refusal(capsys, gone, "--home", tmp_path)
    shutil.rmtree(gone / "adapter")
    write_record(gone, {"kind": "responses"})
    assert "damaged" in refusal(capsys, gone, code=1)
    (gone / "run.json").write_text("{")
    assert "damaged" in refusal(capsys, gone, code=1)


@pytest.mark.parametrize("kind", ["IA3", "PROMPT_TUNING"])
def test_adapters_of_the_layers_are_evaluated_and_virtual_tokens_refused(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    configs = {
        "IA3": IA3Config(task_type="CAUSAL_LM", target_modules=["v_proj"], feedforward_modules=[]),
        "PROMPT_TUNING": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2),
    }
    directory = save_run(tmp_path / "run", place / "dataset", place / "model")
    shutil.rmtree(directory / "adapter")
    base = LlamaForCausalLM.from_pretrained(place / "model")
    get_peft_model(base, configs[kind]).save_pretrained(directory / "adapter")
    record = read_record(directory)
    assert record is not None
    write_record(directory, record)
    if kind == "IA3":
        assert answer(capsys, directory, "--prompts", "1")["policy"]["kl"] == pytest.approx(0, abs=1e-5)
    else:
        said = refusal(capsys, directory, "--prompts", "1")
        assert "PROMPT_TUNING puts virtual tokens before a prompt, which is not supported: take an adapter" in said


def test_rows_that_were_trained_on_are_not_held_out(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = save_dataset(tmp_path / "dataset")
    run = save_run(tmp_path / "run", stored, place / "model")
    record = read_record(run)
    assert record is not None
    write_record(run, {**record, "dataset_digest": open_dataset(stored).content_hash})
    assert answer(capsys, run)["prompts"] == 6
    dataset = open_dataset(stored)
    split = pa.array(["test"] * len(dataset))
    table = columns.replace(dataset.table, split=split)
    write(stored, dataset.metadata, {"responses": table}, overwrite=True)
    message = refusal(capsys, run)
    assert "was trained on other rows than language/test-v0 holds now" in message
    assert str(stored) in message


@pytest.mark.filterwarnings("ignore:.*nothing is rejected")
def test_labels_that_were_given_in_memory_are_those_that_it_is_evaluated_against(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = open_dataset(save_dataset(tmp_path / "dataset"))
    changed = stored.relabelled("reward:-1", imbalance=1.0, noise=0.25, seed=1)
    assert changed.table["label"].to_pylist() != stored.table["label"].to_pylist()
    short = {"steps": 1, "batch": 2}
    train_language(changed, "bc", output=tmp_path / "run", model=str(place / "model"), overrides=short)
    found = answer(capsys, tmp_path / "run", "--prompts", "0")
    accepts = [
        label
        for label, split in zip(*(changed.table[name].to_pylist() for name in ("label", "split")), strict=True)
        if split == "test"
    ]
    assert found["implicit"]["accepted"] == accepts.count(True)
    assert found["implicit"]["rejected"] == accepts.count(False)
    assert found["policy"]["success"] == 1.0  # every reward is above -1

    other = columns.replace(changed.table, completion=pa.array(["b"] * 16))
    train_language(
        replace(changed, table=other), "bc", output=tmp_path / "b", model=str(place / "model"), overrides=short
    )
    assert "on rows that are stored if they were changed in memory" in refusal(capsys, tmp_path / "b")
    shutil.rmtree(tmp_path / "dataset")
    assert "what was in memory alone is stored first, by data.write" in refusal(capsys, tmp_path / "b")


def test_options_without_effect_are_named(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--prompts", "1", "--episodes", "3", "--judge-questions", str(tmp_path / "none.toml")]
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert run(["evaluate", str(place / "run"), *arguments]) == 0
    warned = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: --")]
    assert warned == [f"warning: --{name} has no effect on {place / 'run'}" for name in ("episodes", "judge-questions")]


def test_a_policy_that_diverged(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = save_run(tmp_path / "run", place / "dataset", place / "model")
    path = run / "adapter" / "adapter_model.safetensors"
    save_file({name: torch.full_like(value, torch.nan) for name, value in load_file(path).items()}, path)
    assert "is not what was trained" in refusal(capsys, run, code=1)
    write_record(run, json.loads((run / "run.json").read_text()))  # as if it had been trained to this
    assert "probabilities of the next token are not numbers" in refusal(capsys, run, code=1)


def test_a_control_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = build_dataset("bandit/sphere-v0", episodes=50, home=tmp_path / "home", workers=1)
    actions = dataset.table.schema.field("action").type.list_size
    policy = MixturePolicy([0], torch.zeros(1), torch.ones(1), actions, components=1, hidden=(8,))
    (tmp_path / "run").mkdir()
    policy.save(tmp_path / "run" / "policy.safetensors")
    record = {"kind": "transitions", "dataset": dataset.metadata.id, "dataset_path": str(dataset.path), "seed": 0}
    record |= {"task": dataset.metadata.task, "algorithm": "bc", "settings": {}, "policy": "policy.safetensors"}
    write_record(tmp_path / "run", record)
    found = answer(capsys, tmp_path / "run", "--episodes", "7")
    assert found["episodes"] == 7
    references = dataset.metadata.references
    if references is not None:
        span = references.max - references.min
        assert found["normalized"] == pytest.approx(100 * (found["return"] - references.min) / span)
    assert run(["evaluate", str(tmp_path / "run")]) == 0
    assert "100 episodes: return" in capsys.readouterr().out
    assert "leave --judge out" in refusal(capsys, tmp_path / "run", "--judge", "tiny")
    write_record(tmp_path / "run", {**record, "settings": {f"setting_{n}": n for n in range(20)}})
    with monkeypatch.context() as terminal:
        terminal.setattr("sys.stdout.isatty", lambda: True)
        terminal.setenv("COLUMNS", "80")
        assert run(["evaluate", str(tmp_path / "run"), "--episodes", "2"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
    write_record(tmp_path / "run", {**record, "dataset_digest": dataset.content_hash})
    assert run(["evaluate", str(tmp_path / "run"), "--episodes", "2"]) == 0
    write_record(tmp_path / "run", {**record, "dataset_digest": "0" * 64})
    assert "trained on other rows" in refusal(capsys, tmp_path / "run")


BROKEN = """
import gymnasium
from gymnasium.envs.classic_control import PendulumEnv

class Broken(PendulumEnv):
    def step(self, action):
        return super().step(action)[4]["goal"]

gymnasium.register("Broken-v0", Broken, max_episode_steps=3)
"""


def test_a_control_policy_whose_dataset_is_gone_is_scored_in_an_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = MixturePolicy([0], torch.zeros(3), torch.ones(3), 1, components=1, hidden=(8,))
    (tmp_path / "run").mkdir()
    policy.save(tmp_path / "run" / "policy.safetensors")
    record = {"kind": "transitions", "dataset": "my/gone-v0", "dataset_path": str(tmp_path / "gone"), "seed": 0}
    write_record(
        tmp_path / "run",
        record | {"task": "my/gone", "algorithm": "bc", "settings": {}, "policy": "policy.safetensors"},
    )
    said = refusal(capsys, tmp_path / "run", "--home", tmp_path)
    assert f"was trained on my/gone-v0, which is neither at {tmp_path / 'gone'} nor in the home: build, import" in said
    assert said.rstrip().endswith("; scores in an --environment need no dataset")
    found = answer(capsys, tmp_path / "run", "--environment", "Pendulum-v1", "--episodes", "2", "--home", tmp_path)
    assert (found["episodes"], found["length"], found["normalized"]) == (2, 200, None)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken.py").write_text(BROKEN)
    with pytest.raises(KeyError, match="goal"):  # a defect of the environment is none of the run's record
        run(["evaluate", str(tmp_path / "run"), "--environment", "broken:Broken-v0", "--home", str(tmp_path)])
