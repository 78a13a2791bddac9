"""Responses before anybody has judged them: sampled once, in chunks that a later run finds where one stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pmpo_offline.policies.language import LanguageModel
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.files import load_arrays, save_arrays
from pmpo_offline.tasks.language.sampling import draw

CHUNK = 64
"""Prompts in a chunk: about a minute of SmolLM2 on one core."""


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
        names = ("prompt", "completion", "ended")
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})

    def save(self, path: Path) -> None:
        """Write them to `path`, whole or not at all."""
        save_arrays(path, vars(self))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read them; `PmpoOfflineError` if the file is damaged."""
        return cls(**load_arrays(path, ["prompt", "completion", "ended"]))


def collect(
    model: Callable[[], LanguageModel],
    prompts: Sequence[str],
    *,
    per_prompt: int,
    tokens: int,
    ends: bool,
    seed: int,
    folder: Path,
    known: Responses | None = None,
) -> Responses:
    """Return responses to `prompts`, sampled as `sampling.draw` does; finished chunks are kept in `folder`.

    Args:
        model: opens what is sampled from; not called where nothing is missing.
        prompts: as the model sees them.
        per_prompt: K.
        tokens: the longest completion, its end counted.
        ends: whether a completion may end.
        seed: of the random numbers.
        folder: of these settings alone.
        known: responses to the first of the prompts, of these settings.

    Raises:
        PmpoOfflineError: a kept chunk is damaged.
    """
    parts = [] if known is None else [known[: len(prompts)]]
    first = sum(map(len, parts))
    opened: LanguageModel | None = None
    for start in range(first, len(prompts), CHUNK):
        asked = list(prompts[start : start + CHUNK])
        path = folder / f"responses-{start:07d}-{start + len(asked):07d}.npz"
        kept = Responses.load(path) if path.exists() else None
        if kept is None or kept.prompt.tolist() != asked:  # other prompts: the templates have changed since
            opened = opened or model()
            drawn = draw(opened, asked, per_prompt=per_prompt, tokens=tokens, ends=ends, seed=seed, batch=256)
            kept = Responses(np.array(asked), np.array(drawn.text), np.array(drawn.ended))
            kept.save(path)
        parts.append(kept)
        progress.report("sample completions", start + len(asked), len(prompts))
    return Responses.concatenate(parts)
