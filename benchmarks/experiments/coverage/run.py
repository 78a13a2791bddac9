"""Who must be labelled? Coverage of rejects × coverage of accepts × noise on stacking, learners beside two filters.

    python -m benchmarks.experiments.coverage.run

Follows benchmarks/results/coverage/protocol.md: tunes each learned arm at one cell, freezes the settings, and runs all
cells, draw by draw, those with nearly all rejects labelled first. Stops and resumes; writes raw.parquet and tuning.json
to benchmarks/results/coverage/.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import polars as pl
import torch
import typer

from benchmarks.experiments import shared
from benchmarks.experiments.arms import Arm, ranked, stacks
from benchmarks.experiments.labellings import Labelled, Run, diverged, pick, resumable, train
from pmpo_offline.build import build_dataset
from pmpo_offline.data import columns
from pmpo_offline.policies import MixturePolicy
from pmpo_offline.tasks.simulated import play_policy
from pmpo_offline.tasks.stacking.scene import Layout, random_layout, random_triplet
from pmpo_offline.tasks.stacking.simulation import StackingSimulation
from pmpo_offline.tasks.stacking.task import held_out_layouts

FAMILY, DATASET = "rgb-stacking", "rgb-stacking/proxy-v0"
REJECTS, ACCEPTS, NOISE = (1.0, 0.95, 0.8, 0.5), (1.0, 0.125), (0.0, 0.1)
CENTRE = {"rejects": 0.95, "accepts": 0.125, "noise": 0.05}
DRAWS, TUNING_DRAWS = (0, 1, 2), (100, 101)
LAYOUTS, TUNING_LAYOUTS = 60, 8_800_000_000
UPDATES, HIDDEN = 2000, (128, 128, 128)
_STRENGTHS = [{"beta": beta, "rate": rate} for beta in (0.03, 0.1, 0.3, 1.0) for rate in (1e-4, 5e-4)]
_MULTIPLES = (1.0, 1.05, 1.2, 2.0)


ARMS = {
    "bc": Arm("bc"),
    "bc-accepted": Arm("bc-accepted"),
    "bc-unrejected": Arm("bc-unrejected"),
    "PMPO AR": Arm("pmpo", [{"alpha": a, "multiple": m} for a in (0.5, 0.8) for m in _MULTIPLES]),
    "PMPO R": Arm("reject-bc", [{"multiple": m, "rate": rate} for m in _MULTIPLES for rate in (1e-3, 2e-3)]),
    "KTO": Arm("kto", _STRENGTHS),
    "KTO, unlabelled = good": Arm("kto", unlabelled_is_good=True),
}


class Experiment:
    """The data, and the making of one chunk of runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.dataset = build_dataset(DATASET)
        self._success = columns.vector(self.dataset.episodes, "success").astype(bool)
        self._length = columns.vector(self.dataset.episodes, "length")
        self._clones: dict[tuple[int, ...], MixturePolicy] = {}

    def label(self, draw: int, rejects: float, accepts: float, noise: float) -> Labelled:
        """Return the labels of a cell: those of one draw are nested in coverage and in noise."""
        generator = np.random.default_rng([draw, 11])
        asked, mistaken = generator.random((2, len(self._success)))
        label = np.where(self._success, 1, -1) * (asked < np.where(self._success, accepts, rejects))
        label = np.where(mistaken < noise, -label, label)
        return Labelled(torch.from_numpy(np.repeat(label, self._length)).float())

    def clone(self, seeds: tuple[int, ...]) -> MixturePolicy:
        """Return the reference of KTO, one a seed; half of all updates go into it."""
        if seeds not in self._clones:
            every = Labelled(torch.ones(len(self.dataset)))
            runs = [Run(every, seed) for seed in seeds]
            declared = ARMS["bc"].declared(FAMILY)
            self._clones[seeds] = train(self.dataset, declared, runs, updates=UPDATES // 2, hidden=HIDDEN)
        return self._clones[seeds]

    def make(
        self, arm: str, draws: list[int], cells: list[dict[str, float]], settings: list[dict[str, float]]
    ) -> pl.DataFrame:
        """Train and score an arm in some cells and draws with some settings of one rate; one row a run."""
        algorithm = ARMS[arm].declared(FAMILY)
        runs, named = [], []
        for setting, draw, cell in itertools.product(settings, draws, cells):
            runs.append(ARMS[arm].run(FAMILY, self.label(draw, **cell), draw, setting))
            beta = runs[-1].settings.get("beta")
            named.append({"arm": arm, "draw": draw, **cell, "setting": json.dumps(setting), "beta": beta})
        training: dict[str, Any] = {"updates": UPDATES, "hidden": HIDDEN}
        if "rate" in settings[0]:
            training["learning_rate"] = settings[0]["rate"]
        reference = None
        if algorithm.start == "reference":
            reference = pick(self.clone(tuple(draws)), [draws.index(run.seed) for run in runs])
            training["updates"] = UPDATES // 2
        policy = train(self.dataset, algorithm, runs, reference, **training)
        return pl.DataFrame(named, schema_overrides={"beta": pl.Float64}).with_columns(
            score(policy, tuning=draws[0] in TUNING_DRAWS)
        )

    def tune(self) -> dict[str, list[dict[str, Any]]]:
        """Return each arm's settings, the best first, with their mean success at the centre cell."""
        chunks = [
            {"arm": arm, "draws": list(TUNING_DRAWS), "cells": [CENTRE], "settings": settings}
            for arm, found in ARMS.items()
            for settings in stacks(found.grid)
            if len(found.grid) > 1
        ]
        return ranked(resumable(self.folder, chunks, self.make), "success")

    def chunks(
        self, tuned: Mapping[str, Sequence[Mapping[str, Any]]], half: int, draw: int
    ) -> Iterator[dict[str, Any]]:
        """Yield the chunks of one draw at the first or second half of the coverages of rejects: an arm is a stack."""
        grid = itertools.product(REJECTS[2 * half : 2 * half + 2], ACCEPTS, NOISE)
        cells = [{"rejects": r, "accepts": a, "noise": e} for r, a, e in grid]
        for arm in ARMS:
            where = [CENTRE] if arm == "bc" else cells  # it learns without labels
            like = arm.partition(",")[0]  # both KTOs take the setting of the first
            setting = tuned[like][0]["setting"] if like in tuned else {}
            yield {"arm": arm, "draws": [draw], "cells": where, "settings": [setting]}


def score(policy: MixturePolicy, *, tuning: bool) -> list[pl.Series]:
    """Return success and mean return of each run on the held-out layouts, or on those for tuning."""
    layouts: list[Layout]
    if tuning:
        generators = [np.random.default_rng(TUNING_LAYOUTS + i) for i in range(LAYOUTS)]
        layouts = [random_layout(generator, random_triplet(generator)) for generator in generators]
    else:
        layouts, _ = held_out_layouts(LAYOUTS)
    outcome = play_policy(StackingSimulation(layouts * policy.runs, 1), policy)
    by_run = outcome.success.reshape(policy.runs, -1).mean(1), outcome.returns.reshape(policy.runs, -1).mean(1)
    return [
        pl.Series("success", by_run[0]),
        pl.Series("return", by_run[1]),
        pl.Series("diverged", diverged(policy)),
    ]


def main(
    out: Annotated[Path, typer.Option(help="Where to write.")] = shared.RESULTS / "coverage",
    parts: Annotated[Path, typer.Option(help="Folder of finished parts, to resume from.")] = Path("coverage-parts"),
    blocks: Annotated[int, typer.Option(min=1, max=2 * len(DRAWS), help="How many of the blocks to run.")] = 6,
) -> None:
    """Tune, run every cell and write the raw scores, a block of cells and a draw at a time."""
    out.mkdir(parents=True, exist_ok=True)
    experiment = Experiment(parts)
    tuned = experiment.tune()
    (out / "tuning.json").write_text(json.dumps(tuned, indent=1) + "\n")
    frames = []
    for half, draw in list(itertools.product((0, 1), DRAWS))[:blocks]:
        frames.append(resumable(parts, experiment.chunks(tuned, half, draw), experiment.make))
        shared.save(pl.concat(frames).unique(maintain_order=True), out / "raw.parquet")


if __name__ == "__main__":
    shared.script(main)
