"""The reference: the model before training, which is never run beside the policy but read from its cache."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pmpo_offline.policies.language.model import LanguageModel, weights_hash
from pmpo_offline.policies.language.scoring import backbone, causal, check_split, states, token_logp, trunk_states
from pmpo_offline.policies.language.tokens import TokenBatch, Tokens
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.training.language.reference_cache import ReferenceCache

if TYPE_CHECKING:
    from transformers import PreTrainedModel


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

    def prepare(self, rows: Sequence[Tokens]) -> None:
        """Make sure that all of these are in the cache."""
        if not self._asked.issuperset(rows):
            self._get(rows)

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

    def once(self, batch: TokenBatch) -> Known:
        """Return what it says of rows that nobody will ask for again, and keep nothing of it."""
        with self._alone():
            trunk = trunk_states(self._model, batch.ids, self.cut) if self.cut else None
            hidden = states(self._model, batch, trunk=trunk, cut=self.cut)
            return Known(token_logp(self._model, hidden, batch.target), hidden, trunk)

    def _get(self, rows: Sequence[Tokens]) -> Any:
        if self._asked.issuperset(rows):
            return self._cache.get(rows)  # without a word to the model
        with self._alone():
            found = self._cache.get(rows)
        self._asked.update(rows)
        return found

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Make the model the reference: no adapter, no dropout, and the precision of its own weights."""
        training, device = self._model.training, self._model.device.type
        self._model.eval()
        try:
            # What is kept says float32 on it, and others read it who train without mixed precision.
            with torch.no_grad(), torch.autocast(device, enabled=False), self._without():
                yield
        finally:
            self._model.train(training)


def reference_of(
    policy: LanguageModel, ref_model: PreTrainedModel | None, folder: Path, cut: int, device: torch.device
) -> Reference:
    """Return what a policy is compared with, and put both on the device.

    Args:
        policy: as it is before training, with its digest.
        ref_model: the reference, where it is not that.
        folder: of the cache.
        cut: see `Reference`.
        device: where it is trained.

    Raises:
        UserError: a cut below which the policy is trained, or cannot be split; as `adapter_reference`.
    """
    if ref_model is not None:
        if cut:
            raise UserError("below the cut the reference is the policy: leave ref_model out, or set cut to 0")
        frozen = _placed(ref_model.eval().requires_grad_(False), device)
        digest = weights_hash(frozen, adapters=True)
        return Reference(LanguageModel(frozen, policy.tokenizer, "reference", digest), folder)
    if cut:
        check_split(policy.model, cut)
        check_frozen_below(policy.model, cut)
    _placed(policy.model, device)
    adapted = hasattr(policy.model, "peft_config")
    return adapter_reference(policy, folder, cut) if adapted else frozen_copy(policy, folder)


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
    """Return the reference of a policy that is trained whole: a copy of it as it is now, when its digest is right."""
    return Reference(replace(policy, model=copy.deepcopy(policy.model).eval().requires_grad_(False)), folder)


def check_frozen_below(model: torch.nn.Module, cut: int) -> None:
    """Make sure that nothing below layer `cut` is trained, whose states are cached; `UserError` if something is."""
    whole = backbone(model)
    lower = (whole.embed_tokens, *whole.layers[:cut])
    if any(weight.requires_grad for part in lower for weight in part.parameters()):
        raise UserError(
            f"weights below layer {cut} are trained, and cut = {cut} caches what comes from there: put the adapter on "
            f"the layers from {cut} up (layers_to_transform), or set cut to 0"
        )


def _placed(model: Any, device: torch.device) -> Any:
    """Put a model on a device; one in 8 or 4 bits stays where it was loaded."""
    return model if getattr(model, "is_quantized", False) else model.to(device)
