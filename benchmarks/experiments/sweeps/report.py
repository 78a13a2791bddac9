"""The page of the sweeps on bandits, from their raw scores.

python -m benchmarks.experiments.sweeps.report
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
import typer

from benchmarks.experiments import shared
from benchmarks.experiments.arms import FILTERS
from benchmarks.experiments.bandit_rows import ARMS
from benchmarks.experiments.labellings import FRACTIONS, RATES, WEIGHTS
from benchmarks.experiments.margins import Design, margins, t_interval
from benchmarks.experiments.stability.experiment import verdicts
from benchmarks.experiments.stability.run import COMMITTED as STABILITY
from benchmarks.experiments.sweeps import pictures
from benchmarks.experiments.sweeps.run import BETAS, SHARES
from pmpo_offline.objectives import stability


def main(folder: Annotated[Path, typer.Option(help="Of bandits.parquet.")] = shared.RESULTS / "sweeps") -> None:
    """Write report.md and the pictures."""
    raw = pl.read_parquet(folder / "bandits.parquet")
    raw = raw.with_columns(
        pl.col("setting").str.json_path_match(f"$.{name}").cast(pl.Float64, strict=False).alias(name)
        for name in ("multiple", "alpha")
    ).with_columns(pl.col("setting").str.json_path_match("$.normalize").alias("normalize"))
    sweeps = {str(name): part for (name,), part in raw.group_by("sweep")}
    full = sweeps["labels"].filter((pl.col("arm") == "bc-accepted") & (pl.col("coverage") == 1.0))
    filtered = {str(name): float(rows["score"].mean()) for (name,), rows in full.group_by("function")}  # type: ignore[arg-type]
    pictures.beta_picture(sweeps["beta"], filtered).savefig(folder / "beta.png", dpi=120)
    pictures.alpha_picture(sweeps["alpha"]).savefig(folder / "alpha.png", dpi=120)
    weights = fixed_beta(sweeps["weight"])
    pictures.weight_picture(weights).savefig(folder / "weight.png", dpi=120)
    pictures.labels_picture(sweeps["labels"]).savefig(folder / "labels.png", dpi=120)
    pictures.flips_picture(sweeps["flips"]).savefig(folder / "flips.png", dpi=120)
    text = [
        "# Sweeps on bandits",
        "[findings](../../../docs/findings.md). Scores: 0 a random action, 100 the best one; ten runs a point, in each "
        "of which the label draw and the training seed differ; t intervals over runs.",
        "## β over three decades\n\n![Score against β](beta.png)",
        "\n".join(beta_table(sweeps["beta"])),
        "### The same thresholds in the [stability](../stability/README.md) experiment\n\nIts committed runs, β in "
        "multiples of each arm's bound; ranges over its five seeds, which in the bandit are five problems. “–”: none.",
        "\n".join(harm_table()),
        "## α and the normalisation\n\n![Score against alpha](alpha.png)",
        "\n".join(alpha_table(sweeps["alpha"])),
        "## One β for every imbalance\n\nβ is chosen at an accepted share of one half, on runs 5 to 9, and kept for "
        "all shares; scores are of runs 0 to 4. α = ½.\n\n![Score against share](weight.png)",
        "\n".join(weight_table(weights)),
        "## Few labels\n\nThe labels of a random part of the rows are kept (half of them accepts), all rows stay.\n\n"
        "![Score against labels](labels.png)",
        "\n".join(labels_table(sweeps["labels"])),
        "Margins over the better filtered clone, paired, corrected for the cells of a learner (bold: wins, italic: "
        "loses):",
        "\n".join(margins_table(sweeps["labels"], "coverage")),
        "## Wrong labels\n\nEach label is flipped at this rate (half of them accepts, all rows labelled); β is that "
        "for true labels. De-biased: `flip_rate` is given; each label also counts as its opposite, with a negative "
        "weight.\n\n"
        "![Score against wrong labels](flips.png)",
        "\n".join(flips_table(sweeps["flips"])),
        "## Poor references\n\nThe divergence is to a clone of the rows named, from which training also starts (so for "
        "all others); all labels are there.",
        "\n".join(references_table(sweeps["references"], sweeps["labels"])),
        f"{len(raw):,} runs in {raw['cpu_seconds'].sum() / 3600:.2f} CPU-hours. " + shared.hardware("torch"),
    ]
    (folder / "report.md").write_text("\n\n".join(text) + "\n", encoding="utf-8")


def beta_table(raw: pl.DataFrame) -> list[str]:
    """Return, a curve a line, the thresholds and what was observed."""
    lines = []
    keys = ("function", "components", "arm", "share")
    for (function, components, arm, share), part in raw.sort(*keys).group_by(*keys, maintain_order=True):
        mean = part.group_by("multiple").agg(pl.col("score").mean()).sort("multiple")
        best = mean.sort("score", descending=True).row(0)
        lost = mean.filter(pl.col("score") < 0)["multiple"].max()
        kind = str(arm).split()[-1]
        runs = part.filter(pl.col("multiple") == best[0])["score"]
        at_bound = part.filter(pl.col("multiple") == 1)["score"]
        lines.append(
            [
                f"{function}, {'five Gaussians' if components == 5 else 'one'}, {arm}, {100 * float(share):g} %",  # type: ignore[arg-type]
                f"{float(part[f'gaussian {kind}'].mean()):.2f}",  # type: ignore[arg-type]
                f"{float(part[f'collapse {kind}'].mean()):.2f}",  # type: ignore[arg-type]
                "–" if lost is None else f"{lost:.2g}",
                f"{best[0]:.2g}",
                shared.spread(t_interval(runs), 0),
                shared.spread(t_interval(at_bound), 0),
            ]
        )
    head = ("curve", "Gaussian bound", "collapse", "largest β below random", "best β", "score there", "score at 1")
    return ["All β in multiples of the bound over outcomes.", "", *shared.table(head, lines, "lr")]


def harm_table() -> list[str]:
    """Return the thresholds of the stability experiment's arms beside the largest β that did harm there."""
    raw = pl.concat([pl.read_parquet(path) for path in sorted((STABILITY / "raw").glob("*.parquet"))], how="diagonal")
    lines = []
    for (_,), runs in verdicts(raw).group_by("arm", maintain_order=True):
        arm = runs.row(0, named=True)
        if arm["domain"] == "gaussian":  # its bound is that of moments, and there is no table to collapse
            collapse: list[float] = []
        else:
            collapse = [
                stability.beta_collapse(arm["alpha"], mass, arm["normalize"]) / bound
                for mass, bound in runs.select("reject_mass", "bound").unique().iter_rows()
            ]
        harmed = [seed["multiple"].max() for _, seed in runs.filter("harmed").group_by("seed")]
        mean = runs.group_by("multiple").agg(pl.col("reward").mean())
        best = mean.sort(pl.col("reward").round(6), "multiple", descending=True).row(0)  # the largest of equal ones
        feedback = "rejects" if arm["alpha"] == 0 else "both"
        name = ", ".join(filter(None, (arm["domain"], feedback, arm["normalize"], arm["divergence"], arm["variant"])))
        lines.append([name, _range(collapse), _range(harmed), f"{best[0]:.2g}", f"{best[1]:.2f}"])
    head = ("arm", "collapse", "largest β with less reward than the reference", "best β", "reward there")
    return shared.table(head, lines, "lr")


