"""Train all seeds and settings of one algorithm on one dataset as one stacked batch, from a clone or from scratch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
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
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError, counted, reason_of, refusal
from pmpo_offline.runtime.files import claim
from pmpo_offline.runtime.notebook import html_table
from pmpo_offline.training import config, tracking
from pmpo_offline.training.checkpoint import Checkpoint
from pmpo_offline.training.control.batches import check_rows
from pmpo_offline.training.control.config import TrainingSettings, has_diverged
from pmpo_offline.training.control.constraints import check_constrained
from pmpo_offline.training.control.fit import fit
from pmpo_offline.training.control.sampler import Sampler
from pmpo_offline.training.control.stack import Stack
from pmpo_offline.training.critics.reward_critics import critic_settings
from pmpo_offline.training.shuffle import check_control


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
        """True for another run whose actions or loss left all bounds (`has_diverged`): scores mean little."""
        if "reach" not in self.metrics:  # of a checkpoint from before it was measured
            return [False] * self.policy.runs
        measured = zip(self.metrics["reach"].tolist(), self.metrics["loss"].tolist(), self.diverged, strict=True)
        return [not lost and has_diverged(reach, loss) for reach, loss, lost in measured]


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
    runs = [stack.named(run, differing=True) for run in range(len(stack.runs))]
    observers = [tracking.Loggers(loggers, runs)] if len(loggers) else []
    try:
        with tracking.observed(*observers):
            return train_stack(stack, kept, None if references is None else Path(references), device)
    except OSError as error:
        where = Path(error.filename or kept or ".")
        raise PmpoOfflineError(refusal(where, error, "write elsewhere")) from None


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
    _check(stack)
    config.warn_below(stack.setups, stacklevel=5)
    place, bounds, reference = _device(device), [setup.bound for setup in stack.setups], None
    sampler = _sampler(stack, place)  # before a clone is trained: it refuses data from which nothing can be learned
    if stack.clone:
        path = references / f"clone-{stack.clone.identity[:16]}.safetensors" if references else None
        clones, metrics = _clone(stack, path or (checkpoint if stack.is_clone else None), place, shared=bool(path))
        reference = clones.take([*range(clones.runs)] * len(stack.settings)).requires_grad_(False)
        if stack.is_clone:
            metrics = {name: value.repeat(len(stack.settings)) for name, value in metrics.items()}
            return Trained(reference, stack.runs, bounds, metrics, [False] * reference.runs)
    policy, metrics = _fit_fresh(stack, sampler, checkpoint, reference)
    trained = Trained(policy, stack.runs, bounds, metrics, _diverged(policy, metrics))
    _warn_of_divergence(stack, trained)
    return trained


def _check(stack: Stack) -> None:
    """Raise `UserError` for what an algorithm, its dataset and its hyperparameters cannot have together."""
    if stack.algorithm.critic:
        critic_settings(stack.algorithm)
    check_rows(stack.algorithm)
    if stack.hyper.epsilon_target:
        _check_duals(stack)
    if stack.shuffled:
        check_control(stack.algorithm, responses=False)


def _clone(
    stack: Stack, path: Path | None, device: torch.device, *, shared: bool
) -> tuple[MixturePolicy, dict[str, Tensor]]:
    """Fit the stack's clone of the behaviour, or read it from the checkpoint at `path`; return its last metrics too.

    A clone that is shared is made once: other processes that need it wait for it, and its metrics are recorded beside
    it, so that a run which consists of it has these too.
    """
    assert stack.clone is not None
    recorded = tracking.MetricsFile(path.with_suffix(".csv")) if path and shared else None
    observers = [recorded] if recorded else []
    with (
        progress.stage(lambda _: "clone the behaviour"),
        claim(path) if path and shared else nullcontext(),
        tracking.observed(*observers, alone=shared or not stack.is_clone),
    ):
        clones, metrics = _fit_fresh(stack.clone, _sampler(stack.clone, device), path)
    for run, bad in enumerate(_diverged(clones, metrics)):
        if bad:
            named = stack.clone.named(run)
            raise PmpoOfflineError(f"the clone of the behaviour diverged ({named}): lower learning_rate")
    if recorded and stack.is_clone:
        tracking.replay(recorded, len(stack.settings))
    return clones, metrics


def _warn_of_divergence(stack: Stack, trained: Trained) -> None:
    """Warn of runs that diverged or left all bounds; `PmpoOfflineError` if the weights of all are not finite."""
    name, diverged = stack.algorithm.name, trained.diverged
    lost = [stack.named(run) for run, bad in enumerate(diverged) if bad]
    if all(diverged):
        raise PmpoOfflineError(f"{name} diverged ({lost[0]}): its weights are not finite, lower learning_rate")
    if lost:
        more = f" and {len(lost) - 1} more" if lost[1:] else ""
        warnings.warn(f"{name}: {lost[0]}{more} of {len(diverged)} runs diverged", stacklevel=5)
    if any(trained.strayed):
        warnings.warn(f"{name} diverged: {_strayed(stack, trained)}", stacklevel=5)


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


def _sampler(stack: Stack, device: torch.device) -> Sampler:
    """Return what draws a stack's minibatches; `UserError` if there is nothing that its algorithm learns from."""
    seeds = [seed for _, seed in stack.runs]
    sampler = Sampler(stack.dataset, stack.algorithm, seeds, shuffle=stack.shuffled, device=device)
    if "label" in stack.objective.needs and not sampler.steps.label.any():
        raise UserError(f"{stack.algorithm.name} learns from labelled rows and {stack.dataset.metadata.id} has none")
    return sampler


def _fit_fresh(
    stack: Stack, sampler: Sampler, path: Path | None, reference: MixturePolicy | None = None
) -> tuple[MixturePolicy, dict[str, Tensor]]:
    """Fit new policies, or read them from the checkpoint at `path`; return them with their last metrics."""
    algorithm = stack.algorithm
    conditional = "conditional_logp" in stack.objective.needs
    if conditional and algorithm.start == "reference":
        raise UserError(
            f'{algorithm.name}: a policy with labels as inputs cannot start from a clone: start = "scratch"'
        )
    policy = fresh_policy(sampler, stack.hyper, conditional=conditional)
    if reference is not None and algorithm.start == "reference":
        policy.load_state_dict(reference.state_dict())
    metrics = fit(stack, sampler, policy, reference, Checkpoint(path, stack.identity) if path else None)
    return policy.eval(), metrics


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


def _diverged(policy: MixturePolicy, metrics: Mapping[str, Tensor]) -> list[bool]:
    """Return for every run whether its last loss or any of its weights is not finite."""
    finite = [weight.detach().isfinite().flatten(1).all(1) for weight in policy.parameters()]
    return (~torch.stack([*finite, metrics["loss"].isfinite()]).all(0)).tolist()
