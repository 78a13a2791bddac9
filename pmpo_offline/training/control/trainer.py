"""Train all seeds and settings of one algorithm on one dataset as a single stacked batch; stop and resume exactly."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pmpo_offline.data import Dataset
from pmpo_offline.declarations.catalog import AlgorithmDeclaration
from pmpo_offline.policies import CategoricalPolicy, MixturePolicy
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.arguments import checked
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError, counted, reason_of
from pmpo_offline.runtime.locks import claim
from pmpo_offline.runtime.notebook import html_table
from pmpo_offline.training import config, tracking
from pmpo_offline.training.checkpoint import Checkpoint, allocate_moments
from pmpo_offline.training.control.batches import Batch, CandidateBatch, Learner, RowBatch, Sampler, check_rows, inputs
from pmpo_offline.training.control.config import TrainingSettings
from pmpo_offline.training.control.optimization import Constraints, Duals, check_constrained
from pmpo_offline.training.control.stack import Stack
from pmpo_offline.training.critics.reward_critics import critic_settings, make_critic
from pmpo_offline.training.shuffle import check_control

_DUALS = (1.0, 1.0, 100.0)
"""First values of MPO's temperature and of the multipliers of means and deviations."""
_REPORTED = 25  # updates from one report of progress to the next


@dataclass(frozen=True)
class Trained:
    """A cell's policies and what is known of them."""

    policy: MixturePolicy
    """Stacked: for each setting, for each seed."""
    runs: list[tuple[dict[str, Any], int]]
    """Settings and seed of every run, in the policy's order."""
    bounds: list[float | None]
    """The least stable β of each setting on this dataset; None where the objective has no bound."""
    metrics: dict[str, Tensor]
    """The objective's metrics on the last minibatch, (R,) each, its `loss`, and the policy's `reach` (`Batch`) in units
    of the largest recorded action."""
    diverged: list[bool]
    """True for a run whose loss or weights are not finite: its policy is of no use."""

    def __repr__(self) -> str:
        settings = len(self.bounds)
        lost = sum(self.diverged) + sum(self.strayed)
        runs = counted(len(self.runs), "run")
        return f"Trained({runs}: settings {settings}, seeds {len(self.runs) // settings}, diverged {lost})"

    def _repr_html_(self) -> str:
        lost = [bad or far for bad, far in zip(self.diverged, self.strayed, strict=True)]
        facts = {
            f"run {run}": {"seed": seed, **settings, "loss": float(self.metrics["loss"][run]), "diverged": lost[run]}
            for run, (settings, seed) in enumerate(self.runs[:20])
        }
        return html_table(repr(self), facts)

    @property
    def strayed(self) -> list[bool]:
        """True for another run whose actions or loss left all bounds (`config.has_diverged`): scores mean little."""
        if "reach" not in self.metrics:  # of a checkpoint from before it was measured
            return [False] * self.policy.runs
        measured = zip(self.metrics["reach"].tolist(), self.metrics["loss"].tolist(), self.diverged, strict=True)
        return [not lost and config.has_diverged(reach, loss) for reach, loss, lost in measured]


