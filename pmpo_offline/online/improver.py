"""Online policy improvement: draw candidates from a slowly moving reference, rank them, learn, repeat.

```
reference ── K actions a state ── scorer ── ranked: the better half accepted, the other rejected ── objective ──▶ policy
    ▲                                                                                                              │
    └────────────────────────── moves a small share of the way towards the policy ─────────────────────────────────┘
```
The scorer is anything that scores actions: a bandit's reward, or a critic that is learned beside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from pmpo_offline.declarations import OBJECTIVES
from pmpo_offline.objectives import Objective
from pmpo_offline.objectives.rows import mean
from pmpo_offline.policies import Mixture
from pmpo_offline.runtime.hashing import random_words
from pmpo_offline.training.adam import StackedAdam
from pmpo_offline.training.control.batches import inputs, of_pairs
from pmpo_offline.training.control.constraints import Constraints, Duals, check_constrained
from pmpo_offline.training.control.divergence import from_reference

Scorer = Callable[[Tensor, Tensor], Tensor]
"""From observations (R, B, O) and K actions at each of them (R, B, K, A), the values of the actions, (R, B, K)."""


class OnlinePolicy(Protocol):
    """A stacked module that maps observations (R, B, O) to action distributions."""

    runs: int
    action_dim: int

    def __call__(self, observation: Tensor) -> Mixture:
        """Return the action distributions at observations (R, B, O)."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return the weights, (R, …) each."""
        ...


P = TypeVar("P", bound=OnlinePolicy)


class OnlineSettings(BaseModel):
    """Settings of the improvement, equal for all runs of a stack."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    candidates: int = Field(default=4, ge=2)
    """K: actions a state."""
    paired: int = Field(default=2, ge=1)
    """Of the objectives that learn from pairs: every one of so many best candidates with every one of as many worst, so
    that at most half the candidates are the best: 1 of two or three."""
    refresh: float = Field(default=0.01, gt=0, le=1)
    """Share of the way that the reference moves towards the policy every update."""

    @model_validator(mode="after")
    def _best_and_worst_are_apart(self) -> Self:
        if self.paired > self.candidates // 2:
            raise ValueError(
                f"paired = {self.paired} best and as many worst of {self.candidates} candidates overlap: "
                f"set paired to {self.candidates // 2} or less"
            )
        return self


@dataclass(frozen=True)
class Algorithm:
    """A way of learning from scored candidates: an objective, its settings and how they are optimised."""

    objective: str | Objective
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the objective, over its defaults; numbers may be tensors (R, 1)."""
    constraints: Constraints | None = None
    """For MPO: its temperature is learned, and so are the multipliers that hold the mean and the deviation
    near the reference's. How much of each budget is spent is among the metrics."""
    learning_rate: float | Tensor = 1e-3
    """Of the policy; a number or (R, 1)."""
    shuffled: Tensor | None = None
    """(R,) bool, the control: such a run gets the scores of a state's candidates in random order."""


