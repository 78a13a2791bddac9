"""Hidden states and log-probabilities of completions under a causal language model.

The backbone reads a prompt that several rows share only once. The head, a third of the work for a small model with a
large vocabulary, runs over the N completion tokens only, and numbers of N tokens times V words are never held at once:
a head that is not trained passes back one vector of width H per token, computed along with the value, chunk by chunk.
On a CPU padding is not read either: sequences follow one another, each attending to itself alone::

    padded       a a a a . .          unpadded      a a a a b b b b b b c c
                 b b b b b b
                 c c . . . .

All layers but attention look at one place at a time, so only attention has to know where a sequence ends: it is called
once per sequence. On a GPU few large calls are faster than many small ones, padded or not.

A model can be split into a trunk that training does not change, and the layers above it::

    ids ──▶ embedding ──▶ layers[:cut] ──▶ (B, T, H) ──▶ layers[cut:] ──▶ norm ──▶ (B, T, H)
            └──────── trunk_states ───┘     cached       └──────── states ───────┘

With LoRA on the top layers alone, the input of these is the same at every step and for every algorithm, so it is
computed once. Both pieces are the backbone's own forward pass over fewer layers: a shallow copy of the module, which
shares the weights and hooks of the model itself.

On a CPU the head is evaluated in closed form. With logits W s + b of a state s and p their softmax, the log-probability
of the word y is concave in s, and

    slope = d log p(y) / ds = W_y - sum_v p_v W_v
    KL(p || q) = log p(y) - log q(y) - slope · (s_p - s_q),        q the distribution of another state, any y

(the divergence of an exponential family is the gap between its log-partition and the tangent). Both sums over words are
computed as in flash attention: each part of the words is read once, and the partial sums are rescaled to the largest
logit so far. That saves the softmax, its derivative and every tensor of width V.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pmpo_offline.policies.language.tokens import TokenBatch
from pmpo_offline.runtime.errors import UserError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

Causal: TypeAlias = "PreTrainedModel | PeftModel"
"""A causal language model of transformers, or one of peft's around it."""
Measure = Callable[..., Tensor]
"""(log-probabilities (n, V) of n tokens, further tensors of the same tokens) -> K values of each, (K, n)."""

MOST_FILLED = 0.97
"""Padding is left out if at most this share of the places is filled."""
CHUNK, CHUNK_ON_GPU = 128, 1024
"""Tokens whose numbers for the whole vocabulary are held at once. On a CPU more are slower: tensors of 25 MB (49,152
words) are reused, while larger ones are returned to the system each time and allocated again."""
CLOSED_CHUNK = 32
"""The size of the closed form's working set, as logits of this many tokens: 6 MB (49,152 words) fit a CPU's cache."""
_ATTENTION = "pmpo_offline_unpadded"
_SEQUENCES: ContextVar[tuple[list[int], list[Tensor | None]]] = ContextVar(_ATTENTION)
"""The length of each sequence that is read without padding, and its mask."""


def causal(model: Causal) -> Any:
    """Return the causal language model inside a peft model, with its adapter in place; any other as it is."""
    inner = getattr(model, "get_base_model", None)
    return inner() if inner else model


def backbone(model: Causal) -> Any:
    """Return the network below the head."""
    return causal(model).get_decoder()


def states(model: Causal, batch: TokenBatch, *, trunk: Tensor | None = None, cut: int = 0) -> Tensor:
    """Return the last hidden states, after the final norm, that predict each completion token: (N, H).

    Args:
        model: any causal language model.
        batch: B rows of T places.
        trunk: (B, T, H), `trunk_states` of the same rows; None: computed here. No gradient flows below it.
        cut: the number of layers below `trunk`.
    """
    whole = backbone(model)
    given, where = batch.ids if trunk is None else trunk, (batch.row, batch.place)
    options: dict[str, Tensor] = {}
    filled = _read(batch)
    position = torch.arange(filled.shape[1], device=filled.device).expand_as(filled)
    if (packing := batch.packing) is not None and shares_prompts(whole, packing.segment.shape[1]):
        given, where = packing.take(given), (packing.sequence, packing.at)
        filled, position = packing.filled, packing.position
        options = {"position_ids": position, "attention_mask": packing.mask(whole.dtype)}

    def read(given: Tensor, **options: Tensor) -> Tensor:
        if trunk is not None:
            return _run(whole, whole.layers[cut:], whole.norm, inputs_embeds=given, **options)
        hidden: Tensor = whole(input_ids=given, use_cache=False, **options).last_hidden_state
        return hidden

    if not is_unpadded(whole, filled):
        return read(given, **options)[where]
    with unpadded(whole, filled, options.get("attention_mask")):
        hidden = read(given[filled].unsqueeze(0), position_ids=position[filled].unsqueeze(0))
    number = filled.flatten().cumsum(0).view_as(filled) - 1
    return hidden[0, number[where]]


