"""Draw the pictures of docs/objectives.md: how each objective pushes an accepted and a rejected sample.

    python -m docs.gradients [FOLDER]       default: docs/pictures

Every curve is the gradient of the real loss by autograd; no formula is repeated here. The losses take stacked runs, so
one call serves a whole axis: run i is a batch whose log-ratio (or score, or margin) is the i-th point.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib import pyplot
from matplotlib.axes import Axes
from PIL import Image
from torch import Tensor

from pmpo_offline import objectives
from pmpo_offline.objectives import OBJECTIVES, divergences, stability

FOLDER = Path(__file__).parent / "pictures"
POINTS = 401
ACCEPTED, REJECTED, NEITHER = (
    "#0072b2",
    "#d55e00",
    "#555555",
)  # Okabe and Ito's blue and vermilion, for colour-blind readers
STYLES = ("-", "--", ":")
REF_LOGP = -2.0
"""log pi_ref of both samples in pictures against their log-ratio to the reference."""
LOG_RATIO, PUSH = "r = log π − log π_ref of the sample", "push = −∂loss / ∂log π"
LABEL = torch.tensor([1.0, -1.0])

Loss = tuple[Tensor, dict[str, Tensor]]


def axis(low: float, high: float) -> Tensor:
    """Return the points of an x axis, (POINTS,)."""
    return torch.linspace(low, high, POINTS, dtype=torch.float64)


def push(loss: Callable[[Tensor], Loss], logp: Tensor) -> Tensor:
    """Return -d loss / d logp, in the shape of logp; where it is above 0 the sample gains probability."""
    logp = logp.clone().requires_grad_()
    value, _ = loss(logp)
    (gradient,) = torch.autograd.grad(value.sum(), logp)
    return -gradient


@contextmanager
def picture(path: Path, *, x: str, y: str) -> Iterator[Axes]:
    """Yield axes in the style of all pictures, and save them as a small PNG."""
    style: dict[Any, Any] = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context(style):
        figure, axes = pyplot.subplots(figsize=(4.8, 3.0), dpi=150, layout="constrained")
        axes.axhline(0, color="#bbbbbb", linewidth=0.8, zorder=0)
        yield axes
        axes.set(xlabel=x, ylabel=y)
        if axes.get_xlim()[1] - axes.get_xlim()[0] > 5:
            axes.locator_params(axis="x", integer=True)
        entries = axes.get_legend_handles_labels()[0]
        columns = math.ceil(len(entries) / 2) if len(entries) > 3 else 3
        figure.legend(loc="outside upper center", ncols=columns, columnspacing=1, frameon=False)
        figure.canvas.draw()
        drawn = Image.fromarray(np.array(figure.canvas.buffer_rgba())[..., :3])
        pyplot.close(figure)
    drawn.quantize(64).save(path, optimize=True)  # such a drawing has no more than 64 colours


class Curves:
    """The pushes of one objective, drawn with one line style a setting.

    Args:
        axes: to draw on.
        x: (POINTS,), the points of the axis.
    """

    def __init__(self, axes: Axes, x: Tensor) -> None:
        self._axes, self._x = axes, x

    def both(self, pushes: Tensor, style: str, note: str = "") -> None:
        """Draw the pushes (POINTS, 2) of an accepted and a rejected sample."""
        for column, colour, name in ((0, ACCEPTED, "accepted"), (1, REJECTED, "rejected")):
            self.one(pushes[:, column], colour, style, f"{name}, {note}" if note else name)

    def by_sign(self, pushes: Tensor, style: str, note: str = "") -> None:
        """Draw the push (POINTS,) of one sample, in the colour of its side of zero."""
        for side, colour, name in ((self._x >= 0, ACCEPTED, "above 0"), (self._x <= 0, REJECTED, "below 0")):
            label = f"{name}, {note}" if note else name
            self.one(torch.where(side, pushes, math.nan), colour, style, label)

    def one(self, pushes: Tensor, colour: str, style: str, label: str) -> None:
        """Draw one curve."""
        self._axes.plot(self._x, pushes, style, color=colour, label=label, linewidth=1.6)


def rows_picture(path: Path, settings: dict[str, Callable[[Tensor], Loss]]) -> None:
    """Draw pushes of a batch of one accepted and one rejected row against their log-ratio r."""
    r = axis(-10, 10)
    with picture(path, x=LOG_RATIO, y=PUSH) as axes:
        curves = Curves(axes, r)
        for style, (note, loss) in zip(STYLES, settings.items(), strict=False):
            curves.both(push(loss, (r + REF_LOGP).unsqueeze(-1).expand(-1, 2)), style, note)


def pairs_picture(path: Path, name: str, *, lengths: bool = False) -> None:
    """Draw pushes of one pair against the margin of its log-ratios, which its two outcomes share evenly."""
    margin = axis(-10, 10)
    ref = torch.full((POINTS, 1), REF_LOGP, dtype=torch.float64)
    logp = torch.stack([ref[:, 0] + margin / 2, ref[:, 0] - margin / 2], dim=-1)

    def loss(logp: Tensor, beta: float) -> Loss:
        inputs = {"logp_chosen": logp[:, :1], "logp_rejected": logp[:, 1:], "ref_chosen": ref, "ref_rejected": ref}
        if lengths:
            inputs |= {"length_chosen": torch.full_like(ref, 8), "length_rejected": torch.full_like(ref, 4)}
        return OBJECTIVES[name](inputs, beta=beta)

    with picture(path, x="margin r(chosen) − r(rejected)" + (", lengths 8 and 4" if lengths else ""), y=PUSH) as axes:
        for style, beta in zip(STYLES, (1.0, 0.1), strict=False):
            pushes = push(partial(loss, beta=beta), logp)
            Curves(axes, margin).both(pushes, style, f"β = {beta:g}")


def pmpo(path: Path) -> None:
    """Draw PMPO: flat, since it does not depend on the log-ratio, except with a floor."""

    def loss(logp: Tensor, beta: float = 0.0, floor: float = 0.0) -> Loss:
        return objectives.pmpo(logp, LABEL, -logp.mean(-1), alpha=0.5, beta=beta, floor=floor)

    r = axis(-10, 10)
    logp = (r + REF_LOGP).unsqueeze(-1).expand(-1, 2)
    bound = stability.beta_min(0.5, reject_mass=0.5, normalize="joint")
    with picture(path, x=LOG_RATIO, y=PUSH) as axes:
        curves = Curves(axes, r)
        curves.both(push(loss, logp), "-", "β = 0")
        curves.both(push(partial(loss, beta=1.2 * bound), logp), "--", "β = 1.2 × bound")
        floored = push(partial(loss, floor=math.exp(REF_LOGP) / 100), logp)
        curves.one(floored[:, 1], REJECTED, ":", "rejected, β = 0, floor")


def bc(path: Path, loss: Callable[[Tensor], Loss] = objectives.bc) -> None:
    """Draw cloning: every row alike."""
    r = axis(-10, 10)
    with picture(path, x=LOG_RATIO, y=PUSH) as axes:
        pushes = push(loss, (r + REF_LOGP).unsqueeze(-1).expand(-1, 2))
        curves = Curves(axes, r)
        curves.one(pushes[:, 0], ACCEPTED, "-", "accepted")
        curves.one(pushes[:, 1], REJECTED, "--", "rejected, the same")


def bc_accepts(path: Path) -> None:
    """Draw cloning of accepts alone."""
    rows_picture(path, {"": lambda logp: objectives.bc_accepts(logp, LABEL)})


def unlikelihood(path: Path) -> None:
    """Draw unlikelihood against log p itself: it has no reference."""
    logp = axis(-10, -0.01)
    with picture(path, x="log π of the sample", y=PUSH) as axes:
        pushes = push(lambda logp: objectives.unlikelihood(logp, LABEL), logp.unsqueeze(-1).expand(-1, 2))
        Curves(axes, logp).both(pushes, "-", "α = ½")
        axes.set_ylim(-3, 1)


def kto(path: Path) -> None:
    """Draw KTO: a bell around the reference point."""

    def loss(logp: Tensor, beta: float) -> Loss:
        ref, kl = torch.full_like(logp, REF_LOGP), torch.zeros(POINTS)
        return objectives.kto(logp, ref, LABEL, kl=kl, beta=beta)

    rows_picture(path, {f"β = {beta:g}": partial(loss, beta=beta) for beta in (1.0, 0.1)})


def bco(path: Path) -> None:
    """Draw BCO: a slope that ends beyond the shift, here 0; in training it is a running mean."""

    def loss(logp: Tensor, beta: float) -> Loss:
        ref, shift = torch.full_like(logp, REF_LOGP), torch.zeros(POINTS)
        return objectives.bco(logp, ref, LABEL, beta=beta, shift=shift)

    rows_picture(path, {f"β = {beta:g}": partial(loss, beta=beta) for beta in (1.0, 0.1)})


def ratio_picture(path: Path, name: str, values: tuple[float, ...] = (1.0, 0.1), setting: str = "beta") -> None:
    """Draw an objective of single labels that compares with the reference, at several values of one setting."""
    symbol = {"beta": "β", "temperature": "T"}.get(setting, setting)
    ones = {"policy_kl": torch.zeros(POINTS), "reward_shift": torch.zeros(POINTS), "label": LABEL}

    def loss(logp: Tensor, value: float) -> Loss:
        ref, half = torch.full_like(logp, REF_LOGP), torch.full_like(logp, 0.5)
        own = torch.full((*logp.shape, 1), REF_LOGP, dtype=logp.dtype)  # at the reference
        rows = {"ref_logp": ref, "accept_rate": half, "state_value": half, "own_logp": own, "own_ref_logp": own}
        return OBJECTIVES[name]({"logp": logp, **rows, **ones}, **{setting: value})

    rows_picture(path, {f"{symbol} = {value:g}": partial(loss, value=value) for value in values})


def aot(path: Path) -> None:
    """Draw AOT against the margin of one accepted and one rejected row: DPO's shape, without a pair."""
    margin = axis(-10, 10)
    logp = torch.stack([REF_LOGP + margin / 2, REF_LOGP - margin / 2], dim=-1)

    def loss(logp: Tensor, beta: float) -> Loss:
        return objectives.aot_unpaired(logp, torch.full_like(logp, REF_LOGP), LABEL.expand_as(logp), beta=beta)

    with picture(path, x="margin r(accepted) − r(rejected)", y=PUSH) as axes:
        for style, beta in zip(STYLES, (1.0, 0.1), strict=False):
            Curves(axes, margin).both(push(partial(loss, beta=beta), logp), style, f"β = {beta:g}")


