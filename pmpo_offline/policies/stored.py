"""Trained control policies on the disk: safetensors with their shape, from which they are built again."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch

from pmpo_offline.policies import MixturePolicy
from pmpo_offline.policies.network import StackedLinear
from pmpo_offline.runtime.errors import PmpoOfflineError
from pmpo_offline.training import checkpoint

_FORMAT = "pmpo-offline mixture policy 1"


def save_policy(path: Path, policy: MixturePolicy) -> None:
    """Write R stacked policies; the old file stands until the new one is safe on the disk."""
    layers = [layer for layer in policy.network if isinstance(layer, StackedLinear)]
    shape = {
        "runs": policy.runs,
        "action_dim": policy.action_dim,
        "components": policy.components,
        "hidden": [layer.weight.shape[-1] for layer in layers[:-1]],
        "std_range": [math.exp(bound) for bound in policy.log_std_range],
    }
    checkpoint.save(path, policy.state_dict(), format=_FORMAT, shape=json.dumps(shape))


def load_policy(path: Path) -> MixturePolicy:
    """Read what `save_policy` wrote; `PmpoOfflineError` if the file is damaged, or something else."""
    tensors, facts = checkpoint.load(path)
    if facts.get("format") != _FORMAT:
        raise PmpoOfflineError(f"{path} holds no policy of ours: name the policy.safetensors that train left")
    shape = json.loads(facts["shape"])
    policy = MixturePolicy(
        [0] * shape["runs"],
        torch.zeros_like(tensors["observation_mean"]),
        torch.ones_like(tensors["observation_std"]),
        shape["action_dim"],
        components=shape["components"],
        hidden=shape["hidden"],
        std_range=tuple(shape["std_range"]),
    )
    policy.load_state_dict(tensors)
    return policy.eval()