def _read(batch: TokenBatch) -> Tensor:
    """Return the places of a plain batch up to the last one that predicts something: (B, T), bool."""
    last = torch.zeros_like(batch.length).scatter_reduce(0, batch.row, batch.place, "amax")
    return torch.arange(batch.ids.shape[1], device=last.device) <= last.unsqueeze(-1)


def shares_prompts(backbone: Any, width: int) -> bool:
    """Return whether a network accepts positions and a mask for sequences of `width` places."""
    config = backbone.config
    window = getattr(config, "sliding_window", None)
    return (
        hasattr(backbone, "rotary_emb")
        and config._attn_implementation in ("sdpa", "eager")
        and (window is None or window >= width)
    )


def is_unpadded(backbone: Any, filled: Tensor) -> bool:
    """Return whether a network can and should read sequences without padding; `filled` is (S, W) bool."""
    config = backbone.config
    return (
        filled.device.type == "cpu"
        and hasattr(backbone, "rotary_emb")
        and config._attn_implementation == "sdpa"
        and backbone._supports_attention_backend  # attention is called through transformers' `AttentionInterface`
        # Other kinds of layers carry state from one place to the next, or have a limited window.
        and set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
        and getattr(config, "sliding_window", None) is None
        # With checkpointing a layer runs again in the backward pass, when the model's own attention is restored.
        and not any(getattr(part, "gradient_checkpointing", False) for part in backbone.modules())
        and bool(filled.float().mean() <= MOST_FILLED)
    )


