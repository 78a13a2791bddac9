"""What a policy in training is compared with: the model below its adapter, or a copy of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.small_language import by_hand, random_model
from peft import IA3Config, get_peft_model

from pmpo_offline.policies.language import LanguageModel, add_lora
from pmpo_offline.policies.language.model import weights_hash
from pmpo_offline.policies.language.tokens import Tokens, collate
from pmpo_offline.tasks.language.tiny import tokenizer
from pmpo_offline.training.language.reference import Reference, own_reference


def test_what_is_kept_is_as_precise_as_the_weights(tmp_path: Path) -> None:
    model = LanguageModel(random_model(), tokenizer(), "base", "4" * 64)
    row = Tokens((3, 4), (5, 6, 7))
    exact = Reference(model, tmp_path / "exact").scores([row], collate([row]))
    mixed = Reference(model, tmp_path / "mixed")
    with torch.autocast("cpu", torch.bfloat16):
        found, once = mixed.scores([row], collate([row])), mixed.uncached(collate([row]))
    assert torch.equal(found.states, exact.states)
    assert torch.equal(found.logp, exact.logp)
    assert torch.equal(once.logp, exact.logp)


def test_adapters_are_a_part_of_who_a_model_is() -> None:
    plain, adapted, other = random_model(), add_lora(random_model(), 4, 8, ["q_proj"]), random_model()
    other = add_lora(other, 4, 16, ["q_proj"])  # as strong weights at twice the scale
    for one in (adapted, other):
        for name, weight in one.named_parameters():
            if "lora_" in name:
                weight.data.fill_(0.1)
    assert weights_hash(plain) == weights_hash(adapted) == weights_hash(other)
    whole = [weights_hash(one, adapters=True) for one in (plain, adapted, other)]
    assert whole[0] == weights_hash(plain)
    assert len(set(whole)) == 3
    with adapted.disable_adapter():
        assert weights_hash(adapted, adapters=True) not in whole


def test_an_adapter_is_compared_with_the_model_below_it(policy: Any, tmp_path: Path) -> None:
    fresh = add_lora(random_model(), 4, 8, ["q_proj"])
    model = LanguageModel(fresh, tokenizer(), "fresh", "0" * 64)
    rows = [Tokens((3, 4), (5, 6, 7)), Tokens((5,), (6,))]
    reference = own_reference(model, tmp_path, 0)
    fresh.train()
    for name, weight in fresh.named_parameters():
        if "lora_B" in name:
            weight.data.normal_()
    reference.prepare(rows)
    assert fresh.training
    for row in rows:
        known = reference.scores([row], collate([row]))
        assert float(known.logp.sum()) == pytest.approx(by_hand(random_model(), row, "sum"), abs=1e-5)


def test_whatever_else_is_trained_is_compared_with_a_copy_of_itself(policy: Any, tmp_path: Path) -> None:
    embedded = add_lora(random_model(), 4, 8, ["q_proj"])
    embedded.get_input_embeddings().weight.requires_grad_(True)
    scaled = get_peft_model(
        random_model(), IA3Config(task_type="CAUSAL_LM", target_modules=["v_proj"], feedforward_modules=[])
    )
    row = Tokens((3, 4), (5, 6, 7))
    for number, model in enumerate((policy, embedded, scaled)):
        before = by_hand(model, row, "sum")
        reference = own_reference(LanguageModel(model, tokenizer(), "moved", str(number) * 64), tmp_path, 0)
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        kept = [weight.detach().clone() for weight in trained]
        copied = {id(weight) for weight in reference._model.parameters()}
        assert copied.isdisjoint(map(id, trained))
        assert copied & set(map(id, model.parameters()))  # the weights below an adapter are shared
        with torch.no_grad():
            for weight in trained:
                weight.add_(0.1)
        assert by_hand(model, row, "sum") != pytest.approx(before, abs=1e-4)
        assert float(reference.scores([row], collate([row])).logp.sum()) == pytest.approx(before, abs=1e-5)
        with torch.no_grad():
            for weight, old in zip(trained, kept, strict=True):
                weight.copy_(old)
