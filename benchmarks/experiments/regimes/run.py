"""Where PMPO ends below and above its bound: a table of 100 outcomes, β swept across both thresholds.

$ python -m benchmarks.experiments.regimes.run

writes raw.parquet, regimes.png and README.md. Predicted are the policies of `objectives.stability.limit_policy`,
trained are tables of logits, by stochastic gradient descent on `objectives.pmpo` in minibatches.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import torch
from torch import Tensor

from benchmarks.experiments import shared
from pmpo_offline import objectives
from pmpo_offline.objectives import stability

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OUT = shared.RESULTS / "regimes"
OUTCOMES, ALPHA = 100, 0.5
PANELS = {
    "every row labelled": (1.0, 256),
    "1 row in 200 labelled, minibatches of 64": (0.005, 64),
}
"""Share of the rows that are labelled, and rows a minibatch."""
MULTIPLES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0)


def problem() -> tuple[Tensor, Tensor]:
    """Return the reference (K,), and which outcomes are accepted, (K,) of 0 and 1."""
    chance = torch.Generator().manual_seed(0)
    reference = torch.rand(OUTCOMES, generator=chance, dtype=torch.float64) + 0.1
    good = (torch.rand(OUTCOMES, generator=chance, dtype=torch.float64) < 0.3).double()
    return reference / reference.sum(), good


def thresholds(labelled: float, rows: int) -> tuple[float, float]:
    """Return the bound and the collapse threshold on β in these minibatches."""
    reference, good = problem()
    share, minibatch = float(reference @ (1 - good)), stability.Minibatch(rows, labelled)
    return (
        stability.beta_min(ALPHA, share, "joint", share, minibatch=minibatch),
        stability.beta_collapse(ALPHA, share, "joint", minibatch=minibatch),
    )


def measured(policy: Tensor) -> dict[str, list[float]]:
    """Return the accepted share of what policies (R, K) do, and on how many outcomes they act: e to the entropy."""
    _, good = problem()
    spread = torch.special.entr(policy).sum(-1).exp()
    return {"accepted": (policy @ good).tolist(), "outcomes": spread.tolist()}


def predicted(beta: Tensor, labelled: float, rows: int) -> dict[str, list[float]]:
    """Return the measures of the limits of training, at values of β above the collapse threshold."""
    reference, good = problem()
    labels = labelled * good, labelled * (1 - good)
    settings = {"alpha": ALPHA, "normalize": "joint", "rows": rows}
    limits = [
        stability.limit_policy(stability.coefficients(reference, *labels, beta=b, **settings))  # type: ignore[arg-type]
        for b in beta.tolist()
    ]
    return measured(torch.stack(limits))


def train(beta: Tensor, labelled: float, rows: int, updates: int = 20_000) -> dict[str, list[float]]:
    """Train a table of logits at every β, (R,), from the reference; return the measures at the end.

    Steps are in units of 1 / β and fall, so that the noise of single minibatches averages out.
    """
    reference, good = problem()
    chance = torch.Generator().manual_seed(1)
    logits = reference.log().repeat(len(beta), 1).requires_grad_()
    for step in range(updates):
        outcome = torch.multinomial(reference, rows, replacement=True, generator=chance).expand(len(beta), -1)
        known = torch.rand(rows, generator=chance) < labelled
        label = torch.where(known, 2 * good[outcome] - 1, 0)
        logp = logits.log_softmax(-1)
        kl = -(reference * logp).sum(-1)
        settings = {"alpha": ALPHA, "beta": beta.unsqueeze(-1), "normalize": "joint"}
        loss, _ = objectives.pmpo(logp.gather(1, outcome), label, kl, **settings)  # type: ignore[arg-type]
        (gradient,) = torch.autograd.grad(loss.sum(), logits)
        with torch.no_grad():
            logits -= 2 / math.sqrt(1 + step / 2000) * gradient / beta.unsqueeze(-1)
    return measured(logits.detach().softmax(-1))


def run() -> pl.DataFrame:
    """Return one row a panel, β and source."""
    frames = []
    for panel, (labelled, rows) in PANELS.items():
        bound, collapse = thresholds(labelled, rows)
        beta, start = bound * torch.tensor(MULTIPLES, dtype=torch.float64), time.process_time()
        found = {"trained": (beta, train(beta, labelled, rows))}
        fine = torch.linspace(collapse * 1.001, 2 * bound, 200, dtype=torch.float64)
        seconds = time.process_time() - start
        found["predicted"] = fine, predicted(fine, labelled, rows)
        for source, (values, columns) in found.items():
            facts = {"panel": panel, "source": source, "bound": bound, "collapse": collapse, "cpu_seconds": seconds}
            frame = pl.DataFrame({"beta": values.tolist(), **columns})
            frames.append(frame.with_columns(pl.lit(value).alias(name) for name, value in facts.items()))
    return pl.concat(frames)


def picture(frame: pl.DataFrame) -> Figure:
    """Return the picture: what the policy does, above, and on how many outcomes, below, against β."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(9, 5), layout="constrained")
    axes = drawn.subplots(2, len(PANELS), sharex="col", sharey="row", squeeze=False)
    for column, panel in enumerate(PANELS):
        mine = frame.filter(pl.col("panel") == panel)
        bound, collapse = mine["bound"][0], mine["collapse"][0]
        for row, (measure, title) in enumerate((("accepted", "accepted share"), ("outcomes", "outcomes in use"))):
            place = axes[row, column]
            shades = ((0, collapse, shared.RED), (collapse, bound, shared.ORANGE), (bound, 2 * bound, shared.GREEN))
            for low, high, colour in shades:
                place.axvspan(low, high, color=colour, alpha=0.12, linewidth=0)
            line, dots = (mine.filter(pl.col("source") == source) for source in ("predicted", "trained"))
            place.plot(line["beta"], line[measure], color=shared.BLACK, linewidth=1.2, label="limit in closed form")
            place.plot(dots["beta"], dots[measure], "o", color=shared.BLUE, markersize=5, label="trained")
            place.set_xlim(0, 2 * bound)
            shared.bare(place)
            if column == 0:
                place.set_ylabel(title)
        axes[0, column].set_title(panel, fontsize=10)
        axes[1, column].set_xlabel("β")
        axes[1, column].set_yscale("log")
        names = ((0, collapse, "collapse"), (collapse, bound, "good limit"), (bound, 2 * bound, "minimum"))
        for low, high, text in names:
            place = axes[0, column]
            across = place.get_xaxis_transform()
            place.text((low + high) / 2, 0.06, text, ha="center", fontsize=8, transform=across)
    shared.legend_below(drawn, 2)
    return drawn


