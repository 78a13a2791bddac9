"""The trainers take what TRL's take: signature, configuration, datasets and models; mistakes are one line."""

from __future__ import annotations

import inspect
import json
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.small_language import byte_tokenizer, labelled_rows, random_model
from helpers.small_trainers import LORA, arguments, pmpo, trained
from peft import LoraConfig
from transformers import BitsAndBytesConfig, HfArgumentParser

import datasets
from pmpo_offline.policies.language import quiet
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.tasks.language.tiny import tokenizer
from pmpo_offline.training.language import PMPOConfig, PMPOTrainer, ResponseConfig, ResponseTrainer


def test_the_signature_is_trls() -> None:
    given = list(inspect.signature(PMPOTrainer.__init__).parameters)[1:]
    assert given[:12] == [
        "model",
        "ref_model",
        "args",
        "data_collator",
        "train_dataset",
        "eval_dataset",
        "processing_class",
        "compute_metrics",
        "callbacks",
        "optimizers",
        "quantization_config",
        "peft_config",
    ]


@pytest.mark.parametrize(
    ("form", "objective", "rows"),
    [
        ("unpaired", "pmpo", "all"),
        ("paired", "pmpo", "all"),
        ("paired", "dpo", "pairs"),
        ("paired", "bc_accepts", "accepted"),
    ],
)
def test_an_epoch_has_as_many_updates_as_in_trl(tmp_path: Path, form: str, objective: str, rows: Any) -> None:
    if form == "paired":
        data = [{"prompt": f"{'abcdefgh'[n % 8]}=", "chosen": "ab", "rejected": "ba"} for n in range(96)]
    else:
        data = [{"prompt": "ab=", "completion": "ba", "label": [True, False, True, None][n % 4]} for n in range(96)]
    args = arguments(
        ResponseConfig,
        tmp_path,
        **{"objective": objective, "rows": rows, "max_steps": -1, "num_train_epochs": 1, "logging_steps": 50},
        per_device_train_batch_size=8,
    )
    trainer = ResponseTrainer(random_model(), args=args, train_dataset=data, processing_class=tokenizer())
    trained(trainer)
    assert trainer.state.global_step == 12
    assert trainer.state.epoch == 1


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    def made(**changes: Any) -> Any:
        given = {"args": arguments(PMPOConfig, tmp_path), "train_dataset": labelled_rows(2), **changes}
        return PMPOTrainer(random_model(), processing_class=tokenizer(), **given)

    for argument in ("data_collator", "compute_metrics"):
        with pytest.warns(UserWarning, match=f"{argument} has no effect"):
            made(**{argument: lambda rows: rows})
    with pytest.raises(UserError, match="train_dataset is missing"):
        made(train_dataset=None)
    with pytest.raises(UserError, match="unknown objective"):
        made(args=arguments(ResponseConfig, tmp_path, objective="pmop"))
    with pytest.raises(UserError, match="alpha is a number from 0 to 1"):
        made(args=arguments(PMPOConfig, tmp_path, alpha=2.0))
    with pytest.raises(UserError, match="bc uses no labels and no scores"):
        made(args=arguments(ResponseConfig, tmp_path, objective="bc", shuffle_labels=True))
    one_class = [row for row in labelled_rows() if row["label"] is not False]
    with pytest.raises(UserError, match="learns from pairs"):
        made(args=arguments(ResponseConfig, tmp_path, objective="dpo", rows="pairs"), train_dataset=one_class)
    long = [{"prompt": "a" * 40 + "=", "completion": "a", "label": True}]
    with pytest.raises(UserError, match=r"train has no rows .*: 1 with a prompt that leaves no room in 32 tokens"):
        made(train_dataset=long)
    for below in (LoraConfig(**LORA), None):
        with pytest.raises(UserError, match="weights below layer 1 are trained, and cut = 1 caches"):
            made(args=arguments(PMPOConfig, tmp_path, cut=1), peft_config=below)
    endless = tokenizer()
    endless.eos_token = None
    with pytest.raises(UserError, match="has no EOS token"):
        PMPOTrainer(
            random_model(),
            args=arguments(PMPOConfig, tmp_path),
            train_dataset=labelled_rows(2),
            processing_class=endless,
        )
    with pytest.raises(UserError, match="comes without a tokenizer"):
        PMPOTrainer(random_model(), args=arguments(PMPOConfig, tmp_path), train_dataset=labelled_rows(2))


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU it can be")
def test_few_bits_that_cannot_be_are_one_line(tmp_path: Path, model_folder: Path) -> None:
    bits = BitsAndBytesConfig(load_in_4bit=True)
    with pytest.raises(UserError, match="model cannot be opened with quantization_config: ") as caught:
        PMPOTrainer(
            str(model_folder),
            args=arguments(PMPOConfig, tmp_path),
            train_dataset=labelled_rows(2),
            quantization_config=bits,
        )
    assert "\n" not in str(caught.value)


