"""What the house asks of a task: collect experience, score actions and policies, know the reference scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from pmpo_offline.data.experience import Experience
from pmpo_offline.policies import MixturePolicy
from pmpo_offline.runtime.errors import UserError


@dataclass(frozen=True)
class Outcome:
    """How n episodes went."""

    returns: NDArray[np.float64]
    length: NDArray[np.int64]
    success: NDArray[np.bool_]
    """Whether the task was solved; where tasks know no success, nowhere."""


@dataclass(frozen=True)
class Scored:
    """K candidate actions at each of S recorded steps with their true values, where a task knows them."""

    row: NDArray[np.int64]
    """(S,), ascending: the step that holds the state."""
    action: NDArray[np.float32]
    """(S, K, A)."""
    score: NDArray[np.float32]
    """(S, K)."""


B = TypeVar("B", bound=BaseModel)


def behaviors(task: str, model: type[B], declared: Sequence[Mapping[str, Any]]) -> list[B]:
    """Return a recipe's [[behavior]] entries as the task's own model; `UserError` for a malformed one, and for none."""
    try:
        mixture = [model.model_validate(each) for each in declared]
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"task {task}: behavior: {where}: {first['msg'].lower()}") from None
    if not mixture:
        raise UserError(f"task {task} needs at least one [[behavior]] to collect from")
    return mixture


class Task(Protocol):
    """A task; `tasks.get` makes one by its id."""

    id: str
    simulators: tuple[str, ...]
    """The packages whose versions the experience depends on."""

    @property
    def observation_dim(self) -> int:
        """O."""
        ...

    @property
    def action_dim(self) -> int:
        """A."""
        ...

    def sources(self, behaviors: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """Return the sha256 of every file, by a short name, that the declared behaviours act by."""
        ...

    def collect(
        self,
        behaviors: Sequence[Mapping[str, Any]],
        episodes: int,
        seed: int,
        workers: int,
        folder: Path,
    ) -> Experience:
        """Record episodes of the declared behaviours, going on from what `folder` holds.

        Raises `UserError` if the declaration is malformed.
        """
        ...

    def candidates(
        self, behaviors: Sequence[Mapping[str, Any]], experience: Experience, states: int, actions: int, seed: int
    ) -> Scored | None:
        """Draw `actions` from the behaviour at (up to) `states` recorded steps and return their true values.

        None where only a critic can tell them.
        """
        ...

    def score(
        self,
        policy: MixturePolicy,
        episodes: int,
        threads: int,
    ) -> tuple[Outcome, list[str]]:
        """Play held-out episodes with every stacked policy: outcomes run by run, (runs * episodes,), layouts' names."""
        ...

    def references(self, episodes: int, seed: int, threads: int) -> tuple[Outcome, Outcome]:
        """Measure what is 0 and what is 100 of the normalized score."""
        ...