def main() -> None:
    """Train, and write the raw results, the picture and the page."""
    frame = run()
    OUT.mkdir(parents=True, exist_ok=True)
    shared.save(frame, OUT / "raw.parquet")
    report(OUT)


def report(folder: Path) -> None:
    """Write regimes.png and README.md from raw.parquet."""
    frame = pl.read_parquet(folder / "raw.parquet")
    picture(frame).savefig(folder / "regimes.png", dpi=130)
    rows = [
        [
            row["panel"],
            f"{row['beta']:.3g}",
            f"{row['beta'] / row['bound']:.2f}",
            stability.regime(row["beta"], row["bound"], row["collapse"]),
            f"{row['accepted']:.3f}",
            f"{row['outcomes']:.1f}",
        ]
        for row in frame.filter(pl.col("source") == "trained").iter_rows(named=True)
    ]
    header = ["labels", "β", "β / bound", "regime", "accepted share", "outcomes in use"]
    table = "\n".join(shared.table(header, rows, "lrrlrr"))
    seconds = frame.group_by("panel").agg(pl.col("cpu_seconds").first())["cpu_seconds"].sum()
    tables = f"{table}\n\n{shared.hardware('torch')} {seconds:.0f} CPU-seconds.\n"
    (folder / "README.md").write_text(shared.with_findings(folder, "Three regimes of β", tables), encoding="utf-8")


if __name__ == "__main__":
    shared.script(main)
