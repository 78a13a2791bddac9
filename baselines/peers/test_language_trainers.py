"""Our trainers of language models beside TRL's: called alike, on the same dataset objects, with the same numbers.

`test_trl.py` compares the losses as functions; here whole trainers meet, from the columns to the logged metrics.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

from baselines.peers.language import arguments, llama, texts, tokenizer
from datasets import Dataset
from pmpo_offline.training.language import PMPOConfig, PMPOTrainer, ResponseConfig, ResponseTrainer

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
