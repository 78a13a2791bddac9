"""Open a causal language model from a directory, put LoRA adapters on it, and know which one it is."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from pmpo_offline.policies.language.fingerprint import fingerprint
from pmpo_offline.policies.language.quiet import quiet
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError, unknown
from pmpo_offline.runtime.files import atomic_directory
from pmpo_offline.runtime.hashing import hash_bytes, hash_file

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase

Quantize = Literal["8bit", "4bit"]
ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
"""The files of an adapter, as peft writes them."""
_IDENTITY = (
    "*.safetensors",
    "config.json",
    "tokenizer*",
    "vocab.*",
    "merges.txt",
    "special_tokens_map.json",
    "*.jinja",
)
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A causal language model with its tokenizer."""

    model: PreTrainedModel | PeftModel
    """In evaluation mode, on its device."""
    tokenizer: PreTrainedTokenizerBase
    """It has an EOS token, and a padding token, which may be the same."""
    name: str
    """What people call it."""
    digest: str
    """sha256 over its weights and its tokenizer: who it is, as a reference."""
    fingerprint: str = ""
    """Of the weights (`policies.language.fingerprint`) when `digest` was theirs; empty where nobody took it."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.model.device
        return device


def open_model(
    directory: Path,
    *,
    name: str | None = None,
    dtype: str = "float32",
    device: str | torch.device | None = None,
    quantize: Quantize | None = None,
) -> LanguageModel:
    """Open the transformers model in `directory`; its weights must be safetensors.

    Args:
        directory: with config.json, the weights and the tokenizer's files.
        name: what people call it; default the directory's name.
        dtype: of the weights in memory: float32, bfloat16 or float16.
        device: where to put it; default a GPU if there is one.
        quantize: hold the weights in 8 or 4 bits (bitsandbytes, on a GPU), to train LoRA adapters on.

    Raises:
        UserError: the directory holds no such model, or what is asked for is not possible here.
    """
    if dtype not in _DTYPES:
        raise unknown("dtype", dtype, _DTYPES)
    if not (directory / "config.json").is_file():
        raise UserError(f"{directory} holds no language model: there is no config.json in it")
    if not any(directory.glob("*.safetensors")):
        raise UserError(f"{directory} holds no weights in safetensors: save the model with save_pretrained")
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    options = {"quantization_config": _quantization(quantize, dtype), "device_map": {"": place}} if quantize else {}
    with quiet():
        from transformers import AutoModelForCausalLM, AutoTokenizer

        try:
            local = {"local_files_only": True, "trust_remote_code": False}
            tokenizer = AutoTokenizer.from_pretrained(directory, **local)
            model = AutoModelForCausalLM.from_pretrained(
                directory, dtype=_DTYPES[dtype], use_safetensors=True, **local, **options
            )
        except Exception as error:  # transformers raises whatever its readers of a dozen formats raise
            raise UserError(f"{directory} cannot be opened as a causal language model: {_first(error)}") from None
    if tokenizer.eos_token_id is None:
        raise UserError(f"{directory}: its tokenizer has no EOS token, by which a completion ends")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if not quantize:
        model = model.to(place)
    return LanguageModel(model.eval(), tokenizer, name or directory.name, digest(directory), fingerprint(model))


def digest(directory: Path) -> str:
    """Return the sha256 over a model's weights, configuration and tokenizer, whatever else lies beside them."""
    paths = sorted({path for pattern in _IDENTITY for path in directory.glob(pattern)})
    return hash_bytes(f"{path.name}:{hash_file(path)}\n".encode() for path in paths)


