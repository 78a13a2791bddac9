"""The sweeps on stacking, two control sets and the tiny language: β, labels, flips, α, weights, references, suggestion.

    python -m benchmarks.experiments.domains.run

Follows benchmarks/results/domains/protocol.md. Stops and resumes; writes one Parquet a domain, and tuning.json, to
benchmarks/results/domains/.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import polars as pl
import typer

from benchmarks.experiments import control_rows, shared, tiny_rows
from benchmarks.experiments.arms import FILTERS, Arm, ranked, stacks
from benchmarks.experiments.domains.suggested import FIXED, SUGGESTED, settings_of
from benchmarks.experiments.labellings import (
    CLEAN,
    FRACTIONS,
    RATES,
    WEIGHTS,
    Labelled,
    Run,
    imbalanced,
    pick,
    resumable,
)
from benchmarks.experiments.stability import language
from pmpo_offline.objectives import stability

OUT = shared.RESULTS / "domains"
DOMAINS = ("language", "cartpole", "cheetah", "stacking")
SEEDS, TUNING_SEEDS = (0, 1, 2, 3, 4), (100, 101)
TUNED_AT = {**CLEAN, "coverage": 0.25}

MULTIPLES = (0.01, 0.03, 0.1, 0.32, 0.56, 0.8, 1.0, 1.05, 2.0, 10.0)
"""β in multiples of its bound: three decades."""
CURVES = (("PMPO AR", None), ("PMPO AR", 0.1), ("PMPO R", None))
"""Learner, and accepted share by labels; None: as collected."""
ALPHAS = (0.1, 0.5, 0.8, 0.95)
SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
SUGGESTED_AT = [
    {**CLEAN, "share": share, "coverage": coverage, "flips": flips}
    for share, coverage, flips in ((0.1, 1.0, 0.0), (0.9, 1.0, 0.0), (None, 0.3, 0.0), (None, 0.3, 0.1))
]
LABELLED = "PMPO AR, labelled rows"
LEARNERS = ("bc-accepted", "bc-unrejected", "PMPO AR", LABELLED, "KTO", "BCO", "DPO")
RARE = {**CLEAN, "share": 0.1}
FLIPS = (0.0, 0.05, 0.1, 0.2, 0.3)
"""Of all domains; one label in twenty on stacking with rare accepts alone."""
SWEEPS = ("beta", "labels", "flips", "suggestion", "references", "weight", "alpha")
Chunk = dict[str, Any]


def arms(domain: str) -> Mapping[str, Arm]:
    """Return the learners of a domain, by name."""
    return tiny_rows.LEARNERS if domain == "language" else control_rows.ARMS


def labelled(domain: str, seed: int, cell: Mapping[str, Any]) -> Labelled:
    """Return the labels of a cell; its keys are those of `imbalanced`."""
    if domain == "language":
        return imbalanced(tiny_rows.corpus()[1].numpy().astype(np.int8), None, seed, **cell)
    return control_rows.labelled(domain, seed, cell)


def _run(domain: str, arm: str, labels: Labelled, seed: int, setting: Mapping[str, Any]) -> Run:
    if domain == "language":
        return tiny_rows.LEARNERS[arm].run(tiny_rows.FAMILY, labels, seed, setting, language.BATCH)
    return control_rows.run(domain, arm, labels, seed, setting)


def make(
    domain: str,
    sweep: str,
    arm: str,
    seeds: Sequence[int],
    grid: Sequence[Mapping[str, Any]],
    settings: Sequence[Mapping[str, Any]],
    reference: str | None = None,
    beta_from: Mapping[str, Any] | None = None,
) -> pl.DataFrame:
    """Train and score an arm in cells with settings of one rate and equal words; one row a run.

    Args:
        domain: one of `DOMAINS`.
        sweep: one of `SWEEPS`, or "tune".
        arm: the learner.
        seeds: of draws and training alike.
        grid: cells, as `imbalanced` takes them.
        settings: of the arm; {"suggested": name} are replaced by those of `suggested.settings_of`.
        reference: the quality of the policy to start from; None: what the arm declares.
        beta_from: what in a cell is replaced where multiples of the bound become β, such as the rate of flips.
    """
    runs, named = [], []
    for cell, seed in itertools.product(grid, seeds):
        labels = labelled(domain, seed, cell)
        counted = labelled(domain, seed, {**cell, **beta_from}) if beta_from else labels
        for asked in settings:
            setting = settings_of(domain, cell, seed, asked["suggested"]) if "suggested" in asked else asked
            numbers = dict(_run(domain, arm, counted, seed, setting).settings)
            if "reject_mass" in numbers:
                numbers["reject_mass"] = labels.masses["reject_mass"]
            run = Run(labels, seed, numbers)
            if not run.can(arms(domain)[arm].declared(_family(domain))):
                continue
            runs.append(run)
            named.append(
                {"sweep": sweep, "arm": arm, "seed": seed, "setting": json.dumps(asked), **cell, "from": reference}
                | {"alpha": run.settings.get("alpha"), "beta": run.settings.get("beta"), **labels.masses}
                | (_thresholds(domain, arm, labels) if sweep == "beta" and arm not in FILTERS else {})
            )
    if not runs:
        return pl.DataFrame()
    training = {"rate": settings[0]["rate"]} if "rate" in settings[0] else {}
    found = _scores(domain, arm, runs, reference, tuning=sweep == "tune", **training)
    kinds = {"alpha": pl.Float64, "beta": pl.Float64, "share": pl.Float64, "from": pl.String}
    return pl.DataFrame(named, schema_overrides=kinds).hstack(found)


def _family(domain: str) -> str:
    return tiny_rows.FAMILY if domain == "language" else control_rows.DOMAINS[domain].family


def _scores(
    domain: str, arm: str, runs: Sequence[Run], reference: str | None, *, tuning: bool, **training: float
) -> pl.DataFrame:
    if domain == "language":
        start = None if reference is None else _pretrained(reference)
        return tiny_rows.scores(tiny_rows.learn(arm, runs, start=start, **training), tuning=tuning)
    if "rate" in training:
        training["learning_rate"] = training.pop("rate")
    start = None
    if reference is not None:
        seeds = tuple(dict.fromkeys(run.seed for run in runs))
        start = pick(control_rows.clone(domain, seeds, reference), [seeds.index(run.seed) for run in runs])
    return control_rows.scores(domain, control_rows.learn(domain, arm, runs, start, **training), tuning=tuning)


PRETRAINED: dict[str, dict[str, Any]] = {
    "all": {},
    "a quarter of the training": {"updates": 200},
    "wrong mode": {"copied": 0.9},
    "never right": {"wrong": 1.0},
}
"""References of the tiny language: as the data were sampled, and poorer ones. A wrong mode repeats nine strings in ten
instead of reversing them; one that is never right was shown a wrong letter in every response."""


@cache
def _pretrained(quality: str) -> language.SequencePolicy:
    return language.reference(**PRETRAINED[quality])


def _thresholds(domain: str, arm: str, labels: Labelled) -> dict[str, float]:
    """Return the bound on β of these labels, in minibatches, and the threshold of collapse in multiples of it."""
    algorithm = arms(domain)[arm].declared(_family(domain))
    alpha = {"alpha": 0.5, **algorithm.settings}["alpha"]
    bound = _run(domain, arm, labels, 0, {"multiple": 1.0}).settings["beta"]
    return {"bound": bound, "collapse": stability.beta_collapse(alpha, labels.masses["reject_share"], "joint") / bound}


def chunks(domain: str, sweep: str, tuned: Mapping[str, Any]) -> Iterator[Chunk]:
    """Yield the chunks of a sweep on a domain; see `make` for their keys."""
    for chunk in {
        "beta": _beta, "labels": _labels, "flips": _flips, "alpha": _alpha, "weight": _weight,
        "references": _references, "suggestion": _suggestion,
    }[sweep](domain, tuned):  # fmt: skip
        yield {"domain": domain, "sweep": sweep, "seeds": list(SEEDS), **chunk}


def _beta(domain: str, _: Mapping[str, Any]) -> Iterator[Chunk]:
    for arm, share in CURVES:
        if domain in ("cartpole", "cheetah") and arm == "PMPO R":
            continue  # with every step labelled it is PMPO AR at another β
        settings = [{"multiple": multiple} for multiple in MULTIPLES]
        yield {"arm": arm, "grid": [{**CLEAN, "share": share}], "settings": settings}
    for arm in FILTERS:
        yield {"arm": arm, "grid": [CLEAN, RARE], "settings": [{}]}


def _labels(domain: str, tuned: Mapping[str, Any]) -> Iterator[Chunk]:
    for arm in LEARNERS:
        if arm in arms(domain):
            grid = [{**CLEAN, "coverage": fraction} for fraction in FRACTIONS]
            yield {"arm": arm, "grid": grid, "settings": [tuned.get(arm, {})]}


def _flips(domain: str, tuned: Mapping[str, Any]) -> Iterator[Chunk]:
    grid = [{**CLEAN, "flips": rate} for rate in (RATES if domain == "language" else (0.0, 0.1, 0.3))]
    for arm in ("bc-accepted", "KTO"):  # with every row labelled both filters are one
        yield {"arm": arm, "grid": grid, "settings": [tuned.get(arm, {})]}
    for multiple, normalize in itertools.product((0.5, 1.05) if domain == "language" else (1.05,), ("joint", "set")):
        setting = {"multiple": multiple, "normalize": normalize}
        yield {"arm": "PMPO AR", "grid": grid, "settings": [setting], "beta_from": {"flips": 0.0}}
        for cell in grid[1:]:
            known = {**setting, "flip_rate": cell["flips"]}
            yield {"arm": "PMPO AR", "grid": [cell], "settings": [known], "beta_from": {"flips": 0.0}}
    if domain == "stacking":
        rare = [{**RARE, "flips": rate} for rate in FLIPS[:2]]
        for arm in FILTERS:
            yield {"arm": arm, "grid": rare, "settings": [{}]}
        yield {"arm": "PMPO AR", "grid": rare, "settings": [{"multiple": 1.05}], "beta_from": {"flips": 0.0}}


def _alpha(domain: str, _: Mapping[str, Any]) -> Iterator[Chunk]:
    for normalize in ("joint", "set"):
        settings = [{"multiple": 1.05, "alpha": alpha, "normalize": normalize} for alpha in ALPHAS]
        grid = [RARE, {**CLEAN, "coverage": 0.9}]
        yield {"arm": "PMPO AR", "grid": grid, "settings": settings}


def _weight(domain: str, _: Mapping[str, Any]) -> Iterator[Chunk]:
    for weight in WEIGHTS.values():  # β is 1.05 times its bound at a share of one half, and kept
        grid = [{**CLEAN, "share": share} for share in (SHARES if domain == "language" else (0.1, 0.5, 0.9))]
        setting = {"multiple": 1.05, **weight}
        yield {"arm": "PMPO AR", "grid": grid, "settings": [setting], "beta_from": {"share": 0.5}}


def _references(domain: str, tuned: Mapping[str, Any]) -> Iterator[Chunk]:
    pmpo = {"multiple": 1.05} if domain == "language" else {"multiple": 1.05, "divergence": "forward"}
    compared = {"PMPO AR": pmpo, "PMPO R": pmpo, "KTO": tuned.get("KTO", {})}
    if domain == "language":
        compared |= {arm: tuned.get(arm, {}) for arm in ("BCO", *tiny_rows.COMPARED)}
    for (arm, setting), quality in itertools.product(
        compared.items(), PRETRAINED if domain == "language" else control_rows.QUALITIES
    ):
        yield {"arm": arm, "grid": [CLEAN], "settings": [setting], "reference": quality}


def _suggestion(domain: str, _: Mapping[str, Any]) -> Iterator[Chunk]:
    settings = [{"suggested": name} for name in (FIXED, SUGGESTED)]
    yield {"arm": "PMPO AR", "grid": SUGGESTED_AT, "settings": settings}


def tune(parts: Path, domain: str) -> dict[str, list[dict[str, Any]]]:
    """Return each learned arm's settings in a domain with their mean scores at the tuning cell, the best first."""
    tuning = [
        {"domain": domain, "sweep": "tune", "arm": arm, "seeds": list(TUNING_SEEDS), "grid": [TUNED_AT],
         "settings": settings}
        for arm in (*LEARNERS, *tiny_rows.COMPARED)
        if arm in arms(domain)
        for settings in stacks(arms(domain)[arm].grid)
        if len(arms(domain)[arm].grid) > 1
    ]  # fmt: skip
    return ranked(resumable(parts, tuning, make), "score")