def label_picture(path: Path, loss: Callable[[Tensor, Tensor], Loss]) -> None:
    """Draw an objective of single labels without settings that matter to its shape."""
    rows_picture(path, {"": lambda logp: loss(logp, LABEL.expand_as(logp))})


def sspo(path: Path) -> None:
    """Draw SSPO's two terms: a labelled row as BCO has it, and an unlabelled one on either side of the threshold."""

    def loss(logp: Tensor, *, labelled: bool) -> Loss:
        label = LABEL.expand_as(logp) if labelled else torch.zeros_like(logp)
        ref = torch.full_like(logp, REF_LOGP)
        return objectives.sspo(logp, ref, label, beta=1.0, shift=torch.zeros(POINTS))

    r = axis(-10, 10)
    logp = (r + REF_LOGP).unsqueeze(-1).expand(-1, 2)
    with picture(path, x=LOG_RATIO, y=PUSH) as axes:
        curves = Curves(axes, r)
        curves.both(push(partial(loss, labelled=True), logp), "-")
        curves.one(push(partial(loss, labelled=False), logp)[:, 0], NEITHER, "--", "unlabelled")


def topr(path: Path) -> None:
    """Draw TOPR: flat on accepts, the truncated ratio on rejects."""
    label_picture(path, lambda logp, label: objectives.topr(logp, torch.full_like(logp, REF_LOGP), label))


