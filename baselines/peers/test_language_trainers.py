"""Our trainers of language models beside TRL's: called alike, on the same dataset objects, with the same numbers.

`test_trl.py` compares the losses as functions; here whole trainers meet, from the columns to the logged metrics.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast, TrainingArguments
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

from baselines.peers.language import arguments, llama, texts, tokenizer
from datasets import Dataset
from pmpo_offline.training.language import PMPOConfig, PMPOTrainer, ResponseConfig, ResponseTrainer
from pmpo_offline.training.language.responses import tokenize_responses
from pmpo_offline.training.language.trl_data import dataset_of

ROWS, BETA = 8, 0.3
UNPAIRED, PAIRED = ("prompt", "completion", "label"), ("prompt", "chosen", "rejected")
METRICS = ("rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen", "logps/rejected")


def single() -> Dataset:
    """Return unpaired rows of both classes."""
    data = texts(ROWS, 3, *UNPAIRED)
    assert 0 < sum(data["label"]) < ROWS
    return data


def ours(folder: Path, data: Dataset, **settings: Any) -> ResponseTrainer:
    """Return our trainer of an objective, with another network as the reference."""
    cache = str(folder / "reference")
    args = ResponseConfig(**arguments(folder, ROWS), reference_cache=cache, settings={"beta": BETA}, **settings)
    return ResponseTrainer(
        model=llama(0), ref_model=llama(1), args=args, train_dataset=data, processing_class=tokenizer()
    )


def first_batch(trainer: Any, data: Dataset) -> dict[str, Any]:
    """Return a batch of all rows in the order of the dataset: of TRL's collator, or what ours takes for one."""
    if isinstance(trainer, ResponseTrainer):
        return {"index": torch.arange(len(data)), "weight": torch.ones(len(data)), "entries": trainer.train_dataset}
    return dict(trainer.data_collator([trainer.train_dataset[i] for i in range(len(data))]))


def metrics_of(trainer: Any, data: Dataset) -> dict[str, float]:
    """Return the loss of these rows and what the trainer reports with it."""
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, first_batch(trainer, data))
    if isinstance(trainer, ResponseTrainer):
        reported = {name: float(value) for name, value in trainer._reported["train"][-1].items()}
    else:
        reported = {name: values[-1] for name, values in trainer._metrics["train"].items()}
    return {"loss": loss.item(), **reported}


def assert_equal(mine: dict[str, float], theirs: dict[str, float], names: tuple[str, ...]) -> None:
    """Assert that both report these, alike."""
    assert {name: mine[name] for name in names} == pytest.approx({name: theirs[name] for name in names}, abs=1e-4)


def test_dpo_and_its_metrics(tmp_path):
    """The reference is a network of its own for both."""
    data = texts(ROWS, 2, *PAIRED)
    args = DPOConfig(**arguments(tmp_path, ROWS), beta=BETA)
    theirs = DPOTrainer(model=llama(0), ref_model=llama(1), args=args, train_dataset=data, processing_class=tokenizer())
    mine = ours(tmp_path, data, objective="dpo", rows="pairs")
    assert_equal(metrics_of(mine, data), metrics_of(theirs, data), ("loss", *METRICS, "rewards/accuracies"))


def test_kto_and_its_metrics(tmp_path):
    """With the reference point of mismatched completions, as TRL has it."""
    data = single()
    args = KTOConfig(**arguments(tmp_path, ROWS), beta=BETA)
    theirs = KTOTrainer(model=llama(0), ref_model=llama(1), args=args, train_dataset=data, processing_class=tokenizer())
    mine = ours(tmp_path, data, objective="kto", policy_kl="mismatched")
    assert_equal(metrics_of(mine, data), metrics_of(theirs, data), ("loss", "kl", *METRICS))


