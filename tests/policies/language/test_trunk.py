"""A model in two pieces is the model: the same states and the same gradients."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from pmpo_offline.policies.language.scoring import states, token_logp
from pmpo_offline.policies.language.tokens import collate
from pmpo_offline.policies.language.trunk import check_split, trunk_states
from pmpo_offline.runtime.errors import UserError

LAYERS = 4
SHAPE = {
    "vocab_size": 37,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


def on_top(model, cut: int):
    """LoRA on the layers from `cut`, away from zero."""
    top = list(range(cut, LAYERS))
    settings = LoraConfig(r=2, target_modules=["q_proj", "o_proj"], layers_to_transform=top, init_lora_weights=False)
    return get_peft_model(model, settings)


@pytest.mark.parametrize("cut", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_pieces_are_the_model(llama, rows, cut, dtype):
    plain = llama(num_hidden_layers=LAYERS).to(dtype)
    check_split(plain, cut)
    batch = collate(rows)
    below = trunk_states(plain, batch.ids, cut)  # of the reference: cached before there was an adapter
    model = on_top(plain, cut)
    whole = states(model, batch)
    pieces = states(model, batch, trunk=below, cut=cut)
    # What is below was read with padding: matrix products of other shapes round otherwise.
    torch.testing.assert_close(pieces, whole)
    other = states(llama(num_hidden_layers=LAYERS).to(dtype), batch)
    assert (whole - other).abs().max() > 0.01  # the adapter does something

    def gradients(hidden: torch.Tensor) -> list[torch.Tensor]:
        model.zero_grad()
        token_logp(model, hidden, batch.target).sum().backward()
        return [weight.grad.clone() for weight in model.parameters() if weight.requires_grad]

    torch.testing.assert_close(gradients(whole), gradients(pieces))


def test_the_model_itself_is_left_alone(llama, rows):
    model = llama()
    names = [name for name, _ in model.named_modules()]
    batch = collate(rows)
    before = states(model, batch)
    states(model, batch, trunk=trunk_states(model.requires_grad_(False), batch.ids, 1), cut=1)
    assert [name for name, _ in model.named_modules()] == names
    assert states(model, batch).equal(before)


def test_gradient_checkpointing_goes_on_working(llama, rows):
    model = on_top(llama(num_hidden_layers=LAYERS), 2)
    batch = collate(rows)
    below = trunk_states(model, batch.ids, 2)
    found = []
    for keeping in (False, True):
        model.train()
        if keeping:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.zero_grad()
        token_logp(model, states(model, batch, trunk=below, cut=2), batch.target).sum().backward()
        found.append([weight.grad.clone() for weight in model.parameters() if weight.requires_grad])
    torch.testing.assert_close(*found)


def test_what_is_trained_below_the_cut_is_not_cached(llama, rows):
    model = on_top(llama(num_hidden_layers=LAYERS), 1)
    batch = collate(rows)
    with pytest.raises(ValueError, match="weights below layer 2 are trained"):
        states(model, batch, trunk=trunk_states(model, batch.ids, 2), cut=2)


@pytest.mark.parametrize("cut", [-1, 0, 2, 9])
def test_there_must_be_such_a_layer(llama, cut):
    with pytest.raises(UserError, match=f"LlamaForCausalLM has 2 layers and cannot be cut below layer {cut}"):
        check_split(llama(), cut)


def test_other_networks_split_where_they_are_built_alike_and_are_refused_in_a_line_where_not():
    check_split(Qwen2ForCausalLM(Qwen2Config(**SHAPE)).eval(), 1)
    with pytest.raises(UserError, match="GPT2LMHeadModel is not built like a Llama"):
        check_split(
            GPT2LMHeadModel(
                GPT2Config(vocab_size=37, n_embd=16, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=2)
            ).eval(),
            1,
        )
    with pytest.raises(UserError, match="Gemma2ForCausalLM is not built like a Llama"):  # windows on every other layer
        check_split(Gemma2ForCausalLM(Gemma2Config(head_dim=8, **SHAPE)).eval(), 1)
    with pytest.raises(UserError, match="GraniteForCausalLM does more to its embeddings"):
        check_split(GraniteForCausalLM(GraniteConfig(embedding_multiplier=12.0, **SHAPE)).eval(), 1)
