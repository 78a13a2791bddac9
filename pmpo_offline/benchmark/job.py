"""What one cell is to produce: its rows with their keys, and the columns that all of a row's episodes share."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import polars as pl

from pmpo_offline import __version__
from pmpo_offline.benchmark.results import key
from pmpo_offline.benchmark.suite import Cell, Settings
from pmpo_offline.declarations.catalog import SuiteDeclaration
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.training.config import settle
from pmpo_offline.training.shuffle import expected, identified

if TYPE_CHECKING:
    from pmpo_offline.data import Dataset

Learn = Callable[["Job", dict[str, Settings]], Iterable[tuple[str, pl.DataFrame]]]
"""Trains and evaluates the missing rows of a job, by key, and returns their raw scores as they come, by key."""
RESPONSES = "responses"
"""The kind of dataset whose cells are language models."""


def base_model(dataset: Dataset) -> str:
    """Return the name of the model that made a dataset's responses: what learning starts from.

    Raises `UserError` where nobody knows.
    """
    name = dataset.metadata.provenance.settings.get("model")
    if not isinstance(name, str):
        raise UserError(f"{dataset.metadata.id} does not say which model its responses are of: there is no reference")
    return name


@dataclass(frozen=True)
class Job:
    """A cell with its opened dataset."""

    suite: SuiteDeclaration
    cell: Cell
    dataset: Dataset
    content: str
    """The hash of what is learned from, labels included."""

    @cached_property
    def rows(self) -> dict[str, Settings]:
        """The complete settings of the cell's rows by their keys; `UserError` for settings that are impossible here."""
        learned_from = self.dataset
        if self.is_language:
            from pmpo_offline.training.language.responses import part

            learned_from = part(self.dataset, "train")  # whose bounds are those of its own labels
        if self.cell.shuffled:
            learned_from = expected(learned_from)
        complete = (settle(self.cell.algorithm, settings, learned_from) for settings in self.cell.settings)
        return {key(self.determinants(settings)): settings for settings in complete}

    def determinants(self, settings: Settings) -> dict[str, Any]:
        """Return everything that the scores of one row depend on."""
        references = self.dataset.metadata.references
        learner = {"name", "family", "objective", "rows", "top", "start", "critic"}
        return {
            "dataset": self.cell.condition.dataset,
            "content": self.content,
            "references": None if references is None else [references.min, references.max],
            # Without what is not declared: scores of before there were critics keep their keys.
            "algorithm": self.cell.algorithm.model_dump(include=learner, exclude_defaults=True),
            "training": self.training,
            "settings": settings,
            "shuffled": self.cell.shuffled and identified(self.dataset.metadata, self.cell.algorithm.rows),
            "seeds": self.suite.seeds,
            "episodes": self.suite.episodes,
            "versions": self.versions,
            **({"model": base_model(self.dataset)} if self.is_language else {}),
        }

    def constants(self, settings: Settings) -> dict[str, Any]:
        """Return the columns of the raw scores that are equal in all of a row's episodes."""
        metadata = self.dataset.metadata
        references = metadata.references
        return {
            "dataset": self.cell.condition.dataset,
            "dataset_sha": self.content,
            "algo": self.cell.algorithm.name,
            "settings": json.dumps(settings),
            "training": json.dumps(self.training),
            "imbalance": metadata.imbalance.asked,
            "share": metadata.imbalance.achieved,
            "noise": metadata.noise,
            "shuffled": self.cell.shuffled,
            "reference": self.cell.reference,
            "reference_min": None if references is None else references.min,
            "reference_max": None if references is None else references.max,
            "beta": settings.get("beta"),
            "versions": json.dumps(self.versions),
        }

    @property
    def is_language(self) -> bool:
        """Whether what is trained is a language model."""
        return self.dataset.metadata.kind == RESPONSES

    @property
    def training(self) -> dict[str, Any]:
        """The trainer's hyperparameters."""
        return {**self.cell.algorithm.training, **self.overrides}

    @property
    def overrides(self) -> dict[str, Any]:
        """What the suite sets in place of the algorithm's own training hyperparameters."""
        name = "steps" if self.is_language else "updates"
        return self.suite.training | ({} if self.suite.updates is None else {name: self.suite.updates})

    @property
    def versions(self) -> dict[str, str]:
        """The versions of what the scores come from."""
        packages = ("numpy", "peft", "torch", "transformers") if self.is_language else ("mujoco", "numpy", "torch")
        return {"pmpo-offline": __version__} | {name: importlib.metadata.version(name) for name in packages}
