"""What is trained: dataset, algorithm and settings as people give them, their bound on β and their identity."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel

from pmpo_offline import __version__
from pmpo_offline.data import Dataset, columns, flips, load_dataset
from pmpo_offline.declarations import OBJECTIVES, catalog
from pmpo_offline.declarations.catalog import AlgorithmDeclaration
from pmpo_offline.objectives import Interval, Objective, stability
from pmpo_offline.runtime.arguments import validated
from pmpo_offline.runtime.errors import UserError, unknown
from pmpo_offline.runtime.hashing import identity, version
from pmpo_offline.training.control.config import TrainingSettings

MEASURED = "dataset"
"""In place of a number for `reject_mass` or `flip_rate`: the dataset's own."""
ESTIMATED = "estimated"
"""In place of a number for `flip_rate`: what the labels themselves say (`data.flips`)."""
LARGEST = 1e9
"""Of any setting: losses are computed in float32, and what is larger is a slip of the pen."""
PARTS_BY_LABEL = {"accepted": [[1]], "unrejected": [[0, 1]], "balanced": [[1], [-1]], "label_pairs": [[1], [-1]]}
"""Minibatches of rows that are chosen by their labels: the labels of each of their parts, which are of one size."""
REVISION = 1
"""Raise it with every change of the code after which a training comes out differently: old checkpoints are refused."""

S = TypeVar("S", bound=BaseModel)


def hyperparameters(algorithm: AlgorithmDeclaration, overrides: Mapping[str, Any], kind: type[S]) -> S:
    """Return an algorithm's training hyperparameters; `UserError` for one that is unknown or malformed."""
    return validated(kind, {**algorithm.training, **overrides}, f"training of {algorithm.name}", key="setting")


