"""Diagnosis of an algorithm with its settings on a dataset, before anything is trained: can it learn, is it bounded?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import torch

from pmpo_offline.data import Dataset, columns
from pmpo_offline.declarations.catalog import AlgorithmDeclaration
from pmpo_offline.objectives import kto_weight_range, stability
from pmpo_offline.runtime.arguments import checked
from pmpo_offline.runtime.notebook import html_table
from pmpo_offline.training import config
from pmpo_offline.training.config import Setup
from pmpo_offline.training.control.config import TrainingSettings
from pmpo_offline.training.language.responses import take_split
from pmpo_offline.training.states import collapse_by_state
from pmpo_offline.training.suggestion import noise_bound, suggest, suggest_beta

EDGE = 0.02
"""Within this share of the bound, the noise of minibatches decides whether a run is stable."""
_ONE_CLASS = {
    "accepts": "accepts only: nothing says what to avoid; BC on accepts is the plain alternative",
    "rejects": "rejects only: the policy stays near everything else, and only the divergence holds it there",
}
_WHOLE_EPISODES = (
    "rejects are whole episodes: where it sees nothing else the log-ratio to the clone alone holds it back, "
    "and pushed far it takes the accepts along (watch `reach`, lower learning_rate); compare with bc-accepted"
)
Verdict = Literal["bounded", "at the edge", "no minimum", "collapse", "unbounded", "ready", "cannot learn"]
"""With a bound on β the regime (`objectives.stability.Regime`) unless β is at the bound itself, else whether there is
anything to learn from."""


@dataclass(frozen=True)
class Diagnosis:
    """Facts about an algorithm on a dataset; None where a quantity does not apply."""

    dataset: str
    algorithm: str
    objective: str
    settings: dict[str, Any]
    """Complete; β is a number, or None where it was given as a multiple of a bound that no number meets."""
    trains_on: str
    """The kind of rows in a minibatch."""
    accepted: int
    """Of the units that it trains on: rows, or candidates."""
    rejected: int
    unlabelled: int
    held_out: int
    """Responses to test prompts, which are not trained on."""
    accepted_share: float | None
    """Of the labelled ones."""
    reject_mass: float
    """P_r, the rejects' share of everything before balancing, both splits of responses together."""
    labelled_reject_mass: float
    """The same after balancing, from which the bound follows where the policy can tell rows apart."""
    reject_share: float
    """w_r, of the labelled ones."""
    verdict: Verdict
    bound: float | None = None
    """The least stable β in the minibatches of the training, infinite where none is."""
    bounds: dict[str, float] = field(default_factory=dict)
    """The same under each normalisation."""
    factor: float | None = None
    """β / bound."""
    minibatch_factor: float | None = None
    """The bound over that on the whole data; below 1 where labels are so rare that minibatches lack a class."""
    suggested_beta: float | None = None
    """At the given α: a little above the bound, or above the one that flipped labels relax; where states are seen
    half-way from there to `collapse_by_state`."""
    suggested: dict[str, float] | None = None
    """α and β that follow from the labels (`training.suggestion`), where not every row has one."""
    noise_bound: float | None = None
    """The least stable β where labels are flipped at the dataset's rate, and the observation never changes."""
    collapse: float | None = None
    """The β at or below which a policy over outcomes collapses onto one; between it and the bound training ends at a
    policy over several outcomes although the loss has no minimum (`objectives.stability.limit_policy`)."""
    collapse_by_state: float | None = None
    """The same for a policy that sees states: at or below it a tenth of the states collapses (`training.states`)."""
    gaussian_bound: float | None = None
    """The least stable β of one diagonal Gaussian, where the observation never changes."""
    pairs: int | None = None
    """Pairs of an accept and a reject of one state or prompt, for an algorithm that learns from pairs."""
    weight_ratio: float | None = None
    """KTO's w_D / w_U as set."""
    weight_range: tuple[float, float] | None = None
    """KTO's advised w_D / w_U."""
    notes: list[str] = field(default_factory=list)
    """Further advice, a sentence each; the first is the reason where the verdict is that it cannot learn."""

    def __repr__(self) -> str:
        factor = "" if self.factor is None else f", β is {self.factor:.3g} times its bound"
        return f"Diagnosis({self.algorithm} on {self.dataset}: {self.verdict}{factor})"

    def _repr_html_(self) -> str:
        known = {name: value for name, value in vars(self).items() if value not in (None, [], {})}
        return html_table(f"{self.algorithm} on {self.dataset}: {self.verdict}", known)