def binary_crr(path: Path) -> None:
    """Draw binary CRR: a step at advantage zero."""
    advantage = axis(-10, 10)
    with picture(path, x="advantage of the sample", y=PUSH) as axes:
        logp = torch.full((POINTS, 1), REF_LOGP, dtype=torch.float64)
        pushes = push(lambda logp: objectives.binary_crr(logp, advantage.unsqueeze(-1)), logp)
        Curves(axes, advantage).by_sign(pushes[:, 0], "-")


def awr(path: Path) -> None:
    """Draw AWR: an exponential with a ceiling; no sample is pushed down."""
    advantage = axis(-10, 10)
    logp = torch.full((POINTS, 1), REF_LOGP, dtype=torch.float64)

    def loss(logp: Tensor, temperature: float) -> Loss:
        return objectives.awr(logp, advantage.unsqueeze(-1), temperature=temperature)

    with picture(path, x="advantage of the sample", y=PUSH) as axes:
        for style, temperature in zip(STYLES, (1.0, 3.0), strict=False):
            pushes = push(partial(loss, temperature=temperature), logp)
            Curves(axes, advantage).by_sign(pushes[:, 0], style, f"temperature {temperature:g}")


def mpo(path: Path) -> None:
    """Draw MPO: the share of one of four candidates of a state."""
    score = axis(-10, 10)
    scores = torch.stack([score, *[torch.zeros_like(score)] * 3], dim=-1).unsqueeze(1)
    logp = torch.full((POINTS, 1, 4), REF_LOGP, dtype=torch.float64)

    def loss(logp: Tensor, temperature: float = 1.0, epsilon: float = 0.0) -> Loss:
        return objectives.mpo(logp, scores, temperature=temperature, epsilon=epsilon)

    settings: dict[str, Callable[[Tensor], Loss]] = {
        "temperature 1": loss,
        "temperature 3": partial(loss, temperature=3.0),
        "ε = 0.1": partial(loss, epsilon=0.1),
    }
    with picture(path, x="score of a candidate, beside three of score 0", y=PUSH) as axes:
        for style, (note, each) in zip(STYLES, settings.items(), strict=False):
            Curves(axes, score).by_sign(push(each, logp)[:, 0, 0], style, note)


