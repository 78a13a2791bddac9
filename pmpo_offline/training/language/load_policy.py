"""The policy of a trainer: whatever people call a model, as a `LanguageModel`, with the adapter that they ask for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pmpo_offline.policies.language import quiet
from pmpo_offline.policies.language.model import LanguageModel, fingerprint, open_model, weights_hash
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.tasks.language.models import model_directory

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def policy_of(
    model: str | PreTrainedModel | LanguageModel,
    tokenizer: PreTrainedTokenizerBase | None = None,
    quantization_config: Any = None,
    peft_config: PeftConfig | None = None,
) -> LanguageModel:
    """Return the model that is trained, in evaluation mode.

    Args:
        model: one of ours, one of transformers or peft, a directory, one of our names or a hub id.
        tokenizer: default the model's own.
        quantization_config: of transformers, for a model that is given by its name.
        peft_config: puts a fresh adapter on it.

    Raises:
        UserError: no such model, no tokenizer or one without an EOS token, an adapter on an adapter.
    """
    found = _open(model, tokenizer, quantization_config)
    if found.tokenizer.eos_token_id is None:
        raise UserError(f"the tokenizer of {found.name} has no EOS token, by which a completion ends: set eos_token")
    if found.tokenizer.pad_token_id is None:
        found.tokenizer.pad_token = found.tokenizer.eos_token
    if peft_config is not None:
        if hasattr(found.model, "peft_config"):
            raise UserError("the model has an adapter already: leave peft_config out, or merge it (merge_and_unload)")
        from peft import get_peft_model, prepare_model_for_kbit_training

        base = found.model
        with quiet():
            if getattr(base, "is_quantized", False):
                base = prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)
            found = replace(found, model=get_peft_model(base, peft_config))
    found.model.eval()
    return found


def _open(model: Any, tokenizer: PreTrainedTokenizerBase | None, quantization_config: Any) -> LanguageModel:
    if isinstance(model, LanguageModel):
        # It may have been trained since it was opened, whatever adapter is on it now.
        unchanged = model.fingerprint == fingerprint(model.model)
        digest = model.digest if unchanged else weights_hash(model.model)
        return replace(model, tokenizer=tokenizer or model.tokenizer, digest=digest)
    local = {"local_files_only": True, "trust_remote_code": False}
    if isinstance(model, str):
        directory = model_directory(model)
        if quantization_config is None:
            opened = open_model(directory, name=model, device="cpu")  # the Trainer places it
            return opened if tokenizer is None else replace(opened, tokenizer=tokenizer)
        from transformers import AutoModelForCausalLM

        try:
            with quiet():
                model = AutoModelForCausalLM.from_pretrained(
                    directory, quantization_config=quantization_config, use_safetensors=True, **local
                )
        except Exception as error:  # transformers' own, bitsandbytes' where there is no GPU
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(f"{directory} cannot be opened in few bits: {first}") from None
    elif quantization_config is not None:
        raise UserError("quantization_config is for a model that is given by its name: this one is loaded already")
    name = str(getattr(model.config, "_name_or_path", "") or type(model).__name__)
    if tokenizer is None:
        from transformers import AutoTokenizer

        try:
            with quiet():
                tokenizer = AutoTokenizer.from_pretrained(model_directory(name), **local)
        except Exception:  # the hub's, the network's and the tokenizers' own errors
            raise UserError(f"{name} comes without a tokenizer: give one as processing_class") from None
    return LanguageModel(model, tokenizer, name, weights_hash(model))
