"""The two ways a command ends badly, and the one-line messages that say what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class PmpoOfflineError(Exception):
    """Something failed that is not the user's mistake (a full disk, a broken file). Exit code 1."""

    exit_code = 1


class UserError(PmpoOfflineError):
    """The request cannot be met as asked; the message is one line that says what to do. Exit code 2."""

    exit_code = 2


_FEW = 12
"""So many names fit a line; of more only the nearest are told."""
_LISTED = ("dataset", "suite", "algorithm")
"""What `pmpo-offline list` shows."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Return the error for a name that does not exist, with the near misses or, failing those, the names there are.

    >>> str(unknown("algorithm", "pmop", ["pmpo", "dpo"]))
    "unknown algorithm 'pmop': did you mean pmpo, dpo?"
    """
    names = sorted(known)
    near = get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        hint = f"did you mean {', '.join(near)}?"
    elif len(names) <= _FEW:
        hint = f"known: {', '.join(names) or 'none'}"
    else:
        nearest = ", ".join(get_close_matches(name, names, n=5, cutoff=0))
        hint = f"known: {nearest} and {len(names) - 5} more"
        hint += ", see pmpo-offline list" if kind in _LISTED else ""
    return UserError(f"unknown {kind} {name!r}: {hint}")
