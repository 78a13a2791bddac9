"""The reference: the model before training, which is never run beside the policy but read from its cache."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pmpo_offline.errors import UserError
from pmpo_offline.policies.language.model import LanguageModel
from pmpo_offline.policies.language.tokens import TokenBatch, Tokens
from pmpo_offline.policies.language.trunk import causal
from pmpo_offline.training.language.reference_cache import ReferenceCache

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Known:
    """What the reference says of a batch of B rows with N completion tokens."""

    logp: Tensor
    """(N,)."""
    states: Tensor
    """(N, H), its last hidden states."""
    trunk: Tensor | None
    """(B, T, H), what enters layer `cut`."""


class Reference:
    """A frozen model behind its cache.

    Args:
        model: it, or the policy itself where that is the reference with an adapter on top, which `without` takes off.
        folder: of the cache.
        cut: lower layers that nothing trains, whose states are cached too; 0: none.
        without: a context in which `model` is the reference.
    """

    def __init__(
        self,
        model: LanguageModel,
        folder: Path,
        cut: int = 0,
        without: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self._cache = ReferenceCache(folder, model, cut=cut or None)
        self._model, self._without, self.cut = model.model, without, cut
        self._asked: set[Tokens] = set()

    @property
    def head(self) -> torch.nn.Module:
        """What makes logits of its last hidden states."""
        return causal(self._model).get_output_embeddings()  # type: ignore[no-any-return]

    def prepare(self, rows: Sequence[Tokens], progress: Progress | None = None) -> None:
        """Make sure that all of these are in the cache."""
        self._get(rows, progress)

    def __call__(self, rows: Sequence[Tokens], batch: TokenBatch) -> Known:
        """Return what it says of rows that were collated to `batch`, on the batch's device."""
        found, device = self._get(rows), batch.ids.device
        trunk = None
        if self.cut:
            trunk = pad_sequence([row.trunk for row in found], batch_first=True).to(device)
        return Known(
            torch.cat([row.logp for row in found]).to(device),
            torch.cat([row.states for row in found]).to(device),
            trunk,
        )

    def _get(self, rows: Sequence[Tokens], progress: Progress | None = None) -> Any:
        if self._asked.issuperset(rows):
            return self._cache.get(rows)  # without a word to the model
        training = self._model.training
        self._model.eval()  # without dropout
        try:
            with torch.no_grad(), self._without():
                found = self._cache.get(rows, progress)
        finally:
            self._model.train(training)
        self._asked.update(rows)
        return found


def adapter_reference(policy: LanguageModel, folder: Path, cut: int) -> Reference:
    """Return the reference of a policy that is an adapter: the same model without it.

    Raises:
        UserError: that is not what the model was before: the adapter has learned already, or weights of the model
            itself are trained too.
    """
    model = policy.model
    own = [name for name, weight in model.named_parameters() if weight.requires_grad and "lora_" not in name]
    if own:
        raise UserError(
            f"{len(own)} tensors beside the adapter are trained ({own[0]}), so that without the adapter the model is "
            "no reference: give a ref_model, or leave out modules_to_save and embeddings"
        )
    if any(weight.abs().max() > 0 for name, weight in model.named_parameters() if "lora_B" in name):
        raise UserError(
            "the adapter has been trained before: give the model that it shall stay near as ref_model, or merge the "
            "adapter (merge_and_unload) and let peft_config put a fresh one on"
        )
    return Reference(policy, folder, cut, model.disable_adapter)


def frozen_copy(policy: LanguageModel, folder: Path) -> Reference:
    """Return the reference of a policy that is trained whole: a copy of it as it is now."""
    twin = copy.deepcopy(policy.model).eval().requires_grad_(False)
    return Reference(LanguageModel(twin, policy.tokenizer, policy.name, policy.digest), folder)


def weights_digest(model: torch.nn.Module) -> str:
    """Return the sha256 of a model's own weights, adapters left out: who it is where no files say so."""
    total = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        if "lora_" not in name:
            plain = name.removeprefix("base_model.model.").replace(".base_layer", "")
            total.update(f"{plain}:{weight.dtype}:{tuple(weight.shape)}".encode())
            total.update(weight.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
