"""Three pictures of the stability experiment: which runs collapsed, at which threshold, and their final reward."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmarks.experiments.shared import BLUE, ORANGE, RED, SKY
from benchmarks.experiments.stability import bandit, gaussian, language
from benchmarks.experiments.stability.experiment import Arm

DOMAINS: Mapping[str, ModuleType] = {"bandit": bandit, "gaussian": gaussian, "language": language}
COLOURS = {"rejects, joint": RED, "rejects, set": ORANGE, "both, joint": BLUE, "both, set": SKY}
MARKERS = {"bandit": "o", "gaussian": "s", "language": "^"}
TITLES = {"bandit": "Bandit", "gaussian": "Gaussian", "language": "Language model"}
X = "β / predicted bound"


def collapse(runs: pl.DataFrame, path: Path) -> None:
    """Draw a row an arm and a mark a β, shaded by the share of its seeds that collapsed."""
    arms = runs["arm"].unique(maintain_order=True).to_list()
    figure = Figure(figsize=(11, 0.36 * len(arms) + 1.5), layout="constrained")
    axes = figure.subplots()
    shares = runs.group_by("arm", "multiple", maintain_order=True).agg(pl.col("collapsed").mean())
    axes.scatter(
        shares["multiple"],
        shares["arm"].replace_strict({arm: -row for row, arm in enumerate(arms)}),
        c=shares["collapsed"],
        s=190,
        marker=[(-0.2, -1), (0.2, -1), (0.2, 1), (-0.2, 1)],  # narrow, so that neighbours at the bound stay apart
        cmap="cividis_r",
        vmin=0,
        vmax=1,
        edgecolor="white",
        linewidth=0.4,
    )
    axes.axvline(1, color="#D55E00", linewidth=1, zorder=0)
    axes.text(0.93, 0.8, "collapse predicted", ha="right", color="#A34700")
    axes.text(1.07, 0.8, "no collapse predicted", ha="left", color="#A34700")
    axes.set(xscale="log", xlabel=X, ylim=(-len(arms) + 0.4, 1.5))
    axes.set_yticks([-row for row in range(len(arms))], [_label(_arm(runs, arm)) for arm in arms])
    axes.spines[["top", "right"]].set_visible(False)
    figure.colorbar(axes.collections[0], ax=axes, label="share of the 5 seeds that collapsed", pad=0.01, aspect=30)
    _save(figure, path)


def threshold(found: pl.DataFrame, path: Path) -> None:
    """Draw for every arm and seed the β between which collapse ends against the predicted bound."""
    figure = Figure(figsize=(6.2, 6.0), layout="constrained")
    axes = figure.subplots()
    low, high = 0.2, 30.0
    axes.plot([low, high], [low, high], color="#777777", linewidth=1, zorder=0)
    for row in found.iter_rows(named=True):
        arm = Arm(row["domain"], row["alpha"], row["normalize"], row["divergence"], row["variant"])
        # Side by side, where seeds share a bound.
        x = row["bound"] * 1.02 ** (row["seed"] - 2)
        colour = COLOURS[f"{arm.feedback}, {arm.normalize}"]
        axes.plot([x, x], [row["low"], row["high"]], color=colour, linewidth=1.2)
        middle = math.sqrt(row["low"] * row["high"])
        filled = colour if not arm.variant else "white"
        axes.plot(x, middle, MARKERS[arm.domain], color=colour, markerfacecolor=filled, markersize=4)
    if not (escaped := found.filter(pl.col("low") > 2 * pl.col("bound"))).is_empty():
        first = escaped.row(0, named=True)
        note = f"{first['variant']}, {first['divergence']} KL"
        axes.text(1.15 * first["bound"], first["low"] * 1.3, note, va="center")
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), aspect="equal")
    axes.set(xlabel="predicted bound on β", ylabel="observed threshold: largest collapsed β to the next")
    handles = [Line2D([], [], color=colour, label=name) for name, colour in COLOURS.items()]
    handles += [
        Line2D([], [], color="#333333", marker=marker, linestyle="", label=TITLES[domain])
        for domain, marker in MARKERS.items()
    ]
    handles.append(
        Line2D([], [], color="#333333", marker="o", markerfacecolor="white", linestyle="", label="open: variants")
    )
    axes.legend(handles=handles, frameon=False, loc="lower right")
    _save(figure, path)


def outcome(runs: pl.DataFrame, path: Path) -> None:
    """Draw final reward and divergence over β for the plain arms: means, ranges, and the predicted optimum."""
    domains = runs["domain"].unique(maintain_order=True).to_list()
    figure = Figure(figsize=(4.0 * len(domains), 6.2), layout="constrained")
    grid = figure.subplots(2, len(domains), sharex=True, sharey="row", squeeze=False)
    for column, domain in enumerate(domains):
        part = runs.filter((pl.col("domain") == domain) & (pl.col("variant") == ""))
        for name in part["arm"].unique(maintain_order=True):
            _curves(grid[0][column], grid[1][column], part.filter(pl.col("arm") == name), _arm(runs, name))
        grid[0][column].axhline(0, color="#999999", linewidth=0.8, linestyle=":")
        grid[0][column].set(title=TITLES[domain], ylim=(-1.55, 1.07))
        grid[1][column].set(xscale="log", yscale="log", xlabel=X, ylim=(1e-3, 1e3))
        if domain == "gaussian":
            grid[1][column].text(0.9, 0.002, "collapsed: beyond the scale", ha="right", color="#777777", fontsize=9)
        for axes in grid[:, column]:
            axes.axvline(1, color="#777777", linewidth=1)
            axes.spines[["top", "right"]].set_visible(False)
    grid[0][0].set_ylabel("reward: 0 the reference, 1 the best")
    grid[1][0].set_ylabel("KL(reference ‖ policy), nats")
    handles = [Line2D([], [], color=colour, label=name) for name, colour in COLOURS.items()]
    handles.append(Line2D([], [], color="#111111", linewidth=0.8, linestyle="--", label="predicted optimum"))
    figure.legend(handles=handles, frameon=False, loc="outside lower center", ncols=len(handles))
    _save(figure, path)


def _curves(reward: Axes, divergence: Axes, runs: pl.DataFrame, arm: Arm) -> None:
    """Draw one arm into the two axes of its domain."""
    colour = COLOURS[f"{arm.feedback}, {arm.normalize}"]
    width = 3.2 if arm.normalize == "joint" else 1.6  # so that curves which coincide are both seen
    best = {}
    for multiple, beta, seed in runs.select("multiple", "beta", "seed").iter_rows():
        if multiple > 1:
            best.setdefault(multiple, []).append(DOMAINS[arm.domain].optimum(arm, beta, seed))
    for axes, name, place in ((reward, "relative_reward", 0), (divergence, "kl", 1)):
        found = runs.group_by("multiple", maintain_order=True).agg(
            mean=pl.col(name).mean(), low=pl.col(name).min(), high=pl.col(name).max()
        )
        axes.plot(found["multiple"], found["mean"], color=colour, linewidth=width)
        axes.fill_between(found["multiple"], found["low"], found["high"], color=colour, alpha=0.15, linewidth=0)
        predicted = [sum(pair[place] for pair in pairs) / len(pairs) for pairs in best.values()]
        axes.plot(list(best), predicted, color="#111111", linewidth=0.8, linestyle="--")


def _arm(runs: pl.DataFrame, name: str) -> Arm:
    row = runs.filter(pl.col("arm") == name).row(0, named=True)
    return Arm(row["domain"], row["alpha"], row["normalize"], row["divergence"], row["variant"])


def _label(arm: Arm) -> str:
    extra = f", {arm.variant}, {arm.divergence} KL" if arm.variant else ""
    return f"{TITLES[arm.domain]}: {arm.feedback}, {arm.normalize}{extra}"


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=150, metadata={"Software": None})
