"""Report and pictures of the stability experiment, from its raw trajectories: predicted and observed collapse."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from benchmarks.experiments import shared
from benchmarks.experiments.stability import language, pictures
from benchmarks.experiments.stability.experiment import FALL, FAR, LATE, verdicts

ARM = ["domain", "alpha", "normalize", "divergence", "variant"]
NAMES = {"bandit": "Bandit", "gaussian": "Gaussian", "language": "Language model"}
HEAD = f"""# Predicted and observed collapse of PMPO

β swept across the bound that `objectives.stability` computes, 5 seeds a value; every arm is one stacked run of
`objectives.pmpo`. Written by `python -m benchmarks.experiments.stability.run` from `raw/*.parquet`; what it means is in
[README.md](README.md).

A run **collapsed** if its rejects fall without rest: their mean log-probability ends more than {FALL:g} nat below its
start, and more than {LATE:g} of that fall belongs to the second half of the training (of a steady fall it is one half,
of one that has settled next to nothing); or if it fell by more than {FAR:g} nats; or if a number is not finite.
**Harmed**: less reward at the end than the reference has. "Agree": runs that collapse below the bound and not above
it; those at exactly the bound are left out, as there the optimum is reached only at infinity.

![Share of the seeds that collapsed, for every arm and value of β](collapse.png)
![Observed threshold against the predicted bound](threshold.png)
![Reward and divergence at the end, with the predicted optimum](outcome.png)

Reward in the picture: 0 is the reference, 1 the best there is. In the tables it is the probability of good outcomes or
of the right response, and for the Gaussian as in the picture. KL: from the reference to the policy, in nats; of the
language model on held-out prompts. Lines are means over the seeds, bands their range.
"""


def write(output: Path) -> Path:
    """Write report.md and the pictures of what lies under `output`/raw; return the report's path."""
    files = sorted((output / "raw").glob("*.parquet"))
    trajectories = pl.concat([pl.read_parquet(path) for path in files], how="diagonal")
    # By domain as they are declared, rejects before both, the plain arms before their variants.
    runs = verdicts(trajectories).sort("domain", "variant", "divergence", "alpha", "normalize", "multiple", "seed")
    pictures.collapse(runs, output / "collapse.png")
    pictures.threshold(thresholds(runs), output / "threshold.png")
    pictures.outcome(runs, output / "outcome.png")
    machines = trajectories.group_by("machine").agg(pl.col("arm").unique().len()).sort("machine")
    seconds = trajectories.group_by("arm").agg(pl.col("cpu_seconds").first())["cpu_seconds"].sum()
    lines = [HEAD, *_summary(runs), "", *_memoriser(runs)]
    lines += [f"Machine: {machine} ({count} arms)." for machine, count in machines.iter_rows()]
    lines += [f"All arms together took {seconds:.0f} CPU-seconds.", "", "## Every value of β", ""]
    for (arm,), part in runs.group_by(["arm"], maintain_order=True):
        lines += [f"### {arm}", "", *_table(part), ""]
    path = output / "report.md"
    path.write_text("\n".join(lines))
    return path


def thresholds(runs: pl.DataFrame) -> pl.DataFrame:
    """Return a row a seed of every arm: its `bound`, the largest β that collapsed (`low`) and the next one (`high`)."""
    seed = ["arm", *ARM, "seed"]
    low = pl.col("beta").filter(pl.col("collapsed")).max()
    found = runs.group_by(seed, maintain_order=True).agg(pl.col("bound").first(), low=low, values=pl.col("beta"))
    found = found.with_columns(pl.col("low").fill_null(pl.col("values").list.min()))
    above = pl.col("values").list.eval(pl.element())
    return (
        found.with_columns(above.alias("above"))
        .explode("above")
        .filter((pl.col("above") > pl.col("low")) | (pl.col("low") == pl.col("values").list.max()))
        .group_by(seed, maintain_order=True)
        .agg(pl.col("bound", "low").first(), high=pl.col("above").min())
    )


