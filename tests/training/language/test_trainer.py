"""The trainers beside transformers and peft: metrics, accumulation, checkpoints, evaluation, kinds of models."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.small_language import labelled_rows, random_model
from helpers.small_trainers import LORA, arguments, pmpo, trained
from peft import LoraConfig, PeftModel
from transformers import BloomForCausalLM, FalconForCausalLM, MambaForCausalLM

from pmpo_offline.policies.language import quiet
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.tasks.language.tiny import tokenizer
from pmpo_offline.training.language import ResponseConfig, ResponseTrainer
from pmpo_offline.training.language.batches import Scorer


def test_it_trains_with_trls_metrics_and_saves_what_peft_opens(tmp_path: Path) -> None:
    trainer = pmpo(tmp_path, beta=2.0, max_steps=20)
    history = trained(trainer)
    names = {"rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "logps/chosen"}
    assert names | {"logps/rejected", "kl", "loss"} <= set(history[-1])
    assert history[0]["rewards/margins"] == pytest.approx(0, abs=1e-5)  # it begins at the reference
    assert history[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert history[-1]["rewards/margins"] > 0.05
    assert history[-1]["loss"] < history[0]["loss"]
    for line in history:
        assert line["rewards/margins"] == pytest.approx(line["rewards/chosen"] - line["rewards/rejected"], abs=1e-5)
    assert trainer.beta_bound == pytest.approx(0.5 * 0.5 / (1 / 3))  # (1 - alpha) w_r / P_r
    trainer.save_model(str(tmp_path / "adapter"))
    opened = PeftModel.from_pretrained(random_model(), str(tmp_path / "adapter"))
    for name, weight in opened.state_dict().items():
        assert torch.equal(weight, trainer.model.state_dict()[name])


def test_an_update_in_parts_moves_the_weights_as_one_in_whole(tmp_path: Path) -> None:
    history = []
    for batch, accumulation in ((12, 1), (3, 4)):
        trainer = pmpo(
            tmp_path, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation, max_steps=5
        )
        history.append(trained(trainer))
    for whole, parts in zip(*history, strict=True):
        # The margin is that of the micro-batches' means, the accuracy within them: only class means are exact.
        for name in ("loss", "grad_norm", "kl", "logps/chosen", "logps/rejected", "rewards/margins"):
            assert parts[name] == pytest.approx(whole[name], abs=2e-5), name


@pytest.mark.parametrize("lora", [True, False])
def test_gradient_checkpointing_changes_nothing(tmp_path: Path, lora: bool) -> None:
    plain = trained(pmpo(tmp_path, lora=lora))
    saving = trained(pmpo(tmp_path, lora=lora, gradient_checkpointing=True))
    assert [line["loss"] for line in saving] == pytest.approx([line["loss"] for line in plain], abs=1e-5)


def test_an_absent_class_is_not_logged(tmp_path: Path) -> None:
    accepted = [row for row in labelled_rows() if row["label"]]
    history = trained(pmpo(tmp_path, rows=accepted))
    assert "logps/chosen" in history[-1]
    assert not {"logps/rejected", "rewards/rejected", "rewards/margins"} & set(history[-1])


def test_below_the_bound_it_warns_once_with_numbers_and_trains(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = pmpo(tmp_path, beta=0.1)
    said = [str(each.message) for each in caught if "below its bound" in str(each.message)]
    assert said == [said[0]]
    assert "β = 0.1 < 0.75" in said[0]
    assert trainer.beta_bound == pytest.approx(0.75)
    assert pmpo(tmp_path, beta="1.05x").settings["beta"] == pytest.approx(1.05 * 0.75)


@pytest.mark.parametrize(
    ("objective", "rows"),
    [
        ("kto", "balanced"),
        ("dpo", "pairs"),
        ("mpo", "candidates"),
        ("awr", "all"),
        ("bc", "all"),
        ("bc_accepts", "accepted"),
        ("topr", "all"),
        ("rpo", "all"),
        ("sspo", "all"),
        ("aot_unpaired", "balanced"),
    ],
)
def test_any_objective_trains(tmp_path: Path, objective: str, rows: Any) -> None:
    args = arguments(ResponseConfig, tmp_path, objective=objective, rows=rows, max_steps=12)
    trainer = ResponseTrainer(
        random_model(),
        args=args,
        train_dataset=labelled_rows(),
        eval_dataset={"seen": labelled_rows(4)},
        processing_class=tokenizer(),
        peft_config=LoraConfig(**LORA),
    )
    untrained = trainer.evaluate()
    history = trained(trainer)
    assert all(math.isfinite(line["loss"]) for line in history)  # one batch is no measure of another
    if trainer.reference is not None and "rewards/accuracies" in history[0]:
        assert history[-1]["rewards/accuracies"] > 0.5
    assert trainer.evaluate()["eval_seen_loss"] < untrained["eval_seen_loss"]


def test_a_batch_of_one_row_trains(tmp_path: Path) -> None:
    history = trained(pmpo(tmp_path, per_device_train_batch_size=1, max_steps=2))
    assert all(math.isfinite(line["loss"]) for line in history)
    assert {"logps/chosen", "logps/rejected"} <= set(history[0])  # a row of each class


@pytest.mark.parametrize(
    ("objective", "rows", "changes"),
    [
        ("pmpo", "all", {"settings": {"divergence": "forward"}}),
        ("pmpo", "all", {"settings": {"divergence": "renyi", "order": 0.3, "over": "labelled"}, "reduction": "mean"}),
        ("kto", "balanced", {}),
        ("kto", "all", {"policy_kl": "mismatched"}),
        ("bco", "all", {}),
        ("dpo", "pairs", {}),
        ("mpo", "candidates", {}),
        ("bc", "all", {}),
    ],
)
def test_an_evaluation_is_of_all_rows_whatever_the_size_of_its_batch(
    tmp_path: Path, objective: str, rows: Any, changes: dict[str, Any]
) -> None:
    timed = {"eval_runtime", "eval_samples_per_second", "eval_steps_per_second", "eval_model_preparation_time"}
    found = []
    for batch in (1, 7, 100):
        args = arguments(
            ResponseConfig, tmp_path, objective=objective, rows=rows, per_device_eval_batch_size=batch, **changes
        )
        trainer = ResponseTrainer(
            random_model(),
            random_model(1),
            args,
            train_dataset=labelled_rows(),
            eval_dataset=labelled_rows(5),
            processing_class=tokenizer(),
            peft_config=LoraConfig(**LORA),
        )
        found.append({name: value for name, value in trainer.evaluate().items() if name not in timed})
    assert len(found[0]) > 2 or objective == "mpo"
    for other in found[1:]:
        assert other == pytest.approx(found[0], abs=1e-5)
    entries = trainer.eval_dataset
    index, weight = entries.whole()
    whole = entries.batch(
        index, torch.from_numpy(weight), Scorer(trainer.model, trainer.reference, trainer.input_settings)
    )
    names = (*trainer.objective.inputs.values(), *trainer.objective.optional.values())
    loss, _ = trainer.objective({name: getattr(whole, name) for name in names}, whole.weight, **trainer.settings)
    assert found[0]["eval_loss"] == pytest.approx(float(loss.detach()), abs=1e-5)  # in one pass


def test_bco_is_shifted_by_the_mean_of_the_updates_so_far(tmp_path: Path) -> None:
    args = arguments(
        ResponseConfig,
        tmp_path,
        objective="bco",
        per_device_train_batch_size=6,
        gradient_accumulation_steps=2,
        max_steps=5,
    )
    trainer = ResponseTrainer(
        random_model(),
        args=args,
        train_dataset=labelled_rows(),
        processing_class=tokenizer(),
        peft_config=LoraConfig(**LORA),
    )
    history = trained(trainer)
    batches = [line["batch_shift"] for line in history]
    for update, line in enumerate(history):
        assert line["shift"] == pytest.approx(sum(batches[:update]) / max(1, update), abs=1e-6)
    assert abs(history[-1]["shift"]) > 1e-4  # it moves
    assert trainer.running.means["reward_shift"] == pytest.approx(sum(batches) / 5, abs=1e-6)


@pytest.mark.parametrize("objective", ["pmpo", "bco"])
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path: Path, objective: str) -> None:
    dropout = {**LORA, "lora_dropout": 0.2}  # chance has to go on where it was, too

    def trainer(folder: str, **changes: Any) -> ResponseTrainer:
        own = {"output_dir": str(tmp_path / folder), "objective": objective}
        args = arguments(ResponseConfig, tmp_path, **own, max_steps=8, disable_dropout=False, **changes)
        return ResponseTrainer(
            random_model(),
            args=args,
            train_dataset=labelled_rows(),
            processing_class=tokenizer(),
            peft_config=LoraConfig(**dropout),
        )

    whole = trainer("whole")
    trained(whole)
    first = trainer("halves", save_strategy="steps", save_steps=5)
    trained(first)
    stopped = [path for path in (tmp_path / "halves" / "checkpoint-5").rglob("*") if path.is_file()]
    assert {path.suffix for path in stopped} <= {".json", ".jinja", ".md", ".safetensors"}, "no pickle"
    assert {"optimizer.safetensors", "rng_state_0.safetensors"} <= {path.name for path in stopped}
    second = trainer("halves", save_strategy="steps", save_steps=5)
    with quiet():
        second.train(resume_from_checkpoint=str(tmp_path / "halves" / "checkpoint-5"))
    for (name, one), other in zip(whole.model.named_parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other), name
    (tmp_path / "halves" / "checkpoint-5" / "optimizer.safetensors").unlink()
    with pytest.raises(UserError, match=r"holds no optimizer\.safetensors"), quiet():
        trainer("halves").train(resume_from_checkpoint=str(tmp_path / "halves" / "checkpoint-5"))


@pytest.mark.parametrize("kind", [BloomForCausalLM, FalconForCausalLM, MambaForCausalLM])
def test_models_of_other_kinds_are_trained(tmp_path: Path, kind: Any) -> None:
    """Without a declared context, without an exchangeable attention, or without any."""
    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": len(tokenizer())}
    config = kind.config_class(**size, **({} if kind is MambaForCausalLM else {"num_attention_heads": 2}))
    history = trained(pmpo(tmp_path, kind(config), lora=False, max_steps=2))
    assert history[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert math.isfinite(history[-1]["loss"])
