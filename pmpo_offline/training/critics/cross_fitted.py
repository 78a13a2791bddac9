"""Cross-fitted critics: values of states and actions under the recorded behaviour.

Episodes are dealt into folds and every fold has its own networks, trained on the other folds: no row is ever valued by
a network that saw its return, nor by one whose targets depend on it: a network bootstraps the cut episodes that it
learns from by itself, because any other fold's values rest on the returns of its own fold. All folds train as one
stack.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy  # its parts load where they are first used: a second that a worker seldom needs
import torch
from torch import Tensor, nn

from pmpo_offline.data import Rows
from pmpo_offline.policies.network import stacked_mlp
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.training.adam import Adam, one_cycle
from pmpo_offline.training.critics.config import CriticSettings

_AT_ONCE = 16384  # rows
_STEADY = 1e-3  # a deviation of actions below which they count as always the same


@dataclass(frozen=True)
class CriticEstimates:
    """Estimates for the recorded rows, each by networks that never saw its episode."""

    returns: Tensor
    """Discounted λ-return with cut episodes bootstrapped, (N,)."""
    value: Tensor
    """V(s), (N,)."""
    advantage: Tensor
    """A(s, a) of the recorded actions, (N,)."""
    action_value: Callable[[Tensor, Tensor], Tensor]
    """Q of other actions: rows (S,) and actions (S, K, A) -> (S, K)."""
    explained: float
    """Share of the variance of whole returns that V explains on episodes it never saw."""


def fit_critic(rows: Rows, settings: CriticSettings, seed: int) -> CriticEstimates:
    """Fit V, then how it differs by action, on a dataset's rows; `UserError` if there is one episode only."""
    folds = Folds(rows, settings, seed)
    scale = 1 - settings.discount  # brings values to the size of one reward
    mean, std = rows.observation.mean(0), rows.observation.std(0).clamp(min=1e-3)
    every = ((rows.states - mean) / std).clamp(-10, 10)
    states = every[: len(rows)]

    value_net = folds.networks(0, states.shape[1], 1)

    def targets(trace: float) -> Tensor:
        """Returns-to-go as each fold's network sees them, (folds, N), in units of one reward."""
        following = evaluate(value_net, every[rows.next_row]).squeeze(-1) / scale
        return returns_to_go(rows, settings.discount, following, trace) * scale

    for _ in range(settings.sweeps):
        folds.fit(value_net, _squared_error(value_net, states, targets(trace=1.0)))
    seen = targets(settings.trace)
    values = evaluate(value_net, states).squeeze(-1)
    returns, value = folds.own(seen) / scale, folds.own(values) / scale
    whole = returns if settings.trace == 1.0 else folds.own(targets(trace=1.0)) / scale
    variance = float(whole.var())
    explained = 1 - float((whole - value).square().mean()) / variance if variance else 0.0  # nothing to explain

    if settings.action_value == "first_order":
        gained = first_order(folds, states, rows.action, (seen - values) / scale)

        def action_value(row: Tensor, action: Tensor) -> Tensor:
            return value[row].unsqueeze(1) + gained(row, action)
    else:
        inputs = torch.cat([states, rows.action], dim=1)
        action_net = folds.networks(100, inputs.shape[1], 1)
        folds.fit(action_net, _squared_error(action_net, inputs, seen))

        def action_value(row: Tensor, action: Tensor) -> Tensor:
            k = action.shape[1]
            repeated = row.repeat_interleave(k)
            pairs = torch.cat([states[repeated], action.flatten(0, 1)], dim=1)
            return folds.own(evaluate(action_net, pairs).squeeze(-1), repeated).view(-1, k) / scale

    advantage = returns - value
    if settings.advantage == "fitted":
        advantage = action_value(torch.arange(len(rows)), rows.action.unsqueeze(1)).squeeze(1) - value
    return CriticEstimates(returns, value, advantage, action_value, explained)


