"""Progress reaches whoever listens, wherever the work is done."""

from __future__ import annotations

from pmpo_offline.runtime import progress
from pmpo_offline.runtime.progress import on_progress

Heard = list[tuple[str, int, int]]


def test_progress_is_heard_inside_the_block_only() -> None:
    heard: Heard = []
    progress.report("before", 0, 1)
    with on_progress(lambda *each: heard.append(each)):
        progress.report("work", 1, 2)
        with on_progress(None):
            progress.report("silent", 1, 1)
        progress.report("work", 2, 2)
    progress.report("after", 1, 1)
    assert heard == [("work", 1, 2), ("work", 2, 2)]


def test_stages_are_prefixed_or_renamed() -> None:
    heard: Heard = []
    with on_progress(lambda *each: heard.append(each)):
        with progress.stage("outer"), progress.stage("inner"):
            progress.report("work", 1, 2)
        with progress.stage(lambda name: name.upper()):
            progress.report("work", 2, 2)
    assert [name for name, _, _ in heard] == ["outer: inner: work", "WORK"]


def test_a_failed_block_restores_the_listener() -> None:
    heard: Heard = []
    with on_progress(lambda *each: heard.append(each)):
        try:
            with progress.stage("lost"):
                raise ValueError
        except ValueError:
            progress.report("work", 1, 1)
    assert heard == [("work", 1, 1)]


def test_a_title_with_braces_is_not_a_pattern() -> None:
    heard: Heard = []
    with on_progress(lambda *each: heard.append(each)), progress.stage("set {x}"):
        progress.report("work", 1, 1)
    assert heard == [("set {x}: work", 1, 1)]
