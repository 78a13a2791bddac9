"""A language model in two pieces: a trunk that no training changes, and the layers above it.

::

    ids ──▶ embedding ──▶ layers[:cut] ──▶ (B, T, H) ──▶ layers[cut:] ──▶ norm ──▶ (B, T, H)
            └──────── trunk_states ───┘   kept on disk   └──────── from_trunk ────┘

With LoRA on the top layers alone, what reaches them is the same at every step and for every learner, so it is computed
once. Both pieces are the backbone's own forward pass over fewer layers: a shallow copy of the module, whose weights and
hooks are those of the model itself.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from pmpo_offline.runtime.errors import UserError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

Causal: TypeAlias = "PreTrainedModel | PeftModel"
"""A causal language model of transformers, or one of peft's around it."""

PARTS = ("embed_tokens", "layers", "norm", "rotary_emb")
"""What a backbone that can be split consists of, in transformers' names."""


def causal(model: Causal) -> Any:
    """Return the causal language model inside a peft model, with its adapter in place; any other as it is."""
    inner = getattr(model, "get_base_model", None)
    return inner() if inner else model


def backbone(model: Causal) -> Any:
    """Return the network below the head."""
    return causal(model).get_decoder()


def trunk_states(model: Causal, ids: Tensor, cut: int) -> Tensor:
    """Return the hidden states that enter layer `cut`, without a graph: (B, T) -> (B, T, H)."""
    whole = backbone(model)
    lower = _with(whole, layers=whole.layers[:cut], norm=nn.Identity())
    with torch.no_grad():
        states: Tensor = lower(input_ids=ids, use_cache=False).last_hidden_state
    return states


def from_trunk(model: Causal, trunk: Tensor, cut: int, **options: Tensor) -> Tensor:
    """Return the last hidden states from those that enter layer `cut`: (B, T, H) -> (B, T, H).

    `options` are more arguments of the backbone: its positions, its mask.

    Raises:
        ValueError: a gradient is wanted, but something below the cut is trained, so that its states get out of date.
    """
    whole = backbone(model)
    if torch.is_grad_enabled():
        below = (weight for part in (whole.embed_tokens, *whole.layers[:cut]) for weight in part.parameters())
        if any(weight.requires_grad for weight in below):
            raise ValueError(f"weights below layer {cut} are trained: their hidden states cannot be kept")
    upper = _with(whole, layers=whole.layers[cut:])
    states: Tensor = upper(inputs_embeds=trunk, use_cache=False, **options).last_hidden_state
    return states


def check_split(model: Causal, cut: int) -> None:
    """Make sure that the two pieces make up the whole, on a few tokens.

    Raises:
        UserError: the model is not built like a Llama, or has no such layer.
    """
    whole = backbone(model)
    remedy = "train all its layers (leave lora_layers out)"
    kind = type(causal(model)).__name__
    if (
        not all(hasattr(whole, part) for part in PARTS)
        or len(set(getattr(whole.config, "layer_types", None) or [""])) > 1
    ):
        raise UserError(f"{kind} is not built like a Llama, so its lower layers cannot be cached: {remedy}")
    if not 0 < cut < len(whole.layers):
        raise UserError(f"{kind} has {len(whole.layers)} layers and cannot be cut below layer {cut}: {remedy}")
    ids = torch.arange(8, device=whole.embed_tokens.weight.device).remainder(whole.embed_tokens.num_embeddings)[None]
    with torch.no_grad():
        expected = whole(input_ids=ids, use_cache=False).last_hidden_state
        pieces = _with(whole, layers=whole.layers[cut:])(inputs_embeds=trunk_states(model, ids, cut), use_cache=False)
    if not torch.allclose(pieces.last_hidden_state, expected, rtol=1e-3, atol=1e-3):
        raise UserError(f"{kind} does more to its embeddings than a Llama, so its layers cannot be cached: {remedy}")


def _with(whole: nn.Module, **parts: nn.Module) -> Any:
    """Return a module that shares everything with `whole` but the given parts."""
    view = copy.copy(whole)
    view._modules = {**whole._modules, **parts}
    return view