def _range(values: Sequence[float]) -> str:
    if not values:
        return "–"
    low, high = f"{min(values):.2g}", f"{max(values):.2g}"
    return low if low == high else f"{low} – {high}"


def alpha_table(raw: pl.DataFrame) -> list[str]:
    """Return the best α of every curve beside one half."""
    lines = []
    keys = ("function", "multiple", "share", "normalize")
    for (function, multiple, share, normalize), part in raw.sort(*keys).group_by(*keys, maintain_order=True):
        mean = part.group_by("alpha").agg(pl.col("score").mean()).sort("score", descending=True)
        best = mean["alpha"][0]
        runs = [t_interval(part.filter(pl.col("alpha") == a)["score"]) for a in (0.5, best)]
        name = f"{function}, {multiple:g} × bound, {100 * float(share):g} %, {normalize}"  # type: ignore[arg-type]
        lines.append([name, shared.spread(runs[0], 0), f"{best:g}", shared.spread(runs[1], 0)])
    return shared.table(("curve", "score at α = ½", "best α", "score there"), lines, "lr")


def fixed_beta(raw: pl.DataFrame) -> pl.DataFrame:
    """Return runs 0 to 4 at the β that did best at a share of one half in runs 5 to 9.

    `oracle` is the best mean of any normalisation and β for the share.
    """
    named = raw.with_columns(
        weight=pl.when(pl.col("setting").str.contains("reject_mass"))
        .then(pl.lit(list(WEIGHTS)[2]))
        .when(pl.col("setting").str.contains('"set"'))
        .then(pl.lit("set"))
        .otherwise(pl.lit("joint")),
        asked=pl.col("setting").str.json_path_match("$.beta").cast(pl.Float64),
    )
    by = ("function", "kind", "weight")
    tried = named.filter((pl.col("seed") >= 5) & (pl.col("share") == 0.5))
    mean = tried.group_by(*by, "asked").agg(pl.col("score").mean()).sort("score", descending=True)
    chosen = mean.group_by(*by, maintain_order=True).first().select(*by, chosen="asked")
    kept = named.filter(pl.col("seed") < 5).join(chosen, on=list(by))
    best = kept.group_by(*by, "share", "asked").agg(pl.col("score").mean())
    best = best.group_by("function", "kind", "share").agg(oracle=pl.col("score").max())
    return kept.filter(pl.col("asked") == pl.col("chosen")).join(best, on=["function", "kind", "share"])


