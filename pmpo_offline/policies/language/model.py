"""Causal language models: open one from a directory, put LoRA adapters on it, and identify it by a hash."""

from __future__ import annotations

import copy
import importlib.util
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors import SafetensorError
from torch import Tensor

from pmpo_offline.policies.language.tokens import PREFIX, prefix_of, with_prefix
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError, reason_of, refusal, unknown
from pmpo_offline.runtime.files import atomic_directory, read_json
from pmpo_offline.runtime.hashing import hash_bytes, hash_file

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase

Quantize = Literal["8bit", "4bit"]
ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
"""The files of an adapter, as peft writes them."""
SAMPLE = 16
"""Elements of each weight that `fingerprint` reads."""
_HASHED = ("*.safetensors", "config.json", "tokenizer*", "vocab.*", "merges.txt", "special_tokens_map.json", "*.jinja")
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_LOCAL = {"local_files_only": True, "trust_remote_code": False}


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A causal language model with its tokenizer."""

    model: PreTrainedModel | PeftModel
    """In evaluation mode, on its device."""
    tokenizer: PreTrainedTokenizerBase
    """It has an EOS token, and a padding token, which may be the same."""
    name: str
    """For messages."""
    digest: str
    """sha256 of its weights and tokenizer (`model_hash`), its identity as a reference."""
    fingerprint: str = ""
    """`fingerprint` of the weights that `digest` was computed for; empty if not computed."""

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        device: torch.device = self.model.device
        return device

    @property
    def context(self) -> int | None:
        """The most tokens that the model reads, None if there is no limit."""
        most: int | None = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return most


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
        name: for messages; default the directory's name.
        dtype: of the weights in memory: float32, bfloat16 or float16.
        device: where to put it; default a GPU if there is one.
        quantize: hold the weights in 8 or 4 bits (bitsandbytes, on a GPU), to train LoRA adapters on.

    Raises:
        UserError: the directory holds no such model, or the options are not possible on this machine.
    """
    if dtype not in _DTYPES:
        raise unknown("dtype", dtype, _DTYPES)
    if not (directory / "config.json").is_file():
        raise UserError(f"{directory} holds no language model: there is no config.json in it")
    if not any(directory.glob("*.safetensors")):
        raise UserError(f"{directory} holds no weights in safetensors: save the model with save_pretrained")
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    options = {"quantization_config": _quantization(quantize, dtype), "device_map": {"": place}} if quantize else {}
    try:
        tokenizer = load_tokenizer(directory)
        model = load_weights(directory, dtype=_DTYPES[dtype], **options)
    except Exception as error:  # each of transformers' readers has exceptions of its own
        raise UserError(f"{directory} cannot be opened as a causal language model: {reason_of(error)}") from None
    complete_tokenizer(tokenizer, str(directory))
    if not quantize:
        model = model.to(place)
    return LanguageModel(model.eval(), tokenizer, name or directory.name, model_hash(directory), fingerprint(model))


