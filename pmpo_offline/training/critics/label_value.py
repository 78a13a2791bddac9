"""DRO's value: how good the labels are that a policy near its reference gets in each state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import Tensor
from torch.nn.functional import embedding

from pmpo_offline.data import Rows
from pmpo_offline.objectives.rows import mean
from pmpo_offline.training.adam import Adam
from pmpo_offline.training.critics.critic import Critic, normalised, value_net

if TYPE_CHECKING:
    from pmpo_offline.training.control.batches import RowBatch


class LabelValueSettings(BaseModel):
    """Settings of DRO's value."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: Literal["dro"]
    hidden: tuple[PositiveInt, ...] = (256, 256)
    learning_rate: float = Field(default=3e-4, gt=0)


class LabelValue(Critic):
    """V(x) of each run, by the loss that `objectives.dro` minimises over the policy.

    Richemond et al., arXiv 2405.19107, DRO-V: the squared error from 1[accepted] - T (log pi - log pi_ref) on labelled
    rows. States are normalised by column, as the policies do.
    """

    def __init__(self, settings: LabelValueSettings, rows: Rows, seeds: Sequence[int]) -> None:
        self._states = normalised(rows.observation, rows)
        network = value_net([seed + 20_000 for seed in seeds], self._states.shape[1], settings.hidden, 0.5)
        self._network = network.to(self._states.device)
        self._adam = Adam(self._network.parameters(), settings.learning_rate)
        self.tensors = [*self._adam.weights, *self._adam.moments]
        self._last: Tensor

    @property
    def state_value(self) -> Tensor:
        """Before the last update, (R, B)."""
        return self._last

    def learn(self, batch: RowBatch, step: int) -> None:
        """Update V on the labelled rows of a minibatch."""
        value = self._network(embedding(batch.index, self._states)).squeeze(-1)
        target = (batch.label > 0).to(value) - batch.log_reward
        self._adam.minimise(mean((value - target).square(), batch.label.abs().to(value)))
        self._last = value.detach()
