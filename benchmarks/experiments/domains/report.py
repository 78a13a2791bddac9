"""The page of the sweeps on stacking, control and the tiny language, from their raw scores.

python -m benchmarks.experiments.domains.report
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import polars as pl
import typer
from matplotlib.figure import Figure

from benchmarks.experiments import shared
from benchmarks.experiments.arms import FILTERS
from benchmarks.experiments.domains import curves
from benchmarks.experiments.domains.run import (
    ALPHAS,
    DOMAINS,
    FLIPS,
    LABELLED,
    LEARNERS,
    OUT,
    RARE,
    SHARES,
)
from benchmarks.experiments.domains.suggested import FIXED, SUGGESTED
from benchmarks.experiments.labellings import FRACTIONS, RATES, WEIGHTS
from benchmarks.experiments.margins import t_interval
from benchmarks.experiments.shared import BLUE, GREEN, GREY, ORANGE, SKY
from benchmarks.experiments.sweeps.pictures import LOOKS, curve
from benchmarks.experiments.sweeps.report import areas, margins_table

HEAD = """# The sweeps on stacking, control and the tiny language

[protocol](protocol.md), [findings](../../../docs/findings.md); the same on [bandits](../sweeps/report.md).

```console
$ python -m benchmarks.experiments.domains.run     # resumable
$ python -m benchmarks.experiments.domains.states  # thresholds by state
$ python -m benchmarks.experiments.domains.report  # this page
```

Scores: 0 a random policy, 100 the expert; of the language 0 the reference, 100 certainty of the right response. Five
runs a cell, each with its own label draw and training seed; t intervals over runs."""
HOW = """All β in multiples of the bound. *Gain lost*: the largest β of the sweep, below the best one, whose score is
not above that at 10 times the bound by more than both half widths; *kept* is the next β. *No state seen*: the collapse
threshold of a policy over outcomes (`stability.beta_collapse`); *in a tenth of the states*: the same with the labels of
each state, as a cross-fitted classifier predicts them. The table of outcomes, the Gaussian and Rosenbrock are from
[stability](../stability/README.md) and [sweeps](../sweeps/report.md). The table's five problems differ in P_r: shown is
the median threshold; of a Gaussian without states there is none. Scores below -30 are drawn there."""
_LOOKS = {**{name: LOOKS[name] for name in LEARNERS if name in LOOKS}, LABELLED: (SKY, "-")}


def main(folder: Annotated[Path, typer.Option(help="Of the Parquets.")] = OUT) -> None:
    """Write report.md and the pictures."""
    raw = pl.concat(
        [pl.read_parquet(folder / f"{name}.parquet").with_columns(function=pl.lit(name)) for name in DOMAINS],
        how="diagonal_relaxed",
    )
    swept = {str(name): part for (name,), part in raw.group_by("sweep")}
    found = curves.curves(folder)
    curves.picture(found).savefig(folder / "beta.png", dpi=120)
    labels_picture(swept["labels"]).savefig(folder / "labels.png", dpi=120)
    text = [
        HEAD,
        "## β over three decades\n\n![Score against β in all domains](beta.png)",
        "\n".join(curves.table(found)),
        HOW,
        "## Few labels\n\n![Score against labels](labels.png)",
        "\n".join(labels_table(swept["labels"])),
        "Margins over the better filtered clone, paired, corrected for a learner's cells (bold: wins, italic: loses):",
        "\n".join(margins_table(swept["labels"], "coverage")),
        "\n".join(half_table(swept["labels"])),
    ]
    sections: dict[str, tuple[str, Callable[[pl.DataFrame], list[str]]]] = {
        "flips": ("## Wrong labels\n\n![Score against wrong labels](flips.png)", flips_table),
        "alpha": ("## α and the normalisation", alpha_table),
        "weight": (
            "## One β for every imbalance\n\nβ is 1.05 times its bound at an accepted share of one half (by labels), "
            "and kept for all shares; α = ½.",
            weight_table,
        ),
        "references": ("## Poor references\n\nTraining starts from the reference named, and the divergence is to it.",
                       references_table),
        "suggestion": ("## α and β from the data", suggestion_table),
    }  # fmt: skip
    for sweep, (head, table) in sections.items():
        text += [head, "\n".join(table(swept[sweep]))] if sweep in swept else [head.split("\n")[0], "Not run."]
    if "flips" in swept:
        flips_picture(swept["flips"]).savefig(folder / "flips.png", dpi=120)
    cost = raw.group_by("function", "sweep").agg(pl.len(), pl.col("cpu_seconds").sum()).sort("function", "sweep")
    text += [
        "## Cost",
        "\n".join(shared.table(("domain", "sweep", "runs", "CPU-seconds"),
                               [(str(d), str(s), str(n), f"{c:.0f}") for d, s, n, c in cost.iter_rows()], "llr")),
        f"{len(raw):,} runs in {raw['cpu_seconds'].sum() / 60:.0f} CPU-minutes, without tuning. "
        + shared.hardware("torch", "mujoco"),
    ]  # fmt: skip
    (folder / "report.md").write_text("\n\n".join(text) + "\n", encoding="utf-8")


def by(part: pl.DataFrame, column: str, places: Sequence[float | str]) -> list[str]:
    """Return the mean score with its interval at every place of a column."""
    at = [part.filter(pl.col(column) == place)["score"] for place in places]
    return [shared.spread(t_interval(each), 0) if len(each) else "–" for each in at]


def paired(after: pl.DataFrame, before: pl.DataFrame, on: Sequence[str] = ("seed",)) -> str:
    """Return the mean difference of runs with one seed, averaged over what else is in `on`, with its interval."""
    both = after.join(before, on=list(on), suffix="_before").with_columns(gain=pl.col("score") - pl.col("score_before"))
    gains = both.group_by("seed").agg(pl.col("gain").mean()).sort("seed")["gain"]
    found = t_interval(gains)
    return f"{found.estimate:+.0f} ({found.low:+.0f} – {found.high:+.0f})"


def domains_of(raw: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield the domains of a sweep with their runs."""
    for name in DOMAINS:
        if len(part := raw.filter(pl.col("function") == name)):
            yield name, part