@dataclass(eq=False)
class OnlineBatch:
    """K scored candidates at each of B states, R runs: the inputs of objectives, by their names in the vocabulary.

    Tied candidates: labels do not distinguish them, so that a tie across the middle is unlabelled, and equal scores
    give PMPO nothing but its divergence. Pairs do: of two tied candidates the later drawn counts as the better. As all
    are drawn alike, that is a pair labelled by a coin: it favours neither, but DPO has a gradient from it, which on
    average draws their log-ratios together. It shows where rewards end in a plateau, as those of clipped actions do.
    """

    action: Tensor
    """(R, B, K, A), drawn from the reference."""
    group_score: Tensor
    """(R, B, K)."""
    policy: Mixture
    """The distributions that learn, at the B states."""
    reference: Mixture
    """Those that the candidates were drawn from, without gradient."""
    settings: Mapping[str, Any]
    """The objective's settings, of which `divergence`, `order` and `over` are this batch's to obey."""
    paired: int
    """As in `OnlineSettings`."""
    step: int
    """Seeds the draws behind divergences that have no closed form."""

    @cached_property
    def _order(self) -> Tensor:
        return self.group_score.argsort(dim=-1, stable=True)  # the worst first

    @cached_property
    def group_logp(self) -> Tensor:
        """(R, B, K)."""
        return self.policy.log_prob(self.action)

    @cached_property
    def _group_ref(self) -> Tensor:
        return self.reference.log_prob(self.action)

    @property
    def label(self) -> Tensor:
        """(R, B K): the better half +1, the worse half -1; 0 where a tie runs across the middle."""
        half = self.group_score.shape[-1] // 2
        ranked = self.group_score.gather(-1, self._order)
        rejected, accepted = ranked[..., half - 1 : half], ranked[..., -half].unsqueeze(-1)
        label = (self.group_score >= accepted).to(ranked) - (self.group_score <= rejected).to(ranked)
        return label.flatten(1)

    @property
    def logp(self) -> Tensor:
        """(R, B K)."""
        return self.group_logp.flatten(1)

    @property
    def ref_logp(self) -> Tensor:
        """(R, B K)."""
        return self._group_ref.flatten(1)

    @property
    def advantage(self) -> Tensor:
        """(R, B K): the score less the mean score of the state."""
        return (self.group_score - self.group_score.mean(-1, keepdim=True)).flatten(1)

    @property
    def divergence(self) -> Tensor:
        """(R,): how far the policy is from the reference, according to the objective's settings.

        "behavior" is estimated on the candidates, which the reference has drawn, less the reference's own entropy.
        Over "labelled" candidates alone, a state counts as often as it has some; without any the divergence is 0.
        """
        kind, labelled = self.settings["divergence"], self.settings["over"] == "labelled"
        if kind == "behavior":
            return mean(-self.logp, self.label.abs()) if labelled else -self.logp.mean(-1)
        far = from_reference(self.policy, self.reference, kind, self.settings["order"], self.step)
        return mean(far, self.label.abs().view_as(self.group_score).sum(-1)) if labelled else far.mean(-1)

    @property
    def policy_kl(self) -> Tensor:
        """(R,): KL(policy || reference), detached."""
        with torch.no_grad():
            return from_reference(self.policy, self.reference, "reverse", 0.0, self.step).mean(-1).clamp(min=0)

    def _pairs(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return `values` (R, B, K) of the best and of the worst candidate of every pair, (R, P)."""
        n = self.paired
        best, worst = values.gather(-1, self._order[..., -n:]), values.gather(-1, self._order[..., :n])
        shape = (*best.shape, n)
        return best.unsqueeze(-1).expand(shape).flatten(1), worst.unsqueeze(-2).expand(shape).flatten(1)

    _logp = property(lambda batch: batch._pairs(batch.group_logp))
    _ref = property(lambda batch: batch._pairs(batch._group_ref))
    logp_chosen, logp_rejected = of_pairs("_logp")
    ref_chosen, ref_rejected = of_pairs("_ref")


class Improver(nn.Module, Generic[P]):
    """Improves all runs of a stack side by side; a run is the same alone and in a stack.

    Args:
        policy: improved in place.
        algorithm: the objective and its settings.
        hyper: of the improvement.
        seeds: one a run; runs of equal seed draw equal random numbers, so that they differ in their settings alone.

    Raises:
        ValueError: constraints on an objective without scores, or beside a temperature or budget of its own.
    """

    def __init__(self, policy: P, algorithm: Algorithm, hyper: OnlineSettings, seeds: Sequence[int]) -> None:
        super().__init__()
        objective = OBJECTIVES[algorithm.objective] if isinstance(algorithm.objective, str) else algorithm.objective
        settings, constraints = algorithm.settings, algorithm.constraints
        if constraints is not None:
            check_constrained(objective, settings)
        self.policy, self.reference = policy, deepcopy(policy)
        self._objective, self._settings, self._hyper = objective, {**objective.settings, **settings}, hyper
        self._draws, self._shuffled = Draws(seeds), algorithm.shuffled
        self._weights: list[Tensor] = list(policy.parameters())
        self._reference_weights: list[Tensor] = list(self.reference.parameters())
        self._optimizer = StackedAdam(self._weights, algorithm.learning_rate)
        self._duals = Duals(constraints, policy.runs, self._weights[0].device) if constraints is not None else None

    @property
    def updates(self) -> int:
        """Updates so far."""
        return int(self._optimizer.steps)

    def update(self, observation: Tensor, scorer: Scorer) -> dict[str, Tensor]:
        """Improve the policy once at observations (R, B, O); return the objective's metrics, (R,) each.

        With constraints also `target_kl_over_epsilon`, `mean_kl_over_epsilon` and `std_kl_over_epsilon`.
        """
        k, states, step = self._hyper.candidates, observation.shape[1], self.updates
        with torch.no_grad():
            reference = self.reference(observation)
            numbers = self._draws(step, (states, k, self.policy.action_dim))
            uniform, normal = (drawn.to(observation.device) for drawn in numbers)
            action = torch.stack([reference.sample(uniform[:, :, i, 0], normal[:, :, i]) for i in range(k)], dim=-2)
            score = scorer(observation, action)
            if self._shuffled is not None:
                anyhow = score.gather(-1, uniform[..., 1].argsort(-1))
                score = torch.where(self._shuffled[:, None, None], anyhow, score)
        policy = self.policy(observation)
        batch = OnlineBatch(action, score, policy, reference, self._settings, self._hyper.paired, step)
        settings = self._settings if self._duals is None else self._settings | {"temperature": self._duals.temperature}
        loss, metrics = self._objective(inputs(batch, self._objective.inputs), **settings)
        if self._duals is not None:
            constrained, spent = self._duals(policy, reference, score, metrics["target_kl"])
            loss, metrics = loss + constrained, metrics | spent
        loss.sum().backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        if self._duals is not None:
            self._duals.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self._reference_weights, self._weights, self._hyper.refresh)
        return metrics | {"loss": loss.detach()}


class Draws:
    """Random numbers of every run for one purpose, as candidates need them: a pure function of its seed and the step.

    Args:
        seeds: one a run.
        purpose: of the numbers; other purposes have other numbers.
    """

    _BLOCK = 64  # steps drawn at once: the cost of starting a random stream is paid once

    def __init__(self, seeds: Sequence[int], purpose: str = "online") -> None:
        self._seeds, self._purpose = sorted(set(seeds)), purpose
        self._place = torch.tensor([self._seeds.index(seed) for seed in seeds])
        self._block = -1
        self._uniform = self._normal = torch.empty(0)

    def __call__(self, step: int, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
        """Return two numbers in [0, 1) for each of (B, K) candidates and a standard normal one for each of (B, K, A).

        Their shapes are (R, B, K, 2) and (R, B, K, A).
        """
        block, place = divmod(step, self._BLOCK)
        if block != self._block or self._normal.shape[2:] != shape:
            self._block = block
            generators = [
                torch.Generator().manual_seed(int(random_words(1, self._purpose, seed, block)[0] >> 1))
                for seed in self._seeds
            ]
            self._normal = torch.stack([torch.randn(self._BLOCK, *shape, generator=g) for g in generators])
            self._uniform = torch.stack([torch.rand(self._BLOCK, *shape[:2], 2, generator=g) for g in generators])
        return self._uniform[self._place, place], self._normal[self._place, place]
