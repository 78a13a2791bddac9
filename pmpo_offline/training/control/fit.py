"""The training loop: minimise an objective for all runs of a stack at once; it stops and resumes exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pmpo_offline.policies import MixturePolicy
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.training import tracking
from pmpo_offline.training.adam import Adam
from pmpo_offline.training.checkpoint import Checkpoint
from pmpo_offline.training.control.batches import Batch, CandidateBatch, Learner, RowBatch, inputs
from pmpo_offline.training.control.config import TrainingSettings
from pmpo_offline.training.control.constraints import Constraints, Duals
from pmpo_offline.training.control.sampler import Sampler
from pmpo_offline.training.control.stack import Stack
from pmpo_offline.training.critics.reward_critics import make_critic

_DUALS = (1.0, 1.0, 100.0)
"""First values of MPO's temperature and of the multipliers of means and deviations."""
_REPORTED = 25  # updates from one report of progress to the next


def fit(
    stack: Stack,
    sampler: Sampler,
    policy: MixturePolicy,
    reference: MixturePolicy | None = None,
    checkpoint: Checkpoint | None = None,
) -> dict[str, Tensor]:
    """Minimise the objective for all runs at once, leave the averaged weights in `policy`, return the last metrics.

    A run that diverges does not disturb the others. Raises `PmpoOfflineError` when all have.
    """
    name, updates, every = stack.algorithm.name, stack.hyper.updates, stack.hyper.checkpoint_every
    fitting = _Fitting(stack, sampler, policy, reference)
    start = fitting.resume(checkpoint) if checkpoint else 0
    tracking.begin(start)
    for step in range(start, updates):
        batch, done = fitting.update(step), step + 1
        if done % _REPORTED == 0 or done == updates:
            fitting.report(done, batch)
            progress.report(f"train {name}", done, updates)
        if checkpoint and done % every == 0 and done < updates:
            checkpoint.save(_numbered(fitting.state), step=str(done))
    with torch.no_grad():
        torch._foreach_copy_(fitting.weights, fitting.average)
    if checkpoint and start < updates:
        checkpoint.save({**_numbered(fitting.average), **fitting.metrics}, finished=True, step=str(updates))
    return fitting.metrics


class _Fitting:
    """All that changes from update to update; arguments as of `fit`."""

    def __init__(self, stack: Stack, sampler: Sampler, policy: MixturePolicy, reference: MixturePolicy | None) -> None:
        self.stack, self.sampler, hyper = stack, sampler, stack.hyper
        if hyper.refresh and reference is None:
            raise UserError('refresh moves a reference policy and there is none: set start = "reference" in the TOML')
        self.moving = [weight.detach() for weight in reference.parameters()] if reference and hyper.refresh else []
        self.weights: list[Tensor] = list(policy.parameters())
        self.average = [weight.detach().clone() for weight in self.weights]
        self.optimizer = Adam(self.weights, hyper.learning_rate, decay=hyper.weight_decay)
        self.duals: Duals | None = None
        if hyper.epsilon_target:
            constraints = Constraints(hyper.epsilon_target, hyper.epsilon_mean, hyper.epsilon_std, start=_DUALS)
            self.duals = Duals(constraints, policy.runs, self.weights[0].device)
        algorithm = stack.algorithm
        self.critic = make_critic(algorithm, sampler.rows, sampler.seeds, policy) if algorithm.critic else None
        self.settings = stack_settings(stack.complete, len(stack.seeds), sampler.device)
        self.learner = Learner(policy, reference, self.settings, self.critic)
        self.largest = sampler.steps.action.largest().clamp(min=1e-6)
        wanted = set(stack.objective.running) & set(stack.objective.optional.values())
        self.running = {name: self.weights[0].new_zeros(policy.runs) for name in sorted(wanted)}
        """The mean of a metric over all updates so far, (R,), by the name of the input that it is."""
        self.metrics: dict[str, Tensor] = {}
        self.state = [*self.weights, *self.average, *self.optimizer.moments, *self.moving]
        """All that a checkpoint has to hold; writing into these restores the training."""
        self.state += self.critic.tensors if self.critic else []
        self.state += self.duals.buffers() if self.duals else []
        self.state += self.running.values()

    @torch.no_grad()
    def resume(self, checkpoint: Checkpoint) -> int:
        """Restore the state, or the averages and metrics of a finished training; return the updates done."""
        if (saved := checkpoint.load()) is None:
            return 0
        tensors, facts = saved
        for i, tensor in enumerate(self.average if facts["finished"] == "True" else self.state):
            tensor.copy_(tensors.pop(f"state.{i}"))
        self.metrics = {name: value.to(self.average[0].device) for name, value in tensors.items()}
        return int(facts["step"])

    def update(self, step: int) -> Batch:
        """Learn from the minibatch of update `step`, and return it."""
        hyper, critic = self.stack.hyper, self.critic
        self.optimizer.rate = learning_rate(step, hyper)
        batch = self.sampler.batch(step, hyper.batch, self.learner)
        if critic is not None and isinstance(batch, RowBatch):
            critic.learn(batch, step)
        # Always after the last one, so that there are metrics to return wherever a resumed run began.
        if critic is None or step % critic.delay == 0 or step == hyper.updates - 1:
            self.optimizer.minimise(self._loss(batch, step), partial(_clip, limit=hyper.clip))
            if self.duals:
                self.duals.optimizer.step()
            # Early averages forget fast, or the random start would linger in them.
            torch._foreach_lerp_(self.average, self.weights, 1 - min(hyper.averaging, (step + 1) / (step + 10)))
        if self.moving:
            torch._foreach_lerp_(self.moving, [weight.detach() for weight in self.weights], hyper.refresh)
        return batch

    def _loss(self, batch: Batch, step: int) -> Tensor:
        """Return the loss of a minibatch, (R,), and keep its metrics."""
        objective, duals = self.stack.objective, self.duals
        read = {name: value.clone() for name, value in self.running.items()}
        learned = {"temperature": duals.temperature} if duals else {}
        loss, metrics = objective(inputs(batch, objective.inputs) | read, **self.settings | learned)
        if duals and isinstance(batch, CandidateBatch):
            constrained, spent = duals(*batch.distributions, batch.group_score, metrics["target_kl"])
            loss, metrics = loss + constrained, metrics | spent
        for name, value in self.running.items():
            value.lerp_(metrics[objective.running[name]], 1 / (step + 1))
        self.metrics = metrics | {"loss": loss.detach()}
        return loss

    def report(self, done: int, batch: Batch) -> None:
        """Report the metrics after so many updates, of which this is the last minibatch; raise if all have diverged."""
        hyper, metrics = self.stack.hyper, self.metrics
        if not metrics:
            return
        metrics["reach"] = batch.reach / self.largest
        loss = metrics["loss"]
        if tracking.is_due(done, hyper.updates, _REPORTED):
            rate = loss.new_tensor(learning_rate(done - 1, hyper)).expand_as(loss)
            tracking.report(done, _present(metrics, batch) | {"learning_rate": rate})
        if not loss.isfinite().any():
            raise PmpoOfflineError(
                f"{self.stack.algorithm.name} diverged: the loss of {'every run' if len(loss) > 1 else 'the run'} "
                f"({self.stack.named(0)}) is not finite after {done} of {hyper.updates} updates: "
                "lower learning_rate, or raise β where the objective has a bound"
            )


