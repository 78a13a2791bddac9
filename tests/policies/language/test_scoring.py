"""Log-probabilities of completions against a plain forward pass over every position; a model in two pieces."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
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

from pmpo_offline.policies.language import scoring
from pmpo_offline.policies.language.scoring import (
    check_head,
    check_split,
    log_probs,
    per_token,
    states,
    token_logp,
    trunk_states,
)
from pmpo_offline.policies.language.tokens import Tokens, collate
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


def plainly(model: Any, row: Tokens) -> Tensor:
    """Log-probabilities of a completion's tokens: one row alone, logits of every position, and a mask."""
    ids = torch.tensor([row.prompt + row.completion])
    every = model(input_ids=ids, use_cache=False).logits[0, :-1].log_softmax(-1)
    chosen = every.gather(-1, ids[0, 1:, None]).squeeze(-1)
    return chosen[len(row.prompt) - 1 :]


def gradients(model: Any, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("chunk", [1, 7, 1000])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("how", ["lora", "head"])
def test_values_and_gradients_are_those_of_a_plain_pass(llama, rows, dtype, chunk, tied, how, monkeypatch):
    """With an untrained head, whose gradient is found along the way, and with a trained one."""
    monkeypatch.setattr(scoring, "CHUNK", chunk)
    monkeypatch.setattr(scoring, "CLOSED_CHUNK", chunk)
    model = llama(tie_word_embeddings=tied).to(dtype)
    if how == "lora":
        model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "down_proj"]))
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.3)
    batch = collate(rows)
    expected = [plainly(model, row) for row in rows]
    found = token_logp(model, states(model, batch), batch.target)
    tolerance = {"rtol": 1e-10, "atol": 1e-10} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-5}
    assert found.dtype == dtype
    torch.testing.assert_close(found, torch.cat(expected), **tolerance)
    torch.testing.assert_close(batch.reduce(found, "sum"), torch.stack([each.sum() for each in expected]), **tolerance)

    weight = torch.linspace(-1, 2, len(rows), dtype=dtype)  # a loss that wants another factor for each row
    ours = gradients(model, (weight * batch.reduce(found, "sum")).sum())
    theirs = gradients(model, sum(w * each.sum() for w, each in zip(weight, expected, strict=True)))
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, **tolerance)


def test_no_row_sees_another_or_the_padding(llama, rows):
    model, alone = llama().double(), []
    for row in rows:
        batch = collate([row])
        alone.append(token_logp(model, states(model, batch), batch.target))
    for pad in (0, 2, 36):
        batch = collate(rows, pad)
        torch.testing.assert_close(token_logp(model, states(model, batch), batch.target), torch.cat(alone))


def test_bfloat16_states_give_float32_sums(llama, rows):
    model = llama().bfloat16()
    batch = collate(rows)
    found = token_logp(model, states(model, batch), batch.target)
    assert found.dtype == torch.float32
    assert log_probs(model, states(model, batch)).dtype == torch.float32
    found.sum().backward()
    assert model.model.layers[0].self_attn.q_proj.weight.grad.isfinite().all()


def test_nothing_to_score(llama):
    model = llama()
    batch = collate([Tokens((3, 4), ()), Tokens((5,), ())])
    found = token_logp(model, states(model, batch), batch.target)
    assert found.shape == (0,)
    assert batch.reduce(found, "sum").tolist() == [0, 0]


def test_several_values_a_token_in_one_pass_over_the_vocabulary(llama, rows, monkeypatch):
    monkeypatch.setattr(scoring, "CHUNK", 4)
    model = get_peft_model(llama().double(), LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    batch = collate(rows)

    def both(log_p: Tensor, target: Tensor) -> Tensor:
        return torch.stack([log_p.gather(-1, target[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1)])

    logp, entropy = per_token(model, states(model, batch), both, batch.target)
    every = log_probs(model, states(model, batch))
    ours = gradients(model, (logp * entropy).sum())
    theirs = gradients(model, both(every, batch.target).prod(0).sum())
    torch.testing.assert_close(ours, theirs)


def test_any_causal_model_whose_distribution_is_its_heads(rows):
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=37, n_embd=16, n_layer=2, n_head=2, n_positions=32)).eval().double()
    check_head(model)
    batch = collate(rows)
    found = token_logp(model, states(model, batch), batch.target)
    torch.testing.assert_close(found, torch.cat([plainly(model, row) for row in rows]))


def test_a_model_that_caps_its_logits_is_refused(llama):
    check_head(llama())
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Gemma2Config(vocab_size=37, num_key_value_heads=1, head_dim=8, final_logit_softcapping=0.1, **shape)
    with pytest.raises(UserError, match="Gemma2ForCausalLM transforms its logits"):
        check_head(Gemma2ForCausalLM(config).eval())


def on_top(model, cut: int):
    """LoRA on the layers from `cut`, away from zero."""
    top = list(range(cut, LAYERS))
    settings = LoraConfig(r=2, target_modules=["q_proj", "o_proj"], layers_to_transform=top, init_lora_weights=False)
    return get_peft_model(model, settings)


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The norm of the difference relative to that of the expected tensor."""
    return ((found - expected).double().norm() / expected.double().norm()).item()


@pytest.mark.parametrize("cut", [1, 3])
@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)], ids=str)
def test_the_pieces_are_the_model(llama, rows, cut, dtype, rounding):
    plain = llama(num_hidden_layers=LAYERS).to(dtype)
    check_split(plain, cut)
    batch = collate(rows)
    below = trunk_states(plain, batch.ids, cut)  # of the reference: cached before there was an adapter
    model = on_top(plain, cut)
    whole = states(model, batch)
    pieces = states(model, batch, trunk=below, cut=cut)
    # What is below was read with padding: matrix products of other shapes round otherwise, each processor its own way.
    assert distance(pieces, whole) < rounding
    other = states(llama(num_hidden_layers=LAYERS).to(dtype), batch)
    assert distance(other, whole) > 4 * rounding  # the adapter does something

    found, expected = (gradients(model, token_logp(model, hidden, batch.target).sum()) for hidden in (pieces, whole))
    assert found.keys() == expected.keys()
    assert max(distance(found[name], expected[name]) for name in found) < rounding


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
