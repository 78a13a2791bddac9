"""Critics that learn from rewards beside the policy, whose values and advantages are inputs of objectives.

iql   values of recorded actions only, the better ones by an expectile; its policy is the objective `awr`
td3   values of what the policy itself would do next; the policy's side is the objective `td3_bc`
dro   the soft value of each state's labels (`label_value`); the policy's side is the objective `dro`
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import Tensor
from torch.nn.functional import embedding

from pmpo_offline.data import Rows
from pmpo_offline.declarations.catalog import AlgorithmDeclaration
from pmpo_offline.objectives import expectile_loss
from pmpo_offline.policies import MixturePolicy
from pmpo_offline.runtime.arguments import validated
from pmpo_offline.runtime.errors import UserError, unknown
from pmpo_offline.training.adam import Adam
from pmpo_offline.training.critics.critic import Critic, DoubleQ, normalised, value_net
from pmpo_offline.training.critics.label_value import LabelValue, LabelValueSettings

if TYPE_CHECKING:
    from pmpo_offline.training.control.batches import RowBatch


class RewardCriticSettings(BaseModel):
    """Settings that the critics share; all defaults are the authors' (of IQL those for locomotion)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    discount: float = Field(default=0.99, ge=0, lt=1)
    hidden: tuple[PositiveInt, ...] = (256, 256)
    learning_rate: float = Field(default=3e-4, gt=0)
    follow: float = Field(default=0.005, gt=0, le=1)
    """Share of the way that target networks move whenever the policy does."""


class ExpectileSettings(RewardCriticSettings):
    """Settings of IQL's critic."""

    kind: Literal["iql"]
    expectile: float = Field(default=0.7, gt=0, lt=1)


class TwinDelayedSettings(RewardCriticSettings):
    """Settings of TD3's critic."""

    kind: Literal["td3"]
    noise: float = Field(default=0.2, ge=0)
    """Deviation of what is added to the next action."""
    clip: float = Field(default=0.5, ge=0)
    """Largest size of that."""
    delay: int = Field(default=2, ge=1)
    """Updates of the critic to one of the policy."""


class RewardCritic(Critic):
    """Double Q of each run, which learns from the rows of each minibatch before the policy does.

    States are normalised by column, as the policies do. Rewards are multiplied by 1 - discount, which brings values to
    the size of one reward. Values start at that of the average reward: target networks would need long to reach it.
    """

    def __init__(self, settings: RewardCriticSettings, rows: Rows, seeds: Sequence[int]) -> None:
        self._rows, self._states = rows, normalised(rows.states, rows)
        self._scale = 1 - settings.discount
        self._reward = rows.reward * self._scale
        self._discount = torch.where(rows.terminated, 0.0, settings.discount)
        self._level = float(self._reward.mean()) / self._scale
        inputs = rows.states.shape[1] + rows.action.shape[1]
        self._q = DoubleQ(seeds, inputs, settings.hidden, self._level, rows.states.device)

    def state(self, index: Tensor) -> Tensor:
        """Gather the normalised states of the rows of `index`: (R, B) -> (R, B, O)."""
        return embedding(index, self._states)

    def next_state(self, index: Tensor) -> Tensor:
        """Gather the normalised states that followed the rows of `index`: (R, B) -> (R, B, O)."""
        return embedding(self._rows.next_row[index], self._states)

    def bootstrapped(self, index: Tensor, following: Tensor) -> Tensor:
        """Return r + discount V(next) at the rows of `index`, (R, B); after a terminated step, unlike a cut one, r."""
        return self._reward[index] + self._discount[index] * following

    def value(self, index: Tensor, action: Tensor) -> Tensor:
        """Return Q of actions (R, B, A) at the rows of `index`, (R, B), with a gradient for the actions alone."""
        return self._q.value(self.state(index), action)


class ExpectileCritic(RewardCritic):
    """V and double Q.

    Kostrikov et al., *Offline reinforcement learning with implicit Q-learning*, arXiv 2110.06169: V by the expectile
    loss (Eq. 5) from the smaller of the target action values, Q by the squared error from r + discount V(next) (Eq. 6).
    The policy clones with the weight exp(advantage / temperature) (Eq. 7), which is `objectives.awr`. As in the
    authors' code, advantages are in units in which the best recorded episode is better than the worst one by 1 for each
    step of the longest: so their inverse temperature of 3 suits any task.
    """

    def __init__(self, settings: ExpectileSettings, rows: Rows, seeds: Sequence[int]) -> None:
        super().__init__(settings, rows, seeds)
        self._settings = settings
        own_seeds = [seed + 10_000 for seed in seeds]
        network = value_net(own_seeds, rows.states.shape[1], settings.hidden, self._level)
        self._value = network.to(rows.states.device)
        self._adam = Adam([*self._value.parameters(), *self._q.weights], settings.learning_rate)
        self.tensors = [*self._adam.weights, *self._adam.moments, *self._q.slow_weights]
        returns = rows.reward.new_zeros(int(rows.episode.max()) + 1).index_add(0, rows.episode, rows.reward)
        spread = float(returns.max() - returns.min())
        self._unit = float(rows.episode.bincount().max()) / spread if spread else 1.0  # equal episodes have no scale
        self._gain: Tensor

    @property
    def advantage(self) -> Tensor:
        """Q - V, in units of `_unit`, before the last update, (R, B)."""
        return self._gain / self._scale * self._unit

    def learn(self, batch: RowBatch, step: int) -> None:
        """Update V and Q on the rows of a minibatch."""
        index = batch.index
        state, action = self.state(index), embedding(index, self._rows.action)
        target = self._q.least(state, action)
        with torch.no_grad():
            following = self.bootstrapped(index, self._value(self.next_state(index)).squeeze(-1))
        value = self._value(state).squeeze(-1)
        loss = expectile_loss(value, target, self._settings.expectile)
        for action_value in self._q(state, action):
            loss = loss + (action_value - following).square().mean(-1)
        self._adam.minimise(loss)
        self._q.follow(self._settings.follow)
        self._gain = target - value.detach()


