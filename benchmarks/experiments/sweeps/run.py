"""Sweeps on bandits: β over three decades, α, normalisations under imbalance, few labels, poor references, flips.

    python -m benchmarks.experiments.sweeps.run

Learned arms take the settings that are tuned as for `benchmarks.experiments.imbalance`. Stops and resumes; writes
bandits.parquet to benchmarks/results/sweeps/.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import polars as pl
import torch
import typer

from benchmarks.experiments import shared
from benchmarks.experiments.arms import FILTERS
from benchmarks.experiments.bandit_rows import (
    ARMS,
    COMPARED,
    FAMILY,
    LEARNERS,
    UPDATES,
    clone,
    dataset,
    labelled,
    learn,
    scores,
)
from benchmarks.experiments.imbalance.run import tune
from benchmarks.experiments.labellings import CLEAN, FRACTIONS, RATES, WEIGHTS, Labelled, Run, pick, resumable
from pmpo_offline.data import columns
from pmpo_offline.objectives import stability

FUNCTIONS = ("rosenbrock", "schwefel", "sphere")
MULTIPLES = tuple(round(10 ** (k / 4), 4) for k in range(-8, 5))
"""β in multiples of its bound: three decades."""
ALPHAS = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
SHARES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
BETAS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
REFERENCES = ("all", "worst half", "worst quarter", "wrong mode", "noise")
SWEEPS = ("beta", "alpha", "weight", "labels", "references", "flips")
Chunk = dict[str, Any]


def chunks(seeds: int, function: str, tuned: Mapping[str, Any]) -> Iterator[Chunk]:
    """Yield the chunks of all sweeps on a bandit; see `make` for their keys."""
    for chunk in _chunks(tuned):
        yield {"function": function, "seeds": list(range(seeds)), **chunk}


def _chunks(tuned: Mapping[str, Any]) -> Iterator[Chunk]:
    shares = [{**CLEAN, "share": share} for share in (0.1, 0.5, 0.9)]
    for components, arm in itertools.product((5, 1), ("PMPO AR", "PMPO R")):
        training = {"components": components}
        settings = [{"multiple": multiple} for multiple in MULTIPLES]
        yield {"sweep": "beta", "arm": arm, "grid": shares, "settings": settings, "training": training}
    for normalize in ("joint", "set"):
        settings = [{"multiple": m, "alpha": a, "normalize": normalize} for m in (0.5, 1.05) for a in ALPHAS]
        yield {"sweep": "alpha", "arm": "PMPO AR", "grid": shares, "settings": settings}
    for weight, kind in itertools.product(WEIGHTS, ("labels", "rows")):
        grid = [{**CLEAN, "share": share, "kind": kind} for share in SHARES]
        settings = [{**WEIGHTS[weight], "beta": beta} for beta in BETAS]
        yield {"sweep": "weight", "arm": "PMPO AR", "grid": grid, "settings": settings}
    for arm in ARMS:
        grid = [{**CLEAN, "coverage": fraction} for fraction in FRACTIONS]
        yield {"sweep": "labels", "arm": arm, "grid": grid, "settings": [tuned.get(arm, {})]}
    for (arm, setting), reference in itertools.product(_compared(), REFERENCES):
        yield {"sweep": "references", "arm": arm, "grid": [CLEAN], "settings": [setting], "reference": reference}
    for (arm, setting), rate in itertools.product(_noisy(tuned), RATES):
        known = {"flip_rate": rate} if rate and arm not in FILTERS else {}
        for settings in [{**setting}] + ([{**setting, **known}] if known else []):
            yield {"sweep": "flips", "arm": arm, "grid": [{**CLEAN, "flips": rate}], "settings": [settings]}


def _noisy(tuned: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the arms, with settings, that learn from flipped labels; β is that for true ones."""
    for arm in FILTERS:
        yield arm, {}
    for beta in (0.5, 1.05):
        yield "PMPO AR", {"beta": beta, "normalize": "set"}
        yield "PMPO AR", {"beta": beta / 2, "normalize": "joint"}
    yield "PMPO R", {"beta": 1.05}
    for arm in ("KTO", "BCO"):
        yield arm, dict(tuned[arm])


