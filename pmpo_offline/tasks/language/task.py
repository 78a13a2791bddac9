"""What the house asks of a language task: prompts, and a reward for what is answered to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pmpo_offline.runtime.errors import UserError, unknown


class LanguageTask(Protocol):
    """A task; `tasks.language.get` makes one by its id."""

    id: str
    model: str
    """Name of the model that answers unless a recipe says otherwise."""
    tokens: int
    """The longest completion, its end counted."""
    ends: bool
    """Whether completions end by themselves; otherwise all have exactly `tokens` tokens."""

    def prompts(self, count: int, seed: int) -> list[str]:
        """Return different prompts, as the model sees them, in random order; more begin with fewer of one seed.

        Raises `UserError` if there are not that many.
        """
        ...

    def reward(self, prompts: Sequence[str], completions: Sequence[str]) -> NDArray[np.float32]:
        """Return what each completion is worth, (n,); `UserError` for a prompt that is not of this task."""
        ...


class SamplingSettings(BaseModel):
    """A recipe's [sampling]: who answers, how often, and which prompts are kept for tests."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: str | None = None
    """See `models.model_directory`; None: the task's own."""
    responses: Annotated[int, Field(ge=1)] = 4
    """K, completions of every prompt."""
    test: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the prompts that learners never see."""

    @classmethod
    def of(cls, dataset: str, declared: Mapping[str, Any]) -> SamplingSettings:
        """Return the settings of a dataset's recipe; `UserError` for malformed ones."""
        try:
            return cls.model_validate(declared)
        except ValidationError as error:
            first = error.errors()[0]
            if first["type"] == "extra_forbidden":
                raise unknown("key of [sampling]", str(first["loc"][-1]), cls.model_fields) from None
            where = ".".join(map(str, first["loc"]))
            raise UserError(f"dataset {dataset}: sampling.{where}: {first['msg'].lower()}") from None
