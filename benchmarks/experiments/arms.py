"""The learners of sweeps over labels, the settings among which each is tuned, and the tuning."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import torch

from benchmarks.experiments.labellings import Labelled, Run
from pmpo_offline.declarations import catalog
from pmpo_offline.declarations.catalog import AlgorithmDeclaration
from pmpo_offline.objectives import stability
from pmpo_offline.training.config import MEASURED

Setting = Mapping[str, Any]
"""Settings of an objective, but `multiple`, β in multiples of its bound for a run's labels, and `rate`, of learning."""
FILTERS = ("bc-accepted", "bc-unrejected")
"""The filtered clones, which every margin is taken over."""


@dataclass(frozen=True)
class Arm:
    """A learner, and the settings among which it is tuned; the first is taken where nothing is tuned."""

    algorithm: str
    grid: Sequence[Setting] = ({},)
    unlabelled_is_good: bool = False
    """Take every unlabelled row for an accepted one."""

    def declared(self, family: str) -> AlgorithmDeclaration:
        """Return the algorithm as declared for a family of tasks."""
        return catalog.algorithm(self.algorithm, family)

    def run(self, family: str, labelled: Labelled, seed: int, setting: Setting, rows: int | None = None) -> Run:
        """Return a run with β in place of a multiple of its bound, which is that in minibatches of so many `rows`."""
        if self.unlabelled_is_good:
            label = torch.where(labelled.label == 0, 1.0, labelled.label)
            labelled = Labelled(label, labelled.collected, labelled.produced)
        values = {name: value for name, value in setting.items() if name not in ("multiple", "rate")}
        if values.get("reject_mass") == MEASURED:
            values["reject_mass"] = labelled.masses["reject_mass"]
        if "multiple" in setting:
            complete = {"normalize": "joint", **self.declared(family).settings, **values}
            masses, over = labelled.masses, complete.get("over", "all")
            bound = stability.beta_min(
                complete["alpha"],
                masses["reject_share" if over == "labelled" else "reject_mass"],
                complete["normalize"],
                reject_share=masses["reject_share"],
                minibatch=None if rows is None else stability.Minibatch(rows, labelled.known, over),
            )
            values["beta"] = setting["multiple"] * bound * values.get("reject_mass", 1.0)
        return Run(labelled, seed, values)


Cell = Mapping[str, Any]
"""How labels were made: the arguments of `labellings.imbalanced` beside the seed."""


def runs_of(
    arm: Arm, family: str, draws: Iterable[tuple[int, Cell, Labelled]], settings: Sequence[Setting]
) -> tuple[list[Run], list[dict[str, Any]]]:
    """Return the runs of an arm, and what is known of each: seed, setting, cell, β and the masses of its labels.

    One in which a part of the minibatch would have no rows is left out.

    Args:
        arm: the learner.
        family: of the task.
        draws: labels, with their seed and cell.
        settings: of the learner.
    """
    runs, named = [], []
    for seed, cell, labels in draws:
        for setting in settings:
            run = arm.run(family, labels, seed, setting)
            masses = run.labelled.masses
            if run.can(arm.declared(family)) and (arm.algorithm != "reject-bc" or masses["reject_share"]):
                runs.append(run)
                named.append(
                    {"seed": seed, "setting": json.dumps(setting), **cell, "beta": run.settings.get("beta")} | masses
                )
    return runs, named


def stacks(grid: Sequence[Setting]) -> Iterator[list[Setting]]:
    """Yield settings in groups that differ in stackable numbers only: the rate and words are equal in each."""
    found: dict[str, list[Setting]] = {}
    for setting in grid:
        fixed = {name: value for name, value in setting.items() if name == "rate" or isinstance(value, str)}
        found.setdefault(json.dumps(fixed, sort_keys=True), []).append(setting)
    yield from found.values()


def ranked(raw: pl.DataFrame, score: str) -> dict[str, list[dict[str, Any]]]:
    """Return each arm's settings with their mean score, the best first."""
    mean = raw.group_by("arm", "setting", maintain_order=True).agg(pl.col(score).mean())
    mean = mean.sort(score, descending=True, maintain_order=True)
    return {
        str(arm): [{**row, "setting": json.loads(row["setting"])} for row in rows.drop("arm").to_dicts()]
        for (arm,), rows in mean.group_by("arm", maintain_order=True)
    }