def _compared() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the arms, with settings, that start from a reference and stay near it."""
    for arm, multiple in itertools.product(("PMPO AR", "PMPO R"), (0.5, 1.05)):
        yield arm, {"multiple": multiple, "divergence": "forward"}
    for arm in ("KTO", "BCO"):
        yield arm, {"beta": 1.0, "rate": 0.03}
    for arm in ("DPO", *COMPARED):  # as declared: beta, or what is in its place, 1 but for IPO
        yield arm, {"rate": 0.03}


def make(
    sweep: str,
    function: str,
    arm: str,
    seeds: list[int],
    grid: list[dict[str, Any]],
    settings: list[dict[str, Any]],
    training: dict[str, Any] | None = None,
    reference: str | None = None,
) -> pl.DataFrame:
    """Train and score an arm in cells with settings of one rate; one row a run.

    Args:
        sweep: the name of the sweep.
        function: the bandit.
        arm: the learner.
        seeds: of draws and training alike.
        grid: cells, as `imbalanced` takes them.
        settings: of the arm, equal in all but numbers.
        training: hyperparameters in place of the declared ones.
        reference: the quality of the policy to start from, one of REFERENCES; None: what the arm declares.
    """
    runs, named = [], []
    for cell, seed in itertools.product(grid, seeds):
        labels = labelled(function, seed, cell)
        limits = _thresholds(function, labels) if sweep == "beta" else {}
        for setting in settings:
            run = LEARNERS[arm].run(FAMILY, labels, seed, setting)
            if not run.can(LEARNERS[arm].declared(FAMILY)):
                continue
            runs.append(run)
            named.append(
                {"sweep": sweep, "function": function, "arm": arm, "seed": seed, "setting": json.dumps(setting)}
                | {**cell, "beta": run.settings.get("beta"), **labels.masses, **(training or {}), **limits}
                | {"from": reference}
            )
    hyper = dict(training or {})
    if "rate" in settings[0]:
        hyper["learning_rate"] = settings[0]["rate"]
    start = None
    if reference is not None:
        start = pick(_reference(function, reference, tuple(seeds)), [seeds.index(run.seed) for run in runs])
    policy = learn(function, arm, runs, start, **hyper)
    return pl.DataFrame(named, schema_overrides={"beta": pl.Float64, "from": pl.String}).hstack(
        scores(function, policy)
    )


@cache
def _reference(function: str, name: str, seeds: tuple[int, ...]) -> Any:
    """Clone the rows of a reference's quality."""
    reward = torch.from_numpy(np.array(columns.vector(dataset(function).table, "reward")))
    behavior = np.array(dataset(function).episodes.column("behavior").to_pylist())  # type: ignore[union-attr]
    rows = {
        "all": torch.ones(len(reward), dtype=torch.bool),
        "worst half": reward <= reward.quantile(0.5),
        "worst quarter": reward <= reward.quantile(0.25),
        "wrong mode": torch.from_numpy(behavior == "opposite"),
        "noise": torch.from_numpy(behavior == "anywhere"),
    }[name]
    every = Labelled(torch.ones(len(reward)), rows)
    return clone(function, [Run(every, seed) for seed in seeds], updates=UPDATES)


def _thresholds(function: str, labels: Labelled) -> dict[str, float]:
    """Return the bound for a Gaussian and the threshold of collapse, as multiples of the bound over outcomes."""
    found = {}
    action = torch.from_numpy(np.array(columns.matrix(dataset(function).table, "action"))).double()
    for arm, alpha in (("AR", 0.5), ("R", 0.0)):
        share, mass = labels.masses["reject_share"], labels.masses["reject_mass"]
        bound = stability.beta_min(alpha, mass, "joint", reject_share=share)
        gaussian = stability.gaussian_beta_min(
            action[labels.rows([1])], action[labels.rows([-1])], action, alpha=alpha, normalize="joint"
        )
        found[f"gaussian {arm}"] = gaussian / bound
        found[f"collapse {arm}"] = stability.beta_collapse(alpha, share, "joint") / bound
    return found


def main(
    out: Annotated[Path, typer.Option(help="Where to write.")] = shared.RESULTS / "sweeps",
    parts: Annotated[Path, typer.Option(help="Folder of finished parts, to resume from.")] = Path("sweeps-parts"),
    functions: Annotated[str, typer.Option(help="Bandits, comma-separated.")] = ",".join(FUNCTIONS),
    seeds: Annotated[int, typer.Option(min=2, help="Runs of each setting.")] = 10,
    only: Annotated[str, typer.Option(help="Sweeps to run on the last bandit, comma-separated.")] = ",".join(SWEEPS),
) -> None:
    """Run the sweeps, all of them but on the last bandit, and write the raw scores."""
    out.mkdir(parents=True, exist_ok=True)
    frames = []
    for function in functions.split(","):
        tuned = tune(parts, function)
        chosen = {arm: rows[0]["setting"] for arm, rows in tuned.items()}
        wanted = only.split(",") if function == functions.split(",")[-1] else SWEEPS
        asked = (chunk for chunk in chunks(seeds, function, chosen) if chunk["sweep"] in wanted)
        frames.append(resumable(parts, asked, make))
        shared.save(pl.concat(frames, how="diagonal_relaxed"), out / "bandits.parquet")


if __name__ == "__main__":
    shared.script(main)
