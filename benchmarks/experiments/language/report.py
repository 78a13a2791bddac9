"""Tables and pictures of the sweep of language models, from the rows of its benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.experiments import shared
from benchmarks.experiments.figures import Look, sweep
from benchmarks.experiments.shared import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED, SKY
from pmpo_offline.benchmark.report import number
from pmpo_offline.benchmark.table import Row

YELLOW, TEAL = "#B8A800", "#008080"
STYLES = {
    "pmpo": Look("PMPO, both", BLUE, "o"),
    "reject-bc": Look("PMPO, rejects", RED, "v"),
    "accept-bc": Look("PMPO, accepts", GREEN, "^"),
    "bc": Look("all responses", BLACK, "x"),
    "bc-accepted": Look("SFT on accepts", BLACK, "*"),
    "dpo": Look("DPO", ORANGE, "s"),
    "ipo": Look("IPO", YELLOW, "P"),
    "nca": Look("NCA", SKY, "X"),
    "kto": Look("KTO", PURPLE, "D"),
    "bco": Look("BCO", TEAL, "h"),
}
HEADER = ("method", "setting", "bound", "reward", "score", "95 % interval", "KL", "words", "its logp", "perplexity", "")


def write(output: Path, name: str, rows: Sequence[Row]) -> None:
    """Write a part's table and picture into the folder of its raw scores."""
    (output / f"{name}.md").write_text(table(rows), encoding="utf-8")
    figure(rows).savefig(output / f"{name}.png", dpi=150)


def table(rows: Sequence[Row]) -> str:
    """Return the rows by method and strength: reward and distance from the model before training."""
    align = "ll" + "r" * (len(HEADER) - 3) + "l"
    return "\n".join(shared.table(HEADER, map(_cells, _by_method(rows)), align)) + "\n"


def figure(rows: Sequence[Row]) -> Figure:
    """Return score against KL: a line a method through its strengths, hollow where the policy collapsed."""
    picture = Figure(figsize=(8, 5.5), layout="constrained")
    axes = picture.add_subplot()
    axes.axhline(0, color=BLACK, linewidth=0.8, linestyle=":")
    for algorithm, look in STYLES.items():
        mine = [row for row in _by_method(rows) if row["algo"] == algorithm]
        if mine:
            sweep(axes, mine, "kl", look)
    axes.set_xscale("symlog", linthresh=0.1)
    axes.set_xlim(left=0)
    axes.set_xlabel("KL(policy ‖ model before training), nats a sample")
    axes.set_ylabel("score: 0 the model before training, 100 its best of four")
    axes.set_title("Hollow: collapsed. Larger marks: stronger pull to the model (larger β)", fontsize="small")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", ncols=2)
    return picture


def _by_method(rows: Sequence[Row]) -> list[Row]:
    """Return the rows in the order of the picture's methods, each by its strength."""
    order = list(STYLES)
    return sorted(rows, key=lambda row: (order.index(row["algo"]), _divergence(row), row["beta"] or 0.0))


def _divergence(row: Row) -> str:
    settings = row["settings"]
    kind = settings.get("divergence", "forward")
    return f"{kind} {settings['order']:g}" if kind in ("alpha", "renyi") else str(kind)


def _cells(row: Row) -> tuple[str, ...]:
    kind = _divergence(row)
    strength = [] if row["beta"] is None else [f"β = {row['beta']:.3g}"]
    setting = " ".join(([] if kind == "forward" else [kind]) + strength)
    bound = "–" if row["beta_min"] is None else f"{row['beta_min']:.3g}{'' if row['bounded'] else ' !'}"
    score = [f"{row['return']:.3f}", f"{row['iqm']:.1f}", f"{row['low']:.1f} – {row['high']:.1f}", f"{row['kl']:.2f}"]
    drift = (row[name] for name in ("distinct", "reference_logp", "perplexity"))
    shown = ("–" if value is None else number(value) for value in drift)
    collapsed = "collapsed" if row["collapsed"] else ""
    return (STYLES[row["algo"]].label, setting or "–", bound, *score, *shown, collapsed)