@contextmanager
def unpadded(backbone: Any, filled: Tensor, mask: Tensor | None) -> Iterator[None]:
    """Let a network read the filled places as one row, (1, P), sequence after sequence, inside the block.

    Args:
        backbone: see `is_unpadded`.
        filled: (S, W) bool, from the left.
        mask: (S, 1, W, W), added to the logits of attention; None: every place sees itself and those before it.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(_ATTENTION, _attend)
    lengths = filled.sum(-1).tolist()
    masks = [None if mask is None else mask[i : i + 1, :, :n, :n] for i, n in enumerate(lengths)]
    own = backbone.config._attn_implementation
    token = _SEQUENCES.set((lengths, masks))
    backbone.config._attn_implementation = _ATTENTION
    try:
        yield
    finally:
        backbone.config._attn_implementation = own
        _SEQUENCES.reset(token)


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Run transformers' SDPA attention on each sequence: (1, heads, P, width) -> (1, P, heads, width)."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    lengths, masks = _SEQUENCES.get()
    parts = zip(*(torch.split(part, lengths, dim=2) for part in (query, key, value)), masks, strict=True)
    return torch.cat([sdpa_attention_forward(module, *part, **options)[0] for part in parts], dim=1), None


def trunk_states(model: Causal, ids: Tensor, cut: int) -> Tensor:
    """Return the hidden states that enter layer `cut`, without a graph: (B, T) -> (B, T, H)."""
    whole = backbone(model)
    with torch.no_grad():
        return _run(whole, whole.layers[:cut], nn.Identity(), input_ids=ids)


def _run(whole: nn.Module, layers: Any, norm: Any, **inputs: Any) -> Tensor:
    """Return the last hidden states of a backbone with only these layers and this norm."""
    view: Any = copy.copy(whole)
    view._modules = {**whole._modules, "layers": layers, "norm": norm}
    states: Tensor = view(use_cache=False, **inputs).last_hidden_state
    return states


def trains_below(model: Causal, cut: int) -> bool:
    """Return whether any weight below layer `cut` is trained."""
    whole = backbone(model)
    lower = (whole.embed_tokens, *whole.layers[:cut])
    return any(weight.requires_grad for part in lower for weight in part.parameters())


def check_split(model: Causal, cut: int) -> None:
    """Check on a few tokens that the two pieces compute what the whole model does.

    Raises:
        UserError: the model is not built like a Llama, or has no such layer.
    """
    whole, kind = backbone(model), type(causal(model)).__name__
    remedy = "train all its layers (leave lora_layers out)"
    parts = ("embed_tokens", "layers", "norm", "rotary_emb")
    several_kinds = len(set(getattr(whole.config, "layer_types", None) or [""])) > 1
    if several_kinds or not all(hasattr(whole, part) for part in parts):
        raise UserError(f"{kind} is not built like a Llama, so its lower layers cannot be cached: {remedy}")
    if not 0 < cut < len(whole.layers):
        raise UserError(f"{kind} has {len(whole.layers)} layers and cannot be cut below layer {cut}: {remedy}")
    ids = torch.arange(8, device=whole.embed_tokens.weight.device).remainder(whole.embed_tokens.num_embeddings)[None]
    with torch.no_grad():
        expected = whole(input_ids=ids, use_cache=False).last_hidden_state
        found = _run(whole, whole.layers[cut:], whole.norm, inputs_embeds=trunk_states(model, ids, cut))
    if not torch.allclose(found, expected, rtol=1e-3, atol=1e-3):
        raise UserError(f"{kind} does more to its embeddings than a Llama, so its layers cannot be cached: {remedy}")


def log_probs(model: Causal, states: Tensor) -> Tensor:
    """Return the log-probabilities of the whole vocabulary, in float32 or wider: (n, H) -> (n, V)."""
    return head_log_probs(causal(model).get_output_embeddings(), states)


def head_log_probs(head: nn.Module, states: Tensor) -> Tensor:
    """Return the log-probabilities that a head alone gives, in float32 or wider: (n, H) -> (n, V)."""
    logits: Tensor = head(states)
    # A sum of bfloat16 log-probabilities errs by tens of nats over a thousand tokens.
    return torch.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=-1)


def token_logp(model: Causal, states: Tensor, target: Tensor) -> Tensor:
    """Return the log-probability of each token, nats, in float32 or wider: (N, H), (N,) -> (N,)."""
    head = causal(model).get_output_embeddings()
    if is_closed(head, states):
        # A fifth less time than below, of which a step on a cached trunk is one half.
        if torch.is_grad_enabled():
            return logp_and_slope(head, states, target)[0]
        return logp_alone(head, states, target)
    return per_token(model, states, of_target, target)[0]


def of_target(log_p: Tensor, target: Tensor) -> Tensor:
    """Pick each token's own log-probability: (n, V), (n,) -> (1, n)."""
    return log_p.gather(-1, target.unsqueeze(-1)).squeeze(-1).unsqueeze(0)


def per_token(model: Causal, states: Tensor, measure: Measure, *along: Tensor, constants: int = 0) -> Tensor:
    """Return values of each token's distribution over the vocabulary, (K, N), differentiable in `states`.

    Args:
        model: its head turns states into log-probabilities. Where the head itself is trained, its gradient comes too.
        states: (N, H).
        measure: see `Measure`; each token's values depend on its own distribution alone.
        along: tensors (N, ...) that are cut into the same chunks and handed to `measure`; no gradient flows into them.
        constants: how many of the values, the last ones, need no gradient: none is computed for them.
    """
    head = causal(model).get_output_embeddings()
    chunk = CHUNK if states.device.type == "cpu" else CHUNK_ON_GPU

    def value(part: Tensor, *others: Tensor) -> Tensor:
        found = measure(head_log_probs(head, part), *others)
        learned = len(found) - constants
        return torch.cat([found[:learned], found[learned:].detach()]) if constants else found

    parts = list(zip(*(torch.split(tensor, chunk) for tensor in (states, *along)), strict=True))
    if not torch.is_grad_enabled():
        return torch.cat([value(*part) for part in parts], dim=-1)
    if any(weight.requires_grad for weight in head.parameters()):
        return torch.cat([checkpoint(value, *part, use_reentrant=False) for part in parts], dim=-1)
    return torch.cat([_PerToken.apply(value, constants, *part) for part in parts], dim=-1)  # type: ignore[no-untyped-call]


