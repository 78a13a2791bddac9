"""The reference of the trainers: the model before training, with whatever kind of adapter it trains."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.small_language import labelled_rows, random_model
from helpers.small_trainers import LORA, arguments, pmpo, trained
from peft import (
    IA3Config,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    OFTConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptTuningConfig,
    get_peft_model,
)

from pmpo_offline.policies.language import LanguageModel, add_lora, open_model
from pmpo_offline.policies.language import model as models
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.tasks.language.tiny import tokenizer
from pmpo_offline.training.language import PMPOConfig, PMPOTrainer


def test_a_cached_trunk_changes_nothing(tmp_path: Path) -> None:
    upper = LoraConfig(**LORA, layers_to_transform=[1])
    losses = []
    for cut in (0, 1):
        trainer = PMPOTrainer(
            random_model(),
            args=arguments(PMPOConfig, tmp_path, cut=cut),
            train_dataset=labelled_rows(),
            processing_class=tokenizer(),
            peft_config=upper,
        )
        losses.append([line["loss"] for line in trained(trainer)])
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)


def test_every_reference_that_is_the_model_before_training_gives_the_same_losses(tmp_path: Path) -> None:
    without = trained(pmpo(tmp_path))
    trainer = PMPOTrainer(
        random_model(),
        random_model(),
        arguments(PMPOConfig, tmp_path),
        train_dataset=labelled_rows(),
        processing_class=tokenizer(),
        peft_config=LoraConfig(**LORA),
    )
    explicit = trained(trainer)
    assert [line["loss"] for line in explicit] == pytest.approx([line["loss"] for line in without], abs=1e-6)
    whole = pmpo(tmp_path, lora=False, learning_rate=1e-3)
    history = trained(whole)
    assert history[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert history[-1]["kl"] > 0


def test_what_trains_beside_an_adapter_is_part_of_the_reference(tmp_path: Path) -> None:
    def with_embeddings(ref_model: Any) -> PMPOTrainer:
        return PMPOTrainer(
            random_model(),
            ref_model,
            arguments(PMPOConfig, tmp_path),
            train_dataset=labelled_rows(),
            processing_class=tokenizer(),
            peft_config=LoraConfig(**LORA, modules_to_save=["embed_tokens"]),
        )

    losses = [[line["loss"] for line in trained(with_embeddings(given))] for given in (None, random_model())]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert losses[0][-1] != pytest.approx(losses[0][0], abs=1e-3)


@pytest.mark.parametrize("kind", ["saved LoRA", "IA3", "DoRA", "LoHa", "LoKr", "OFT"])
def test_any_adapter_of_the_layers_begins_at_its_own_reference_and_trains(tmp_path: Path, kind: str) -> None:
    if kind == "saved LoRA":
        first = pmpo(tmp_path)
        trained(first)
        first.save_model(str(tmp_path / "adapter"))
        with pytest.raises(UserError, match="no weight of the model is trained: load its adapter with is_trainable"):
            pmpo(tmp_path, PeftModel.from_pretrained(random_model(), str(tmp_path / "adapter")), lora=False)
        adapted = PeftModel.from_pretrained(random_model(), str(tmp_path / "adapter"), is_trainable=True)
    else:
        configs = {
            "IA3": IA3Config(target_modules=["v_proj"], feedforward_modules=[]),
            "DoRA": LoraConfig(**LORA, use_dora=True),
            "LoHa": LoHaConfig(r=4, target_modules=["q_proj"]),
            "LoKr": LoKrConfig(r=4, target_modules=["q_proj"]),
            "OFT": OFTConfig(r=0, oft_block_size=8, target_modules=["q_proj"]),
        }
        adapted = get_peft_model(random_model(), configs[kind])
    history = trained(pmpo(tmp_path, adapted, lora=False, learning_rate=3e-2))
    assert history[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert history[0]["rewards/margins"] == pytest.approx(0, abs=1e-5)
    assert history[-1]["kl"] > 1e-5


@pytest.mark.parametrize(
    "config",
    [
        PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"),
        PrefixTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"),
    ],
)
def test_virtual_tokens_are_refused_by_name(tmp_path: Path, config: Any) -> None:
    with pytest.raises(UserError, match=f"{config.peft_type.value} puts virtual tokens before a prompt"):
        pmpo(tmp_path, get_peft_model(random_model(), config), lora=False)


def test_a_reference_with_an_adapter_is_not_its_base(tmp_path: Path) -> None:
    def first(reference: Any) -> float:
        trainer = PMPOTrainer(
            random_model(),
            reference,
            arguments(PMPOConfig, tmp_path, max_steps=1),
            train_dataset=labelled_rows(),
            processing_class=tokenizer(),
            peft_config=LoraConfig(**LORA),
        )
        return trained(trainer)[0]["kl"]

    adapted = get_peft_model(random_model(), LoraConfig(**LORA, init_lora_weights=False))
    assert first(random_model()) == pytest.approx(0, abs=1e-6)
    assert first(adapted) > 0.01  # with the base's view of all rows in the cache


def test_a_model_that_was_trained_is_its_own_reference_from_then_on(tmp_path: Path, model_folder: Path) -> None:
    model = open_model(model_folder, device="cpu")
    for lora in (None, None, LoraConfig(**LORA)):
        trainer = PMPOTrainer(
            model, args=arguments(PMPOConfig, tmp_path), train_dataset=labelled_rows(), peft_config=lora
        )
        assert trained(trainer)[0]["kl"] == pytest.approx(0, abs=1e-6)


def test_a_model_that_was_trained_and_adapted_by_hand_is_known_by_its_weights(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def first(model: LanguageModel) -> float:
        adapted = replace(model, model=add_lora(model.model, 2, 4, ["q_proj"]))
        trainer = PMPOTrainer(adapted, args=arguments(PMPOConfig, tmp_path, max_steps=1), train_dataset=labelled_rows())
        return trained(trainer)[0]["kl"]

    def fresh() -> LanguageModel:
        return open_model(model_folder, device="cpu")

    with monkeypatch.context() as patch:
        patch.setattr(models, "weights_hash", None)  # not all weights are read if the files are known
        assert first(fresh()) == pytest.approx(0, abs=1e-6)

    whole = fresh()
    trained(PMPOTrainer(whole, args=arguments(PMPOConfig, tmp_path), train_dataset=labelled_rows()))
    merged = add_lora(fresh().model, 2, 4, ["q_proj"])
    for name, weight in merged.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    for changed in (whole, replace(fresh(), model=merged.merge_and_unload())):
        assert first(changed) == pytest.approx(0, abs=1e-6)


def test_held_out_rows_are_in_the_cache_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = PMPOTrainer(
        random_model(),
        args=arguments(PMPOConfig, tmp_path),
        train_dataset=labelled_rows(4),
        eval_dataset={"other": labelled_rows(12)[16:]},
        processing_class=tokenizer(),
        peft_config=LoraConfig(**LORA),
    )
    trainer.get_train_dataloader()
    assert trainer.reference is not None
    monkeypatch.setattr(trainer.reference, "_compute", None)  # nothing is left to compute
    assert trainer.reference.rows(trainer.eval_dataset["other"].responses.tokens)
