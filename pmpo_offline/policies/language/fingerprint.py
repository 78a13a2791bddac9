"""Whether a model in memory still is what was read from its files, without reading all of its weights."""

from __future__ import annotations

import torch
from torch import Tensor

from pmpo_offline.runtime.hashing import hash_bytes

SAMPLE = 16
"""Numbers of every tensor that are looked at."""


def fingerprint(model: torch.nn.Module) -> str:
    """Return a hash of a few numbers of every weight, and of how often each was written to; adapters aside.

    An optimizer's step counts as writing, even where it changes none of these numbers (an embedding's few rows); what
    is written unnoticed by torch, as when peft merges an adapter, changes whole tensors. Equal weights that came about
    otherwise may differ in it; a model that moves to another device, or to a wider precision, keeps it.
    """
    return hash_bytes(
        f"{plain_name(name)}:{tuple(weight.shape)}:{0 if weight.is_inference() else weight._version}".encode()
        + _some(weight)
        for name, weight in sorted(model.state_dict().items())
        if "lora_" not in name
    )


def plain_name(name: str) -> str:
    """Return the name of a weight as it is without peft's modules around it."""
    return name.removeprefix("base_model.model.").replace(".base_layer", "")


def _some(weight: Tensor) -> bytes:
    flat = weight.detach().reshape(-1)
    places = torch.linspace(0, max(0, len(flat) - 1), min(SAMPLE, len(flat)), dtype=torch.float64).long()
    return flat[places.to(flat.device)].double().cpu().numpy().tobytes()