def labels_table(raw: pl.DataFrame) -> list[str]:
    """Return the score at every number of labels, and the area under the curve over the logarithm of it."""
    lines = []
    for domain, part in domains_of(raw):
        for arm in LEARNERS:
            if len(mine := part.filter(pl.col("arm") == arm)):
                full = mine.group_by("seed").len().filter(pl.col("len") == len(FRACTIONS))["seed"]
                area = shared.spread(t_interval(areas(mine)), 0) if len(full) == mine["seed"].n_unique() else "–"
                lines.append([f"{domain}, {arm}", *by(mine, "coverage", FRACTIONS), area])
    return shared.table(("learner", *(f"{100 * f:g} %" for f in FRACTIONS), "area"), lines, "lr")


def half_table(raw: pl.DataFrame) -> list[str]:
    """Return what half of the labels cost each learner, and how it then compares with the better filter with all."""
    lines = []
    for domain, part in domains_of(raw):
        full, half = (part.filter(pl.col("coverage") == place) for place in (1.0, 0.5))
        clones = full.filter(pl.col("arm").is_in(FILTERS)).group_by("arm").agg(pl.col("score").mean())
        best = full.filter(pl.col("arm") == clones.sort("score")["arm"][-1])
        for arm in LEARNERS:
            if len(mine := half.filter(pl.col("arm") == arm)):
                own = paired(mine, full.filter(pl.col("arm") == arm))
                lines.append([f"{domain}, {arm}", own, paired(mine, best)])
    head = ("learner", "with half of the labels, less with all", "with half, less the better filter with all")
    return shared.table(head, lines, "lr")


def labels_picture(raw: pl.DataFrame) -> Figure:
    """Return score against the share of labels kept, a panel a domain."""
    parts = list(domains_of(raw))
    figure = Figure(figsize=(4.4 * len(parts), 4.4), layout="constrained")
    for axes, (domain, part) in zip(figure.subplots(1, len(parts), squeeze=False)[0], parts, strict=True):
        for arm, (colour, style) in _LOOKS.items():
            if len(mine := part.filter(pl.col("arm") == arm)):
                curve(axes, mine, "coverage", colour, style, arm)
        axes.set_xscale("log")
        axes.set_xticks(FRACTIONS, [f"{100 * each:g}" for each in FRACTIONS])
        axes.minorticks_off()
        axes.set_xlabel("labels kept, %")
        axes.set_ylim(-20, 103)
        axes.set_title(curves.TITLES[domain], fontsize=10)
        shared.bare(axes)
    figure.axes[0].set_ylabel("score")
    shared.legend_below(figure, 4)
    return figure


