"""The trainers beside transformers and peft: signature, metrics, references, checkpoints, gradient checkpointing."""

from __future__ import annotations

import inspect
import json
import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.small_language import byte_tokenizer, labelled_rows, random_model
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
from transformers import BitsAndBytesConfig, BloomForCausalLM, FalconForCausalLM, HfArgumentParser, MambaForCausalLM

import datasets
from pmpo_offline.policies.language import LanguageModel, add_lora, open_model, quiet
from pmpo_offline.policies.language import model as models
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.tasks.language.tiny import tokenizer
from pmpo_offline.training.language import PMPOConfig, PMPOTrainer, ResponseConfig, ResponseTrainer
from pmpo_offline.training.language.batches import Scorer

LORA = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}


def arguments(kind: type[Any], folder: Path, **changes: Any) -> Any:
    usual = {
        "output_dir": str(folder / "out"),
        "reference_cache": str(folder / "cache"),
        "per_device_train_batch_size": 12,
        "learning_rate": 1e-2,
        "max_steps": 4,
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
    }
    return kind(**{**usual, **changes})


def pmpo(folder: Path, model: Any = None, rows: Any = None, lora: bool = True, **changes: Any) -> PMPOTrainer:
    own = labelled_rows()
    trainer = PMPOTrainer(
        model or random_model(),
        args=arguments(PMPOConfig, folder, **changes),
        train_dataset=rows if isinstance(rows, datasets.IterableDataset) else datasets.Dataset.from_list(rows or own),
        processing_class=tokenizer(),
        peft_config=LoraConfig(**LORA) if lora else None,
    )
    return trainer


def trained(trainer: Any) -> list[dict[str, float]]:
    with quiet():
        trainer.train()
    return [line for line in trainer.state.log_history if "loss" in line]


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


@pytest.mark.parametrize("kind", [BloomForCausalLM, FalconForCausalLM, MambaForCausalLM])
def test_models_of_other_kinds_are_trained(tmp_path: Path, kind: Any) -> None:
    """Without a declared context, without an exchangeable attention, or without any."""
    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": len(tokenizer())}
    config = kind.config_class(**size, **({} if kind is MambaForCausalLM else {"num_attention_heads": 2}))
    history = trained(pmpo(tmp_path, kind(config), lora=False, max_steps=2))
    assert history[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert math.isfinite(history[-1]["loss"])


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