def test_an_endless_dataset_is_read_as_far_as_max_steps_reach(tmp_path: Path) -> None:
    def endless() -> Any:
        while True:
            yield from labelled_rows()

    rows = datasets.IterableDataset.from_generator(endless)
    assert len(trained(pmpo(tmp_path, rows=rows, max_steps=2))) == 2
    with pytest.raises(UserError, match="train_dataset has no length: set max_steps"):
        pmpo(tmp_path, rows=rows, max_steps=-1)


def test_fields_of_trls_configurations_are_honoured_or_say_why_not(tmp_path: Path, model_folder: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        arguments(PMPOConfig, tmp_path, disable_dropout=True, precompute_ref_log_probs=False, dataset_num_proc=None)
        assert not [each for each in caught if "no effect" in str(each.message)]
    with pytest.warns(UserWarning, match="precompute_ref_log_probs has no effect: the reference is always evaluated"):
        arguments(PMPOConfig, tmp_path, precompute_ref_log_probs=True)
    with pytest.warns(UserWarning, match="padding_free, padding_value has no effect: padding is not read"):
        arguments(ResponseConfig, tmp_path, padding_free=True, padding_value=0)
    rows = datasets.Dataset.from_list(labelled_rows())

    def made(model: Any, **changes: Any) -> PMPOTrainer:
        lora = LoraConfig(**LORA, lora_dropout=0.5)
        args = arguments(PMPOConfig, tmp_path, **changes)
        return PMPOTrainer(model, args=args, train_dataset=rows, processing_class=tokenizer(), peft_config=lora)

    opened = made(str(model_folder), model_init_kwargs={"dtype": "bfloat16"}, disable_dropout=True).model
    assert next(opened.parameters()).dtype == torch.bfloat16
    assert {part.p for part in opened.modules() if isinstance(part, torch.nn.Dropout)} == {0.0}
    with pytest.warns(UserWarning, match="model_init_kwargs has no effect: the model is loaded already"):
        assert (
            next(made(random_model(), model_init_kwargs={"dtype": "bfloat16"}).model.parameters()).dtype
            == torch.float32
        )
    kept = made(random_model(), disable_dropout=False).model
    assert 0.5 in {part.p for part in kept.modules() if isinstance(part, torch.nn.Dropout)}
    for name, value in {
        "loss_type": ["sigmoid", "sft"],
        "desirable_weight": 1.3,
        "pad_to_multiple_of": 8,
        "sync_ref_model": True,
        "train_sampling_strategy": "sequential",
    }.items():
        with pytest.warns(UserWarning, match=f"{name}.* has no effect: "):
            arguments(PMPOConfig, tmp_path, **{name: value})


@pytest.mark.parametrize("form", ["unpaired", "paired"])
@pytest.mark.parametrize("lora", [False, True])
def test_trls_own_examples_run_with_the_name_of_the_class_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, lora: bool
) -> None:
    """The quick start and the section on adapters of TRL's pages on DPO and KTO, on rows like their datasets'."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PMPO_OFFLINE_DATASETS", str(tmp_path / "home"))
    read = byte_tokenizer()
    read.chat_template = (
        "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }}<end>{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    config = random_model().config
    config.vocab_size, config.eos_token_id, config.pad_token_id = len(read), read.eos_token_id, read.pad_token_id
    config.max_position_embeddings = 128
    with quiet():
        type(random_model())(config).save_pretrained(tmp_path / "model")
        read.save_pretrained(tmp_path / "model")
    asked = {"role": "user", "content": "What color is the sky?"}
    good, bad = ({"role": "assistant", "content": f"It is {color}."} for color in ("blue", "green"))
    if form == "paired":  # as trl-lib/ultrafeedback_binarized
        rows = [{"chosen": [asked, good], "rejected": [asked, bad], "score_chosen": 8.0, "score_rejected": 3.0}] * 9
    else:  # as trl-lib/kto-mix-14k
        rows = [{"prompt": [asked], "completion": [answer], "label": answer is good} for answer in (good, bad, bad) * 3]
    train_dataset = datasets.Dataset.from_list(rows)
    trainer = PMPOTrainer(
        model=str(tmp_path / "model"),
        train_dataset=train_dataset,
        **({"peft_config": LoraConfig()} if lora else {}),
    )
    trainer.train()
    assert trainer.state.global_step == 3 * math.ceil(9 / 8)
    assert trainer.args.output_dir == "model-pmpo"


def test_the_command_lines_of_transformers_read_the_configuration(tmp_path: Path) -> None:
    line = ["--output_dir", str(tmp_path), "--beta", "1.05x", "--alpha", "0.25", "--use_cpu", "True"]
    (args,) = HfArgumentParser(PMPOConfig).parse_args_into_dataclasses(line)
    assert (args.settings["beta"], args.settings["alpha"]) == ("1.05x", 0.25)
    (args,) = HfArgumentParser(PMPOConfig).parse_args_into_dataclasses([*line[:2], "--beta", "0.7"])
    assert args.settings["beta"] == 0.7
    assert json.loads(args.to_json_string())["beta"] in (0.7, "0.7")
    (args,) = HfArgumentParser(ResponseConfig).parse_args_into_dataclasses([*line[:2], "--settings", '{"beta": 2}'])
    assert args.settings == {"beta": 2}