def td3_bc(path: Path) -> None:
    """Draw TD3+BC between the recorded action and the best one; it pushes the action itself."""

    def loss(action: Tensor, alpha: float) -> Loss:
        return objectives.td3_bc(4 - (action - 0.5).square(), (action + 0.5).square(), alpha=alpha)

    action = axis(-1, 1)
    with picture(path, x="action of the policy (recorded: −0.5, best: 0.5)", y="push = −∂loss / ∂action") as axes:
        for style, alpha, colour in zip(STYLES, (0.0, 1.0, 2.5), (NEITHER, REJECTED, ACCEPTED), strict=True):
            pushes = push(partial(loss, alpha=alpha), action.unsqueeze(-1))
            Curves(axes, action).one(pushes[:, 0], colour, style, f"α = {alpha:g}")


def divergence_picture(path: Path) -> None:
    """Draw the whole loss of one rejected outcome under each divergence: one of them stops its fall."""
    reference = torch.tensor([0.5, 0.5], dtype=torch.float64)
    logit = axis(-30, 0)
    log_policy = torch.stack([logit, torch.zeros_like(logit)], dim=-1).log_softmax(-1)
    log_reference = reference.log().expand_as(log_policy)
    beta = 3.0
    each = {
        "forward": divergences.categorical_kl(log_reference, log_policy),
        "α, order ½": divergences.categorical_alpha(log_reference, log_policy, 0.5),
        "Rényi, order ½": divergences.categorical_renyi(log_reference, log_policy, 0.5),
        "reverse": divergences.categorical_kl(log_policy, log_reference),
    }
    label = torch.tensor([-1.0, 0.0])  # one outcome is rejected, the other has no label
    with picture(path, x="log π of a rejected outcome (π_ref = ½)", y="PMPO's loss, α = 0, β = 3") as axes:
        for (name, divergence), colour, style in zip(
            each.items(), (ACCEPTED, "#009e73", "#cc79a7", REJECTED), ("-", "--", "-.", ":"), strict=True
        ):
            value, _ = objectives.pmpo(log_policy, label, divergence, alpha=0.0, beta=beta)
            axes.plot(log_policy[:, 0], value, style, color=colour, label=name, linewidth=1.6)


