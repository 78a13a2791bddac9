"""Checkpoints of training: weights, optimizer moments and averages as safetensors, whole or absent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.runtime.files import atomic_file


def save(path: Path, tensors: Mapping[str, Tensor], **facts: str) -> None:
    """Write tensors and a few facts about them; the old file stands until the new one is safe on the disk."""
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        with atomic_file(path) as scratch:
            save_file(content, scratch, metadata=facts)
    except (OSError, SafetensorError) as error:
        raise PmpoOfflineError(f"cannot write {path}: {error}") from None


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read what `save` wrote; `PmpoOfflineError` if the file is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise PmpoOfflineError(f"{path} is damaged ({error}): delete it and run the same command again") from None


def save_progress(
    path: Path,
    weights: Sequence[Tensor],
    average: Sequence[Tensor],
    beside: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
    step: int,
    owner: str,
) -> None:
    """Write how far a training is after `step` updates: weights, their average, the optimizer's moments.

    `beside` holds what else moves: the weights of a reference that follows the policy, and all of a critic.
    `owner` names the training, so that no other one goes on from it.
    """
    tensors: dict[str, Tensor] = {}
    for i, (weight, mean) in enumerate(zip(weights, average, strict=True)):
        moments = optimizer.state[weight]
        tensors |= {f"weight.{i}": weight, f"average.{i}": mean}
        tensors |= {f"first.{i}": moments["exp_avg"], f"second.{i}": moments["exp_avg_sq"]}
    tensors |= {f"beside.{i}": tensor for i, tensor in enumerate(beside)}
    moves = int(moments["step"])  # fewer than the updates where a critic learns more often than the policy
    save(path, tensors, step=str(step), moves=str(moves), owner=owner)


def resume(
    path: Path,
    weights: Sequence[Tensor],
    average: Sequence[Tensor],
    beside: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
    owner: str,
) -> int:
    """Put back what `save_progress` wrote and return the updates done; `UserError` if another training wrote it."""
    tensors, facts = load(path)
    if facts.get("owner") != owner:
        raise UserError(f"{path} is the checkpoint of another training: name another path, or delete it")
    step, moves = int(facts["step"]), float(facts["moves"])
    with torch.no_grad():
        for i, (weight, mean) in enumerate(zip(weights, average, strict=True)):
            weight.copy_(tensors[f"weight.{i}"])
            mean.copy_(tensors[f"average.{i}"])
            optimizer.state[weight] = {
                "step": torch.tensor(moves, device=weight.device),
                "exp_avg": tensors[f"first.{i}"].to(weight.device),
                "exp_avg_sq": tensors[f"second.{i}"].to(weight.device),
            }
        for i, tensor in enumerate(beside):
            tensor.copy_(tensors[f"beside.{i}"])
    return step