def divide(
    algorithm: AlgorithmDeclaration, settings: Mapping[str, Any], kind: type[BaseModel]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide settings into those of the objective and those of the training; `UserError` for one that is neither."""
    own = {*complete(algorithm, {}), *OBJECTIVES[algorithm.objective].known}
    if odd := set(settings) - own - set(kind.model_fields):
        raise unknown(f"setting of {algorithm.name}", min(odd), own | set(kind.model_fields))
    return {k: v for k, v in settings.items() if k in own}, {k: v for k, v in settings.items() if k not in own}


def rows_drawn(algorithm: AlgorithmDeclaration, overrides: Mapping[str, Any], dataset: Dataset) -> int | None:
    """Return how many rows a minibatch draws at random; None of responses, whose minibatches hold every class."""
    if dataset.metadata.kind == "responses":
        return None
    return hyperparameters(algorithm, overrides, TrainingSettings).batch


def complete(algorithm: AlgorithmDeclaration, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Complete an objective's settings by the algorithm's and the defaults; β may stay a multiple of its bound.

    Raises `UserError` for an unknown objective, an unknown setting, and a value that is not allowed.
    """
    if algorithm.objective not in OBJECTIVES:
        raise unknown(f"objective in algorithm {algorithm.name}:", algorithm.objective, OBJECTIVES)
    objective = OBJECTIVES[algorithm.objective]
    values = {**objective.settings, **algorithm.settings, **settings}
    known = objective.known
    for name in sorted(set(values) - set(known)):
        if name in {*TrainingSettings.model_fields, *algorithm.training}:
            raise UserError(
                f"{name} belongs to the training, not to the settings of {algorithm.name}: in Python it is given in "
                "overrides, in a .toml under [training]"
            )
        raise unknown(f"setting of {algorithm.name}", name, known)
    for name, allowed in known.items():
        if name not in values:  # one without a default
            continue
        value = values[name].item() if isinstance(values[name], np.generic) else values[name]
        if value in allowed and (isinstance(value, str) or abs(value) <= LARGEST):
            values[name] = float(value) if isinstance(allowed, Interval) else value  # people write 2 for 2.0
            continue
        hint, fits = "", False
        if name == "beta" and objective.bound is not None:
            hint, fits = ', or a multiple of its bound such as "1.05x"', multiple(value) is not None
        elif name == "flip_rate":
            words = f'"{MEASURED}" (the rate that it was built with) or "{ESTIMATED}"'
            hint, fits = f", or {words}", value in (MEASURED, ESTIMATED)
        elif name == "reject_mass":
            hint, fits = f', or "{MEASURED}"', value == MEASURED
        elif name == "temperature" and "advantage" in objective.needs:
            hint, fits = ', or a multiple of the advantages\' deviation such as "1sd"', bool(multiple(value, "sd"))
        if not fits:
            most = f", {LARGEST:g} at most" if value in allowed else ""
            raise UserError(f"{algorithm.name}.{name} is {allowed}{most}{hint}, not {value!r}")
    if values.get("flip_rate") == 0:  # the objective itself, by the same name
        del values["flip_rate"]
    return values


def opened(dataset: Dataset | str | Path, home: str | Path | None = None) -> Dataset:
    """Return a dataset, given itself, or its id or path: then every file is compared with its hash.

    Raises `UserError` if there is none, or it is declared and not built.
    """
    if isinstance(dataset, Dataset):
        return dataset
    if not isinstance(dataset, str | Path):
        kind = type(dataset).__name__
        raise UserError(f"expected a dataset, its id or its path, not {kind}: import_dataset reads files and folders")
    try:
        return load_dataset(dataset, verify=True, home=home)
    except UserError as error:
        if not catalog.is_declared(str(dataset)):
            raise
        raise UserError(f"dataset {dataset} is declared but not built: build_dataset({str(dataset)!r})") from error


def algorithm_for(name: str, dataset: Dataset) -> AlgorithmDeclaration:
    """Return the algorithm of this name, or of this .toml, with the hyperparameters that fit a dataset's labels."""
    meta = dataset.metadata
    return catalog.algorithm(name, catalog.family(meta.task, by_step=meta.label.by_step))


def reads_labels(algorithm: AlgorithmDeclaration) -> bool:
    """Return whether labels enter a training: they choose the rows of a minibatch, or are an input of the objective."""
    return algorithm.rows in (*PARTS_BY_LABEL, "pairs") or "label" in OBJECTIVES[algorithm.objective].needs


def check_inputs(algorithm: AlgorithmDeclaration, batch: type) -> None:
    """Raise `UserError` if a kind of minibatch lacks an input of the algorithm's objective."""
    for name in OBJECTIVES[algorithm.objective].needs:
        if not hasattr(batch, name):
            raise UserError(
                f"{algorithm.name}: minibatches of {algorithm.rows} rows have no {name}, an input of "
                f"{algorithm.objective}: set `rows` in the algorithm's TOML"
            )


def multiple(value: Any, unit: str = "x") -> float | None:
    """Return the 1.05 of `"1.05x"`, None for anything else."""
    if not isinstance(value, str) or not value.endswith(unit):
        return None
    try:
        factor = float(value.removesuffix(unit))
    except ValueError:
        return None
    return factor if 0 <= factor <= LARGEST else None


@dataclass(frozen=True)
class Setup:
    """An algorithm with the settings of its objective on a dataset: what bounds β there (`objectives.stability`)."""

    algorithm: AlgorithmDeclaration
    settings: dict[str, Any]
    """Over those that the algorithm declares; complete, as what follows reads them, once `settled`."""
    dataset: Dataset
    """Whose labels are counted."""
    rows: int | None = None
    """Of a minibatch, drawn at random (`rows_drawn`): where labels are rare it lacks a class now and then, which lowers
    the bound (`objectives.stability.Minibatch`). None: the bound on the whole data."""

    @property
    def objective(self) -> Objective:
        """The objective that the algorithm minimises."""
        return OBJECTIVES[self.algorithm.objective]

    def change(self, **settings: Any) -> Setup:
        """Return the same with other settings."""
        return replace(self, settings={**self.settings, **settings})

    def completed(self) -> Setup:
        """Return the same with complete settings, of which β may stay a multiple of its bound.

        Raises `UserError` as `complete` does, for inputs of the objective that this kind of dataset cannot give, and
        unless responses have every text that the objective puts before prompts, and others none.
        """
        settings = complete(self.algorithm, self.settings)
        objective, name, meta = self.objective, self.algorithm.name, self.dataset.metadata
        family = "language" if meta.kind == "responses" else "control"
        if family not in objective.families:
            raise UserError(
                f"{name}: {objective.name} needs {', '.join(objective.needs)}, which {meta.id} cannot give: it is for "
                f"{' and '.join(objective.families)} datasets"
            )
        given = [text for text in objective.texts if text in settings]
        if family == "control" and given:
            raise UserError(f"{name}.{given[0]}: {meta.id} has no prompts: leave it out")
        if family == "language" and (missing := [text for text in objective.texts if text not in given]):
            raise UserError(f'{name}: which text shows a model the label? set {missing[0]}, such as "Good: "')
        if len({settings[text] for text in given}) < len(given):
            raise UserError(f"{name}: {' and '.join(given)} are equal: no model can tell the labels apart")
        return replace(self, settings=settings)

    def settled(self) -> Setup:
        """Return the same with complete settings, all of them numbers or words.

        β given as a multiple of its bound (`"1.05x"`) becomes a number, and so does a temperature given in deviations
        of the dataset's advantages (`"1sd"`), whose scale is the rewards'.

        Raises `UserError` as `completed` does, and for a bound that no β meets.
        """
        algorithm, name, setup = self.algorithm, self.dataset.metadata.id, self.completed()
        if setup.settings.get("reject_mass") == MEASURED:
            if not setup.reject_mass:
                raise UserError(f"{algorithm.name}.reject_mass: nothing is rejected in {name}: give a number")
            setup = setup.change(reject_mass=setup.reject_mass)
        if "flip_rate" in setup.settings:
            setup = setup.change(**_flips(setup))
        if (deviations := multiple(setup.settings.get("temperature"), "sd")) is not None:
            setup = setup.change(temperature=deviations * _deviation(setup))
        if (factor := multiple(setup.settings.get("beta"))) is not None:
            # A floor bounds the loss at every β; a multiple of that bound, zero, would switch the divergence off.
            bound = setup.change(floor=0.0).bound
            if bound is None or math.isinf(bound):
                kind = setup.settings["divergence"]
                held = f"the {kind} divergence does not hold rejects back (give β a number to try)"
                why = "its reference produces no rejects" if setup.is_forward else held
                raise UserError(f"{algorithm.name} is unbounded on {name} at every β: {why}")
            setup = setup.change(beta=factor * bound)
        return setup

    @property
    def bound(self) -> float | None:
        """The least β at which the loss is bounded, None if the objective has no bound.

        Raises `UserError` where `rows` of the algorithm are chosen by score, whose labels are not counted.
        """
        bound, settings = self.objective.bound, self.settings
        if bound is None:
            return None
        if self.algorithm.rows == "top":
            name = self.algorithm.name
            raise UserError(f'{name} has a bound on β, which is not known for rows = "top": set rows = "all"')
        if settings["floor"]:
            return 0.0  # the reject term has a least value of its own
        debiased = "flip_rate" in settings
        least = (self._debiased_reject if debiased else 1.0) * bound(
            0.0 if debiased else settings["alpha"],
            reject_mass=self.reject_mass,
            normalize=settings["normalize"],
            reject_share=self.reject_share,
            minibatch=self.minibatch,
        )
        if not self.is_forward:
            # The others stay finite where the policy gives a rejected outcome no probability: they hold nothing back.
            return math.inf if least else 0.0
        return least * float(settings["reject_mass"])

    @property
    def collapse(self) -> float | None:
        """The β at or below which a policy over outcomes collapses onto one.

        None where there is no such threshold: without a bound, or with a divergence that does not hold rejects back.
        """
        if not self.bound or math.isinf(self.bound):
            return None
        rate = self.settings.get("flip_rate", 0.0)
        least = stability.beta_collapse(
            self.settings["alpha"],
            min(1.0, max(0.0, (self.reject_share - rate) / (1 - 2 * rate))),  # de-biased labels have the true share
            self.settings["normalize"],
            minibatch=self.minibatch,
        )
        return least * float(self.settings["reject_mass"])

    @property
    def minibatch(self) -> stability.Minibatch | None:
        """The minibatch; None where each holds every class."""
        share = self.dataset.metadata.reject_share
        if self.rows is None or self.algorithm.rows != "all" or not share:
            return None
        # Rejected rows of all rows, over rejected rows of labelled rows.
        labelled = min(1.0, self.dataset.metadata.labelled_reject_mass / share)
        return stability.Minibatch(self.rows, labelled, self.settings["over"])

    @property
    def reject_share(self) -> float:
        """w_r, the rejects' share of the labelled rows in a batch."""
        share = self.dataset.metadata.reject_share
        if self.algorithm.rows in ("accepted", "unrejected"):
            return 0.0
        return 0.5 if self.algorithm.rows == "balanced" and 0 < share < 1 else share

    @property
    def reject_mass(self) -> float:
        """P_r, the rejects' share of the rows that the divergence runs over.

        It is taken before balancing where the policy must treat the rejects whose labels were dropped like the labelled
        ones, because it sees no context to tell them apart by. Elsewhere every state was recorded once and a network
        can tell them apart: then only the labelled ones count, and at the smaller bound it collapses
        (benchmarks/results/README.md). Rejects that never had a label are estimated likewise (`labelled_at_first`).

        Batches of accepted or of balanced rows hold labelled rows alone, in shares of their own: so does the
        divergence.
        """
        metadata = self.dataset.metadata
        if self.settings["over"] == "labelled" or self.algorithm.rows in ("accepted", "unrejected", "balanced"):
            return self.reject_share
        if self.dataset.has_contexts:
            return metadata.labelled_reject_mass
        return min(1.0, metadata.reject_mass / self.labelled_at_first)

    @property
    def labelled_at_first(self) -> float:
        """The share of the units that had a label before balancing, of those that could have had one.

        Without a margin labels are taken to be missing at random: an outcome then is accepted or rejected as often
        among the unlabelled units. A margin leaves outcomes of their own without a label, and every one counts as
        labelled.
        """
        meta = self.dataset.metadata
        counts, balance = meta.counts, meta.imbalance
        dropped = balance.dropped_accepted + balance.dropped_rejected if balance.balance == "labels" else 0
        units = counts.accepted + counts.rejected + counts.unlabelled
        labelled = counts.accepted + counts.rejected + dropped
        return 1.0 if meta.label.dead_zone or not labelled else labelled / units

    @property
    def is_forward(self) -> bool:
        """Whether the divergence is KL(reference || policy), which at order 1 the others are too."""
        kind, order = self.settings["divergence"], self.settings["order"]
        return kind in ("behavior", "forward") or (kind != "reverse" and order == 1)

    @property
    def _debiased_reject(self) -> float:
        """What the label terms take from an observed reject, in units of its weight at alpha = 0 without noise.

        De-biased it counts as a reject of (1 - e) / (1 - 2e) and as an accept of -e / (1 - 2e). The bound is then that
        of a policy that can single the recorded rows out; one that cannot sees the true labels on average, and less
        would do.
        """
        alpha, rate, share = self.settings["alpha"], self.settings["flip_rate"], self.reject_share
        if self.settings["normalize"] == "joint":
            return float(((1 - alpha) * (1 - rate) + alpha * rate) / (1 - 2 * rate))
        true = (share - rate) / (1 - 2 * rate)  # "set": each class is divided by its own estimated count
        return float(((1 - alpha) * (1 - rate) / true + alpha * rate / (1 - true)) * share / (1 - 2 * rate))


def _flips(setup: Setup) -> dict[str, float]:
    """Return the settings by which flipped labels are accounted for, as numbers.

    Raises `UserError` for minibatches that are chosen by the observed labels, and for classes that flips alone explain.
    """
    kind, rate, meta = setup.algorithm.rows, setup.settings["flip_rate"], setup.dataset.metadata
    name = f"{setup.algorithm.name}.flip_rate"
    if kind not in ("all", "balanced"):
        raise UserError(f'{name}: minibatches of {kind} rows leave labels out: set rows = "all"')
    if isinstance(rate, str):
        rate = meta.noise if rate == MEASURED else flips.estimate(setup.dataset).rate
    share = 1 - meta.reject_share
    if not rate < share < 1 - rate:
        raise UserError(
            f"{name}: {share:.3g} of the labels of {meta.id} are accepts, and flips at "
            f"a rate of {rate:.3g} would make as many of one class alone: lower the rate"
        )
    return {"flip_rate": rate} | ({"accept_share": share} if kind == "balanced" else {})


def _deviation(setup: Setup) -> float:
    """Return the deviation of the dataset's advantages; `UserError` if its scores are none or all alike."""
    meta, table = setup.dataset.metadata, setup.dataset.table
    deviation = float(np.nanstd(columns.vector(table, "score"))) if meta.score.name == "advantage" else 0.0
    if not deviation > 0:
        raise UserError(
            f"{setup.algorithm.name}.temperature is given in deviations of the advantages, and {meta.id} is scored by "
            f"{meta.score.name}{' that never differs' if meta.score.name == 'advantage' else ''}: give a number, or "
            "build a dataset with --label advantage"
        )
    return deviation


def warn_below(setups: Sequence[Setup], stacklevel: int = 3) -> None:
    """Warn once of every β below its bound, of one algorithm, with what the lowest of them leads to."""
    listed, worst = [], (math.inf, "")
    for setup in setups:
        beta, bound = setup.settings.get("beta", math.inf), setup.bound
        if bound and beta < bound:
            listed.append(f"β = {beta:g} < {bound:.3g}")
            worst = min(worst, (beta / bound, stability.consequence(beta, bound, setup.collapse)))
    if listed:
        name = setups[0].algorithm.name
        said = f"{name}: {', '.join(listed)}: below its bound {worst[1]}; `pmpo-offline doctor` says more"
        warnings.warn(said, stacklevel=stacklevel)


def training_identity(*packages: str, **ingredients: Any) -> str:
    """Return the identity of a training: all that it depends on, with the code's revision and the packages' versions.

    Args:
        packages: distributions that it computes with, beside this one and torch.
        ingredients: JSON values: content of the dataset, algorithm, complete settings, every seed, hyperparameters, …
    """
    # "2.5.1+cpu" and "2.5.1+cu124" are one version: a training may move to another device.
    versions = {name: version(name).partition("+")[0] for name in ("torch", *packages)}
    return identity(**ingredients, versions={**versions, "pmpo-offline": __version__}, revision=REVISION)
