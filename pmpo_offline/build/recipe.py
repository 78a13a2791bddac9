"""A recipe: a dataset's declaration with a user's changes, and the names that follow from it."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from typing import Any, Self

from pydantic import ValidationError

from pmpo_offline import tasks
from pmpo_offline.build.naming import digest, variant
from pmpo_offline.data import LabelRule
from pmpo_offline.declarations import catalog
from pmpo_offline.declarations.catalog import DatasetDeclaration
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.training import CandidateSettings, CriticSettings

_EXPERIENCE = 1
"""Raise it when physics, observations, rewards or critics change: kept experience of before is then left alone."""


@dataclass(frozen=True)
class Recipe:
    """A declaration with a user's changes: everything that a dataset depends on."""

    declaration: DatasetDeclaration
    episodes: int
    seed: int
    label: LabelRule
    imbalance: float | None
    noise: float
    critic: CriticSettings
    candidates: CandidateSettings | None

    @classmethod
    def of(cls, declaration: DatasetDeclaration, **changes: Any) -> Self:
        """Apply the changes that are not None. Raises `UserError` for what is malformed."""
        given = {name: value for name, value in changes.items() if value is not None}
        merged = catalog.revise(declaration, "build-dataset", given)
        try:
            critic = CriticSettings.model_validate(merged.critic)
            candidates = CandidateSettings.model_validate(merged.candidates) if merged.candidates else None
        except ValidationError as error:
            first = error.errors()[0]
            raise UserError(
                f"dataset {declaration.id}: {'.'.join(map(str, first['loc']))}: {first['msg'].lower()}"
            ) from None
        rule = LabelRule.parse(merged.label)
        return cls(declaration, merged.episodes, merged.seed, rule, merged.imbalance, merged.noise, critic, candidates)

    @property
    def id(self) -> str:
        """The declared id; one of its own where settings differ: readable for one change, else with their hash."""
        declared = Recipe.of(self.declaration)
        names = ("episodes", "seed", "label", "imbalance", "noise")
        changed = {name: getattr(self, name) for name in names if getattr(self, name) != getattr(declared, name)}
        return variant(self.declaration.id, changed)

    @property
    def digest(self) -> str:
        """A hash of everything that was asked for: two datasets of one recipe are equal."""
        asked = [self.declaration.task, self.declaration.behavior, self.episodes, self.seed]
        asked += [str(self.label), self.imbalance, self.noise, self.judged]
        return digest(asked + self._sources)

    @property
    def raw(self) -> str:
        """Name of the folder that raw experience is kept in: a hash of all that it depends on."""
        recorded = [_EXPERIENCE, self.declaration.task, self.declaration.behavior, self.episodes, self.seed]
        simulators = tasks.get(self.declaration.task).simulators
        versions = "+".join(map(importlib.metadata.version, simulators))
        return digest([recorded, versions, *self._sources])[:16]

    @property
    def _sources(self) -> list[str]:
        return list(tasks.get(self.declaration.task).sources(self.declaration.behavior).values())

    @property
    def judged(self) -> str:
        """Name of the file with the critics' scores, likewise."""
        candidates = self.candidates.model_dump() if self.candidates else None
        return f"judged-{digest([self.critic.model_dump(), candidates])[:16]}.npz"