@checked()
def doctor(
    dataset: Dataset | str | Path,
    algorithm: AlgorithmDeclaration | str = "pmpo",
    settings: Mapping[str, Any] | None = None,
) -> Diagnosis:
    """Return whether an algorithm can learn from a dataset and, if its objective has a bound, whether β is above it.

    Args:
        dataset: labelled transitions, candidates or responses (of these the split "train" counts, as in training), or
            the id or path of a stored dataset.
        algorithm: as declared, its name in the family of the dataset's task, or its `.toml`.
        settings: the hyperparameters of the objective, over the declared ones, and on transitions of the training, of
            which `batch` counts; β may be a multiple of its bound.

    Raises:
        UserError: an unknown setting, a value that is not allowed, inputs that the dataset or the rows do not have, or
            responses without a training split.
    """
    dataset = config.opened(dataset)
    if isinstance(algorithm, str):
        algorithm = config.algorithm_for(algorithm, dataset)
    own, overrides, stored = dict(settings or {}), dict[str, Any](), len(dataset)
    if dataset.metadata.kind == "responses":
        dataset = take_split(dataset, "train")
    else:
        own, overrides = config.divide(algorithm, own, TrainingSettings)
    setup = Setup(algorithm, own, dataset, config.rows_drawn(algorithm, overrides, dataset)).completed()
    objective, chosen, meta = setup.objective, setup.settings, dataset.metadata
    by_candidates = algorithm.rows in ("candidates", "pairs") and dataset.candidates is not None
    label = columns.labels(dataset.candidates if by_candidates else dataset.table)
    accepted, rejected = int((label > 0).sum()), int((label < 0).sum())
    shares = meta.candidates if by_candidates and meta.candidates else meta
    pairs = _pairs(dataset) if algorithm.rows == "pairs" else None
    facts: dict[str, Any] = {"settings": chosen, "verdict": "ready", "pairs": pairs}
    notes = _problems(setup, accepted, rejected, pairs)
    if notes:
        facts["verdict"] = "cannot learn"
    elif config.reads_labels(algorithm) and (accepted > 0) != (rejected > 0):
        notes.append(_ONE_CLASS["accepts" if accepted else "rejects"])
    if objective.bound is not None and facts["verdict"] == "ready":
        facts |= _stability(setup)
        notes += _advice(facts, accepted, rejected)
    if objective.name in ("kto", "bco") and meta.kind != "responses" and not meta.label.by_step:
        notes.append(_WHOLE_EPISODES)
    if objective.name == "kto" and accepted and rejected:
        desirable, undesirable = chosen["desirable_weight"], chosen["undesirable_weight"]
        facts["weight_ratio"] = desirable / undesirable if undesirable else math.inf
        facts["weight_range"] = low, high = kto_weight_range(accepted, rejected)
        if algorithm.rows == "balanced":
            facts["weight_range"] = kto_weight_range(1, 1)
            notes.append(f"on rows as they come instead, the advised w_D / w_U would be {low:.3g} to {high:.3g}")
    return Diagnosis(
        dataset=meta.id,
        algorithm=algorithm.name,
        objective=objective.name,
        trains_on=algorithm.rows,
        accepted=accepted,
        rejected=rejected,
        unlabelled=len(label) - accepted - rejected,
        held_out=stored - len(dataset),
        accepted_share=accepted / (accepted + rejected) if accepted + rejected else None,
        reject_mass=shares.reject_mass,
        labelled_reject_mass=shares.labelled_reject_mass,
        reject_share=shares.reject_share,
        notes=notes,
        **facts,
    )