def weight_table(table: pl.DataFrame) -> list[str]:
    """Return the scores at the one β, and their mean over shares."""
    lines = []
    for (function, kind), both in table.sort("function", "kind").group_by("function", "kind", maintain_order=True):
        for weight in WEIGHTS:
            part = both.filter(pl.col("weight") == weight)
            cells = [f"{function}, by {kind}, {weight}", f"{part['chosen'][0]:g}"]
            cells += [f"{part.filter(pl.col('share') == share)['score'].mean():.0f}" for share in SHARES]
            mean = part.group_by("seed").agg(pl.col("score").mean()).sort("seed")["score"]
            lines.append([*cells, shared.spread(t_interval(mean), 0)])
        oracle = both.group_by("share").agg(pl.col("oracle").first()).sort("share")["oracle"]
        best = [f"{value:.0f}" for value in oracle]
        lines.append([f"{function}, by {kind}, the best of all for each share", "–", *best, f"{oracle.mean():.0f}"])
    head = ("normalisation", "β", *(f"{100 * share:g} %" for share in SHARES), "mean over shares")
    tried = ", ".join(f"{beta:g}" for beta in BETAS)
    return [f"β tried: {tried}.", "", *shared.table(head, lines, "lr")]


def labels_table(raw: pl.DataFrame) -> list[str]:
    """Return the score at every number of labels, and the area under the curve over the logarithm of it."""
    lines = []
    for function, arm in itertools.product(raw["function"].unique(maintain_order=True).to_list(), ARMS):
        part = raw.filter((pl.col("function") == function) & (pl.col("arm") == arm))
        cells = [f"{function}, {arm}"]
        for fraction in FRACTIONS:
            cells.append(shared.spread(t_interval(part.filter(pl.col("coverage") == fraction)["score"]), 0))
        lines.append([*cells, shared.spread(t_interval(areas(part)), 0)])
    return shared.table(("learner", *(f"{100 * f:g} %" for f in FRACTIONS), "area"), lines, "lr")


