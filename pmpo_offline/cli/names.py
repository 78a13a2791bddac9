"""Names on the command line: completion in shells, and unknown ones answered before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pmpo_offline.runtime.errors import PmpoOfflineError, unknown


def _completing(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Return a completion of words; one that fails offers nothing."""

    def complete(incomplete: str) -> list[str]:
        try:
            return [name for name in names() if name.startswith(incomplete)]
        except PmpoOfflineError:
            return []

    return complete


def _datasets() -> Iterable[str]:
    from pmpo_offline.data import stored_ids
    from pmpo_offline.declarations import catalog

    return sorted({*stored_ids(), *(declaration.id for declaration in catalog.datasets())})


def _algorithms() -> Iterable[str]:
    from pmpo_offline.declarations import catalog

    return catalog.algorithm_names()


def _suites() -> Iterable[str]:
    from pmpo_offline.declarations import catalog

    return [suite.name for suite in catalog.suites()]


def _control_tasks() -> Iterable[str]:
    from pmpo_offline.tasks.task import CONTROL_TASKS

    return [task.partition("/")[2] for task in CONTROL_TASKS]


datasets, algorithms, suites = _completing(_datasets), _completing(_algorithms), _completing(_suites)
control_tasks = _completing(_control_tasks)


def check_control_task(name: str) -> None:
    """Raise `UserError` if there is no control task of this name."""
    from pmpo_offline.tasks.task import CONTROL_TASKS

    known = CONTROL_TASKS if "/" in name else _control_tasks()
    if name not in known:
        raise unknown("control task", name, known)