def _settings(raw: pl.DataFrame, *names: str) -> pl.DataFrame:
    """Add columns of settings, null where a run has none of the name."""
    found = [json.loads(each) for each in raw["setting"]]
    return raw.with_columns(pl.Series(name, [each.get(name) for each in found], strict=False) for name in names)


def flips_table(raw: pl.DataFrame) -> list[str]:
    """Return the score at every rate of wrong labels, as they are and de-biased, and what the rate gains at 30 %."""
    named, lines = _settings(raw.filter(pl.col("share").is_null()), "normalize", "multiple", "flip_rate"), []
    for domain, part in domains_of(named):
        for arm in ("bc-accepted", "KTO"):
            lines.append([f"{domain}, {arm}", *by(part.filter(pl.col("arm") == arm), "flips", FLIPS), ""])
        pmpo = part.filter(pl.col("arm") == "PMPO AR")
        for (multiple, normalize), mine in pmpo.group_by("multiple", "normalize", maintain_order=True):
            plain, known = (mine.filter(pl.col("flip_rate").is_null() == null) for null in (True, False))
            name = f"{domain}, PMPO, {normalize}, {multiple:g} × bound"
            lines.append([name, *by(plain, "flips", FLIPS), ""])
            worst = [each.filter(pl.col("flips") == RATES[-1]) for each in (known, plain)]
            lines.append([f"{name}, de-biased", "same", *by(known, "flips", FLIPS[1:]), paired(worst[0], worst[1])])
    for domain, part in domains_of(raw.filter(pl.col("share") == RARE["share"])):
        for (arm,), mine in part.group_by("arm", maintain_order=True):
            lines.append([f"{domain}, 10 % accepted, {arm}", *by(mine, "flips", FLIPS), ""])
    head = ("learner", *(f"{100 * rate:g} % flipped" for rate in FLIPS), "de-biasing gains at 30 %")
    return shared.table(head, lines, "lr")


def flips_picture(raw: pl.DataFrame) -> Figure:
    """Return score against the rate of wrong labels, a panel a domain; solid lines are de-biased."""
    whole = raw.filter(pl.col("share").is_null())
    parts = list(domains_of(_settings(whole, "normalize", "multiple", "flip_rate")))
    figure = Figure(figsize=(max(8.0, 4.6 * len(parts)), 4.6), layout="constrained")
    for axes, (domain, part) in zip(figure.subplots(1, len(parts), squeeze=False)[0], parts, strict=True):
        for arm, colour in (("bc-accepted", GREY), ("KTO", GREEN)):
            curve(axes, part.filter(pl.col("arm") == arm), "flips", colour, "--", arm)
        least = part["multiple"].min()
        for normalize, colour in (("joint", BLUE), ("set", ORANGE)):
            mine = part.filter((pl.col("normalize") == normalize) & (pl.col("multiple") == least))
            plain = mine.filter(pl.col("flip_rate").is_null())
            curve(axes, plain, "flips", colour, "--", f"PMPO, {normalize}")
            known = pl.concat([plain.filter(pl.col("flips") == 0), mine.filter(pl.col("flip_rate").is_not_null())])
            curve(axes, known, "flips", colour, "-", f"PMPO, {normalize}, de-biased")
        axes.set_xticks(RATES, [f"{100 * rate:g}" for rate in RATES])
        axes.set_xlabel("wrong labels, %")
        axes.set_ylim(-65, 103)
        axes.set_title(f"{domain}, β = {least:g} × its bound for true labels", fontsize=10)
        shared.bare(axes)
    figure.axes[0].set_ylabel("score (below -60: drawn there)")
    shared.legend_below(figure, 3)
    return figure


