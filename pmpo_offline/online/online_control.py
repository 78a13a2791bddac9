"""PMPO, MPO and DPO trained online: the control-suite setting of PMPO's paper (arXiv 2410.04166).

```
environments ── ticks ──▶ replay ── stretches ──▶ Q (twin, Retrace) ── scores for ──▶ `Improver`
     ▲                                                                                           │
     └────────────────────── acts: drawn from the policy ◀─────── K = 4 candidates a state ──────┘
```
The three differ in the objective, its settings and the learning rate. A stack trains R runs side by
side; observations are normalised by the moments of what a run has observed so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Self

import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue, PositiveInt, model_validator
from torch import Tensor, nn

from pmpo_offline.online.acting import SMALLEST_SCALE, VectorEnv
from pmpo_offline.online.improver import Algorithm, Draws, Improver, OnlineSettings
from pmpo_offline.online.replay import ENDED, GOES_ON, Replay, ReplayRows, retrace
from pmpo_offline.policies.behavior import FARTHEST, BehaviorPolicy
from pmpo_offline.policies.network import StackedLinear
from pmpo_offline.policies.perceptron import PerceptronPolicy
from pmpo_offline.tasks.control import Rules
from pmpo_offline.training.adam import Adam
from pmpo_offline.training.checkpoint import keep_state
from pmpo_offline.training.control.constraints import Constraints
from pmpo_offline.training.critics.critic import DoubleQ

PLANNED = 2_000_000
"""Control steps of a run by default."""
CHUNK = 100
"""Ticks that `advance` takes."""

ALGORITHMS = {
    "pmpo": Algorithm("pmpo", {"alpha": 0.5, "beta": 0.6, "divergence": "forward"}),
    "mpo": Algorithm("mpo", constraints=Constraints(target=0.3, mean=0.01, std=1e-4, start=(0.01, 1.0, 100.0))),
    "dpo": Algorithm("dpo", {"beta": 0.3}),
}
"""By name, as `train-behavior --algo` takes them."""


class ControlSettings(BaseModel):
    """Settings of online learning, equal for all algorithms and for all runs of a stack."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    environments: int = Field(default=32, ge=1)
    """Per run."""
    repeat: int = Field(default=2, ge=1)
    """Control steps that an action is held for in training; in evaluation it is held for one."""
    ticks: int = Field(default=10_000, ge=1)
    """Newest decisions of every environment that the replay holds."""
    warmup: int = Field(default=100, ge=1)
    """Ticks before the first update."""
    length: int = Field(default=16, ge=1)
    """Decisions of a stretch, over which returns are traced."""
    stretches: int = Field(default=8, ge=1)
    """Drawn for an update; there is one update a tick."""
    thin: int = Field(default=2, ge=1)
    """The policy is improved at every n-th state of them: neighbours are alike."""
    discount: float = Field(default=0.99, ge=0, lt=1)
    """Per decision."""
    trace: float = Field(default=0.95, ge=0, le=1)
    """Retrace's λ."""
    hidden: tuple[PositiveInt, PositiveInt] = (64, 64)
    """Of the policy, as behaviours have it."""
    critic_hidden: tuple[PositiveInt, ...] = (128, 128)
    critic_rate: float = Field(default=1e-3, gt=0)
    tracking: float = Field(default=0.02, gt=0, le=1)
    """Share of the way that Q's slow copies move every update."""
    std: float = Field(default=0.8, gt=0)
    """Of the first exploration."""
    pace: float = Field(default=0.03, gt=0)
    """Speed at which the deviation learns, relative to the mean: at 1 every objective but MPO stops exploring
    long before it can balance a pole."""
    outside: float = Field(default=1e-3, ge=0)
    """Cost of a candidate's squared distance from the box of actions, in rewards: all actions beyond a wall do the
    same, and without a cost the mean drifts off where nothing is explored. A large cost narrows the policy instead."""
    improvement: OnlineSettings = OnlineSettings(refresh=0.005)

    @model_validator(mode="after")
    def _stretches_fit(self) -> Self:
        if self.length >= min(self.warmup, self.ticks):
            raise ValueError(
                f"stretches of {self.length} decisions are longer than the {min(self.warmup, self.ticks)} ticks there "
                "are before the first update: lower length, or raise warmup and ticks"
            )
        return self


