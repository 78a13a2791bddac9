"""Tables and pictures of the mixture experiment, from its raw scores and the mixtures of its first seed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
import polars as pl
import torch
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from torch import Tensor

from benchmarks.experiments import shared
from benchmarks.experiments.shared import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED
from pmpo_offline.evaluation import statistics
from pmpo_offline.policies import Mixture
from pmpo_offline.tasks.bandit import BAD, GMM, GOOD

Shown = Mapping[tuple[str, str, float], tuple[Mixture, Tensor]]
"""Mixture (1, 1, K, ...) and labels (N,) by learner, kind and amount."""

PLOTTED = {  # colour and marker, for readers who cannot tell the colours apart
    "EM": (BLUE, "o"),
    "EM, floor 0.1": (BLUE, "^"),
    "A+KL": (ORANGE, "s"),
    "R": (RED, "v"),
    "A+R set": (GREEN, "D"),
    "A+R set, noise known": (PURPLE, "*"),
    "A+R set, shuffled": (BLACK, "x"),
}
DRAWN = {
    "share": ("EM", "EM, floor 0.1", "A+KL", "R", "A+R set"),
    "budget": ("EM", "EM, floor 0.1", "A+KL", "R", "A+R set"),
    "noise": ("EM", "EM, floor 0.1", "R", "A+R set", "A+R set, noise known"),
}
PANELS = (("share", 0.001), ("share", 0.01), ("share", 0.5), ("budget", 500.0), ("noise", 0.2))
WORST = -3.0  # nats; where the axis of likelihoods ends
TITLES = {
    "share": "all labels of the scarcer class,\nthe other's cut to an accepted share of",
    "budget": "labels of this many random rows",
    "noise": "every row labelled,\nlabels flipped at a rate of",
}
MEASURES = {
    "accept": "accepted share of its actions",
    "held_out": "log-density of unseen accepts, nats",
}


def write(out: Path, frame: pl.DataFrame, action: Tensor, shown: Shown) -> None:
    """Write report.md, scores.png and densities.png."""
    scores(frame).savefig(out / "scores.png", dpi=150)
    densities(action, shown).savefig(out / "densities.png", dpi=110)
    text = [
        "# EM on accepts beside PMPO with rejects, on bandit/gmm-v0",
        f"Interquartile means over {frame['seed'].n_unique()} runs with 95 % intervals. `islands`: how many "
        "of the four good discs hold more than 2 % of the policy's actions each. Raw scores are in raw.parquet; "
        "`python -m benchmarks.experiments.mixture.run` writes all of it. README.md describes the learners and what "
        "follows from it.",
        "![Scores](scores.png)",
        "![Densities](densities.png)",
    ]
    for (kind, amount), rows in frame.group_by("kind", "amount", maintain_order=True):
        first = rows.filter(pl.col("seed") == 0)
        text.append(
            f"## {kind} {amount:g}: {first['accepted'][0]:,} accepted, {first['rejected'][0]:,} rejected "
            f"and {len(action) - first['accepted'][0] - first['rejected'][0]:,} unlabelled rows in the first run"
        )
        lines = []
        for (learner,), runs in rows.group_by("learner", maintain_order=True):
            beta = runs["beta"].mean()
            cells = [
                str(learner),
                "–" if np.isnan(beta) else f"{beta:.3g}",
                *(shown_interval(runs, name) for name in ("reward", "accept")),
                f"{runs['islands'].mean():.1f}",
                shown_interval(runs, "held_out"),
            ]
            lines.append(cells)
        header = ("learner", "β", "reward", "accepted", "islands", "unseen accepts, nats")
        text.append("\n".join(shared.table(header, lines, "lr")))
    made = shared.hardware("pmpo-offline", "torch", "numpy")
    text.append(f"Made in {time.process_time():.0f} s of processor time. {made}")
    (out / "report.md").write_text("\n\n".join(text) + "\n", encoding="utf-8")


def interval(runs: pl.DataFrame, name: str) -> statistics.Interval:
    return statistics.interval([runs[name].to_numpy()], replicates=2000)


def shown_interval(runs: pl.DataFrame, name: str) -> str:
    found = interval(runs, name)
    return shared.spread(found, 2 if found.estimate > -10 else 0)


def scores(frame: pl.DataFrame) -> Figure:
    """Return one column a kind of condition, one row a measure; likelihoods below the axis are written at its foot."""
    kinds = frame["kind"].unique(maintain_order=True).to_list()
    widths = [frame.filter(pl.col("kind") == kind)["amount"].n_unique() for kind in kinds]
    picture = Figure(figsize=(11, 7), layout="constrained")
    grid = picture.subplots(len(MEASURES), len(kinds), sharey="row", width_ratios=widths)
    for axes_row, (measure, label) in zip(grid, MEASURES.items(), strict=True):
        for axes, kind in zip(axes_row, kinds, strict=True):
            column(axes, frame.filter(pl.col("kind") == kind), measure)
            if measure == "accept":
                axes.set_title(TITLES[kind], fontsize=10)
        axes_row[0].set_ylabel(label)
    shared.legend_below(picture, 4, list(PLOTTED))
    return picture


def column(axes: Axes, frame: pl.DataFrame, measure: str) -> None:
    amounts = frame["amount"].unique(maintain_order=True).to_list()
    names = [name for name in PLOTTED if name in frame["learner"]]
    for place, amount in enumerate(amounts):
        for number, name in enumerate(names):
            runs = frame.filter((pl.col("amount") == amount) & (pl.col("learner") == name))
            found, (colour, marker) = interval(runs, measure), PLOTTED[name]
            x = place + 0.11 * (number - (len(names) - 1) / 2)
            label = name if place == 0 else None
            if measure == "held_out" and found.estimate < WORST:
                axes.plot([x], [WORST], marker=marker, color=colour, clip_on=False, label=label, linestyle="none")
                axes.annotate(
                    f"{found.estimate:.0f}", (x, WORST), (0, 7), textcoords="offset points", ha="center", fontsize=8,
                    color=colour, rotation=90, va="bottom",
                )  # fmt: skip
                continue
            arms = [[found.estimate - found.low], [found.high - found.estimate]]
            axes.errorbar([x], [found.estimate], arms, fmt=marker, color=colour, capsize=2, label=label)
    axes.set_xticks(range(len(amounts)), [f"{100 * a:g} %" if a < 1 else f"{a:g}" for a in amounts])
    axes.set_xlim(-0.6, len(amounts) - 0.4)
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylim(*((0, 1) if measure == "accept" else (WORST, 0.25)))


def densities(action: Tensor, shown: Shown) -> Figure:
    """Return one row a condition: its labels, then the density of each learner's first run."""
    line = torch.linspace(-1, 1, 121, dtype=torch.float64)
    square = torch.cartesian_prod(line, line)[None]
    norm = Normalize(-5, 2)
    picture = Figure(figsize=(11.5, 2.15 * len(PANELS)), layout="constrained")
    grid = picture.subplots(len(PANELS), 1 + max(map(len, DRAWN.values())))
    for row, (kind, amount) in zip(grid, PANELS, strict=True):
        label = shown["EM", kind, amount][1]
        titles = {"share": f"accepted share {100 * amount:g} %", "budget": f"{amount:g} random labels"}
        row[0].set_ylabel(titles.get(kind, f"{100 * amount:g} % of labels flipped"), fontsize=9)
        scatter(row[0], action, label)
        for axes, name in zip(row[1:], DRAWN[kind], strict=True):
            mixture = shown[name, kind, amount][0]
            log_density = mixture.log_prob(square).view(121, 121).T.numpy()
            axes.imshow(log_density, origin="lower", extent=(-1, 1, -1, 1), cmap="Greys", norm=norm)
            share = float((GMM.reward(square) > -1)[0].double() @ weights(mixture, square))
            axes.set_title(f"{name}: {share:.2f}", fontsize=9)
        for axes in row:
            frame_of(axes)
    bar = mpl.cm.ScalarMappable(norm, "Greys")
    picture.colorbar(bar, ax=grid, label="log-density, nats", shrink=0.4, aspect=30, pad=0.01)
    return picture


def weights(mixture: Mixture, square: Tensor) -> Tensor:
    density = mixture.log_prob(square)[0].exp()
    return density / density.sum()


def scatter(axes: Axes, action: Tensor, label: Tensor) -> None:
    rejected, accepted = action[label < 0][:1500], action[label > 0][:1500]
    axes.plot(*rejected.T.numpy(), ".", color=ORANGE, markersize=1.2, alpha=0.7, rasterized=True)
    size = 5 if len(accepted) < 200 else 1.2
    axes.plot(*accepted.T.numpy(), ".", color=BLUE, markersize=size, rasterized=True)
    axes.set_title(f"{int((label > 0).sum()):,} accepts, {int((label < 0).sum()):,} rejects", fontsize=9)


def frame_of(axes: Axes) -> None:
    for discs, colour, style in ((GOOD, BLUE, "-"), (BAD, RED, ":")):
        for x, y, radius in discs:
            axes.add_patch(Circle((x, y), radius, fill=False, edgecolor=colour, linestyle=style, linewidth=1.1))
    axes.set(xlim=(-1, 1), ylim=(-1, 1), xticks=[], yticks=[], aspect="equal")
