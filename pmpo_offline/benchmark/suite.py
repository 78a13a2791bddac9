"""Expand a suite into the cells that are trained, and a cell with its dataset into the keys of its rows.

```
suite ─ datasets × imbalance × balance × noise ─┬─ algorithm ──────── settings × seeds
       (one opened dataset each)                ├─ algorithm ──────── settings × seeds      a cell: one stack of runs
                                                └─ shuffled control ─ settings × seeds
```
A dataset's family decides which hyperparameters an algorithm takes there, so that one suite may hold several families.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from pmpo_offline import __version__
from pmpo_offline.declarations import OBJECTIVES, catalog
from pmpo_offline.declarations.catalog import AlgorithmDeclaration, Balance, Share, SuiteDeclaration
from pmpo_offline.objectives import Words
from pmpo_offline.runtime.errors import UserError, unknown
from pmpo_offline.runtime.hashing import hash_json, version
from pmpo_offline.training.config import Setup, complete, hyperparameters, rows_drawn
from pmpo_offline.training.control.config import TrainingSettings
from pmpo_offline.training.shuffle import check_control, expected, identified

if TYPE_CHECKING:
    from pmpo_offline.data import Dataset

Settings = dict[str, Any]
Sweep = Mapping[str, Mapping[str, Sequence[Any]]]
"""Values to try, by algorithm and setting: `{"pmpo": {"beta": [0.5, 1, 2]}}`."""


@dataclass(frozen=True)
class Condition:
    """A dataset with its labels: the data that all algorithms of a table share."""

    dataset: str
    imbalance: Share
    """Accepted share; "collected": without a balance; None: as the dataset has it."""
    noise: float | None
    """Rate of flipped labels; None: as the dataset has it."""
    balance: Balance = "labels"
    """What is dropped for the accepted share."""

    @classmethod
    def of(cls, dataset: str, imbalance: Share, balance: Balance, noise: float | None) -> Condition:
        """Return a condition; without a share of its own nothing is dropped for it."""
        return cls(dataset, imbalance, noise, balance if isinstance(imbalance, float) else "labels")

    @property
    def title(self) -> str:
        """The data in a few words."""
        share, noise = self.imbalance, f", noise {self.noise:g}" if self.noise else ""
        noise = f" by rows{noise}" if self.balance == "rows" else noise
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
        """The algorithm and the data in a few words."""
        return f"{self.algorithm.name}{' on shuffled labels' if self.shuffled else ''}, {self.condition.title}"


@dataclass(frozen=True)
class Job:
    """A cell with its opened dataset."""

    suite: SuiteDeclaration
    cell: Cell
    dataset: Dataset

    @cached_property
    def rows(self) -> dict[str, Settings]:
        """The complete settings of the cell's rows by key; `UserError` for settings that are impossible here."""
        complete = (self.setup(each).settings for each in self.cell.settings)
        return {self.key(settings): settings for settings in complete}

    def setup(self, settings: Settings) -> Setup:
        """Return what is trained with these settings; `UserError` for some that are impossible here."""
        algorithm = self.cell.algorithm
        rows = rows_drawn(algorithm, self.overrides, self.dataset)
        return Setup(algorithm, settings, self.learned_from, rows).settled()

    @cached_property
    def learned_from(self) -> Dataset:
        """The dataset whose labels the bounds on β are of: those that are trained on, shuffled ones on average."""
        dataset = self.dataset
        if self.is_language:
            from pmpo_offline.training.language.responses import take_split

            dataset = take_split(dataset, "train")
        return expected(dataset) if self.cell.shuffled else dataset

    def key(self, settings: Settings) -> str:
        """Return the key of a row: a short hash of everything that its scores depend on."""
        return hash_json(self.determinants(settings))[:16]

    def determinants(self, settings: Settings) -> dict[str, Any]:
        """Return everything that the scores of one row depend on."""
        references = self.dataset.metadata.references
        learner = {"name", "family", "objective", "rows", "top", "start", "critic"}
        return {
            "dataset": self.cell.condition.dataset,
            "content": self.dataset.fingerprint,
            "references": None if references is None else [references.min, references.max],
            # Undeclared fields are left out: scores from before critics keep their keys.
            "algorithm": self.cell.algorithm.model_dump(include=learner, exclude_defaults=True),
            "training": self.training,
            "settings": settings,
            "shuffled": self.cell.shuffled and identified(self.dataset.metadata, self.cell.algorithm.rows),
            "seeds": self.suite.seeds,
            "episodes": self.suite.episodes,
            # Only where they are not from the beginning, so that all other keys stay the same.
            **({"first_seed": self.suite.first_seed} if self.suite.first_seed else {}),
            **({"first_episode": self.suite.first_episode} if self.suite.first_episode else {}),
            "versions": self.versions,
            **({"model": self.model} if self.is_language else OBJECTIVES[self.cell.algorithm.objective].version),
        }

    def constants(self, settings: Settings) -> dict[str, Any]:
        """Return the columns of the raw scores that are equal in all of a row's episodes."""
        metadata = self.dataset.metadata
        references = metadata.references
        return {
            "dataset": self.cell.condition.dataset,
            "dataset_sha": self.dataset.fingerprint,
            "labels_sha": self.dataset.labels_hash,
            "labels_here": metadata.score.is_local,
            "algo": self.cell.algorithm.name,
            "settings": json.dumps(settings),
            "training": json.dumps(self.training),
            "imbalance": metadata.imbalance.asked,
            "balance": metadata.imbalance.balance,
            "share": metadata.imbalance.achieved,
            "noise": metadata.noise,
            "shuffled": self.cell.shuffled,
            "reference": self.cell.reference,
            "filtered": self.cell.algorithm.name in self.suite.filtered,
            "reference_min": None if references is None else references.min,
            "reference_max": None if references is None else references.max,
            "beta": settings.get("beta"),
            "beta_collapse": self.setup(settings).collapse,
            "versions": json.dumps(self.versions),
        }

    @property
    def seeds(self) -> range:
        """The seeds of the training runs."""
        return range(self.suite.first_seed, self.suite.first_seed + self.suite.seeds)

    @property
    def is_language(self) -> bool:
        """Whether what is trained is a language model."""
        return self.dataset.metadata.kind == "responses"

    @property
    def model(self) -> str:
        """The name of the model that made the dataset's responses, where training starts; `UserError` if undeclared."""
        metadata = self.dataset.metadata
        name = metadata.provenance.settings.get("model")
        if not isinstance(name, str):
            raise UserError(f"{metadata.id} does not say which model its responses are of: there is no reference")
        return name

    @property
    def training(self) -> dict[str, Any]:
        """The trainer's hyperparameters."""
        return {**self.cell.algorithm.training, **self.overrides}

    @property
    def overrides(self) -> dict[str, Any]:
        """The hyperparameters that the suite sets in place of the algorithm's own."""
        name, updates = "steps" if self.is_language else "updates", self.suite.updates
        counted: dict[str, int] = {} if updates is None else {name: updates}
        if updates and self.suite.pretraining and self.cell.algorithm.start == "reference" and not self.is_language:
            clone = max(1, round(updates * self.suite.pretraining))
            counted = {"updates": max(1, updates - clone), "pretraining": clone}
        return self.suite.training | counted

    @property
    def versions(self) -> dict[str, str]:
        """The versions of the packages that the scores come from."""
        packages = ("numpy", "peft", "torch", "transformers") if self.is_language else ("mujoco", "numpy", "torch")
        return {"pmpo-offline": __version__} | {name: version(name) for name in packages}


