"""Exact divergences per token: against one another, the naive computation, and a bound on memory."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers import LlamaConfig, LlamaForCausalLM

from pmpo_offline.objectives import divergences
from pmpo_offline.policies.language import scoring
from pmpo_offline.policies.language.scoring import states, token_logp
from pmpo_offline.policies.language.tokens import Tokens, collate
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.training.language.batches import KINDS, TokenDivergence
from pmpo_offline.training.language.reference import ReferenceScores

ROWS = [Tokens((3, 4), (5, 6, 7, 8)), Tokens((9,), ()), Tokens((10, 11, 12), (13, 14, 15, 16, 17))]
BATCH = collate(ROWS)


def llama(**settings: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=41, initializer_range=0.3, bos_token_id=1, eos_token_id=2, **shape, **settings)
    return LlamaForCausalLM(config).double().eval()


def adapted() -> Any:
    settings = LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    return get_peft_model(llama(), settings)


def scores(hidden: Tensor, head: Any) -> ReferenceScores:
    chosen = head(hidden).log_softmax(-1).gather(-1, BATCH.target[:, None])[:, 0]
    return ReferenceScores(head, hidden.detach(), chosen.detach())


@pytest.fixture(scope="module")
def pair() -> tuple[Any, ReferenceScores]:
    """A policy away from its reference, whose head it shares, and the reference."""
    model = adapted()
    with torch.no_grad():
        return model, scores(states(llama(), BATCH), model.get_base_model().lm_head)


def naive(policy: Tensor, reference: Tensor, kind: str, order: float) -> Tensor:
    p, q = reference.exp(), policy.exp()
    moment = (p**order * q ** (1 - order)).sum(-1)
    return {
        "forward": lambda: (p * (reference - policy)).sum(-1),
        "reverse": lambda: (q * (policy - reference)).sum(-1),
        "alpha": lambda: (1 - moment) / (order * (1 - order)),
        "renyi": lambda: -moment.log() / (1 - order),
    }[kind]()


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("chunk", [1, 4, 100])
@pytest.mark.parametrize("order", [0.3, 0.5])
@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients_are_the_naive_ones(pair, kind, order, chunk, shared, monkeypatch):
    monkeypatch.setattr(scoring, "CHUNK", chunk)
    model, reference = pair
    if not shared:  # the closed form does not apply
        reference = replace(reference, head=copy.deepcopy(reference.head))
    weight = torch.linspace(-1, 1, len(BATCH.target), dtype=torch.float64)

    def gradients(value: Tensor) -> list[Tensor]:
        model.zero_grad()
        (weight * value).sum().backward()
        return [each.grad.clone() for each in model.parameters() if each.requires_grad]

    hidden = states(model, BATCH)
    found = TokenDivergence(kind, order)(model, hidden, BATCH.target, reference)[1]
    hidden, head = states(model, BATCH), reference.head
    expected = naive(head(hidden).log_softmax(-1), head(reference.states).log_softmax(-1), kind, order)
    torch.testing.assert_close(found, expected)
    assert found.min() > 0
    torch.testing.assert_close(gradients(found), gradients(expected))


@pytest.mark.parametrize("kind", KINDS)
def test_log_probabilities_beside_a_divergence_are_what_they_are_alone(pair, kind, monkeypatch):
    monkeypatch.setattr(scoring, "CHUNK", 4)
    monkeypatch.setattr(scoring, "CLOSED_CHUNK", 4)
    model, reference = pair
    alone = token_logp(model, states(model, BATCH), BATCH.target)
    logp, _ = TokenDivergence(kind, 0.5)(model, states(model, BATCH), BATCH.target, reference)
    torch.testing.assert_close(logp, alone)


@pytest.mark.parametrize("trained", ["lora", "head"])
@pytest.mark.parametrize("shared", [True, False])
def test_a_constant_divergence_has_its_value_and_no_gradient(pair, trained, shared, monkeypatch):
    monkeypatch.setattr(scoring, "CHUNK", 4)
    monkeypatch.setattr(scoring, "CLOSED_CHUNK", 4)
    model, reference = pair if trained == "lora" else (llama(), pair[1])
    if not shared:  # the closed form does not apply
        reference = replace(reference, head=copy.deepcopy(reference.head))

    def gradients(value: Tensor) -> list[Tensor]:
        model.zero_grad()
        value.sum().backward()
        return [each.grad.clone() for each in model.parameters() if each.grad is not None]

    constant = TokenDivergence("reverse", constant=True)
    logp, kl = constant(model, states(model, BATCH), BATCH.target, reference)
    assert not constant(model, states(model, BATCH), BATCH.target, reference)[1].requires_grad
    torch.testing.assert_close(kl, TokenDivergence("reverse")(model, states(model, BATCH), BATCH.target, reference)[1])
    alone = token_logp(model, states(model, BATCH), BATCH.target)
    torch.testing.assert_close(gradients(logp + 3 * kl), gradients(alone))


def test_a_constant_divergence_follows_from_log_probabilities(pair):
    """If policy and reference share a head that is not trained."""
    model, reference = pair
    hidden = states(model, BATCH)
    logp, kl = TokenDivergence("reverse", constant=True)(model, hidden, BATCH.target, reference)
    assert not kl.requires_grad
    torch.testing.assert_close(kl, TokenDivergence("reverse")(model, hidden, BATCH.target, reference)[1].detach())
    torch.testing.assert_close(logp, token_logp(model, hidden, BATCH.target))


@pytest.mark.parametrize("kind", KINDS)
def test_a_policy_is_no_way_from_itself(kind):
    model = llama()
    hidden = states(model, BATCH)
    found = TokenDivergence(kind, 0.5)(model, hidden, BATCH.target, scores(hidden, model.lm_head))[1]
    assert found.abs().max() < 1e-12


def test_orders_lead_from_one_divergence_to_the_other(pair):
    model, reference = pair
    with torch.no_grad():
        hidden = states(model, BATCH)

        def at(kind: str, order: float = 0.5) -> Tensor:
            return TokenDivergence(kind, order)(model, hidden, BATCH.target, reference)[1]

        torch.testing.assert_close(at("alpha", 1.0), at("forward"))
        torch.testing.assert_close(at("alpha", 0.0), at("reverse"))
        torch.testing.assert_close(at("renyi", 1.0), at("forward"))


def test_of_a_trained_head_both_gradients_come(pair, monkeypatch):
    """The head learns too, and the reference keeps its own."""
    monkeypatch.setattr(scoring, "CHUNK", 3)
    _, reference = pair
    model, kept = llama(), llama().lm_head
    with torch.no_grad():
        model.lm_head.weight.add_(0.1 * torch.randn_like(model.lm_head.weight))
    own = replace(reference, head=kept)
    found = TokenDivergence("forward")(model, states(model, BATCH), BATCH.target, own)[1]
    found.sum().backward()
    gradient = model.lm_head.weight.grad.clone()
    model.zero_grad()
    policy = model.lm_head(states(model, BATCH)).log_softmax(-1)
    divergences.categorical_kl(kept(reference.states).log_softmax(-1), policy).sum().backward()
    torch.testing.assert_close(gradient, model.lm_head.weight.grad)


class Widest(TorchFunctionMode):
    """Notes the most rows of any tensor as wide as the vocabulary."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.rows = width, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.dim() and result.shape[-1] == self.width:
            self.rows = max(self.rows, math.prod(result.shape[:-1]))
        return result