class _PerToken(torch.autograd.Function):
    """Find the gradient of each token's values along with the values, and keep only that: (K, n, H).

    Which values a loss weighs how is known only later, but it is a factor a token: nothing of width V need wait for it.
    """

    @staticmethod
    def forward(ctx: Any, value: Measure, constants: int, states: Tensor, *along: Tensor) -> Tensor:
        with torch.enable_grad():
            states = states.detach().requires_grad_()
            values = value(states, *along)
            learned = values[: len(values) - constants]
            slopes = [torch.autograd.grad(kind.sum(), states, retain_graph=True)[0] for kind in learned]
        ctx.save_for_backward(torch.stack(slopes))
        return values.detach()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        (slopes,) = ctx.saved_tensors
        gradient = (upstream[0][: len(slopes)].unsqueeze(-1) * slopes).sum(0).to(slopes.dtype)
        return None, None, gradient, *([None] * (len(ctx.needs_input_grad) - 3))


def check_head(model: Causal) -> None:
    """Make sure that a model's distributions are those of its head over its backbone, on a few tokens.

    Raises:
        UserError: it does something else to its logits (a cap, a scale), which our log-probabilities would not show.
    """
    whole = causal(model)
    head = whole.get_output_embeddings()
    device = next(whole.parameters()).device
    ids = torch.arange(8, device=device).remainder(whole.config.get_text_config().vocab_size)[None]
    with torch.no_grad():
        expected = whole(input_ids=ids, use_cache=False).logits
        found = None if head is None else head(backbone(model)(input_ids=ids, use_cache=False).last_hidden_state)
    if found is None or not torch.allclose(found, expected, rtol=1e-3, atol=1e-3):
        raise UserError(f"{type(whole).__name__} transforms its logits after the head, which is not supported")


def is_closed(head: nn.Module, states: Tensor) -> TypeGuard[nn.Linear]:
    """Return whether the closed form applies: a plain linear head that is not trained, on a CPU, in full precision.

    The divergence is a small difference of large numbers, of which 16 bits would leave nothing.
    """
    return (
        type(head) is nn.Linear
        and states.device.type == "cpu"
        and states.dtype == head.weight.dtype
        and states.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
        and not any(weight.requires_grad for weight in head.parameters())
    )


def logp_and_slope(head: nn.Linear, states: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return tokens' log-probabilities, (N,), nats, differentiable in `states`, and their slopes, (N, H), constants.

    Args:
        head: see `is_closed`.
        states: (N, H).
        target: (N,), the tokens.
    """
    logp, slope = _Closed.apply(states, target, head)  # type: ignore[no-untyped-call]
    return logp, slope


def logp_alone(head: nn.Linear, states: Tensor, target: Tensor) -> Tensor:
    """Return the first of `logp_and_slope` for half the work, without a gradient."""
    return _closed(states.detach(), target, head, slope=False)[0]


def kl(logp: Tensor, slope: Tensor, states: Tensor, other_logp: Tensor, other_states: Tensor) -> Tensor:
    """Return KL(distribution || other) of tokens, nats: (N,).

    `logp` and `slope` belong to the distribution of `states`, `other_logp` to that of `other_states`, for the same
    tokens.
    """
    return logp - other_logp - (slope * (states - other_states)).sum(-1)


class _Closed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, target: Tensor, head: nn.Linear) -> tuple[Tensor, Tensor]:
        logp, slope = _closed(states, target, head)
        ctx.save_for_backward(slope)
        ctx.mark_non_differentiable(slope)
        return logp, slope

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        (slope,) = ctx.saved_tensors
        return upstream[0].unsqueeze(-1) * slope, None, None


@torch.no_grad()
def _closed(states: Tensor, target: Tensor, head: nn.Linear, *, slope: bool = True) -> tuple[Tensor, Tensor]:
    tokens, width = states.shape
    words = max(1, CLOSED_CHUNK * len(head.weight) // max(1, tokens))
    largest = states.new_full((tokens, 1), -torch.inf)
    total, mean = states.new_zeros(tokens, 1), states.new_zeros(tokens, width)
    for first in range(0, len(head.weight), words):
        part = head.weight[first : first + words]
        logits = nn.functional.linear(states, part, None if head.bias is None else head.bias[first : first + words])
        before, largest = largest, torch.maximum(largest, logits.amax(-1, keepdim=True))
        fade = (before - largest).exp_()
        weight = logits.sub_(largest).exp_()
        total.mul_(fade).add_(weight.sum(-1, keepdim=True))
        if slope:
            mean.mul_(fade).addmm_(weight, part)
    own = head.weight[target]
    logit = (states * own).sum(-1) + (0 if head.bias is None else head.bias[target])
    return logit - (largest + total.log()).squeeze(-1), own - mean / total