def expand(
    suite: SuiteDeclaration,
    families: Mapping[str, str],
    *,
    algos: Sequence[str] | None = None,
    sweep: Sweep | None = None,
) -> list[Cell]:
    """Return the suite's cells, those on equal data next to one another.

    Args:
        suite: to expand.
        families: the family of each of its datasets.
        algos: run only these, beside the suite's reference, its filtered clones, and the shuffled controls of those
            that the suite names. A .toml takes the place of what the suite has by its name, as a tuned clone does.
        sweep: values to try, in every family alike.

    Raises:
        UserError: an algorithm that is unknown or not declared for a dataset's family, an unknown objective or setting,
            a value that a setting does not allow, a sweep over an algorithm that does not run, a control of one that
            uses no labels, or two algorithms of one name.
    """
    arms = {family: _arms(suite, family, algos, sweep or {}) for family in dict.fromkeys(families.values())}
    grid = itertools.product(suite.datasets, suite.imbalance, suite.balance, suite.noise)
    return [
        Cell(condition, *arm)
        for condition in dict.fromkeys(Condition.of(*values) for values in grid)  # duplicates run once
        for arm in arms[families[condition.dataset]]
    ]


Arm = tuple[AlgorithmDeclaration, tuple[Settings, ...], bool, bool]
"""A cell without its condition."""


