"""The two models of a trainer: the policy, from whatever names a model, and the reference it is compared with."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pmpo_offline.policies.language.model import (
    LanguageModel,
    add_adapter,
    complete_tokenizer,
    fingerprint,
    first_line,
    load_tokenizer,
    load_weights,
    open_model,
    weights_hash,
)
from pmpo_offline.policies.language.scoring import check_split, trains_below
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.tasks.language.models import model_directory
from pmpo_offline.training.language.reference import Reference

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_policy(
    model: str | PreTrainedModel | LanguageModel,
    tokenizer: PreTrainedTokenizerBase | None = None,
    quantization_config: Any = None,
    peft_config: PeftConfig | None = None,
) -> LanguageModel:
    """Return the model to train, in evaluation mode.

    Args:
        model: one of ours, one of transformers or peft, a directory, one of our names or a hub id.
        tokenizer: default the model's own.
        quantization_config: of transformers, for a model given by its name.
        peft_config: puts a fresh adapter on it.

    Raises:
        UserError: no such model, no tokenizer or one without an EOS token, an adapter on an adapter.
    """
    found = _open(model, tokenizer, quantization_config)
    complete_tokenizer(found.tokenizer, found.name)
    if peft_config is not None:
        if hasattr(found.model, "peft_config"):
            raise UserError("the model has an adapter already: leave peft_config out, or merge it (merge_and_unload)")
        found = replace(found, model=add_adapter(found.model, peft_config))
    found.model.eval()
    return found


def _open(model: Any, tokenizer: PreTrainedTokenizerBase | None, quantization_config: Any) -> LanguageModel:
    if quantization_config is not None and not isinstance(model, str):
        raise UserError("quantization_config is for a model that is given by its name: this one is loaded already")
    if isinstance(model, LanguageModel):
        # It may have been trained since it was opened, whatever adapter is on it now.
        unchanged = model.fingerprint == fingerprint(model.model)
        digest = model.digest if unchanged else weights_hash(model.model)
        return replace(model, tokenizer=tokenizer or model.tokenizer, digest=digest)
    if isinstance(model, str):
        directory = model_directory(model)
        if quantization_config is None:
            opened = open_model(directory, name=model, device="cpu")  # the Trainer places it
            return replace(opened, tokenizer=tokenizer or opened.tokenizer)
        try:
            model = load_weights(directory, quantization_config=quantization_config)
        except Exception as error:  # transformers' own, bitsandbytes' where there is no GPU
            raise UserError(f"{directory} cannot be opened in few bits: {first_line(error)}") from None
    name = str(getattr(model.config, "_name_or_path", "") or type(model).__name__)
    if tokenizer is None:
        try:
            tokenizer = load_tokenizer(model_directory(name))
        except Exception:  # the hub's, the network's and the tokenizers' own errors
            raise UserError(f"{name} comes without a tokenizer: give one as processing_class") from None
    return LanguageModel(model, tokenizer, name, weights_hash(model))


def load_reference(
    policy: LanguageModel, ref_model: PreTrainedModel | None, folder: Path, cut: int, device: torch.device
) -> Reference:
    """Return the reference of a policy, and move both to the device.

    Args:
        policy: as it is before training, with its digest.
        ref_model: the reference, if it is not that.
        folder: of the cache.
        cut: see `Reference`.
        device: where it is trained.

    Raises:
        UserError: a cut below which the policy is trained, or at which it cannot be split; as `adapter_reference`.
    """
    model = policy.model
    if ref_model is not None:
        if cut:
            raise UserError("below the cut the reference is the policy: leave ref_model out, or set cut to 0")
        frozen: Any = _placed(ref_model.eval().requires_grad_(False), device)
        digest = weights_hash(frozen, adapters=True)
        return Reference(LanguageModel(frozen, policy.tokenizer, "reference", digest), folder)
    if cut:
        check_split(model, cut)
        if trains_below(model, cut):
            raise UserError(
                f"weights below layer {cut} are trained, and cut = {cut} caches their output: put the adapter on the "
                f"layers from {cut} up (layers_to_transform), or set cut to 0"
            )
    _placed(model, device)
    if hasattr(model, "peft_config"):
        return adapter_reference(policy, folder, cut)
    # Trained whole: a copy of it as it is now, which its digest describes.
    return Reference(replace(policy, model=copy.deepcopy(model).eval().requires_grad_(False)), folder)


def adapter_reference(policy: LanguageModel, folder: Path, cut: int) -> Reference:
    """Return the reference of a policy that is an adapter: the same model without it.

    Raises:
        UserError: without the adapter it is not the model before training: the adapter was trained before, or weights
            of the model itself are trained too.
    """
    weights = list(policy.model.named_parameters())
    own = [name for name, weight in weights if weight.requires_grad and "lora_" not in name]
    if own:
        raise UserError(
            f"{len(own)} tensors beside the adapter are trained ({own[0]}), so that without the adapter the model is "
            "no reference: give a ref_model, or leave out modules_to_save and embeddings"
        )
    if any(weight.abs().max() > 0 for name, weight in weights if "lora_B" in name):
        raise UserError(
            "the adapter has been trained before: give the model that the policy is to stay near as ref_model, or "
            "merge the adapter (merge_and_unload) and let peft_config put a fresh one on"
        )
    return Reference(policy, folder, cut, policy.model.disable_adapter)


def _placed(model: Any, device: torch.device) -> Any:
    """Move a model to a device; one in 8 or 4 bits stays where it was loaded."""
    return model if getattr(model, "is_quantized", False) else model.to(device)