def alpha_table(raw: pl.DataFrame) -> list[str]:
    """Return the score at every α, and what the best one gains on one half."""
    named, lines = _settings(raw.drop("alpha"), "alpha", "normalize", "multiple"), []
    keys = ("share", "coverage", "multiple", "normalize")
    for domain, part in domains_of(named):
        for (share, coverage, multiple, normalize), mine in part.group_by(*keys, maintain_order=True):
            cell = f"{100 * share:g} % accepted" if share else f"{100 * coverage:g} % of the labels"  # type: ignore[operator]
            mean = mine.group_by("alpha").agg(pl.col("score").mean()).sort("score")
            best = mean["alpha"][-1]
            gain = paired(*(mine.filter(pl.col("alpha") == alpha) for alpha in (best, 0.5))) if best != 0.5 else "–"
            name = f"{domain}, {cell}, {normalize}, {multiple:g} × bound"
            lines.append([name, *by(mine, "alpha", ALPHAS), f"{best:g}", gain])
    head = ("curve", *(f"α = {alpha:g}" for alpha in ALPHAS), "best", "less α = ½")
    return shared.table(head, lines, "lr")


def weight_table(raw: pl.DataFrame) -> list[str]:
    """Return the scores at every share with one β, their mean, and the difference to `joint`."""
    named, lines = _settings(raw, "normalize"), []
    for domain, part in domains_of(named):
        parts = dict(zip(WEIGHTS, _weighted(part), strict=True))
        for weight, mine in parts.items():
            mean = mine.group_by("seed").agg(pl.col("score").mean()).sort("seed")["score"]
            gain = "–" if weight == "joint" else paired(mine, parts["joint"], ("seed", "share"))
            lines.append([f"{domain}, {weight}", *by(mine, "share", SHARES), shared.spread(t_interval(mean), 0), gain])
    head = ("normalisation", *(f"{100 * share:g} %" for share in SHARES), "mean over shares", "less joint")
    return shared.table(head, lines, "lr")


def _weighted(part: pl.DataFrame) -> Iterator[pl.DataFrame]:
    for setting in WEIGHTS.values():
        chosen = pl.col("setting").str.contains('"reject_mass"') == ("reject_mass" in setting)
        yield part.filter((pl.col("normalize") == setting["normalize"]) & chosen)


def references_table(raw: pl.DataFrame) -> list[str]:
    """Return the score of every arm by the reference that it starts from, a table a domain."""
    lines: list[str] = []
    for domain, part in domains_of(raw):
        qualities = part["from"].unique(maintain_order=True).to_list()
        arms = part.group_by("arm", maintain_order=True)
        rows = [[f"{domain}, {arm}", *by(mine, "from", qualities)] for (arm,), mine in arms]
        lines += [*shared.table(("learner", *map(str, qualities)), rows, "lr"), ""]
    return lines[:-1]


def suggestion_table(raw: pl.DataFrame) -> list[str]:
    """Return the fixed and the suggested settings' scores in every cell, the difference, and the better filter."""
    named, lines = _settings(raw, "suggested"), []
    for domain, part in domains_of(named):
        keys = ["share", "coverage", "flips"]
        fixed, suggested = (part.filter(pl.col("suggested") == name) for name in (FIXED, SUGGESTED))
        for (share, coverage, flips), mine in suggested.group_by(*keys, maintain_order=True):
            here = pl.col("share").eq_missing(pl.lit(share, pl.Float64)) & (pl.col("coverage") == coverage)
            cell = here & (pl.col("flips") == flips)
            what = f"{100 * share:g} % accepted" if share else f"{100 * coverage:g} % of the labels"  # type: ignore[operator]
            alpha = mine["alpha"].mean()
            lines.append(
                [
                    f"{domain}, {what}, {100 * flips:g} % flipped",  # type: ignore[operator]
                    f"{alpha:.2f}",
                    shared.spread(t_interval(fixed.filter(cell)["score"]), 0),
                    shared.spread(t_interval(mine["score"]), 0),
                    paired(mine, fixed.filter(cell)),
                ]
            )
        every = paired(suggested.fill_null(-1), fixed.fill_null(-1), ("seed", *keys))
        lines.append([f"{domain}, all cells", "", "", "", every])
    head = ("cell", "suggested α", FIXED, "suggested α and β", "difference")
    return shared.table(head, lines, "lr")


if __name__ == "__main__":
    shared.script(main)
