"""What the trainers log of a micro-batch, by TRL's names.

`rewards/chosen`, `rewards/rejected`, `rewards/margins`, `rewards/accuracies`, `logps/chosen`, `logps/rejected`, `kl`. A
reward is the objective's own (beta times the log-ratio to the reference), and for objectives without one the log-ratio
itself; the accuracy of single responses is the share of accept x reject pairs within a batch whose rewards are in
order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pmpo_offline.training.language.batches import Batch, ResponseBatch

METRICS = {
    "accept_reward": "rewards/chosen",
    "reject_reward": "rewards/rejected",
    "margin": "rewards/margins",
    "accuracy": "rewards/accuracies",
    "accept_logp": "logps/chosen",
    "reject_logp": "logps/rejected",
}
"""TRL's names of what our objectives report; all others keep theirs."""


def by_name(batch: Batch, metrics: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the metrics by TRL's names, with rewards where the objective has none of its own."""
    if isinstance(batch, ResponseBatch):
        # An absent class has no mean: objectives report 0 for it. Which are there is the same in every micro-batch.
        absent = {name for name, sign in (("accept", 1), ("reject", -1)) if not (batch.label == sign).any()}
        metrics = {name: value for name, value in metrics.items() if name.partition("_")[0] not in absent}
    named = {METRICS.get(name, name): value for name, value in metrics.items()}
    if isinstance(batch, ResponseBatch) and batch.compared:
        accepted, rejected = batch.label > 0, batch.label < 0
        with torch.no_grad():
            ratio = batch.logp - batch.ref_logp
            if accepted.any():
                named.setdefault("rewards/chosen", ratio[accepted].mean())
            if rejected.any():
                named.setdefault("rewards/rejected", ratio[rejected].mean())
            if accepted.any() and rejected.any():
                named["rewards/margins"] = named["rewards/chosen"] - named["rewards/rejected"]
                named["rewards/accuracies"] = (ratio[accepted][:, None] > ratio[rejected]).float().mean()
    return named