class TwinDelayedCritic(RewardCritic):
    """Double Q, and a target copy of the policy.

    Fujimoto et al., *Addressing function approximation error in actor-critic methods*, arXiv 1802.09477, Algorithm 1: Q
    by the squared error from r + discount * the smaller target value of the target policy's next action, to which
    clipped noise was added (Eq. 14). Actions are means, clipped to [-1, 1] as the environment clips them.
    """

    def __init__(self, settings: TwinDelayedSettings, rows: Rows, seeds: Sequence[int], policy: MixturePolicy) -> None:
        super().__init__(settings, rows, seeds)
        self._settings, self._policy, self.delay = settings, policy, settings.delay
        self._target_policy = deepcopy(policy).requires_grad_(False)
        self._target_weights = [weight.data for weight in self._target_policy.parameters()]
        self._adam = Adam(self._q.weights, settings.learning_rate)
        self.tensors = [*self._adam.weights, *self._adam.moments, *self._q.slow_weights, *self._target_weights]
        self._index: Tensor

    @property
    def advantage(self) -> Tensor:
        """Q of the actions that were learned from last less Q of the policy's own there, (R, B)."""
        with torch.no_grad():
            own = self._policy(embedding(self._index, self._rows.observation)).mode().clamp(-1, 1)
            better = self.value(self._index, embedding(self._index, self._rows.action)) - self.value(self._index, own)
        return better / self._scale

    def learn(self, batch: RowBatch, step: int) -> None:
        """Update Q on the rows of a minibatch; `step` seeds the noise, which all runs share."""
        settings, index = self._settings, batch.index
        with torch.no_grad():
            next_action = self._target_policy(embedding(self._rows.next_row[index], self._rows.states)).mode()
            normal = torch.randn(next_action.shape[1:], generator=torch.Generator().manual_seed(step))
            noise = (normal * settings.noise).clamp(-settings.clip, settings.clip).to(next_action.device)
            next_action = (next_action.clamp(-1, 1) + noise).clamp(-1, 1)
            following = self.bootstrapped(index, self._q.least(self.next_state(index), next_action))
        first, second = self._q(self.state(index), embedding(index, self._rows.action))
        self._adam.minimise((first - following).square().mean(-1) + (second - following).square().mean(-1))
        if step % self.delay == 0:
            self._q.follow(settings.follow)
            weights = [weight.data for weight in self._policy.parameters()]
            torch._foreach_lerp_(self._target_weights, weights, settings.follow)
        self._index = index


AnySettings: TypeAlias = ExpectileSettings | TwinDelayedSettings | LabelValueSettings
_SETTINGS: dict[str, type[AnySettings]] = {
    "iql": ExpectileSettings,
    "td3": TwinDelayedSettings,
    "dro": LabelValueSettings,
}


def critic_settings(algorithm: AlgorithmDeclaration) -> AnySettings:
    """Return the settings of an algorithm's critic; `UserError` for malformed ones."""
    if algorithm.rows in ("candidates", "pairs"):
        raise UserError(
            f'{algorithm.name} has a critic, which learns from recorded steps, and rows = "{algorithm.rows}": '
            'take "all"'
        )
    kind = str(algorithm.critic.get("kind"))
    if kind not in _SETTINGS:
        raise unknown(f"kind of critic in algorithm {algorithm.name}:", kind, _SETTINGS)
    return validated(_SETTINGS[kind], algorithm.critic, f"critic of {algorithm.name}", key="setting")


def make_critic(algorithm: AlgorithmDeclaration, rows: Rows, seeds: Sequence[int], policy: MixturePolicy) -> Critic:
    """Return the untrained critic that an algorithm declares."""
    settings = critic_settings(algorithm)
    if isinstance(settings, ExpectileSettings):
        return ExpectileCritic(settings, rows, seeds)
    if isinstance(settings, LabelValueSettings):
        return LabelValue(settings, rows, seeds)
    return TwinDelayedCritic(settings, rows, seeds, policy)