class OnlineControl(nn.Module):
    """R runs of one algorithm on a task; with one run a `behavior.Learner`.

    Args:
        rules: the task.
        seeds: one a run; runs of equal seed draw equal random numbers.
        algorithm: improves the policy.
        frames: control steps planned, of all environments of all runs; default: `PLANNED` a run.
        settings: of everything else.
    """

    def __init__(
        self,
        rules: Rules,
        seeds: Sequence[int],
        algorithm: Algorithm,
        frames: int | None = None,
        settings: ControlSettings | None = None,
    ) -> None:
        super().__init__()
        self._settings, self._algorithm = settings or ControlSettings(), algorithm
        hyper = self._settings
        self.planned = frames or PLANNED * len(seeds)
        self._environments = VectorEnv(rules, seeds, hyper.environments, hyper.repeat)
        _, _, observed = self._environments.observation.shape
        acted = rules.action_dim
        self._replay = Replay(hyper.ticks, len(seeds), hyper.environments, observed, acted)
        policy = PerceptronPolicy(seeds, (observed, *hyper.hidden, acted), std=hyper.std, pace=hyper.pace)
        self._improver = Improver(policy, algorithm, hyper.improvement, seeds)
        self._critic = DoubleQ(seeds, observed + acted, hyper.critic_hidden, 0.0, torch.device("cpu"))
        _zero_heads(self._critic)
        self._critic_optimizer = Adam(self._critic.weights, hyper.critic_rate)
        self._acting, self._picking = Draws(seeds, "act"), Draws(seeds, "pick")
        self._center = torch.zeros(len(seeds), 1, observed, dtype=torch.float64)
        self._square = torch.ones(len(seeds), 1, observed, dtype=torch.float64)
        critic = [*self._critic.weights, *self._critic_optimizer.moments, *self._critic.slow_weights]
        keep_state(self, center=self._center, square=self._square, critic=critic)

    @property
    def frames(self) -> int:
        """Control steps taken so far, of all environments of all runs."""
        return self._environments.frames

    @property
    def settings(self) -> dict[str, JsonValue]:
        """The settings of the training, complete, as JSON values; not for settings that are tensors."""
        return {"algorithm": asdict(self._algorithm), "settings": self._settings.model_dump(), "chunk": CHUNK}

    def advance(self) -> dict[str, float]:
        """Act for a chunk of ticks and learn once at each; return the means over runs of the last update's metrics."""
        metrics: dict[str, Tensor] = {}
        for _ in range(CHUNK):
            self._act()
            if self._replay.written >= self._settings.warmup:
                metrics = self._learn()
        return {name: float(values.mean()) for name, values in metrics.items()}

    def policy(self, run: int = 0) -> BehaviorPolicy:
        """Return the policy of a run as it is now."""
        layers = [layer for layer in self._improver.policy.network if isinstance(layer, StackedLinear)]
        return BehaviorPolicy(
            center=self._center[run, 0].float().numpy(),
            scale=self._scale[run, 0].float().numpy(),
            weights=tuple(layer.weight[run].detach().numpy().copy() for layer in layers),
            biases=tuple(layer.bias[run, 0].detach().numpy().copy() for layer in layers),
            log_std=self._improver.policy.log_std[run, 0].detach().numpy().copy(),
        )

    @property
    def _scale(self) -> Tensor:
        """(R, 1, O)."""
        return (self._square - self._center.square()).clamp(min=SMALLEST_SCALE**2).sqrt()

    def _normalised(self, observation: Tensor) -> Tensor:
        """Return the networks' input at observations (R, B, O)."""
        return ((observation - self._center) / self._scale).clamp(-FARTHEST, FARTHEST).float()

    @torch.no_grad()
    def _act(self) -> None:
        """Take one tick in every environment."""
        observation, end, tick = self._environments.observation, self._environments.end, int(self._replay.written)
        for mean, values in ((self._center, observation), (self._square, observation.double().square())):
            mean.lerp_(values.double().mean(1, keepdim=True), 1 / (tick + 1))
        drawn = self._improver.policy(self._normalised(observation))
        uniform, normal = self._acting(tick, (observation.shape[1], 1, self._improver.policy.action_dim))
        action = drawn.sample(uniform[:, :, 0, 0], normal[:, :, 0])
        reward = self._environments.step(action)
        self._replay.add(ReplayRows(observation, action, drawn.log_prob(action), reward, end))

    def _learn(self) -> dict[str, Tensor]:
        """Fit Q to the reference on some stretches, then improve the policy there; return metrics (R,)."""
        hyper = self._settings
        numbers = self._picking(
            self._improver.updates, (hyper.stretches, hyper.length, self._improver.policy.action_dim)
        )
        uniform, noise = numbers[0][:, :, 0], numbers[1].flatten(1, 2)
        rows = self._replay.sample(uniform, hyper.length + 1)
        seen = self._normalised(rows.observation.flatten(1, 2)).view_as(rows.observation)
        states, following = seen[:, :, :-1].flatten(1, 2), seen[:, :, 1:].flatten(1, 2)
        target = self._targets(rows, following, noise)
        taken = (rows.end[:, :, :-1] == GOES_ON).flatten(1).float()
        error = self._fit(states, rows.action[:, :, :-1].flatten(1, 2), target, taken)
        metrics = self._improver.update(states[:, :: hyper.thin], self._score)
        return metrics | {
            "critic": error,
            "value": (target * taken).sum(1) / taken.sum(1),
            "std": self._improver.policy.log_std.detach().exp().mean((1, 2)),
        }

    @torch.no_grad()
    def _targets(self, rows: ReplayRows, following: Tensor, noise: Tensor) -> Tensor:
        """Return the values of the actions of stretches under the reference, (R, S L): average reward a control step.

        V is the mean over two actions that lie opposite one another about the reference's mean.
        """
        hyper, shape = self._settings, rows.reward[:, :, 1:].shape
        reference = self._improver.reference(following)
        away = reference.log_std.exp() * noise.unsqueeze(-2)
        done = rows.action[:, :, 1:].flatten(1, 2)
        candidates = torch.cat([reference.mean + away, reference.mean - away, done.unsqueeze(-2)], dim=-2)
        above, below, action_value = self._judge(following, candidates).unbind(-1)  # (R, S L)
        likelier = reference.log_prob(done).view(shape) - rows.logp[:, :, 1:]
        end = rows.end[:, :, 1:]
        return retrace(
            (1 - hyper.discount) / hyper.repeat * rows.reward[:, :, :-1],
            hyper.discount * (end != ENDED).float(),
            ((above + below) / 2).view(shape),
            action_value.view(shape),
            hyper.trace * likelier.clamp(max=0).exp() * (end == GOES_ON),
        ).flatten(1)

    def _fit(self, state: Tensor, action: Tensor, target: Tensor, taken: Tensor) -> Tensor:
        """Take a step of both Q towards the targets where an action was taken; return the mean squared error, (R,)."""
        values = self._critic(state, action.clamp(-1, 1))
        errors = torch.stack([(taken * (value - target).square()).sum(1) / taken.sum(1) for value in values])
        self._critic_optimizer.minimise(errors.sum(0))
        self._critic.follow(self._settings.tracking)
        return errors.detach().mean(0)

    def _score(self, state: Tensor, action: Tensor) -> Tensor:
        """Return the values of K candidates: (R, B, O), (R, B, K, A) -> (R, B, K)."""
        beyond = (action.abs() - 1).clamp(min=0).square().sum(-1)
        return self._judge(state, action) - self._settings.outside * beyond

    def _judge(self, state: Tensor, action: Tensor) -> Tensor:
        """Return the lesser Q of K actions, clipped as the environment clips them: shapes as in `_score`."""
        states = state.unsqueeze(2).expand(-1, -1, action.shape[-2], -1).flatten(1, 2)
        return self._critic.least(states, action.clamp(-1, 1).flatten(1, 2)).view(action.shape[:-1])


def one_run(algo: str, rules: Rules, seed: int, frames: int | None) -> OnlineControl:
    """Return one run of an algorithm of `ALGORITHMS`, as a `behavior.Learner`."""
    return OnlineControl(rules, [seed], ALGORITHMS[algo], frames)


def _zero_heads(critic: DoubleQ) -> None:
    """Zero-initialise both Q heads: the lesser of two random values would be a pessimism that is slow to unlearn."""
    layers = len(critic.weights) // 2
    with torch.no_grad():
        for last in (layers, 2 * layers):
            for weight in critic.weights[last - 2 : last]:
                weight.zero_()
    critic.follow(1.0)