def _problems(setup: Setup, accepted: int, rejected: int, pairs: int | None) -> list[str]:
    """Return why the algorithm cannot learn from this dataset, a sentence each."""
    algorithm, dataset, needs = setup.algorithm, setup.dataset, setup.objective.needs
    meta, rows = dataset.metadata, algorithm.rows
    responses = meta.kind == "responses"
    by_advantage = "advantage" in needs and not algorithm.critic
    without = rows in ("candidates", "pairs") and dataset.candidates is None and not responses
    why = _incomparable(dataset) if responses and (by_advantage or rows == "candidates") else None
    where, what = ("prompt", "response") if responses else ("state", "candidate")
    absent = "rejects" if accepted else "accepts" if rejected else "labels"
    elsewhere = ": they are the candidates', see an algorithm on pairs" if meta.kind == "candidates" else ""
    problems = {
        "it learns from scored candidate actions and the dataset has none: declare [candidates] in the recipe it is "
        "built from, or take an algorithm of labels, such as pmpo": without,
        f"no {where} has both an accepted and a rejected {what}: without pairs there is no gradient": (
            pairs == 0 and not without
        ),
        f"it compares the scores of a prompt's responses, and {why}": why,
        f"it needs advantages and the dataset is scored by {meta.score.name}: --label advantage": (
            by_advantage and not responses and meta.score.name != "advantage"
        ),
        "it imitates accepted rows and there are none": rows == "accepted" and not accepted,
        "it leaves out rejected rows and there are none": rows == "unrejected" and not rejected,
        f"its minibatches are half accepts, half rejects, and there are no {absent}": (
            rows in ("balanced", "label_pairs") and not (accepted and rejected)
        ),
        f"no row is labelled{elsewhere}": rows == "all" and "label" in needs and not accepted + rejected,
    }
    return [sentence for sentence, applies in problems.items() if applies]


def _pairs(dataset: Dataset) -> int:
    """Return how many pairs of an accept and a reject of one state, or one prompt, there are."""
    responses = dataset.metadata.kind == "responses"
    table = dataset.table if responses else dataset.candidates
    if table is None or not table.num_rows:
        return 0
    label = columns.labels(table)
    _, state = np.unique(columns.vector(table, "prompt_id" if responses else "row"), return_inverse=True)
    return int((np.bincount(state, label > 0) * np.bincount(state, label < 0)).sum())


def _incomparable(dataset: Dataset) -> str | None:
    """Return why no response is known to be better than another one to its prompt, None where one is."""
    score = columns.vector(dataset.table, "score").astype(np.float32)
    known = pl.DataFrame({"prompt": columns.vector(dataset.table, "prompt_id"), "score": score}).drop_nans()
    prompts = known.group_by("prompt").agg(scored=pl.len(), different=pl.col("score").n_unique())
    if not (prompts["scored"] > 1).any():
        return "no prompt has two scored ones"
    if not (prompts["different"] > 1).any():
        return "no response is better than another: all scores of a prompt are equal"
    return None


def _stability(setup: Setup) -> dict[str, Any]:
    """Return the thresholds, and the verdict on β."""
    beta = setup.settings["beta"]
    if setup.settings["reject_mass"] == config.MEASURED and not setup.reject_mass:
        setup = setup.change(reject_mass=1.0)  # without rejects in a batch there is nothing to divide by
    # With a number for β, only `reject_mass` and `flip_rate` are left to be measured.
    setup = setup.change(beta=1.0).settled()
    bounds = {way: setup.change(normalize=way).bound or 0.0 for way in ("joint", "set")}
    bound = bounds[setup.settings["normalize"]]
    if isinstance(beta, str):
        beta = None if math.isinf(bound) else setup.change(beta=beta).settled().settings["beta"]
    setup = setup.change(beta=beta)
    facts = {"settings": setup.settings, "bound": bound, "bounds": bounds}
    facts["verdict"] = "unbounded" if bound else "bounded"
    if 0 < bound < math.inf:
        factor, collapse, by_state = beta / bound, setup.collapse, collapse_by_state(setup)
        known = max(collapse or 0.0, by_state or 0.0)
        facts["verdict"] = "at the edge" if abs(factor - 1) <= EDGE else stability.regime(beta, bound, known)
        facts |= {
            "factor": factor,
            "minibatch_factor": bound / (replace(setup, rows=None).bound or bound),
            "suggested_beta": suggest_beta(setup),
            "suggested": suggest(setup),
            "collapse": collapse,
            "collapse_by_state": by_state,
            "gaussian_bound": _gaussian_bound(setup),
            "noise_bound": noise_bound(setup),
        }
    return facts