def kept_for_backward(value: Tensor) -> list[Tensor]:
    """What the steps from the states to `value` have kept."""
    kept, edges = [], [value.grad_fn]
    while edges:
        edge = edges.pop()
        kept += getattr(edge, "saved_tensors", ())
        if type(edge).__name__ != "_PerTokenBackward":
            edges += [before for before, _ in edge.next_functions]
    return kept


@pytest.mark.parametrize("chunk", [2, 5])
def test_no_more_than_a_chunk_is_as_wide_as_the_vocabulary(pair, chunk, monkeypatch):
    monkeypatch.setattr(scoring, "CHUNK", chunk)
    model, reference = pair
    hidden = states(model, BATCH)
    with Widest(41) as widest:
        logp, _ = TokenDivergence("renyi", 0.5)(model, hidden, BATCH.target, reference)
    assert widest.rows == chunk
    assert sum(each.numel() for each in kept_for_backward(logp)) == 2 * hidden.numel()  # two values of each token


def test_unknown_kinds_and_orders_are_refused(pair):
    model, reference = pair
    hidden = states(model, BATCH)
    with pytest.raises(UserError, match="unknown divergence 'forwrad': did you mean forward"):
        TokenDivergence("forwrad")(model, hidden, BATCH.target, reference)[1]
    with pytest.raises(ValueError, match="lies in"):
        TokenDivergence("alpha", 1.5)(model, hidden, BATCH.target, reference)[1]
