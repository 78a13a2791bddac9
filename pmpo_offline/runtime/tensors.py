"""Tensors by name in one safetensors file, with a few facts about them: written whole or absent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pmpo_offline.runtime.errors import PmpoOfflineError
from pmpo_offline.runtime.files import atomic_file
from pmpo_offline.runtime.hashing import hash_bytes


def save_tensors(path: Path, tensors: Mapping[str, Tensor], **facts: str) -> None:
    """Write tensors and facts about them; `PmpoOfflineError` if the disk refuses, and then an old file is kept."""
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        with atomic_file(path) as scratch:
            save_file(stored, scratch, metadata=facts)
    except (OSError, SafetensorError) as error:
        raise PmpoOfflineError(f"cannot write {path}: {error}") from None


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read what `save_tensors` wrote; `PmpoOfflineError` if the file is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise PmpoOfflineError(f"{path} is damaged ({error}): delete it and run the same command again") from None


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return the hash of tensors, names included, in whatever order they are given."""

    def content(name: str) -> bytes:
        tensor = tensors[name].detach().cpu().contiguous()
        header = f"{name}:{tensor.dtype}:{tuple(tensor.shape)}"
        return header.encode() + tensor.reshape(-1).view(torch.uint8).numpy().tobytes()

    return hash_bytes(content(name) for name in sorted(tensors))