def _squared_error(network: nn.Module, inputs: Tensor, targets: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the loss of each fold's network, whose targets are (folds, N), on rows that a fit draws."""
    return lambda index: (network(_take(inputs, index)).squeeze(-1) - targets.gather(1, index)).square().mean(1)


def _take(table: Tensor, index: Tensor) -> Tensor:
    """Return table[index], (N, W), (F, B) -> (F, B, W), in a quarter of the time: rows are copied whole."""
    return table.index_select(0, index.flatten()).view(*index.shape, -1)


class Folds:
    """The F folds of N rows. All their networks train as one stack, network f on the rows that are not of fold f.

    Args:
        rows: recorded steps.
        settings: how the networks are trained.
        seed: of the deal and of the minibatches.

    Raises:
        UserError: there is one episode only.
    """

    def __init__(self, rows: Rows, settings: CriticSettings, seed: int) -> None:
        episodes = int(rows.episode.max()) + 1
        if episodes < 2:
            raise UserError("a cross-fitted critic learns from other episodes, and there is one: collect more episodes")
        dealt = np.random.default_rng([seed, 1]).permutation(np.arange(episodes) % settings.folds)
        self.of_row = torch.from_numpy(dealt)[rows.episode]
        """The fold of each row, (N,)."""
        self._others = [torch.nonzero(self.of_row != fold).squeeze(1) for fold in range(settings.folds)]
        self._seed, self._settings, self._fits = seed, settings, 0
        # V once a sweep; then Q, or the two networks of the expansion.
        self._planned = settings.sweeps + (2 if settings.action_value == "first_order" else 1)

    def networks(self, offset: int, inputs: int, outputs: int) -> nn.Sequential:
        """Return one perceptron a fold; `offset` keeps the seeds of several apart."""
        seeds = [self._seed + offset + fold for fold in range(len(self._others))]
        return stacked_mlp(seeds, inputs, self._settings.hidden, outputs)

    def fit(self, network: nn.Module, loss: Callable[[Tensor], Tensor]) -> None:
        """Minimise a loss of row indices (F, B) -> (F,), each fold's drawn from the other folds."""
        settings = self._settings
        rate, decay, updates = settings.learning_rate, settings.weight_decay, settings.updates
        optimizer = Adam(network.parameters(), rate, decay=decay)
        generator = torch.Generator().manual_seed(self._seed * 1000 + self._fits)
        for update in range(updates):
            drawn = [pool[torch.randint(len(pool), (settings.batch,), generator=generator)] for pool in self._others]
            losses = loss(torch.stack(drawn))
            optimizer.rate, optimizer.beta = one_cycle(update, updates, rate)
            optimizer.minimise(losses)
            if update % 50 == 49:
                progress.report("fit the critic", self._fits * updates + update + 1, self._planned * updates)
        self._fits += 1
        if not losses.isfinite().all():
            raise PmpoOfflineError("the critic diverged: lower the learning_rate of the dataset's [critic]")

    def own(self, values: Tensor, row: Tensor | None = None) -> Tensor:
        """Pick each row's value by its own fold's network, which never saw it: (F, M, …) -> (M, …).

        The values are of all rows, or of the M that are named.
        """
        fold = self.of_row if row is None else self.of_row[row]
        return values[fold, torch.arange(len(fold))]

    def spread(self, values: Tensor) -> Tensor:
        """Return the deviations of values (F, N, …) over the rows that each fold's network learns from, (F, 1, …)."""
        pools = zip(values, self._others, strict=True)
        return torch.stack([value[pool].std(0, keepdim=True) for value, pool in pools])


@torch.no_grad()
def evaluate(network: nn.Sequential, inputs: Tensor) -> Tensor:
    """Evaluate rows with the network of every fold, (M, I) -> (F, M, outputs)."""
    folds = len(next(network.parameters()))
    parts = [network(part.expand(folds, -1, -1)) for part in torch.split(inputs, _AT_ONCE)]
    return torch.cat(parts, dim=1)


@dataclass(frozen=True)
class FirstOrder:
    """The advantage to first order: what moving an action away from the behaviour's own mean gains.

        A(s, a) ≈ g(s)ᵀ (a - μ(s)),   g and μ fitted,   with  E_a A(s, a) = 0  as an advantage must have

    These are the compatible features of Sutton et al., *Policy gradient methods for RL with function approximation*,
    2000, theorem 2, for a Gaussian policy. Return less V is regressed on them: an error of V depends on the state
    alone, and a - μ(s) does not correlate with it (Robinson, *Root-N-consistent semiparametric regression*, 1988,
    equation 3). So errors of V, mostly far larger than an advantage, cost precision and leave no bias. A network of s
    and a together would fit these errors instead.

    Holds N rows, each estimated by networks that never saw it.
    """

    mean: Tensor
    """μ(s), (N, A)."""
    slope: Tensor
    """g(s), value an action's unit, (N, A)."""

    def __call__(self, row: Tensor, action: Tensor) -> Tensor:
        """Return the advantages of K actions at each of S rows, (S,), (S, K, A) -> (S, K)."""
        return ((action - self.mean[row].unsqueeze(1)) * self.slope[row].unsqueeze(1)).sum(-1)


def first_order(folds: Folds, states: Tensor, action: Tensor, residual: Tensor) -> FirstOrder:
    """Fit μ on the actions, then g on the returns less V.

    Args:
        folds: which rows each network learns from.
        states: what the networks see, (N, O).
        action: (N, A).
        residual: returns less V as the network of each fold sees them, (F, N).
    """
    clone = folds.networks(200, states.shape[1], action.shape[1])
    folds.fit(clone, lambda index: (clone(_take(states, index)) - _take(action, index)).square().mean((1, 2)))
    mean = evaluate(clone, states)
    deviation = folds.spread(action - mean).clamp(min=_STEADY)
    unit = folds.spread(residual).clamp(min=torch.finfo(residual.dtype).tiny)

    slope = folds.networks(300, states.shape[1], action.shape[1])
    stack = torch.arange(len(residual)).unsqueeze(1)

    def loss(index: Tensor) -> Tensor:
        away = (_take(action, index) - mean[stack, index]) / deviation
        gain: Tensor = (slope(_take(states, index)) * away).sum(-1)
        return (gain - residual[stack, index] / unit).square().mean(1)

    folds.fit(slope, loss)
    return FirstOrder(folds.own(mean), folds.own(evaluate(slope, states) * unit.unsqueeze(-1) / deviation))


def returns_to_go(rows: Rows, discount: float, bootstrap: Tensor, trace: float = 1.0) -> Tensor:
    """λ-returns G_t = r_t + γ ((1 - λ) V(s_t+1) + λ G_t+1) with λ = `trace`; float32 of the shape of `bootstrap`.

    ```
    one step   r₀ + γ V(s₁)                                  trace = 0: little noise, and all of the critic's error
               r₀ + γ r₁ + γ² V(s₂)
               ⋮                                             mixed by (1 - λ) λᵏ
    whole      r₀ + γ r₁ + γ² r₂ + … + γᵀ⁺¹ V(s_T+1), if cut   trace = 1: all noise of the future, and no error
    ```

    Sutton and Barto, *Reinforcement Learning*, 2nd edition, equation 12.2 in its recursive form. G less V(s_t) is the
    generalised advantage of Schulman et al., arXiv 1506.02438, equation 16. The last step of a terminated episode
    returns its reward, that of a truncated one r_t + γ V(s_t+1).

    Args:
        rows: N steps.
        discount: γ in [0, 1).
        bootstrap: V(s_t+1) of each step's next state by one critic or several, (…, N).
        trace: λ in [0, 1].
    """
    following = bootstrap.double().numpy()
    reward = rows.reward.double().numpy()
    episode = rows.episode.numpy()
    last = np.append(episode[1:] != episode[:-1], True)
    tail = np.where(rows.terminated.numpy(), 0.0, following)
    gained = reward + discount * np.where(last, tail, (1 - trace) * following)
    result = np.empty_like(gained)
    ends = np.flatnonzero(last) + 1
    for start, end in zip(np.append(0, ends[:-1]), ends, strict=True):
        # y_t = x_t + γλ y_t+1 is a recursive filter that runs backwards in time.
        backwards = gained[..., start:end][..., ::-1]
        result[..., start:end] = scipy.signal.lfilter([1.0], [1.0, -discount * trace], backwards)[..., ::-1]
    return torch.from_numpy(result).float()