def load_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer in a directory; any exception of transformers if there is none."""
    with quiet():
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(directory, **_LOCAL)


def load_weights(directory: Path, **options: Any) -> PreTrainedModel:
    """Return the network in a directory; any exception of transformers if there is none."""
    with quiet():
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(directory, use_safetensors=True, **_LOCAL, **options)


def complete_tokenizer(tokenizer: PreTrainedTokenizerBase, owner: str) -> None:
    """Pad with the EOS token where a tokenizer has no padding token; `UserError` if it has no EOS token either."""
    if tokenizer.eos_token_id is None:
        raise UserError(f"the tokenizer of {owner} has no EOS token to end completions with: set eos_token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token


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
    from peft import LoraConfig

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
    return add_adapter(model, config)


def add_adapter(model: PreTrainedModel, config: Any) -> PeftModel:
    """Wrap `model` in a fresh adapter of a peft configuration."""
    from peft import get_peft_model, prepare_model_for_kbit_training

    with quiet():
        if getattr(model, "is_quantized", False):
            model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
        return get_peft_model(model, config)


def check_adapter(model: Any) -> None:
    """Raise `UserError` for adapters that are not in the layers, or of which nothing is trained."""
    _check_layers(model)
    if not any(weight.requires_grad for weight in model.parameters()):
        raise UserError("no weight of the model is trained: load its adapter with is_trainable=True")


def _check_layers(model: Any) -> None:
    """Raise `UserError` for adapters that are not in the layers.

    Supported are those of peft that change the layers: LoRA and its variants, IA3, LoHa, LoKr, OFT and others. Behind
    virtual tokens peft ignores the positions that padded batches need.
    """
    for config in getattr(model, "peft_config", {}).values():
        if config.is_prompt_learning:
            kind = getattr(config.peft_type, "value", config.peft_type)
            raise UserError(
                f"{kind} puts virtual tokens before a prompt, which is not supported: take an adapter of the layers "
                "(LoRA, DoRA, IA3, LoHa, LoKr, OFT)"
            )


def save_adapter(
    model: PeftModel,
    directory: Path,
    base: str | None = None,
    card: str | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> None:
    """Write an adapter as peft does, in safetensors, whole or not at all; it may replace another adapter.

    Args:
        model: with the adapter.
        directory: to write.
        base: what others call the model that it belongs to, in place of its path here.
        card: its README.md, in place of peft's template.
        tokenizer: written beside it if it puts a text before prompts, because the adapter answers behind that text.

    Raises:
        UserError: the directory holds something else.
        PmpoOfflineError: the disk refuses.
    """
    try:
        if base is not None:
            for config in model.peft_config.values():
                config.base_model_name_or_path = base
        with atomic_directory(directory, ADAPTER[0], "adapter", overwrite=True) as partial, quiet():
            # Not the embeddings: nothing here changes them, and peft would ask the hub whether they were.
            model.save_pretrained(str(partial), safe_serialization=True, save_embedding_layers=False)
            if tokenizer is not None and prefix_of(tokenizer):
                tokenizer.save_pretrained(str(partial))
            if card is not None:
                (partial / "README.md").write_text(card, encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise PmpoOfflineError(refusal(directory, error, "write elsewhere")) from None


def load_adapter(base: LanguageModel, directory: Path, *, trainable: bool = False) -> LanguageModel:
    """Return `base` with the adapter in `directory` on it; `base` itself stays without.

    Its tokenizer puts the text before prompts that the adapter was trained behind, if any.
    Apart from the adapter both share their weights in memory: training those of one changes the other.
    Raises `UserError` if the directory holds no adapter, or one of another model.
    """
    from peft import PeftModel

    if missing := [name for name in ADAPTER if not (directory / name).is_file()]:
        raise UserError(f"{directory} holds no adapter: there is no {missing[0]} in it")
    shared = [*base.model.parameters(), *base.model.buffers()]
    modules = copy.deepcopy(base.model, {id(weight): weight for weight in shared})
    with quiet():
        try:
            model = PeftModel.from_pretrained(modules, str(directory), is_trainable=trainable)
        except Exception as error:  # safetensors, JSON and peft each have exceptions of their own
            raise UserError(f"{directory} is no adapter of {base.name}: {reason_of(error)}") from None
    _check_layers(model)
    prefix = _prefix_in(directory)
    parts = [base.digest, *(hash_file(directory / name) for name in ADAPTER), *([prefix] if prefix else [])]
    digest = hash_bytes(part.encode() for part in parts)
    if not trainable:
        model = model.eval().requires_grad_(False)
    tokenizer = with_prefix(base.tokenizer, prefix) if prefix else base.tokenizer
    return replace(base, model=model, tokenizer=tokenizer, name=directory.name, digest=digest)


def _prefix_in(directory: Path) -> str:
    """Return the text that the tokenizer beside an adapter puts before prompts, empty if none."""
    path = directory / "tokenizer_config.json"
    return str(read_json(path).get(PREFIX, "")) if path.is_file() else ""


def model_hash(directory: Path) -> str:
    """Return the sha256 of the weights, configuration and tokenizer in a directory, whatever other files it holds.

    It costs one read of the files: a third of a second for 135 million parameters.
    """
    paths = sorted({path for pattern in _HASHED for path in directory.glob(pattern)})
    return hash_bytes(f"{path.name}:{hash_file(path)}\n".encode() for path in paths)


def weights_hash(model: torch.nn.Module, *, adapters: bool = False) -> str:
    """Return the sha256 of the weights of a model in memory: its identity if it was not read from files.

    Args:
        model: a model of transformers or peft.
        adapters: include the adapters on it. A policy's are left out where it is its own reference.
    """
    return hash_bytes(_weights(model, adapters))


def _weights(model: torch.nn.Module, adapters: bool) -> Iterator[bytes]:
    for name, weight in sorted(model.state_dict().items()):
        if adapters or "lora_" not in name:
            yield f"{_plain_name(name)}:{weight.dtype}:{tuple(weight.shape)}".encode()
            yield weight.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes()
    for name, part in model.named_modules() if adapters else ():
        if hasattr(part, "active_adapters") and hasattr(part, "scaling"):
            # Not part of the weights: how strong each adapter is, and which of them are active.
            state = (part.active_adapters, part.disable_adapters, part.merged_adapters)
            yield f"{name}:{sorted(part.scaling.items())}:{state}".encode()


def fingerprint(model: torch.nn.Module) -> str:
    """Return a hash of a few elements of each weight and of how often it was written to, adapters left out.

    It tells whether a model in memory still is what was read from its files, without reading all of its weights. An
    optimizer's step counts as a write, even if it changes none of the sampled elements (a few rows of an embedding);
    writes that torch does not count, as when peft merges an adapter, change whole tensors. Equal weights with another
    history may differ in it; moving a model to another device or a wider precision keeps it.
    """
    return hash_bytes(
        f"{_plain_name(name)}:{tuple(weight.shape)}:{0 if weight.is_inference() else weight._version}".encode()
        + _sampled(weight)
        for name, weight in sorted(model.state_dict().items())
        if "lora_" not in name
    )


def _plain_name(name: str) -> str:
    """Return the name of a weight without peft's wrappers."""
    return name.removeprefix("base_model.model.").replace(".base_layer", "")


def _sampled(weight: Tensor) -> bytes:
    flat = weight.detach().reshape(-1)
    places = torch.linspace(0, max(0, len(flat) - 1), min(SAMPLE, len(flat)), dtype=torch.float64).long()
    return flat[places.to(flat.device)].double().cpu().numpy().tobytes()


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers, huggingface_hub and Python's warnings, and restore the caller's settings afterwards.

    Our commands show one progress bar, and one line for an error.
    """
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging

    bars, hub_bars = logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    verbosity = logging.get_verbosity()
    logging.disable_progress_bar()
    disable_progress_bars()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
        if hub_bars:
            enable_progress_bars()


def _is_linear(part: torch.nn.Module) -> bool:
    weight = getattr(part, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim == 2 and not isinstance(part, torch.nn.Embedding)


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
