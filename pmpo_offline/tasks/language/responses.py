"""Unlabelled responses: sampled once, in chunks from which an interrupted run resumes, or shipped with the package.

datasets/language/<task>-<key>.parquet    shipped, one row each; key: a hash of the settings they were sampled with
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pmpo_offline.declarations import catalog
from pmpo_offline.policies.language import LanguageModel
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.arrays import load_arrays, save_arrays
from pmpo_offline.runtime.errors import PmpoOfflineError, reason_of
from pmpo_offline.runtime.files import from_json
from pmpo_offline.tasks.language.sampling import SamplingSpec, draw

CHUNK = 64
"""Prompts in a chunk: about a minute of SmolLM2 on one core."""
_FACTS = b"pmpo_offline"
_COLUMNS = ("prompt", "completion", "ended")


@dataclass(frozen=True, eq=False)
class Responses:
    """K completions of each of P prompts."""

    prompt: NDArray[np.str_]
    """(P,)."""
    completion: NDArray[np.str_]
    """(P, K), without the end-of-sequence token."""
    ended: NDArray[np.bool_]
    """(P, K): whether that token was drawn; otherwise the completion was cut."""

    def __len__(self) -> int:
        """Return P."""
        return len(self.prompt)

    def __getitem__(self, prompts: slice) -> Responses:
        """Return the responses to some of the prompts."""
        return Responses(self.prompt[prompts], self.completion[prompts], self.ended[prompts])

    @classmethod
    def concatenate(cls, parts: Sequence[Responses]) -> Self:
        """Join responses, one after another."""
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS})

    def save(self, path: Path) -> None:
        """Write them to `path`, whole or not at all."""
        save_arrays(path, vars(self))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read them; `PmpoOfflineError` if the file is damaged."""
        return cls(**load_arrays(path, _COLUMNS))


def collect(
    model: Callable[[], LanguageModel],
    prompts: Sequence[str],
    spec: SamplingSpec,
    folder: Path,
    known: Responses | None = None,
) -> Responses:
    """Return responses to `prompts`, sampled as `sampling.draw` does; finished chunks are kept in `folder`.

    Args:
        model: opens the model; not called if nothing is missing.
        prompts: as the model sees them.
        spec: how to sample.
        folder: of these settings alone.
        known: responses to the first of the prompts, of these settings.

    Raises:
        PmpoOfflineError: a kept chunk is damaged.
    """
    parts = [] if known is None else [known[: len(prompts)]]
    first = sum(map(len, parts))
    opened: LanguageModel | None = None
    for start in range(first, len(prompts), CHUNK):
        wanted = list(prompts[start : start + CHUNK])
        path = folder / f"responses-{start:07d}-{start + len(wanted):07d}.npz"
        kept = Responses.load(path) if path.exists() else None
        if kept is None or kept.prompt.tolist() != wanted:  # other prompts: the templates have changed since
            opened = opened or model()
            with progress.on_progress(None):  # reported below, of all prompts
                drawn = draw(opened, wanted, spec, batch=256)
            kept = Responses(np.array(wanted), np.array(drawn.text), np.array(drawn.ended))
            kept.save(path)
        parts.append(kept)
        progress.report("sample completions", start + len(wanted), len(prompts))
    return Responses.concatenate(parts)


def shipped(task: str, key: str) -> tuple[Responses, dict[str, str]] | None:
    """Return the responses of these settings and the facts about their sampling, None where none ship.

    Raises `PmpoOfflineError` if the file is damaged.
    """
    path = shipped_file(task, key)
    return read_shipped(path) if path.is_file() else None


def shipped_file(task: str, key: str) -> Path:
    """Return the file of a task's responses that were sampled with the settings of this key."""
    namespace, _, name = task.partition("/")
    return catalog.root("datasets") / namespace / f"{name}-{key}.parquet"


def write_shipped(path: Path, responses: Responses, facts: Mapping[str, str]) -> None:
    """Write a file to ship, compressed; `OSError` if the disk refuses."""
    prompts, per_prompt = responses.completion.shape
    table = pa.table(
        {
            "prompt": np.repeat(responses.prompt, per_prompt).tolist(),
            "completion": responses.completion.reshape(-1).tolist(),
            "ended": responses.ended.reshape(-1),
        }
    )
    described = table.replace_schema_metadata({_FACTS: json.dumps({**facts, "per_prompt": str(per_prompt)})})
    pq.write_table(described, path, compression="zstd", compression_level=19, row_group_size=prompts * per_prompt)


def read_shipped(path: Path) -> tuple[Responses, dict[str, str]]:
    """Read a shipped file; `PmpoOfflineError` if it is damaged."""
    try:
        table = pq.read_table(path)
        facts: dict[str, str] = from_json(table.schema.metadata[_FACTS])
        per_prompt = int(facts.pop("per_prompt"))
        prompt, completion = (np.array(table[name].to_pylist()) for name in ("prompt", "completion"))
        ended = table["ended"].to_numpy()
        return Responses(prompt[::per_prompt], completion.reshape(-1, per_prompt), ended.reshape(-1, per_prompt)), facts
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise PmpoOfflineError(f"{path} is damaged ({reason_of(error)}): install pmpo-offline again") from None
