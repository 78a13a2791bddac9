"""Critics that learn from rewards beside the policy, whose values and advantages are inputs of objectives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Protocol

from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor

from pmpo_offline.data import Rows
from pmpo_offline.declarations.catalog import AlgorithmDeclaration
from pmpo_offline.policies import MixturePolicy
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.training.critics.iql import ExpectileCritic, ExpectileSettings
from pmpo_offline.training.critics.td3 import TwinDelayedCritic, TwinDelayedSettings

RewardCriticSettings = Annotated[ExpectileSettings | TwinDelayedSettings, Field(discriminator="kind")]


class Critic(Protocol):
    """Learns from the rows of each minibatch before the policy does."""

    delay: int
    """Its updates to one of the policy."""

    @property
    def tensors(self) -> list[Tensor]:
        """All that a checkpoint has to hold, the same storage at every call: writing into it restores the critic."""
        ...

    @property
    def advantage(self) -> Tensor:
        """Advantages of the recorded actions of the last minibatch, (R, B)."""
        ...

    def learn(self, index: Tensor, step: int) -> None:
        """Learn from the rows of `index`, (R, B), in update `step`."""
        ...

    def value(self, index: Tensor, action: Tensor) -> Tensor:
        """Return Q of actions (R, B, A) at the rows of `index`, (R, B), with a gradient for the actions alone."""
        ...


def critic_settings(algorithm: AlgorithmDeclaration) -> ExpectileSettings | TwinDelayedSettings:
    """Return the settings of an algorithm's critic; `UserError` for malformed ones."""
    if algorithm.rows in ("candidates", "pairs"):
        raise UserError(
            f'{algorithm.name} has a critic, which learns from recorded steps, and rows = "{algorithm.rows}": '
            'take "all"'
        )
    try:
        return TypeAdapter(RewardCriticSettings).validate_python(algorithm.critic)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "kind"
        raise UserError(f"critic of {algorithm.name}: {where}: {first['msg'].lower()}") from None


def make_critic(algorithm: AlgorithmDeclaration, rows: Rows, seeds: Sequence[int], policy: MixturePolicy) -> Critic:
    """Return the untrained critic that an algorithm declares."""
    settings = critic_settings(algorithm)
    if isinstance(settings, ExpectileSettings):
        return ExpectileCritic(settings, rows, seeds, policy)
    return TwinDelayedCritic(settings, rows, seeds, policy)