def _arms(suite: SuiteDeclaration, family: str, algos: Sequence[str] | None, sweep: Sweep) -> list[Arm]:
    """Return the arms of every condition of a family."""

    if algos is not None and not len(algos):
        raise UserError("algos is empty: name one or more, or leave it out for all of the suite's")
    own = {Path(name).stem: name for name in algos or () if name.endswith(".toml")}

    def find(name: str) -> AlgorithmDeclaration:
        return catalog.algorithm(own.get(name, name), family)

    reference = [find(suite.reference)] if suite.reference else []
    algorithms: dict[str, AlgorithmDeclaration] = {}
    for name in [*filter(None, [suite.reference]), *suite.filtered, *(algos or suite.algorithms)]:
        algorithm = find(name)
        if algorithms.setdefault(algorithm.name, algorithm) != algorithm:
            raise UserError(f"two algorithms are called {algorithm.name}: rename your .toml, its name is the file's")
        with catalog.located(own.get(name, name)):
            complete(algorithm, {})
            hyperparameters(algorithm, suite.training, _training_settings(family))
    controls = {_control(find(name)) for name in suite.shuffled}
    for name in sweep:
        if name not in algorithms:
            raise unknown("algorithm in a setting", name, algorithms)
        if empty := [setting for setting, values in sweep[name].items() if not len(values)]:
            raise UserError(f"{name}.{empty[0]} has no values: give one or more, or leave it out")
    return [
        (algorithm, stack, shuffled, algorithm in reference)
        for name, algorithm in algorithms.items()
        for shuffled in ([False, True] if name in controls else [False])
        for stack in _stacks(algorithm, sweep.get(name, {}))
    ]


def _training_settings(family: str) -> type[BaseModel]:
    if family != "language":
        return TrainingSettings
    from pmpo_offline.training.language.config import LanguageSettings  # which imports transformers

    return LanguageSettings


def _control(algorithm: AlgorithmDeclaration) -> str:
    """Return the algorithm's name if its feedback can be shuffled, else raise `UserError`."""
    try:
        check_control(algorithm, responses=algorithm.family == "language")
    except UserError as error:
        raise UserError(f"shuffled: {error}: take it out of the list", ["shuffled"]) from None
    return algorithm.name


def _stacks(algorithm: AlgorithmDeclaration, sweep: Mapping[str, Sequence[Any]]) -> list[tuple[Settings, ...]]:
    """Return every combination of settings, in groups that differ in numbers only: numbers stack as a tensor."""
    stacks: dict[str, list[Settings]] = {}
    for combination in itertools.product(*sweep.values()):
        settings = complete(algorithm, dict(zip(sweep, combination, strict=True)))
        allowed = OBJECTIVES[algorithm.objective].allowed
        words = {name: value for name, value in settings.items() if isinstance(allowed.get(name), Words)}
        stack = stacks.setdefault(repr(sorted(words.items())), [])
        if settings not in stack:
            stack.append(settings)
    return [tuple(stack) for stack in stacks.values()]