@checked("settings={…} takes hyperparameters of the objective, overrides={…} those of training")
def train(
    dataset: Dataset | str | Path,
    algorithm: AlgorithmDeclaration | str,
    *,
    seeds: Sequence[int] | int = (0,),
    settings: Mapping[str, Any] | Sequence[Mapping[str, Any]] = ({},),
    checkpoint: str | Path | None = None,
    references: str | Path | None = None,
    shuffle_labels: bool = False,
    updates: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    device: str | None = None,
    loggers: Sequence[tracking.AnyLogger] = (),
) -> Trained:
    """Train every combination of `settings` and `seeds`, stacked. Runs that diverge are marked, with a warning.

    Args:
        dataset: labelled transitions, or the id or path of a stored dataset.
        algorithm: a declared algorithm, its name in the family of the dataset's task, or its `.toml`.
        seeds: one training run each; a number is one seed.
        settings: the objective's hyperparameters, over those that the algorithm declares: one mapping, or several,
            which may differ in numbers.
        checkpoint: file for checkpoints: a training that was stopped resumes from it and ends bit for bit the same, a
            finished one is not repeated. The file of another finished training is replaced.
        references: a folder of clones that algorithms share, with checkpoints of its own; without it they are trained
            again. `bc` itself is such a clone.
        shuffle_labels: permute the labels among all units, each seed its own way.
        updates: gradient steps, in place of the declared number.
        overrides: training hyperparameters (`TrainingSettings`) in place of the declared ones.
        device: a torch device; default CUDA if there is one.
        loggers: objects with `log(metrics, step)`, or functions, called with numbers by name up to 200 times.

    Raises:
        UserError: unknown or malformed hyperparameters, inputs that transitions do not have, labels that leave the
            algorithm nothing to learn from, labels to shuffle that are not all that it learns from, or the checkpoint
            of another unfinished training: of other data, labels, seeds, settings, or versions.
        PmpoOfflineError: every run diverged, or a file is damaged.
    """
    dataset = config.opened(dataset)
    if dataset.metadata.kind == "responses":
        raise UserError(f"dataset {dataset.metadata.id} holds responses: train a language model with train_language")
    if isinstance(algorithm, str):
        algorithm = config.algorithm_for(algorithm, dataset)
    seeds = [int(seeds)] if isinstance(seeds, int | np.integer) else seeds
    settings = [settings] if isinstance(settings, Mapping) else settings
    if not len(seeds) or not len(settings):
        raise UserError(f"nothing to train: {'settings' if len(seeds) else 'seeds'} are empty, give one or more")
    seeds = [int(seed) for seed in seeds]
    if odd := [seed for seed in seeds if not 0 <= seed < 2**63]:
        raise UserError(f"seeds are integers from 0 to 2**63 - 1, not {odd[0]}")
    changed = {**(overrides or {}), **({} if updates is None else {"updates": updates})}
    stack = Stack(dataset, algorithm, seeds, settings, changed, shuffle_labels)
    kept = None if checkpoint is None else Path(checkpoint)
    runs = [stack.distinct(run) for run in range(len(stack.runs))]
    observers = [tracking.Loggers(loggers, runs)] if len(loggers) else []
    try:
        with tracking.observed(*observers):
            return train_stack(stack, kept, None if references is None else Path(references), device)
    except OSError as error:
        raise PmpoOfflineError(f"cannot write {error.filename or kept}: {error.strerror or error}") from None


def _device(name: str | None) -> torch.device:
    """Return a device, by default CUDA if there is one; `UserError` if there is none of this name here."""
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"device {name!r} cannot be used here: {reason_of(error)}") from None
    return device


def train_stack(
    stack: Stack, checkpoint: Path | None = None, references: Path | None = None, device: str | None = None
) -> Trained:
    """Train a stack of runs; arguments, errors and warnings are those of `train`."""
    algorithm, bounds = stack.algorithm, [setup.bound for setup in stack.setups]
    if algorithm.critic:
        critic_settings(algorithm)
    check_rows(algorithm)
    if stack.hyper.epsilon_target:
        _check_duals(stack)
    if stack.shuffled:
        check_control(algorithm, responses=False)
    config.warn_below(stack.setups, stacklevel=5)

    place = _device(device)
    reference = None
    if stack.clone:
        path = references / f"clone-{stack.clone.identity[:16]}.safetensors" if references else None
        # Other processes that need the same clone wait for it and read it.
        # Recorded beside it: a run that shares the clone has its metrics too.
        recorded = tracking.MetricsFile(path.with_suffix(".csv")) if path else None
        alone = bool(recorded) or not stack.is_clone
        with (
            progress.stage(lambda _: "clone the behaviour"),
            claim(path) if path else nullcontext(),
            tracking.observed(*([recorded] if recorded else []), alone=alone),
        ):
            clones, metrics = _fit_fresh(stack.clone, path or (checkpoint if stack.is_clone else None), place)
        for run, bad in enumerate(_diverged(clones, metrics)):
            if bad:
                named = stack.clone.named(run)
                raise PmpoOfflineError(f"the clone of the behaviour diverged ({named}): lower learning_rate")
        reference = _repeat(clones, len(stack.settings))
        if stack.is_clone:
            if recorded:
                tracking.replay(recorded, len(stack.settings))
            metrics = {name: value.repeat(len(stack.settings)) for name, value in metrics.items()}
            return Trained(reference, stack.runs, bounds, metrics, [False] * reference.runs)
    policy, metrics = _fit_fresh(stack, checkpoint, place, reference)
    diverged = _diverged(policy, metrics)
    if any(diverged):
        lost = [stack.named(run) for run, bad in enumerate(diverged) if bad]
        if all(diverged):
            raise PmpoOfflineError(
                f"{algorithm.name} diverged ({lost[0]}): its weights are not finite, lower learning_rate"
            )
        more = f" and {len(lost) - 1} more" if lost[1:] else ""
        warnings.warn(f"{algorithm.name}: {lost[0]}{more} of {len(diverged)} runs diverged", stacklevel=4)
    trained = Trained(policy, stack.runs, bounds, metrics, diverged)
    if any(trained.strayed):
        warnings.warn(f"{algorithm.name} diverged: {_strayed(stack, trained)}", stacklevel=4)
    return trained


