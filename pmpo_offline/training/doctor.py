"""What will happen if an algorithm with these settings meets this dataset: said before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import polars as pl

from pmpo_offline.data import Dataset, columns
from pmpo_offline.declarations import OBJECTIVES
from pmpo_offline.declarations.catalog import AlgorithmDeclaration
from pmpo_offline.objectives import kto_weight_range
from pmpo_offline.training.config import complete
from pmpo_offline.training.language.responses import part
from pmpo_offline.training.verdict import advice, stability_of

Verdict = Literal["bounded", "at the edge", "unbounded", "ready", "cannot learn"]


@dataclass(frozen=True)
class Diagnosis:
    """What is known of an algorithm on a dataset; None where a quantity does not apply."""

    dataset: str
    algorithm: str
    objective: str
    settings: dict[str, Any]
    """Complete; β is a number, or None where it was given as a multiple of a bound that no number meets."""
    trains_on: str
    """What a minibatch is made of."""
    accepted: int
    """Of what it trains on: rows, or candidates."""
    rejected: int
    unlabelled: int
    accepted_share: float | None
    """Of the labelled ones."""
    reject_mass: float
    """P_r, the rejects' share of everything before balancing, both splits of responses together."""
    labelled_reject_mass: float
    """The same after balancing; the bound goes by it where the policy can tell rows apart (`training.bound`)."""
    reject_share: float
    """w_r, of the labelled ones."""
    verdict: Verdict
    bound: float | None = None
    """The least stable β, infinite where none is."""
    bounds: dict[str, float] = field(default_factory=dict)
    """The same under each normalisation."""
    factor: float | None = None
    """β / bound."""
    suggested_beta: float | None = None
    noise_bound: float | None = None
    """The least stable β where labels are flipped at the dataset's rate, and the observation never changes."""
    gaussian_bound: float | None = None
    """The least stable β of one diagonal Gaussian, where the observation never changes."""
    pairs: int | None = None
    """Pairs of an accept and a reject of one state or prompt, for an algorithm that learns from pairs."""
    weight_ratio: float | None = None
    """KTO's w_D / w_U as set."""
    weight_range: tuple[float, float] | None = None
    """KTO's advised w_D / w_U."""
    notes: list[str] = field(default_factory=list)
    """What else to know, a sentence each; the first says why, where the verdict is that it cannot learn."""


def diagnose(dataset: Dataset, algorithm: AlgorithmDeclaration, settings: Mapping[str, Any] | None = None) -> Diagnosis:
    """Say whether an algorithm can learn from a dataset and, where its objective has a bound on β, on which side it is.

    Args:
        dataset: labelled transitions, candidates or responses; of these the split "train" counts, as in training.
        algorithm: as declared; `settings` go before its own.
        settings: the objective's hyperparameters; β may be a multiple of its bound.

    Raises:
        UserError: an unknown setting, a value that is not allowed, or responses of which none are to be trained on.
    """
    if dataset.metadata.kind == "responses":
        dataset = part(dataset, "train")
    asked = complete(algorithm, settings or {})
    objective, meta = OBJECTIVES[algorithm.objective], dataset.metadata
    by_candidates = algorithm.rows in ("candidates", "pairs") and dataset.candidates is not None
    label = columns.labels(dataset.candidates if by_candidates else dataset.table)
    accepted, rejected = int((label > 0).sum()), int((label < 0).sum())
    shares = meta.candidates if by_candidates and meta.candidates else meta
    pairs = _pairs(dataset) if algorithm.rows == "pairs" else None
    by_labels = "label" in objective.inputs or algorithm.rows in ("accepted", "balanced", "pairs")
    problems = _problems(dataset, algorithm, accepted, rejected, pairs)
    notes = _notes(accepted, rejected) if by_labels and not problems else []
    found: dict[str, Any] = {"settings": asked, "verdict": "ready", "pairs": pairs}
    if objective.bound is not None and not problems:
        found |= stability_of(dataset, algorithm, asked)
        notes += advice(found, accepted, rejected)
    if objective.name == "kto" and accepted and rejected:
        found |= _class_weights(algorithm, asked, accepted, rejected)
        low, high = kto_weight_range(accepted, rejected)
        notes.append(f"on rows as they come instead, the advised w_D / w_U would be {low:.3g} to {high:.3g}")
    if problems:
        found["verdict"] = "cannot learn"
    return Diagnosis(
        dataset=meta.id,
        algorithm=algorithm.name,
        objective=objective.name,
        trains_on=algorithm.rows,
        accepted=accepted,
        rejected=rejected,
        unlabelled=len(label) - accepted - rejected,
        accepted_share=accepted / (accepted + rejected) if accepted + rejected else None,
        reject_mass=shares.reject_mass,
        labelled_reject_mass=shares.labelled_reject_mass,
        reject_share=shares.reject_share,
        notes=problems + notes,
        **found,
    )