def main(
    out: Annotated[Path, typer.Option(help="Where to write.")] = OUT,
    parts: Annotated[Path, typer.Option(help="Folder of finished parts, to resume from.")] = Path("domains-parts"),
    domains: Annotated[str, typer.Option(help="Comma-separated.")] = ",".join(DOMAINS),
    only: Annotated[str, typer.Option(help="Sweeps, comma-separated.")] = ",".join(SWEEPS),
) -> None:
    """Run the sweeps asked for, sweep by sweep, and put their raw scores in place of earlier ones."""
    out.mkdir(parents=True, exist_ok=True)
    for sweep, domain in itertools.product(only.split(","), domains.split(",")):
        if sweep in NOT_RUN.get(domain, ()):
            continue
        tuned: dict[str, Any] = {}
        if sweep in ("labels", "flips", "references"):
            found = tune(parts, domain)
            (out / f"tuning-{domain}.json").write_text(json.dumps(found, indent=1) + "\n")
            tuned = {arm: rows[0]["setting"] for arm, rows in found.items()}
        raw, path = resumable(parts, chunks(domain, sweep, tuned), make), out / f"{domain}.parquet"
        if path.exists():
            raw = pl.concat([pl.read_parquet(path).filter(pl.col("sweep") != sweep), raw], how="diagonal_relaxed")
        shared.save(raw, path)


NOT_RUN = {
    "cartpole": ("labels", "flips", "alpha", "weight", "references", "suggestion"),
    "cheetah": ("flips", "alpha", "weight", "references"),
    "language": ("alpha", "suggestion"),
}
"""Sweeps that the protocol leaves out on a domain."""

if __name__ == "__main__":
    shared.script(main)
