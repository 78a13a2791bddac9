"""The two kinds of failure, with their exit codes, and the wording of common one-line messages."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path


class PmpoOfflineError(Exception):
    """A failure that is not the user's mistake (a full disk, a broken file); exit code 1."""

    exit_code = 1


class UserError(PmpoOfflineError):
    """A request that cannot be met; the message is one line with what to do instead; exit code 2."""

    exit_code = 2

    def __init__(self, message: object = "", about: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.about = tuple(about)
        """The name or key that is wrong, and those around it: the caller that knows the file adds its line."""


class Notice(UserWarning):
    """What is worth knowing, as that something takes long this once, and is no reason to worry."""


class Dropped(UserWarning):
    """Rows of an import that were dropped, which the summary that commands print lists too."""


ELSEWHERE = {
    "batch": ("bs", "batch_size", "minibatch_size", "per_device_train_batch_size"),
    "beta": ("kl_coef", "kl_coeff", "kl_weight"),
    "clip": ("max_grad_norm", "grad_clip"),
    "hidden": ("layers", "hidden_sizes", "hidden_dims"),
    "learning_rate": ("lr", "step_size"),
    "steps": ("epochs", "num_train_epochs", "updates", "iterations"),
    "updates": ("epochs", "num_train_epochs", "n_steps", "max_steps", "steps", "iterations"),
    "weight_decay": ("wd", "decay"),
}
"""What other libraries call settings."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a disk that is full, or of a file that would be too large."""
_FEW = 12
"""The number of names that fit a line; of more, only the nearest are listed."""
_LISTED = ("dataset", "suite", "algorithm")
"""Kinds that `pmpo-offline list` shows."""


def reason_of(error: Exception) -> str:
    """Return a library's error message on one line, cut to 120 characters; its type where it has none."""
    return " ".join(str(error).split())[:120] or type(error).__name__


def refusal(path: Path, error: Exception, elsewhere: str) -> str:
    """Return one line: why a file or a folder could not be written, and what to do: free space, or `elsewhere`."""
    number = getattr(error, "errno", None)  # other libraries have errors of their own for it
    reason = os.strerror(number) if number else reason_of(error)
    full = number in FULL or "os error 28" in reason
    return f"cannot write {path}: {reason}; {'free some space' if full else 'check the permissions'} or {elsewhere}"


def counted(number: int, noun: str) -> str:
    """Return a number with what is counted: "1 run", "1,000 runs"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Return the error for an unknown name, with what it means elsewhere, the near misses, or else the known names.

    >>> str(unknown("algorithm", "pmop", ["pmpo", "dpo"]))
    "unknown algorithm 'pmop': did you mean pmpo, dpo?"
    """
    names = sorted(known)
    initials = [each for each in names if "_" in each and "".join(word[:1] for word in each.split("_")) == name]
    meant = [each for each in names if name in ELSEWHERE.get(each, ())]
    near = meant or initials or get_close_matches(name, names, n=3, cutoff=0.5 if len(name) < 6 else 0.6)
    if near:
        hint = f"did you mean {', '.join(near)}?"
    elif len(names) <= _FEW:
        hint = f"known: {', '.join(names) or 'none'}"
    else:
        nearest = ", ".join(get_close_matches(name, names, n=5, cutoff=0))
        hint = f"known: {nearest} and {len(names) - 5} more"
        hint += ", see pmpo-offline list" if kind in _LISTED else ""
    return UserError(f"unknown {kind} {name!r}: {hint}", [name])