def _problems(
    dataset: Dataset, algorithm: AlgorithmDeclaration, accepted: int, rejected: int, pairs: int | None
) -> list[str]:
    """Return why the algorithm cannot learn from this dataset, a sentence each."""
    meta, answers = dataset.metadata, dataset.metadata.kind == "responses"
    problems = []
    if algorithm.rows in ("candidates", "pairs") and dataset.candidates is None and not answers:
        problems.append("it learns from scored candidate actions and the dataset has none: declare [candidates]")
    elif pairs == 0:
        where, what = ("prompt", "response") if answers else ("state", "candidate")
        problems.append(f"no {where} has both an accepted and a rejected {what}: without pairs there is no gradient")
    by_advantage = "advantage" in OBJECTIVES[algorithm.objective].inputs.values() and not algorithm.critic
    if answers and (by_advantage or algorithm.rows == "candidates") and (why := _incomparable(dataset)):
        problems.append(f"it compares the scores of a prompt's responses, and {why}")
    if by_advantage and not answers and meta.score.name != "advantage":
        problems.append(f"it needs advantages and the dataset is scored by {meta.score.name}: --label advantage")
    if algorithm.rows == "accepted" and not accepted:
        problems.append("it imitates accepted rows and there are none")
    if algorithm.rows == "balanced" and not (accepted and rejected):
        absent = "rejects" if accepted else "accepts" if rejected else "labels"
        problems.append(f"its minibatches are half accepts, half rejects, and there are no {absent}")
    uses_labels = "label" in OBJECTIVES[algorithm.objective].inputs
    if algorithm.rows == "all" and uses_labels and not accepted + rejected:
        where = ": they are the candidates', see an algorithm on pairs" if meta.kind == "candidates" else ""
        problems.append(f"no row is labelled{where}")
    return problems


def _notes(accepted: int, rejected: int) -> list[str]:
    """Return what one-class data mean."""
    if accepted and not rejected:
        return ["accepts only: nothing says what to avoid; BC on accepts is the plain alternative"]
    if rejected and not accepted:
        return ["rejects only: everything else is imitated, and the divergence is all that holds the policy"]
    return []


def _class_weights(
    algorithm: AlgorithmDeclaration, asked: Mapping[str, Any], accepted: int, rejected: int
) -> dict[str, Any]:
    """Return KTO's weights beside the advised ones for its minibatches."""
    both = (1, 1) if algorithm.rows == "balanced" else (accepted, rejected)
    desirable, undesirable = asked["desirable_weight"], asked["undesirable_weight"]
    return {
        "weight_range": kto_weight_range(*both),
        "weight_ratio": desirable / undesirable if undesirable else math.inf,
    }


def _pairs(dataset: Dataset) -> int:
    """Return how many pairs of an accept and a reject of one state, or one prompt, there are."""
    if dataset.metadata.kind == "responses":
        table, group = dataset.table, "prompt_id"
    elif dataset.candidates is not None and dataset.candidates.num_rows:
        table, group = dataset.candidates, "row"
    else:
        return 0
    label = columns.labels(table)
    _, state = np.unique(columns.vector(table, group), return_inverse=True)
    return int((np.bincount(state, label > 0) * np.bincount(state, label < 0)).sum())


def _incomparable(dataset: Dataset) -> str | None:
    """Return why no response is known to be better than another one to its prompt, None where one is."""
    score = columns.vector(dataset.table, "score").astype(np.float32)
    known = pl.DataFrame({"prompt": columns.vector(dataset.table, "prompt_id"), "score": score}).drop_nans()
    found = known.group_by("prompt").agg(pl.len().alias("scored"), pl.col("score").n_unique().alias("different"))
    if not (found["scored"] > 1).any():
        return "no prompt has two scored ones"
    return (
        None
        if (found["different"] > 1).any()
        else "no response is better than another: all scores of a prompt are equal"
    )