@pytest.mark.parametrize("columns", [UNPAIRED, PAIRED], ids=["unpaired", "paired"])
def test_pmpo_drops_in_where_trl_trains(tmp_path, columns):
    """The same call on the same object with another trainer's name; TRL's side of it runs too."""
    data = single() if columns == UNPAIRED else texts(ROWS, 2, *PAIRED)
    Theirs, TheirConfig = (KTOTrainer, KTOConfig) if columns == UNPAIRED else (DPOTrainer, DPOConfig)
    common = {**arguments(tmp_path, 4), "max_steps": 2, "logging_steps": 1, "learning_rate": 1e-2}
    logs = []
    for Trainer, args in [
        (Theirs, TheirConfig(**common)),
        (PMPOTrainer, PMPOConfig(**common, reference_cache=str(tmp_path / "reference"))),
    ]:
        trainer = Trainer(
            model=llama(0),
            args=args,
            train_dataset=data,
            processing_class=tokenizer(),
            peft_config=LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
        )
        before = {name: weight.clone() for name, weight in trainer.model.named_parameters() if weight.requires_grad}
        trainer.train()
        trained = dict(trainer.model.named_parameters())
        assert before
        assert any(not weight.equal(trained[name]) for name, weight in before.items())
        logs.append([line for line in trainer.state.log_history if "loss" in line])
    assert len(logs[0]) == len(logs[1]) == 2
    assert all(torch.tensor(line["loss"]).isfinite() for line in logs[1])
    assert {"rewards/chosen", "rewards/rejected", "rewards/margins"} <= set().union(*logs[0]) & set().union(*logs[1])
    assert data.column_names == list(columns)


