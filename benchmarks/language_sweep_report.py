"""Tables and pictures of benchmarks/language_sweep.py, from the rows of its benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pmpo_offline.benchmark.report import number
from pmpo_offline.benchmark.results import Row

BLUE, RED, GREEN, ORANGE, PURPLE, SKY, YELLOW, BLACK, TEAL = (
    *("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#B8A800", "#222222", "#008080"),  # Okabe, Ito
)
STYLES = {  # colour and marker, because colour alone does not reach everybody
    "pmpo": ("PMPO, both", BLUE, "o"),
    "reject-bc": ("PMPO, rejects", RED, "v"),
    "accept-bc": ("PMPO, accepts", GREEN, "^"),
    "bc": ("all responses", BLACK, "x"),
    "bc-accepted": ("SFT on accepts", BLACK, "*"),
    "dpo": ("DPO", ORANGE, "s"),
    "ipo": ("IPO", YELLOW, "P"),
    "nca": ("NCA", SKY, "X"),
    "kto": ("KTO", PURPLE, "D"),
    "bco": ("BCO", TEAL, "h"),
}
HEADER = ("method", "setting", "bound", "reward", "score", "95 % interval", "KL", "words", "its logp", "perplexity", "")


def write(output: Path, name: str, rows: Sequence[Row]) -> None:
    """Write a part's table and picture into the folder of its raw scores."""
    (output / f"{name}.md").write_text(table(rows), encoding="utf-8")
    figure(rows).savefig(output / f"{name}.png", dpi=150)


def table(rows: Sequence[Row]) -> str:
    """Return the rows by method and strength: what was earned and how far the policy went for it."""
    lines = [HEADER, ("---", "---", *["---:"] * (len(HEADER) - 3), "---"), *map(_cells, _by_method(rows))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def figure(rows: Sequence[Row]) -> Figure:
    """Return score against KL: a line a method through its strengths, hollow where the policy collapsed."""
    picture = Figure(figsize=(8, 5.5), layout="constrained")
    axes = picture.add_subplot()
    axes.axhline(0, color=BLACK, linewidth=0.8, linestyle=":")
    for algorithm, (label, colour, marker) in STYLES.items():
        mine = [row for row in _by_method(rows) if row["algo"] == algorithm]
        if mine:
            _line(axes, mine, label, colour, marker)
    axes.set_xscale("symlog", linthresh=0.1)
    axes.set_xlim(left=0)
    axes.set_xlabel("KL(policy ‖ model before training), nats a sample")
    axes.set_ylabel("score: 0 the model before training, 100 its best of four")
    axes.set_title("Hollow: collapsed. Larger marks: stronger pull to the model (larger β)", fontsize="small")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", ncols=2)
    return picture


def _line(axes: Axes, rows: Sequence[Row], label: str, colour: str, marker: str) -> None:
    axes.plot([row["kl"] for row in rows], [row["iqm"] for row in rows], color=colour, linewidth=1, label=None)
    for place, row in enumerate(rows):
        axes.errorbar(
            [row["kl"]],
            [row["iqm"]],
            yerr=[[row["iqm"] - row["low"]], [row["high"] - row["iqm"]]],
            fmt=marker,
            color=colour,
            markersize=4 + 1.5 * place,
            markerfacecolor="white" if row["collapsed"] else colour,
            capsize=2,
            linewidth=0.8,
            label=label if place == 0 else None,
        )


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
    told = " ".join(([] if kind == "forward" else [kind]) + strength)
    bound = "–" if row["beta_min"] is None else f"{row['beta_min']:.3g}{'' if row['bounded'] else ' !'}"
    score = [f"{row['return']:.3f}", f"{row['iqm']:.1f}", f"{row['low']:.1f} – {row['high']:.1f}", f"{row['kl']:.2f}"]
    drift = (row[name] for name in ("distinct", "reference_logp", "perplexity"))
    shown = ("–" if value is None else number(value) for value in drift)
    collapsed = "collapsed" if row["collapsed"] else ""
    return (STYLES[row["algo"]][0], told or "–", bound, *score, *shown, collapsed)
