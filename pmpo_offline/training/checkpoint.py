"""Checkpoints: how far a training is, for the same training to resume from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pmpo_offline.runtime.arrays import load_tensors, save_tensors
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.runtime.hashing import hash_json, hash_tensors

_SEAL = "seal"
"""The fact that is a hash of all other facts."""


@dataclass(frozen=True)
class Checkpoint:
    """The file in which a training leaves how far it is: tensors and facts, its identity, and a checksum."""

    path: Path
    identity: str
    remedy: str = "name another path, or delete it"
    """What to do if the file belongs to another training."""

    def save(self, tensors: Mapping[str, Tensor], *, finished: bool = False, **facts: str) -> None:
        """Replace the file; `PmpoOfflineError` if the disk refuses.

        Args:
            tensors: by name.
            finished: whether the training is done, so that another one may replace it.
            facts: strings by name.
        """
        own = {**facts, "identity": self.identity, "finished": str(finished), "checksum": hash_tensors(tensors)}
        save_tensors(self.path, tensors, **own, **{_SEAL: hash_json(own)})

    def load(self) -> tuple[dict[str, Tensor], dict[str, str]] | None:
        """Return the tensors and facts that this training saved last, None if it has to start from the beginning.

        Raises:
            UserError: another training is half-way there.
            PmpoOfflineError: the file is damaged.
        """
        if not self.path.exists():
            return None
        tensors, facts = load_tensors(self.path)
        seal = facts.pop(_SEAL, None)  # older files have none
        damaged = seal not in (None, hash_json(facts)) or not facts.keys() >= {"identity", "finished", "checksum"}
        if not damaged and facts["identity"] != self.identity:
            if facts["finished"] == "True":
                return None
            raise UserError(f"{self.path} is the checkpoint of another training: {self.remedy}")
        if damaged or facts["checksum"] != hash_tensors(tensors):
            raise PmpoOfflineError(f"{self.path} is damaged (its checksum is wrong): delete it and start again")
        return tensors, facts


def keep_state(module: nn.Module, **values: Tensor | NDArray[np.generic] | list[Tensor]) -> None:
    """Add tensors and arrays that change in place to a module's state, so that `load_state_dict` restores them."""
    for name, value in values.items():
        for i, part in enumerate(value if isinstance(value, list) else [value]):
            module.register_buffer(f"kept_{name}_{i}", torch.as_tensor(part))