def _summary(runs: pl.DataFrame) -> list[str]:
    """Return the table of arms."""
    decided = runs.filter(pl.col("multiple") != 1)
    agree = (pl.col("collapsed") == pl.col("predicted")).mean()
    below, above = pl.col("predicted"), ~pl.col("predicted")
    table = decided.group_by("arm", *ARM, maintain_order=True).agg(
        agree=agree,
        below=pl.col("collapsed").filter(below).mean(),
        above=pl.col("collapsed").filter(above).mean(),
        harmed_below=pl.col("harmed").filter(below).mean(),
        harmed_above=pl.col("harmed").filter(above).mean(),
        bound=pl.col("bound").unique().sort(),
    )
    observed = (
        thresholds(runs)
        .group_by("arm")
        .agg(low=(pl.col("low") / pl.col("bound")).min(), high=(pl.col("high") / pl.col("bound")).max())
    )
    header = ("domain", "feedback", "normalize", "KL", "bound on β", "largest collapsed and next β, × bound", "agree")
    lines = []
    for row in table.join(observed, on="arm", maintain_order="left").iter_rows(named=True):
        bound = f"{row['bound'][0]:.3g}" + (f" – {row['bound'][-1]:.3g}" if row["bound"][-1] > row["bound"][0] else "")
        name = NAMES[row["domain"]] + (f", {row['variant']}" if row["variant"] else "")
        feedback = "rejects" if row["alpha"] == 0 else "both"
        cells = [name, feedback, row["normalize"], row["divergence"], bound, f"{row['low']:.2f}, {row['high']:.2f}"]
        cells += [f"{row['agree']:.0%}", f"{row['below']:.0%} / {row['above']:.0%}"]
        lines.append([*cells, f"{row['harmed_below']:.0%} / {row['harmed_above']:.0%}"])
    return shared.table((*header, "collapsed below / above", "harmed below / above"), lines)


def _memoriser(runs: pl.DataFrame) -> list[str]:
    """Return what a policy that tells every sampled prefix apart would need, if the raw results have that arm."""
    tried = runs.filter((pl.col("divergence") == "closed form") & (pl.col("variant") == language.FEW_PROMPTS))
    if tried.is_empty():
        return []
    arm = next(arm for arm in language.ARMS if arm.name == tried["arm"][0])
    need = language.memoriser_bounds(arm)
    low, middle, high = need.quantile(need.new_tensor([0.1, 0.5, 0.9])).tolist()
    return [
        f"A policy that tells every prefix of the {arm.variant} apart needs β ≥ {need.min():.3g} for the first of "
        f"their {len(need)} rejects, {low:.3g} for a tenth, {middle:.3g} for half and {high:.3g} for nine tenths.",
        "",
    ]


def _table(part: pl.DataFrame) -> list[str]:
    """Return the table of one arm: a row a β."""
    header = (
        "β / bound",
        "β",
        "collapsed",
        "reward, mean (range)",
        "KL, mean (range)",
        "rejects fell by, nats",
        "late",
    )
    lines = []
    for (multiple,), runs in part.group_by(["multiple"], maintain_order=True):
        beta = runs["beta"].unique().sort()
        shown = f"{beta[0]:.3g}" + (f" – {beta[-1]:.3g}" if beta[-1] > beta[0] * 1.001 else "")
        cells = [f"{multiple:.3g}", shown, f"{runs['collapsed'].sum()} of {len(runs)}"]
        cells += [_spread(runs["reward"]), _spread(runs["kl"]), _spread(runs["fall"]), f"{runs['late'].mean():.2f}"]
        lines.append(cells)
    return shared.table(header, lines)


def _spread(values: pl.Series) -> str:
    return f"{values.mean():.3g} ({values.min():.3g} – {values.max():.3g})"