def reader() -> PreTrainedTokenizerFast:
    """Return a tokenizer of bytes that merges some pairs of letters, with a chat template that reads tools."""
    alphabet = sorted(ByteLevel.alphabet())
    merges = [("e", "r"), ("s", "."), ("n", "o")]
    words = [*alphabet, *map("".join, merges), "<end>", "<pad>"]
    model = Tokenizer(BPE({word: i for i, word in enumerate(words)}, merges))
    model.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    read = PreTrainedTokenizerFast(tokenizer_object=model, eos_token="<end>", pad_token="<pad>")
    read.chat_template = (
        "{% if tools %}{% for tool in tools %}[{{ tool['function']['name'] }}]{% endfor %}{% endif %}{{ mood }}"
        "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }}<end>{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    return read


def message(role: str, text: str) -> dict[str, str]:
    """Return a message of a conversation."""
    return {"role": role, "content": text}


ASKED, GOOD, BAD = [message("user", "no")], [message("assistant", "yes.")], [message("assistant", "r")]
TOOLS = [{"type": "function", "function": {"name": "look_up"}}]
EXAMPLES: dict[str, dict[str, Any]] = {
    "unpaired": {"prompt": "ab", "completion": "cd", "label": True},
    "a token across the boundary": {"prompt": "yes", "completion": ". no", "label": True},
    "an end that is written": {"prompt": "ab", "completion": "cd<end>", "label": False},
    "unpaired chat": {"prompt": ASKED, "completion": GOOD, "label": True},
    "tools": {"prompt": ASKED, "completion": GOOD, "label": True, "tools": TOOLS},
    "tools as text": {"prompt": ASKED, "completion": GOOD, "label": True, "tools": json.dumps(TOOLS)},
    "template settings": {"prompt": ASKED, "completion": GOOD, "label": True, "chat_template_kwargs": {"mood": "!"}},
    "paired": {"prompt": "ab", "chosen": "cd", "rejected": "ef"},
    "a token across one of two boundaries": {"prompt": "ye", "chosen": "s.", "rejected": "r"},
    "implied prompt": {"chosen": "The sky is blue.", "rejected": "The sky is green."},
    "paired chat": {"prompt": ASKED, "chosen": GOOD, "rejected": BAD, "tools": TOOLS},
    "implied chat": {"chosen": [*ASKED, *GOOD], "rejected": [*ASKED, *BAD]},
    "longer than the context": {"prompt": "abcdef", "completion": "gh" * 40, "label": True},
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_tokens_are_trls(tmp_path, name):
    """Prompt and completion of every form, token by token."""
    row, read, most = EXAMPLES[name], reader(), 64
    data = Dataset.from_list([row, row])
    Theirs, TheirConfig = (DPOTrainer, DPOConfig) if "chosen" in row else (KTOTrainer, KTOConfig)
    args = TheirConfig(**arguments(tmp_path, 2), max_length=most)
    model = llama(0)
    model.resize_token_embeddings(len(read))
    theirs = Theirs(model=model, ref_model=llama(1), args=args, train_dataset=data, processing_class=read)
    columns = ("chosen_ids", "rejected_ids") if "chosen" in row else ("completion_ids",)
    expected = [(tuple(each["prompt_ids"]), tuple(each[column])) for each in theirs.train_dataset for column in columns]
    found = tokenize_responses(dataset_of(data, read, context=most), read, most).tokens
    # TRL cuts what is too long when it collates.
    assert [tuple(tokens) for tokens in found] == [(head, tail[: most - len(head)]) for head, tail in expected]


@pytest.mark.parametrize("columns", [UNPAIRED, PAIRED], ids=["unpaired", "paired"])
@pytest.mark.parametrize(("batch", "accumulation"), [(8, 1), (8, 2), (7, 3)])
def test_an_epoch_has_as_many_updates(tmp_path, columns, batch, accumulation):
    """Of 96 rows, whatever their labels."""
    data = texts(96, 5, *columns)
    Theirs, TheirConfig = (KTOTrainer, KTOConfig) if columns == UNPAIRED else (DPOTrainer, DPOConfig)
    common = {**arguments(tmp_path, batch), "gradient_accumulation_steps": accumulation, "num_train_epochs": 1}
    steps = []
    for Trainer, args in [
        (Theirs, TheirConfig(**common)),
        (PMPOTrainer, PMPOConfig(**common, reference_cache=str(tmp_path / "reference"))),
    ]:
        trainer = Trainer(
            model=llama(0), ref_model=llama(1), args=args, train_dataset=data, processing_class=tokenizer()
        )
        trainer.train()
        steps.append(trainer.state.global_step)
    assert steps[0] == steps[1]


def test_a_trained_adapter_is_its_own_reference(tmp_path):
    """Both compare an adapter that was trained before with what it was, not with the model below it."""
    data = texts(ROWS, 2, *PAIRED)
    found = []
    for Trainer, args in [
        (DPOTrainer, DPOConfig(**arguments(tmp_path, ROWS), beta=BETA)),
        (
            ResponseTrainer,
            ResponseConfig(
                **arguments(tmp_path, ROWS),
                reference_cache=str(tmp_path / "reference"),
                settings={"beta": BETA},
                objective="dpo",
                rows="pairs",
            ),
        ),
    ]:
        torch.manual_seed(0)
        adapted = get_peft_model(llama(0), LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
        trainer = Trainer(model=adapted, args=args, train_dataset=data, processing_class=tokenizer())
        found.append(metrics_of(trainer, data))
        with torch.no_grad():
            for name, weight in trainer.model.named_parameters():
                if weight.requires_grad and "lora_B" in name:
                    weight.mul_(2)
        found.append(metrics_of(trainer, data))
    before, after, our_before, our_after = found
    assert before["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert after["loss"] != pytest.approx(math.log(2), abs=1e-3)
    assert_equal(our_before, before, ("loss", *METRICS))
    assert_equal(our_after, after, ("loss", *METRICS))


@pytest.mark.parametrize("TheirConfig", [DPOConfig, KTOConfig])
def test_every_field_of_trls_configuration_is_one_of_ours(tmp_path, TheirConfig):
    """With the same meaning, or a warning that says why it has no effect."""
    own = {field.name for field in dataclasses.fields(TrainingArguments)}
    names = [field.name for field in dataclasses.fields(TheirConfig) if field.name not in own]
    honoured = {"beta", "max_length", "model_init_kwargs", "disable_dropout"}
    values = {bool: True, int: 7, float: 0.25, str: "other"}
    for name in names:
        default = getattr(PMPOConfig(output_dir=str(tmp_path)), name)
        if name in honoured:
            continue
        value = not default if isinstance(default, bool) else values.get(type(default), ["other"])
        with pytest.warns(UserWarning, match=f"{name} has no effect"):
            PMPOConfig(output_dir=str(tmp_path), **{name: value})