def add_lora(model: PreTrainedModel, rank: int, alpha: float, targets: Sequence[str], from_layer: int = 0) -> PeftModel:
    """Wrap `model` in a fresh LoRA adapter, of which only the two small factors are trained.

    `model` itself is changed: its target modules become sums W x + (alpha / rank) B A x, with B = 0 to begin with.

    Args:
        model: what the adapter is put on.
        rank: r, the factors' inner width.
        alpha: the adapter's scale is alpha / rank.
        targets: ends of the names of linear modules, such as q_proj.
        from_layer: layers below it get no adapter, so that their hidden states do not depend on what is trained.

    Raises:
        UserError: no module has such a name, or there is no such layer.
    """
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    layers = model.config.get_text_config().num_hidden_layers
    if not 0 <= from_layer < layers:
        raise UserError(f"LoRA from layer {from_layer}: the model has {layers} layers, choose 0 to {layers - 1}")
    # By the shape of the weights, because older models have linear modules of their own class.
    linear = {path.rpartition(".")[2] for path, part in model.named_modules() if _is_linear(part)}
    for target in targets:
        if target not in linear:
            raise unknown("LoRA target", target, linear)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=list(targets),
        layers_to_transform=list(range(from_layer, layers)) if from_layer else None,
        task_type="CAUSAL_LM",
    )
    with quiet():
        if getattr(model, "is_quantized", False):
            model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
        return get_peft_model(model, config)


def save_adapter(model: PeftModel, directory: Path) -> None:
    """Write an adapter as peft does, in safetensors, whole or not at all; it may take another one's place.

    Raises:
        UserError: the directory holds something else.
        PmpoOfflineError: the disk refuses.
    """
    try:
        with atomic_directory(directory, ADAPTER[0], "adapter", overwrite=True) as partial, quiet():
            # Not the embeddings: nothing here changes them, and to find out peft would ask the hub.
            model.save_pretrained(str(partial), safe_serialization=True, save_embedding_layers=False)
    except OSError as error:
        raise PmpoOfflineError(f"cannot write {directory}: {error.strerror or error}") from None


def load_adapter(base: LanguageModel, directory: Path, *, trainable: bool = False) -> LanguageModel:
    """Return a model that is `base` with the adapter in `directory` on it, and leave `base` itself without.

    Both have the same weights in memory, the adapter's aside: who trains these of the one trains the other's.
    Raises `UserError` if the directory holds no adapter, or one of another model.
    """
    from peft import PeftModel

    if missing := [name for name in ADAPTER if not (directory / name).is_file()]:
        raise UserError(f"{directory} holds no adapter: there is no {missing[0]} in it")
    with quiet():
        try:
            model = PeftModel.from_pretrained(_same_weights(base.model), str(directory), is_trainable=trainable)
        except Exception as error:  # safetensors, JSON and peft each have exceptions of their own
            raise UserError(f"{directory} is no adapter of {base.name}: {_first(error)}") from None
    identity = hash_bytes(part.encode() for part in (base.digest, *(hash_file(directory / name) for name in ADAPTER)))
    if not trainable:
        model = model.eval().requires_grad_(False)
    return replace(base, model=model, name=directory.name, digest=identity)


def _same_weights(model: PreTrainedModel | PeftModel) -> Any:
    """Return a copy of a model's modules around the weights of the model itself."""
    shared = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(weight): weight for weight in shared})


def _is_empty(directory: Path) -> bool:
    return directory.is_dir() and not any(directory.iterdir())


def _is_linear(part: torch.nn.Module) -> bool:
    weight = getattr(part, "weight", None)
    return isinstance(weight, torch.Tensor) and weight.ndim == 2 and not isinstance(part, torch.nn.Embedding)


def _quantization(bits: Quantize, dtype: str) -> BitsAndBytesConfig:
    if bits not in ("8bit", "4bit"):
        raise unknown("quantization", bits, ("8bit", "4bit"))
    if not torch.cuda.is_available():
        raise UserError(f"{bits} weights need an NVIDIA GPU, and there is none here: leave the quantization out")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(f"{bits} weights need bitsandbytes: pip install bitsandbytes")
    from transformers import BitsAndBytesConfig

    if bits == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=_DTYPES[dtype],
    )


def _first(error: Exception) -> str:
    """Return the first line of what a library says."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
