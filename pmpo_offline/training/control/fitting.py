"""The training loop: one update of all runs at a time, resumable to the bit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pmpo_offline.declarations import OBJECTIVES
from pmpo_offline.declarations.catalog import AlgorithmDeclaration
from pmpo_offline.policies import MixturePolicy
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.hashing import hash_json
from pmpo_offline.training.checkpoint import resume, save_progress
from pmpo_offline.training.config import TrainingSettings, stack
from pmpo_offline.training.control.batches import RowBatch, Sampler, inputs
from pmpo_offline.training.critics.registry import critic as declared_critic


def fit(
    policy: MixturePolicy,
    reference: MixturePolicy | None,
    sampler: Sampler,
    algorithm: AlgorithmDeclaration,
    settings: Sequence[Mapping[str, Any]],
    seeds: int,
    hyper: TrainingSettings,
    path: Path | None,
) -> dict[str, Tensor]:
    """Minimise the objective for all runs at once, leave the averaged weights in `policy`, return the last metrics."""
    objective = OBJECTIVES[algorithm.objective]
    stacked = stack(settings, seeds, sampler.rows.action.device)
    weights: list[Tensor] = list(policy.parameters())
    average = [weight.detach().clone() for weight in weights]
    moving = _moving(reference, hyper)
    optimizer = torch.optim.AdamW(weights, lr=hyper.learning_rate, weight_decay=hyper.weight_decay, fused=True)
    told = [algorithm.model_dump(), [dict(each) for each in settings], seeds, hyper.model_dump()]
    owner = hash_json(told, sort_keys=False)
    critic = declared_critic(algorithm, sampler.rows, sampler.seeds, policy)
    beside = [*moving, *(critic.tensors if critic else [])]
    start = resume(path, weights, average, beside, optimizer, owner) if path and path.exists() else 0
    metrics: dict[str, Tensor] = {}
    for step in range(start, hyper.updates):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, hyper)
        batch = sampler.batch(step, hyper.batch, policy, reference, stacked, critic)
        if critic is not None and isinstance(batch, RowBatch):
            critic.learn(batch.index, step)
        # Always after the last one, so that there are metrics to return wherever a resumed run began.
        if critic is None or step % critic.delay == 0 or step == hyper.updates - 1:
            loss, metrics = objective(inputs(batch, objective.inputs), **stacked)
            metrics = metrics | {"loss": loss.detach()}
            for weight in weights:
                weight.grad = None  # zero_grad() does the same and keeps books, at a hundredth of the update's time
            loss.sum().backward()  # type: ignore[no-untyped-call]
            _clip(weights, hyper.clip)
            optimizer.step()
            # Early averages forget fast, or the random start would linger in them.
            torch._foreach_lerp_(average, weights, 1 - min(hyper.averaging, (step + 1) / (step + 10)))
        if moving:
            torch._foreach_lerp_(moving, [weight.detach() for weight in weights], hyper.refresh)
        done = step + 1
        if path and done % hyper.checkpoint_every == 0 and done < hyper.updates:
            save_progress(path, weights, average, beside, optimizer, done, owner)
        if done % 25 == 0 or done == hyper.updates:
            progress.report(f"train {algorithm.name}", done, hyper.updates)
    with torch.no_grad():
        torch._foreach_copy_(weights, average)
    return metrics


def _moving(reference: MixturePolicy | None, hyper: TrainingSettings) -> list[Tensor]:
    """Return the weights of a reference that follows the policy, none where it is frozen."""
    if not hyper.refresh:
        return []
    if reference is None:
        raise UserError('refresh moves a reference policy and there is none: set start = "reference" in the TOML')
    return [weight.detach() for weight in reference.parameters()]


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