def _numbered(tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    return {f"state.{i}": tensor for i, tensor in enumerate(tensors)}


def stack_settings(settings: Sequence[Mapping[str, Any]], seeds: int, device: torch.device) -> dict[str, Any]:
    """Turn settings that differ in numbers into (R, 1) tensors; equal ones stay; words are a `UserError`."""
    stacked: dict[str, Any] = {}
    for name in dict.fromkeys(name for complete in settings for name in complete):
        first = next(complete[name] for complete in settings if name in complete)
        absent = 0.0 if name == "flip_rate" else first  # a flip rate of zero is left out, and what belongs to it
        values = [complete.get(name, absent) for complete in settings]
        if all(value == first for value in values):
            stacked[name] = first
        elif any(isinstance(value, str) for value in values):
            listed = ", ".join(dict.fromkeys(map(str, values)))
            raise UserError(f"settings trained together differ in numbers only, not in {name} ({listed}): give it one")
        else:
            stacked[name] = torch.tensor(values, device=device).repeat_interleave(seeds).unsqueeze(1)
    return stacked


def _present(metrics: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    """Return the metrics, with NaN for the mean of a class that the minibatch lacks."""
    present = dict(metrics)
    if isinstance(batch, RowBatch):
        for name, rows in (("accept", batch.label > 0), ("reject", batch.label < 0)):
            absent = ~rows.any(-1)
            of_class = {each: value for each, value in metrics.items() if each.startswith(f"{name}_")}
            present |= {each: value.masked_fill(absent, math.nan) for each, value in of_class.items()}
    return present


def learning_rate(step: int, hyper: TrainingSettings) -> float:
    """One cycle: linear to the peak over the first tenth of the updates, then half a cosine down to zero."""
    rise = max(1, hyper.updates // 10)
    if step < rise:
        return hyper.learning_rate * (step + 1) / rise
    return hyper.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, hyper.updates - rise)))


def _clip(weights: Sequence[Tensor], limit: float) -> None:
    """Scale each run's gradient to at most `limit`; runs do not see one another."""
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    norm = torch.stack([torch.linalg.vector_norm(gradient, dim=(1, 2)) for gradient in gradients]).norm(dim=0)
    scale = (limit / (norm + 1e-6)).clamp(max=1)
    torch._foreach_mul_(gradients, [scale.view(-1, 1, 1)] * len(gradients))
