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


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Return the error for a name that does not exist, with the near misses or, failing those, every name.

    >>> str(unknown("algorithm", "pmop", ["pmpo", "dpo"]))
    "unknown algorithm 'pmop': did you mean pmpo, dpo?"
    """
    names = sorted(known)
    near = get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(names) or 'none'}"
    return UserError(f"unknown {kind} {name!r}: {hint}")
