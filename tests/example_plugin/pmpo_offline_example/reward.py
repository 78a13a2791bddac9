"""A reward of texts: the briefer, the better."""

from __future__ import annotations

from collections.abc import Sequence


def brief(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    """Return minus the number of words of each completion."""
    return [-float(len(completion.split())) for completion in completions]
