"""β over three decades in all domains: the curves, the thresholds beside them, and where each predicts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.experiments import shared
from benchmarks.experiments.arms import FILTERS
from benchmarks.experiments.margins import t_interval
from benchmarks.experiments.shared import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, RED
from benchmarks.experiments.stability.experiment import verdicts
from benchmarks.experiments.stability.run import COMMITTED as STABILITY
from pmpo_offline.evaluation.statistics import Interval
from pmpo_offline.objectives import stability

LEAST = -30.0
"""Scores below this are drawn there."""
ROWS = ("both kinds, as collected", "both kinds, 10 % accepted", "rejects alone")
TITLES = {
    "bandit": "table of 10 outcomes\n(stability)", "gaussian": "Gaussian, closed form\n(stability)",
    "rosenbrock": "Rosenbrock bandit\n(sweeps)", "language": "tiny language", "cartpole": "cartpole swing-up",
    "cheetah": "cheetah run", "stacking": "stacking",
}  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """Scores against β in multiples of the bound."""

    domain: str
    row: str
    """One of `ROWS`."""
    runs: pl.DataFrame
    """multiple, seed, score."""
    collapse: float | None
    """Threshold of a policy that sees no state; None: there is none, as of moments."""
    by_state: float | None = None
    """Threshold of one that sees it, at a tenth of the states."""
    filtered: float | None = None
    """Score of the better filtered clone."""

    def intervals(self) -> dict[float, Interval]:
        """Return the mean score with its interval by multiple, from the least."""
        return {
            float(multiple): t_interval(runs["score"])  # type: ignore[arg-type]
            for (multiple,), runs in self.runs.sort("multiple").group_by("multiple", maintain_order=True)
        }

    def lost(self) -> tuple[float | None, float | None]:
        """Return the largest multiple below the best one without gain, and the next one, where gain begins.

        No gain: not above the score at ten times the bound, nearly that of a clone of everything, by more than the half
        widths of both intervals. None: gain at every multiple below the best.
        """
        found = self.intervals()
        far = found[min(found, key=lambda multiple: abs(multiple - 10))]
        best = max(found, key=lambda multiple: found[multiple].estimate)
        without = [m for m, each in found.items() if m < best and each.low - far.high <= 0]
        if not without:
            return None, None
        return without[-1], min(m for m in found if m > without[-1])


def curves(folder: Path) -> list[Curve]:
    """Return the curves of earlier experiments and of this one, domain by domain."""
    return [*_stability(), *_sweeps(), *_domains(folder)]


def _stability() -> Iterator[Curve]:
    for domain, feedback in (("bandit", "both"), ("bandit", "rejects"), ("gaussian", "both"), ("gaussian", "rejects")):
        way = "recorded" if domain == "gaussian" else "closed-form"
        runs = verdicts(pl.read_parquet(STABILITY / "raw" / f"{domain}-{feedback}-joint-{way}.parquet"))
        alpha, collapse = runs["alpha"][0], None
        if domain == "bandit":  # every seed is a problem with a threshold of its own: the median one
            shares = runs.select("reject_mass", "bound").unique().iter_rows()
            found = sorted(stability.beta_collapse(alpha, mass, "joint") / bound for mass, bound in shares)
            collapse = found[len(found) // 2]
        row = ROWS[0] if feedback == "both" else ROWS[2]
        scored = runs.select("multiple", "seed", score=100 * pl.col("relative_reward").fill_nan(-1))
        yield Curve(domain, row, scored, collapse)


def _sweeps() -> Iterator[Curve]:
    raw = pl.read_parquet(shared.RESULTS / "sweeps" / "bandits.parquet")
    raw = raw.with_columns(multiple=pl.col("setting").str.json_path_match("$.multiple").cast(pl.Float64, strict=False))
    every = raw.filter((pl.col("sweep") == "labels") & (pl.col("arm") == "bc-accepted") & (pl.col("coverage") == 1))
    filtered = float(every.filter(pl.col("function") == "rosenbrock")["score"].mean())  # type: ignore[arg-type]
    swept = raw.filter((pl.col("sweep") == "beta") & (pl.col("function") == "rosenbrock") & (pl.col("components") == 1))
    for row, arm, share in zip(ROWS, ("PMPO AR", "PMPO AR", "PMPO R"), (0.5, 0.1, 0.5), strict=True):
        runs = swept.filter((pl.col("arm") == arm) & (pl.col("share") == share))
        collapse = float(runs[f"collapse {arm.split()[-1]}"].mean())  # type: ignore[arg-type]
        yield Curve("rosenbrock", row, runs.select("multiple", "seed", "score"), collapse, filtered=filtered)


def _domains(folder: Path) -> Iterator[Curve]:
    states = pl.read_parquet(folder / "states.parquet")
    for domain in ("language", "cartpole", "cheetah", "stacking"):
        raw = pl.read_parquet(folder / f"{domain}.parquet").filter(pl.col("sweep") == "beta")
        raw = raw.with_columns(multiple=pl.col("setting").str.json_path_match("$.multiple").cast(pl.Float64))
        for row, arm, share in zip(ROWS, ("PMPO AR", "PMPO AR", "PMPO R"), (None, 0.1, None), strict=True):
            same = pl.col("share").eq_missing(pl.lit(share, pl.Float64))
            runs = raw.filter((pl.col("arm") == arm) & same)
            if not len(runs):
                continue
            clones = raw.filter(pl.col("arm").is_in(FILTERS) & same).group_by("arm").agg(pl.col("score").mean())
            seen = states.filter((pl.col("domain") == domain) & (pl.col("arm") == arm) & same)["q0.9"]
            yield Curve(
                domain, row, runs.select("multiple", "seed", "score"), float(runs["collapse"].mean()),  # type: ignore[arg-type]
                seen[0] if len(seen) else None, float(clones["score"].max()),  # type: ignore[arg-type]
            )  # fmt: skip


def picture(found: list[Curve]) -> Figure:
    """Return score against β, a column a domain and a row a kind of feedback."""
    figure = Figure(figsize=(13, 6.2), layout="constrained")
    grid = figure.subplots(len(ROWS), len(TITLES), sharex=True, sharey=True)
    by_place = {(curve.row, curve.domain): curve for curve in found}
    for axes_row, row in zip(grid, ROWS, strict=True):
        for axes, domain in zip(axes_row, TITLES, strict=True):
            if (row, domain) in by_place:
                _panel(axes, by_place[row, domain])
            else:
                axes.set_axis_off()
    for axes, title in zip(grid[0], TITLES.values(), strict=True):
        axes.set_title(title, fontsize=9)
    for axes_row, row in zip(grid, ROWS, strict=True):
        axes_row[0].text(-0.5, 0.5, f"{row}\nscore", rotation=90, ha="center", va="center", fontsize=8,
                         transform=axes_row[0].transAxes)  # fmt: skip
        next(axes for axes in axes_row if axes.axison).tick_params(labelleft=True)
    for place in range(len(TITLES)):
        lowest = [axes for axes in grid[:, place] if axes.axison][-1]
        lowest.set_xlabel("β / bound", fontsize=9)
        lowest.tick_params(labelbottom=True)
    shared.legend_below(figure, 4)
    return figure


def _panel(axes: Axes, curve: Curve) -> None:
    found = curve.intervals()
    collapse = curve.collapse or 0.0
    axes.set_xscale("log")
    axes.set(xlim=(0.008, 13), ylim=(LEAST - 5, 106))
    shades = ((0.008, max(collapse, 0.008), RED), (max(collapse, 0.008), 1, ORANGE), (1, 13, GREEN))
    names = ("one outcome is left (no state seen)", "no minimum, a good limit", "a minimum exists")
    for (low, high, colour), name in zip(shades, names, strict=True):
        axes.axvspan(low, high, color=colour, alpha=0.22, linewidth=0, label=name)
    if curve.by_state is not None:
        axes.axvline(
            curve.by_state, color=PURPLE, linewidth=1.6, linestyle="--", label="collapse in a tenth of the states"
        )
    if curve.filtered is not None:
        axes.axhline(curve.filtered, color=GREY, linewidth=1.2, linestyle=":", label="the better filtered clone")
    at = list(found)
    axes.fill_between(
        at, [max(found[m].low, LEAST) for m in at], [max(found[m].high, LEAST) for m in at], color=BLUE, alpha=0.25,
        linewidth=0,
    )  # fmt: skip
    axes.plot(at, [max(found[m].estimate, LEAST) for m in at], color=BLUE, marker=".", markersize=4, linewidth=1.2,
              label="PMPO, 95 % interval over runs")  # fmt: skip
    axes.axvline(1, color=BLACK, linewidth=0.8)
    shared.bare(axes)


def table(found: list[Curve]) -> list[str]:
    """Return, a curve a line, the thresholds and what was observed."""
    lines = []
    for curve in sorted(found, key=lambda each: (list(TITLES).index(each.domain), ROWS.index(each.row))):
        each = curve.intervals()
        best = max(each, key=lambda multiple: each[multiple].estimate)
        near = min(each, key=lambda multiple: abs(multiple - 1.05))
        lost, kept = curve.lost()
        lines.append(
            [
                f"{curve.domain}, {curve.row}",
                "–" if curve.collapse is None else f"{curve.collapse:.2f}",
                "–" if curve.by_state is None else f"{curve.by_state:.2f}",
                "none" if lost is None else f"{lost:.2g} to {kept:.2g}",
                f"{best:.2g}",
                shared.spread(each[best], 0),
                shared.spread(each[near], 0),
                "–" if curve.filtered is None else f"{curve.filtered:.0f}",
            ]
        )
    head = ("curve", "collapse, no state seen", "in a tenth of the states", "gain lost up to, kept from", "best β",
            "score there", "score at 1.05", "better filter")  # fmt: skip
    return shared.table(head, lines, "lr")
