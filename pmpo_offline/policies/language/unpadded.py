"""Sequences of different lengths one behind the other, each attending to itself alone, instead of padding.

::

    padded       a a a a . .          read here      a a a a b b b b b b c c
                 b b b b b b
                 c c . . . .

All layers but attention look at one place at a time, so that only attention has to know where a sequence ends: it is
called once for each. On a GPU few large calls are faster than many small ones, padded or not; this is for CPUs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor, cat, split

WORTH = 0.97
"""Padding is left out where at most this share of the places is filled."""
_NAME = "pmpo_offline_unpadded"
_WHERE: ContextVar[tuple[list[int], list[Tensor | None]]] = ContextVar(_NAME)


def is_unpadded(backbone: Any, filled: Tensor) -> bool:
    """Return whether a network can, and should, read sequences, of whose (S, W) places these are filled, so."""
    config = backbone.config
    return (
        filled.device.type == "cpu"
        and hasattr(backbone, "rotary_emb")
        and config._attn_implementation == "sdpa"
        # Layers of another kind carry something from one place to the next, or look only so far.
        and set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
        and getattr(config, "sliding_window", None) is None
        # A layer is called again for the backward pass, when attention is the model's own once more.
        and not any(getattr(part, "gradient_checkpointing", False) for part in backbone.modules())
        and bool(filled.float().mean() <= WORTH)
    )


@contextmanager
def unpadded(backbone: Any, filled: Tensor, mask: Tensor | None) -> Iterator[None]:
    """Within it, the network reads the filled places in one row, (1, P), sequence after sequence.

    Args:
        backbone: see `is_unpadded`.
        filled: (S, W) bool, from the left.
        mask: (S, 1, W, W), added to the logits of attention; None: every place sees itself and those before it.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(_NAME, _attend)
    lengths = filled.sum(-1).tolist()
    masks = [None if mask is None else mask[i : i + 1, :, :n, :n] for i, n in enumerate(lengths)]
    own = backbone.config._attn_implementation
    token = _WHERE.set((lengths, masks))
    backbone.config._attn_implementation = _NAME
    try:
        yield
    finally:
        backbone.config._attn_implementation = own
        _WHERE.reset(token)


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Attention as transformers calls it, (1, heads, P, width) each, by transformers' own for a sequence."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    lengths, masks = _WHERE.get()
    parts = zip(*(split(each, lengths, dim=2) for each in (query, key, value)), masks, strict=True)
    return cat([sdpa_attention_forward(module, *part, **options)[0] for part in parts], dim=1), None