def _gaussian_bound(setup: Setup) -> float | None:
    """Return the bound by the moments of the actions, None where the policy has contexts to tell apart, or choices."""
    dataset, values = setup.dataset, setup.settings
    if dataset.has_contexts or dataset.metadata.actions:
        return None
    action, label = torch.tensor(columns.matrix(dataset.table, "action")), columns.labels(dataset.table)
    accepted, rejected = (action[torch.tensor(np.flatnonzero(np.sign(label) == sign))] for sign in (1, -1))
    reference = torch.cat([accepted, rejected]) if values["over"] == "labelled" else action
    bound = stability.gaussian_beta_min(
        accepted, rejected, reference, alpha=values["alpha"], normalize=values["normalize"], minibatch=setup.minibatch
    )
    return bound * float(values["reject_mass"])


def _advice(facts: Mapping[str, Any], accepted: int, rejected: int) -> list[str]:
    """Return advice that follows from the bounds, a sentence each."""
    values, bound, verdict = facts["settings"], facts["bound"], facts["verdict"]
    sentences = []
    if values["floor"]:
        sentences.append("with a floor under the rejects every β is bounded")
        if rejected and values["beta"] == 0:
            sentences.append("at β = 0 nothing keeps the policy near its reference as it moves away from the rejects")
    elif not bound:
        sentences.append("no reject is pushed away: every β is bounded")
    elif math.isinf(bound):
        sentences.append(f"no β bounds the loss: the {values['divergence']} divergence does not hold rejects back")
    elif verdict in ("no minimum", "collapse"):
        why = stability.consequence(values["beta"], bound, facts["collapse"])
        sentences.append(f"β is below its bound: {why}")
        if (by_state := facts["collapse_by_state"]) is not None and values["beta"] <= by_state:
            sentences.append(
                f"it is also at or below {by_state:.4g}, where in a tenth of the states rejects outweigh all that "
                "holds them: a policy that sees the state is pushed away there without end"
            )
    elif verdict == "at the edge":
        sentences.append(
            "at the bound the optimal policy gives rejects no probability, and minibatch noise decides whether "
            "training is stable"
        )
    elif (factor := facts["factor"]) > 1.3:
        sentences.append(
            f"a reject still weighs {1 - 1 / factor:.2f} of an unlabelled row: labels matter more near the bound"
        )
    if (factor := facts.get("minibatch_factor")) is not None and factor < 0.999:
        sentences.append(
            f"labels are so rare that minibatches lack them: the bound is {factor:.3g} of the {bound / factor:.4g} of "
            "the whole data, and a larger batch raises it"
        )
    if 0 < bound < math.inf and values["divergence"] != "behavior":
        sentences.append(
            "a network that tells single rows apart needs more than this bound, see benchmarks/results/stability"
        )
    if (relaxed := facts.get("noise_bound")) is not None:
        sentences.append(
            f"labels are flipped at a known rate: where outcomes have both labels, β ≥ {relaxed:.4g} is enough, "
            "and the suggestion goes by that"
        )
    if (gaussian := facts.get("gaussian_bound")) is not None:
        side = "bounded" if values["beta"] > gaussian else "unbounded"
        sentences.append(
            f"the observation never changes: one diagonal Gaussian needs β > {gaussian:.4g} and is {side} here; "
            "the bound is for policies that can single outcomes out, such as mixtures"
        )
    if rejected and not accepted and values["alpha"] not in (0, 1):
        sentences.append("without accepts α only scales the rejects")
    return sentences