def margins_table(raw: pl.DataFrame, cell: str) -> list[str]:
    """Return the margin of every learner over the better filtered clone, by a column of the sweep."""
    found = margins(raw, Design(cell=("function", cell), unit="seed", score="score"))
    places = sorted(raw[cell].unique())
    lines = []
    for (function, arm), rows in found.group_by("function", "arm", maintain_order=True):
        if arm in (*FILTERS, "bc"):
            continue
        by_place = {row[cell]: row for row in rows.iter_rows(named=True)}
        cells = []
        for row in (by_place[place] for place in places):
            mark = {"wins": "**", "loses": "*"}.get(row["verdict"], "")
            cells.append(f"{mark}{row['margin']:+.0f} ({row['low']:+.0f} – {row['high']:+.0f}){mark}")
        lines.append([f"{function}, {arm}", *cells])
    return shared.table(("learner", *(f"{100 * place:g} %" for place in places)), sorted(lines), "lr")


def areas(part: pl.DataFrame) -> pl.Series:
    """Return each run's mean score over the logarithm of the number of labels."""
    wide = part.sort("coverage").group_by("seed", maintain_order=True).agg("coverage", "score")
    return pl.Series(
        [
            float(np.trapezoid(score, np.log(coverage)) / np.log(coverage[-1] / coverage[0]))
            for coverage, score in zip(wide["coverage"].to_list(), wide["score"].to_list(), strict=True)
        ]
    )


def flips_table(raw: pl.DataFrame) -> list[str]:
    """Return the score at every rate of wrong labels, of the labels as they are and de-biased."""
    plain = pl.col("setting").str.replace(', "flip_rate": [0-9.]+', "")
    named = raw.with_columns(plain=plain, debiased=pl.col("setting").str.contains("flip_rate"))
    lines = []
    keys = ("function", "arm", "plain")
    for (function, arm, setting), part in named.group_by(*keys, maintain_order=True):
        for debiased in sorted(part["debiased"].unique()):
            mine = part.filter(pl.col("debiased") == debiased)
            cells = [part.filter(pl.col("flips") == 0)["score"]] if debiased else []  # of no flips it is the same
            cells += [mine.filter(pl.col("flips") == rate)["score"] for rate in RATES[1 if debiased else 0 :]]
            shown = str(setting).strip("{}").replace('"', "").replace("beta: ", "β ").replace("normalize: ", "")
            name = ", ".join(filter(None, (str(function), str(arm), shown, "de-biased" if debiased else "")))
            lines.append([name, *(shared.spread(t_interval(each), 0) for each in cells)])
    return shared.table(("learner", *(f"{100 * rate:g} % flipped" for rate in RATES)), lines, "lr")


def references_table(raw: pl.DataFrame, labels: pl.DataFrame) -> list[str]:
    """Return the score of every arm by the reference it starts from; the filters need none."""
    references = raw["from"].unique(maintain_order=True).to_list()
    lines = []
    keys = ("function", "arm", "setting")
    for (function, arm, setting), part in raw.group_by(*keys, maintain_order=True):
        multiple = pl.Series([str(setting)]).str.json_path_match("$.multiple")[0]
        name = f"{function}, {arm}" + (f", {multiple} × bound" if multiple else "")
        scores = [part.filter(pl.col("from") == each)["score"] for each in references]
        lines.append([name, *(shared.spread(t_interval(each), 0) for each in scores)])
    for function, arm in itertools.product(raw["function"].unique(maintain_order=True).to_list(), FILTERS):
        full = labels.filter((pl.col("function") == function) & (pl.col("arm") == arm) & (pl.col("coverage") == 1.0))
        if len(full):
            lines.append(
                [f"{function}, {arm}", shared.spread(t_interval(full["score"]), 0), *["same"] * (len(references) - 1)]
            )
    return shared.table(("learner", *map(str, references)), lines, "lr")


if __name__ == "__main__":
    shared.script(main)
