"""Expand a suite into the cells that are trained: what varies, in the order in which it runs.

```
suite ─ datasets × imbalance × noise ─┬─ algorithm ──────── settings × seeds
       (one opened dataset each)      ├─ algorithm ──────── settings × seeds      a cell: one stack of runs
                                      └─ shuffled control ─ settings × seeds
```
A dataset's family decides which hyperparameters an algorithm takes there, so that one suite may hold several families.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pmpo_offline.declarations import OBJECTIVES, catalog
from pmpo_offline.declarations.catalog import AlgorithmDeclaration, Share, SuiteDeclaration
from pmpo_offline.objectives import Words
from pmpo_offline.runtime.errors import UserError, unknown
from pmpo_offline.training.config import complete
from pmpo_offline.training.shuffle import check_control

Settings = dict[str, Any]
Sweep = Mapping[str, Mapping[str, Sequence[Any]]]
"""Values to try, by algorithm and setting: `{"pmpo": {"beta": [0.5, 1, 2]}}`."""


@dataclass(frozen=True)
class Condition:
    """A dataset with its labels: what every algorithm of the table is given alike."""

    dataset: str
    imbalance: Share
    """Accepted share; "collected": without a balance; None: as the dataset has it."""
    noise: float | None
    """Rate of flipped labels; None: as the dataset has it."""

    @property
    def title(self) -> str:
        """Say in a few words what is learned from."""
        share, noise = self.imbalance, f", noise {self.noise:g}" if self.noise else ""
        if share is None:
            return f"{self.dataset}{noise}"
        return f"{self.dataset} {'as collected' if share == 'collected' else f'at {share:g}'}{noise}"


@dataclass(frozen=True)
class Cell:
    """Runs that are trained as one stacked batch: an algorithm on one condition, all its settings and seeds."""

    condition: Condition
    algorithm: AlgorithmDeclaration
    settings: tuple[Settings, ...]
    """Complete settings, one a row of the table; all but their numbers are equal."""
    shuffled: bool
    reference: bool

    @property
    def title(self) -> str:
        """Say in a few words what is being run."""
        return f"{self.algorithm.name}{' on shuffled labels' if self.shuffled else ''}, {self.condition.title}"


def expand(
    suite: SuiteDeclaration,
    families: Mapping[str, str],
    *,
    algos: Sequence[str] | None = None,
    sweep: Sweep | None = None,
) -> list[Cell]:
    """Return the suite's cells, those on equal data next to one another.

    With `algos` only these run, beside the suite's reference and the shuffled controls of those that it names.

    Args:
        suite: what to expand.
        families: the family of each of its datasets.
        algos: run only these.
        sweep: values to try, in every family alike.

    Raises:
        UserError: an algorithm that is unknown or not declared for a dataset's family, an unknown objective or setting,
            a value that a setting does not allow, a sweep over an algorithm that does not run, a control of one that
            uses no labels, or two algorithms of one name.
    """
    arms = {family: _arms(suite, family, algos, sweep or {}) for family in dict.fromkeys(families.values())}
    grid = itertools.product(suite.datasets, suite.imbalance, suite.noise)
    return [
        Cell(condition, *arm)
        for condition in dict.fromkeys(Condition(*values) for values in grid)  # what is asked for twice runs once
        for arm in arms[families[condition.dataset]]
    ]


Arm = tuple[AlgorithmDeclaration, tuple[Settings, ...], bool, bool]
"""A cell without its condition."""


def _arms(suite: SuiteDeclaration, family: str, algos: Sequence[str] | None, sweep: Sweep) -> list[Arm]:
    """Return what runs on every condition of a family."""

    def find(name: str) -> AlgorithmDeclaration:
        return catalog.algorithm(name, family)

    chosen = [find(name) for name in algos or suite.algorithms]
    reference = [find(suite.reference)] if suite.reference else []
    algorithms: dict[str, AlgorithmDeclaration] = {}
    for algorithm in (*reference, *chosen):
        if algorithms.setdefault(algorithm.name, algorithm) != algorithm:
            raise UserError(f"two algorithms are called {algorithm.name}: rename your .toml, its name is the file's")
    controls = {_control(find(name)) for name in suite.shuffled}
    for name in sweep:
        if name not in algorithms:
            raise unknown("algorithm in a setting", name, algorithms)
    return [
        (algorithm, stack, shuffled, algorithm in reference)
        for name, algorithm in algorithms.items()
        for shuffled in ([False, True] if name in controls else [False])
        for stack in _stacks(algorithm, sweep.get(name, {}))
    ]


def _control(algorithm: AlgorithmDeclaration) -> str:
    """Return the name of an algorithm whose feedback may be shuffled; `UserError` for another."""
    try:
        check_control(algorithm, responses=algorithm.family == "language")
    except UserError as error:
        raise UserError(f"shuffled: {error}: take it out of the list") from None
    return algorithm.name


def _stacks(algorithm: AlgorithmDeclaration, sweep: Mapping[str, Sequence[Any]]) -> list[tuple[Settings, ...]]:
    """Return every combination of settings, in groups that differ in numbers only: numbers stack as a tensor."""
    stacks: dict[str, list[Settings]] = {}
    for combination in itertools.product(*sweep.values()):
        settings = complete(algorithm, dict(zip(sweep, combination, strict=True)))
        allowed = OBJECTIVES[algorithm.objective].allowed
        words = {name: value for name, value in settings.items() if isinstance(allowed[name], Words)}
        stack = stacks.setdefault(repr(sorted(words.items())), [])
        if settings not in stack:
            stack.append(settings)
    return [tuple(stack) for stack in stacks.values()]