def _strayed(stack: Stack, trained: Trained) -> str:
    """Return which runs left all bounds, how far, and what to do about it."""
    lost = [run for run, bad in enumerate(trained.strayed) if bad]
    worst = max(lost, key=lambda run: float(trained.metrics["reach"][run]))
    reach, loss = (float(trained.metrics[name][worst]) for name in ("reach", "loss"))
    bound, beta = trained.bounds[worst // len(stack.seeds)], stack.runs[worst][0].get("beta")
    below = bound is not None and beta is not None and beta < bound
    remedy = f"raise β, whose bound is {bound:.3g}" if below else "lower learning_rate"
    return (
        f"{len(lost)} of {len(trained.runs)} runs left all bounds ({stack.named(worst)}: mean actions up to "
        f"{reach:,.0f} times the recorded ones, loss {loss:.3g}): {remedy}"
    )


def fresh_policy(sampler: Sampler, hyper: TrainingSettings, *, conditional: bool = False) -> MixturePolicy:
    """Return untrained policies, one a run, that normalise by the data's own statistics.

    `conditional` ones take labels as inputs.
    """
    mean, deviation = sampler.steps.observation.moments()
    policy = (CategoricalPolicy if sampler.is_discrete else MixturePolicy)(
        sampler.seeds,
        mean.cpu(),
        deviation.cpu(),
        sampler.steps.action.width,
        components=hyper.components,
        hidden=hyper.hidden,
        conditional=conditional,
    )
    return policy.to(sampler.device)


def _fit_fresh(
    stack: Stack, path: Path | None, device: torch.device, reference: MixturePolicy | None = None
) -> tuple[MixturePolicy, dict[str, Tensor]]:
    """Fit new policies, or read them from the checkpoint at `path`; return them with their last metrics."""
    dataset, algorithm = stack.dataset, stack.algorithm
    seeds = [seed for _, seed in stack.runs]
    sampler = Sampler(dataset, algorithm, seeds, shuffle=stack.shuffled, device=device)
    if "label" in stack.objective.inputs.values() and not sampler.steps.label.any():
        raise UserError(f"{algorithm.name} learns from labelled rows and {dataset.metadata.id} has none")
    conditional = "conditional_logp" in stack.objective.inputs.values()
    if conditional and algorithm.start == "reference":
        raise UserError(
            f'{algorithm.name}: a policy with labels as inputs cannot start from a clone: start = "scratch"'
        )
    policy = fresh_policy(sampler, stack.hyper, conditional=conditional)
    if reference is not None and algorithm.start == "reference":
        policy.load_state_dict(reference.state_dict())
    metrics = fit(stack, sampler, policy, reference, Checkpoint(path, stack.identity) if path else None)
    return policy.eval(), metrics


def _repeat(policy: MixturePolicy, times: int) -> MixturePolicy:
    """Return the same runs `times` over: one block of seeds a setting."""
    copy = deepcopy(policy)
    copy.runs = policy.runs * times
    for parameter in copy.parameters():
        parameter.data = parameter.data.repeat(times, *[1] * (parameter.dim() - 1))
    return copy.requires_grad_(False)


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
    algorithm, hyper, objective = stack.algorithm, stack.hyper, stack.objective
    settings = stack_settings(stack.complete, len(stack.seeds), sampler.device)
    weights: list[Tensor] = list(policy.parameters())
    average = [weight.detach().clone() for weight in weights]
    if hyper.refresh and reference is None:
        raise UserError('refresh moves a reference policy and there is none: set start = "reference" in the TOML')
    moving = [weight.detach() for weight in reference.parameters()] if reference is not None and hyper.refresh else []
    optimizer = torch.optim.AdamW(weights, lr=hyper.learning_rate, weight_decay=hyper.weight_decay, fused=True)
    duals = _duals(stack, policy) if hyper.epsilon_target else None
    critic = make_critic(algorithm, sampler.rows, sampler.seeds, policy) if algorithm.critic else None
    learner = Learner(policy, reference, settings, critic)
    largest = sampler.steps.action.largest().clamp(min=1e-6)
    wanted = set(objective.running) & set(objective.optional.values())
    running = {name: weights[0].new_zeros(policy.runs) for name in sorted(wanted)}
    state = [*weights, *average, *allocate_moments(optimizer), *moving, *(critic.tensors if critic else [])]
    state += duals.buffers() if duals else []
    state += running.values()
    start, metrics = _resume(checkpoint, state, average) if checkpoint else (0, {})
    tracking.begin(start)
    for step in range(start, hyper.updates):
        rate = learning_rate(step, hyper)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = sampler.batch(step, hyper.batch, learner)
        if critic is not None and isinstance(batch, RowBatch):
            critic.learn(batch, step)
        # Always after the last one, so that there are metrics to return wherever a resumed run began.
        if critic is None or step % critic.delay == 0 or step == hyper.updates - 1:
            read = {name: value.clone() for name, value in running.items()}
            learned = {"temperature": duals.temperature} if duals else {}
            loss, metrics = objective(inputs(batch, objective.inputs) | read, **settings | learned)
            if duals and isinstance(batch, CandidateBatch):
                constrained, spent = duals(*batch.distributions, batch.group_score, metrics["target_kl"])
                loss, metrics = loss + constrained, metrics | spent
            for name, value in running.items():
                value.lerp_(metrics[objective.running[name]], 1 / (step + 1))
            metrics = metrics | {"loss": loss.detach()}
            for weight in weights:
                weight.grad = None  # zero_grad() does the same and keeps books, at a hundredth of the update's time
            loss.sum().backward()  # type: ignore[no-untyped-call]
            _clip(weights, hyper.clip)
            optimizer.step()
            if duals:
                duals.optimizer.step()
            # Early averages forget fast, or the random start would linger in them.
            torch._foreach_lerp_(average, weights, 1 - min(hyper.averaging, (step + 1) / (step + 10)))
        if moving:
            torch._foreach_lerp_(moving, [weight.detach() for weight in weights], hyper.refresh)
        done = step + 1
        if done % _REPORTED == 0 or done == hyper.updates:
            if metrics:
                metrics["reach"] = batch.reach / largest
            if metrics and tracking.is_due(done, hyper.updates, _REPORTED):
                tracking.report(
                    done, _present(metrics, batch) | {"learning_rate": loss.new_tensor(rate).expand_as(loss)}
                )
            if metrics and not metrics["loss"].isfinite().any():
                raise PmpoOfflineError(
                    f"{algorithm.name} diverged: the loss of {'every run' if policy.runs > 1 else 'the run'} "
                    f"({stack.named(0)}) is not finite after {done} of {hyper.updates} updates: "
                    "lower learning_rate, or raise β where the objective has a bound"
                )
            progress.report(f"train {algorithm.name}", done, hyper.updates)
        if checkpoint and done % hyper.checkpoint_every == 0 and done < hyper.updates:
            checkpoint.save({f"state.{i}": tensor for i, tensor in enumerate(state)}, step=str(done))
    with torch.no_grad():
        torch._foreach_copy_(weights, average)
    if checkpoint and start < hyper.updates:
        averages = {f"state.{i}": tensor for i, tensor in enumerate(average)}
        checkpoint.save({**averages, **metrics}, finished=True, step=str(hyper.updates))
    return metrics


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


def _check_duals(stack: Stack) -> None:
    """Raise `UserError` for an algorithm, or actions, that MPO's constraints are not for."""
    name = f"{stack.algorithm.name}.epsilon_target"
    defaults = stack.objective.settings
    given = {name: value for name, value in stack.complete[0].items() if value != defaults.get(name)}
    try:
        check_constrained(stack.objective, given)
    except ValueError as error:
        raise UserError(f"{name}: {error}") from None
    if stack.dataset.metadata.actions:
        raise UserError(f"{name}: trust regions of means are for continuous actions")


def _duals(stack: Stack, policy: MixturePolicy) -> Duals:
    """Return the dual variables of MPO's constraints."""
    hyper = stack.hyper
    assert hyper.epsilon_target is not None
    constraints = Constraints(hyper.epsilon_target, hyper.epsilon_mean, hyper.epsilon_std, start=_DUALS)
    return Duals(constraints, policy.runs, next(policy.parameters()).device)


def _present(metrics: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    """Return the metrics, with NaN for the mean of a class that the minibatch lacks."""
    present = dict(metrics)
    if isinstance(batch, RowBatch):
        for name, rows in (("accept", batch.label > 0), ("reject", batch.label < 0)):
            absent = ~rows.any(-1)
            of_class = {each: value for each, value in metrics.items() if each.startswith(f"{name}_")}
            present |= {each: value.masked_fill(absent, math.nan) for each, value in of_class.items()}
    return present


@torch.no_grad()
def _resume(checkpoint: Checkpoint, state: list[Tensor], average: list[Tensor]) -> tuple[int, dict[str, Tensor]]:
    """Restore the state, or the averages of a finished training; return the updates done, and its last metrics."""
    if (saved := checkpoint.load()) is None:
        return 0, {}
    tensors, facts = saved
    for i, tensor in enumerate(average if facts["finished"] == "True" else state):
        tensor.copy_(tensors.pop(f"state.{i}"))
    return int(facts["step"]), {name: value.to(average[0].device) for name, value in tensors.items()}


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


def _diverged(policy: MixturePolicy, metrics: Mapping[str, Tensor]) -> list[bool]:
    """Return for every run whether its last loss or any of its weights is not finite."""
    finite = [weight.detach().isfinite().flatten(1).all(1) for weight in policy.parameters()]
    return (~torch.stack([*finite, metrics["loss"].isfinite()]).all(0)).tolist()
