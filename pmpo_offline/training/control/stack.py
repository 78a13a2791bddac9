"""What is trained as one batch: runs of an algorithm on a dataset, their settings, their bounds, and their identity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pmpo_offline.data import Dataset, columns
from pmpo_offline.declarations import OBJECTIVES
from pmpo_offline.declarations.catalog import AlgorithmDeclaration
from pmpo_offline.objectives import Objective
from pmpo_offline.training.config import Setup, algorithm_for, hyperparameters, training_identity
from pmpo_offline.training.control.config import TrainingSettings
from pmpo_offline.training.shuffle import expected

CLONE = "bc"
"""The algorithm that makes the reference, in every family."""


@dataclass(frozen=True)
class Stack:
    """Runs that are trained as one batch: every combination of settings and seeds of an algorithm on a dataset."""

    dataset: Dataset
    algorithm: AlgorithmDeclaration
    seeds: Sequence[int] = (0,)
    settings: Sequence[Mapping[str, Any]] = ({},)
    """Of the objective, over those that the algorithm declares; they may differ in numbers."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Training hyperparameters in place of the declared ones."""
    shuffled: bool = False
    """Permute the labels, as a control."""

    @cached_property
    def objective(self) -> Objective:
        """The objective that the algorithm minimises."""
        return OBJECTIVES[self.algorithm.objective]

    @cached_property
    def hyper(self) -> TrainingSettings:
        """The training hyperparameters, complete."""
        return hyperparameters(self.algorithm, self.overrides, TrainingSettings)

    @cached_property
    def setups(self) -> list[Setup]:
        """The algorithm with each of the settings, on the labels as they are; on permuted ones on average."""
        labelled = expected(self.dataset) if self.shuffled else self.dataset
        return [Setup(self.algorithm, dict(each), labelled, self.hyper.batch).settled() for each in self.settings]

    @cached_property
    def complete(self) -> list[dict[str, Any]]:
        """The objective's settings, complete."""
        return [setup.settings for setup in self.setups]

    @cached_property
    def runs(self) -> list[tuple[dict[str, Any], int]]:
        """Settings and seed of every run, in the policy's order."""
        return [(settings, seed) for settings in self.complete for seed in self.seeds]

    @cached_property
    def clone(self) -> Stack | None:
        """The clone of the behaviour that this starts from or is compared with, one a seed; None if it needs none."""
        declared = algorithm_for(CLONE, self.dataset)
        compared = any(settings.get("divergence", "behavior") != "behavior" for settings in self.complete)
        if not (compared or self.algorithm.start == "reference" or self.algorithm == declared):
            return None
        own: dict[str, Any] = {"components": self.hyper.components, "hidden": self.hyper.hidden, "refresh": 0.0}
        own |= {"epsilon_target": None, "pretraining": None}
        if self.hyper.pretraining:
            own["updates"] = self.hyper.pretraining
        return Stack(self.dataset, declared, self.seeds, overrides={**self.overrides, **own})

    @cached_property
    def is_clone(self) -> bool:
        """True if the clone itself is trained."""
        return self.clone is not None and self.algorithm == self.clone.algorithm

    @cached_property
    def identity(self) -> str:
        """The hash of all that the trained policies depend on."""
        meta = self.dataset.metadata
        # Labels do not enter a clone, so that every labelling of the data shares it.
        cloned = {"table": self.dataset.table.select(["observation", "action"])}
        return training_identity(
            dataset=columns.hash_tables(cloned) if self.is_clone else [self.dataset.fingerprint, meta.unit],
            **({"actions": meta.actions} if meta.actions else {}),
            score=None if self.is_clone else meta.score.name,
            algorithm=self.algorithm.model_dump(),
            settings=self.complete,
            seeds=list(self.seeds),
            training=self.hyper.identified,
            shuffled=self.shuffled,
            reference=self.clone.identity if self.clone and not self.is_clone else None,
            **self.objective.version,
        )

    def named(self, run: int, *, differing: bool = False) -> str:
        """Return the seed and the settings of a run, or only those by which it differs from others of the stack."""
        settings, seed = self.runs[run]
        shown = {
            name: f"{value:g}" if isinstance(value, float) else value
            for name, value in settings.items()
            if not differing or any(each.get(name) != value for each in self.complete)
        }
        return ", ".join([f"seed {seed}", *(f"{name} {value}" for name, value in shown.items())])