def bound_picture(path: Path) -> None:
    """Draw the least beta against the reference's reject mass."""
    masses = torch.linspace(0.05, 1, 200).tolist()
    with picture(path, x="P_r, the reference's reject mass", y="least β") as axes:
        for alpha, colour, name in ((0.0, REJECTED, "0"), (0.5, ACCEPTED, "½")):
            for normalize, style in (("set", "-"), ("joint", "--")):
                bounds = [stability.beta_min(alpha, mass, normalize) for mass in masses]  # type: ignore[arg-type]
                axes.plot(masses, bounds, style, color=colour, label=f"{normalize}, α = {name}", linewidth=1.6)
            threshold = 1 - alpha  # for two accepts and two rejects of four samples
            axes.plot(0.5, threshold, "o", color=colour, markersize=6, fillstyle="none")
        axes.plot([], [], "o", color=NEITHER, fillstyle="none", label="paper's threshold")
        axes.set(yscale="log", yticks=[0.5, 1, 2, 5, 10, 20], yticklabels=["0.5", "1", "2", "5", "10", "20"])
        axes.minorticks_off()


PICTURES: dict[str, Callable[[Path], None]] = {
    "pmpo": pmpo,
    "bc": bc,
    "bc_accepts": bc_accepts,
    "binary_crr": binary_crr,
    "awr": awr,
    "unlikelihood": unlikelihood,
    "mpo": mpo,
    "dpo": partial(pairs_picture, name="dpo"),
    "ipo": partial(pairs_picture, name="ipo"),
    "ipo_length_normalized": partial(pairs_picture, name="ipo_length_normalized", lengths=True),
    "nca": partial(pairs_picture, name="nca"),
    "kto": kto,
    "bco": bco,
    "td3_bc": td3_bc,
    "asymre": partial(label_picture, loss=objectives.asymre),
    "topr": topr,
    "npo": partial(ratio_picture, name="npo"),
    "weighted_reinforce": partial(label_picture, loss=objectives.weighted_reinforce),
    "apo_zero_unpaired": partial(ratio_picture, name="apo_zero_unpaired"),
    "sppo_unpaired": partial(ratio_picture, name="sppo_unpaired", values=(1.0, 0.2)),
    "aot_unpaired": aot,
    "conditional": partial(bc, loss=lambda logp: objectives.conditional(logp, logp, LABEL.expand_as(logp))),
    "sspo": sspo,
    "d2o": partial(ratio_picture, name="d2o"),
    "dro": partial(ratio_picture, name="dro", values=(1.0, 0.3), setting="temperature"),
    "rpo": partial(ratio_picture, name="rpo", values=(1.0, 0.3), setting="temperature"),
    "apo_down": partial(pairs_picture, name="apo_down"),
    "divergences": divergence_picture,
    "bound": bound_picture,
}


def main(folder: Path = FOLDER) -> None:
    """Draw every picture into the folder."""
    matplotlib.use("agg")
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        draw(folder / f"{name}.png")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
