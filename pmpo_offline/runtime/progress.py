"""Progress of long work: `report` it where the work is, receive it with `on_progress`, show it with `progress_bar`.

It is shown in one line: a bar on a terminal and in a notebook, in a log file a line now and then, ever more rarely.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import cache
from html import escape
from typing import TYPE_CHECKING, TypeVar

from pmpo_offline.runtime.arguments import checked

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

T = TypeVar("T")
Progress = Callable[[str, int, int], None]
"""callback(stage, done, total)."""

BAR = 12
"""Width of the bar."""
FIRST, LONGEST = 10.0, 600.0
"""Seconds until the second line of a log and at most between two; every wait is twice the one before."""

_callback: ContextVar[Progress | None] = ContextVar("progress", default=None)


@checked()
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


def counted(items: Iterable[T], stage: str, total: int) -> Iterator[T]:
    """Yield `total` items, and report now and then how many of them are done."""
    for done, item in enumerate(items):
        if done % 64 == 0:
            report(stage, done, total)
        yield item
    report(stage, total, total)


class Stages:
    """The stages that are under way, of which one line shows the first (the whole) and the last reported (the part)."""

    def __init__(self) -> None:
        self._active: dict[str, tuple[int, int]] = {}

    def update(self, stage: str, done: int, total: int) -> str:
        """Take a report in; return what to show: the stage, behind the whole where it is a part of one."""
        whole, text = next(iter(self._active), stage), stage
        if whole != stage:
            finished, of = self._active[whole]
            text = f"{whole} {finished}/{of} · {stage}"
        self._active[stage] = (done, total)
        if done >= total:
            del self._active[stage]
        return text


@checked()
@contextmanager
def progress_bar() -> Iterator[None]:
    """Show the progress of all that is done inside the block: below a notebook's cell, else on stderr."""
    if _in_notebook():
        with _element() as callback, on_progress(callback):
            yield
    elif sys.stderr.isatty():
        with _bar() as callback, on_progress(callback):
            yield
    else:
        with on_progress(lines()):
            yield


def _in_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


@contextmanager
def _element() -> Iterator[Progress]:
    """Show an HTML element that is changed in place, which needs no widgets."""
    from IPython import display

    stages, due = Stages(), 0.0
    handle = display.display(display.HTML(""), display_id=True)  # type: ignore[no-untyped-call]

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal due
        text = escape(stages.update(stage, done, total))
        if (now := time.monotonic()) >= due or done >= total:
            bar = f'<progress value="{done}" max="{max(total, 1)}"></progress> {text}: {done}/{total}'
            handle.update(display.HTML(bar))  # type: ignore[no-untyped-call]
            due = now + 0.1

    try:
        yield progress
    finally:
        handle.update(display.HTML(""))  # type: ignore[no-untyped-call]


@contextmanager
def _bar() -> Iterator[Progress]:
    """Show a line of Rich, which is imported with the first report: a mistaken name is answered before."""
    with ExitStack() as stack:
        stages, shown = Stages(), cache(lambda: stack.enter_context(_bars()))

        def progress(stage: str, done: int, total: int) -> None:
            bars = shown()
            # The text gives way where the terminal is narrow, so that there is one line whatever its width.
            room = bars.console.width - BAR - len(f"{total}/{total} 0:00:00") - 3
            text = cut(stages.update(stage, done, total), room)
            bars.update(bars.task_ids[0], description=text, completed=done, total=total)

        yield progress


def _bars() -> Bars:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    text = TextColumn("{task.description}", markup=False)
    columns = (text, BarColumn(BAR), MofNCompleteColumn(), TimeElapsedColumn())
    bars = Bars(*columns, console=Console(stderr=True), transient=True)
    bars.add_task("", total=1)
    return bars


def cut(text: str, width: int) -> str:
    """Return a text of at most this width, without its middle if it is longer: whole and part are at the ends."""
    if len(text) <= width:
        return text
    end = max(0, (width - 1) // 2)
    return f"{text[: max(0, width - 1 - end)]}…{text[len(text) - end :]}"


def lines(clock: Callable[[], float] = time.monotonic) -> Progress:
    """Return a callback that prints the first report to stderr, and later ones after ever longer waits."""
    stages, wait, due = Stages(), FIRST, clock()

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal wait, due
        text = stages.update(stage, done, total)
        if clock() >= due:
            print(f"{text}: {done}/{total}", file=sys.stderr, flush=True)
            due, wait = clock() + wait, min(2 * wait, LONGEST)

    return progress
