"""Progress of long work, a context variable: `report` it where the work is, receive it with `on_progress`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Progress = Callable[[str, int, int], None]
"""callback(stage, done, total)."""

_callback: ContextVar[Progress | None] = ContextVar("progress", default=None)


@contextmanager
def on_progress(callback: Progress | None) -> Iterator[None]:
    """Call `callback(stage, done, total)` for all progress that is reported inside the block; None silences it."""
    token = _callback.set(callback)
    try:
        yield
    finally:
        _callback.reset(token)


@contextmanager
def stage(title: str | Callable[[str], str]) -> Iterator[None]:
    """Prefix the stages reported inside the block with `title: `, or rename them where `title` is a function."""
    outer = _callback.get()
    rename = title if callable(title) else lambda inner: f"{title}: {inner}"
    with on_progress(outer and (lambda inner, done, total: outer(rename(inner), done, total))):
        yield


def report(stage: str, done: int, total: int) -> None:
    """Report that `done` of `total` units of a stage are finished."""
    callback = _callback.get()
    if callback is not None:
        callback(stage, done, total)
