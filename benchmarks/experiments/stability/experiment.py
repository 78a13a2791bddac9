"""What the three domains of the stability experiment share: arms, the sweep over β, the training loop, the verdict."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import polars as pl
import torch
from torch import Tensor

SEEDS = 5
CHECKPOINTS = 8
"""A run is measured before its first update and after each eighth of its training."""
NEAR = (0.8, 0.9, 0.95, 1.05, 1.1, 1.25)
MULTIPLES = tuple(sorted([*(10 ** (k / 6) for k in range(-9, 10)), *NEAR]))
"""β in multiples of the predicted bound: three decades, six steps a decade, and finer where it matters. 25 values."""
COARSE = tuple(sorted([1 / 30, *(10 ** (k / 3) for k in range(-4, 5)), 30.0, *NEAR]))
"""The same with three steps a decade, for the language model, whose runs cost the most. 17 values."""
FEW = (0.1, 0.5, 0.8, 0.95, 1.05, 1.25, 2.0, 10.0)

FALL = 1.0
"""Nats by which the rejects must have fallen for a collapse, so that noise around the start is none."""
LATE = 0.25
"""Share of that fall that belongs to the second half of the training, if it goes on without rest."""
FAR = 1000.0
"""Nats after which a fall needs no further proof: single precision ends there, and Adam stops."""


@dataclass(frozen=True)
class Arm:
    """One stacked run: every β with every seed."""

    domain: Literal["bandit", "gaussian", "language"]
    alpha: float
    normalize: Literal["joint", "set"]
    divergence: Literal["closed form", "recorded"]
    """KL(reference ‖ policy) in closed form, or on the recorded outcomes as −mean log π."""
    variant: str = ""
    """What else distinguishes this arm from others of its domain."""

    @property
    def feedback(self) -> str:
        """The labels that count: "rejects" or "both"."""
        return "rejects" if self.alpha == 0 else "both"

    @property
    def name(self) -> str:
        """A file's name."""
        parts = [self.domain, self.feedback, self.normalize, self.divergence, self.variant]
        return "-".join(part.replace(" ", "-") for part in parts if part)


def follow(
    weights: Iterable[Tensor],
    loss: Callable[[int], Tensor],
    measure: Callable[[], dict[str, Tensor]],
    *,
    updates: int,
    rate: float,
) -> pl.DataFrame:
    """Minimise `loss(step)`, (M, S), and return what `measure()` says, (M, S) each, at every checkpoint.

    Adam at a constant rate: a schedule that ends at zero would bring a collapse to rest, and so hide it. Nothing is
    clipped or floored for the same reason. Columns: `beta_index`, `seed`, `step`, the measures, `cpu_seconds`.
    """
    parameters = list(weights)
    optimizer = torch.optim.Adam(parameters, lr=rate, fused=True)
    marks = {round(updates * k / CHECKPOINTS) for k in range(CHECKPOINTS + 1)}
    frames, start = [], time.process_time()
    for step in range(updates + 1):
        if step in marks:
            with torch.no_grad():
                frames.append(_frame(measure(), step))
        if step < updates:
            optimizer.zero_grad()
            loss(step).sum().backward()
            optimizer.step()
    return pl.concat(frames).with_columns(cpu_seconds=pl.lit(time.process_time() - start))


def _frame(measures: dict[str, Tensor], step: int) -> pl.DataFrame:
    rows, columns = next(iter(measures.values())).shape
    index = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
    values = {name: value.double().flatten().numpy() for name, value in measures.items()}
    return pl.DataFrame({"beta_index": index[:, 0].numpy(), "seed": index[:, 1].numpy(), "step": step, **values})


def described(frame: pl.DataFrame, arm: Arm, multiples: tuple[float, ...], **per_seed: Tensor) -> pl.DataFrame:
    """Add the arm, β and its multiple of the bound to a trajectory; `per_seed`, (S,) each, must hold `bound`."""
    seeds = pl.DataFrame(
        {"seed": range(len(per_seed["bound"])), **{k: v.double().numpy() for k, v in per_seed.items()}}
    )
    sweep = pl.DataFrame({"beta_index": range(len(multiples)), "multiple": multiples})
    return (
        frame.join(sweep, on="beta_index")
        .join(seeds, on="seed")
        .with_columns(
            beta=pl.col("multiple") * pl.col("bound"),
            arm=pl.lit(arm.name),
            domain=pl.lit(arm.domain),
            alpha=pl.lit(arm.alpha),
            normalize=pl.lit(arm.normalize),
            divergence=pl.lit(arm.divergence),
            variant=pl.lit(arm.variant),
        )
        .drop("beta_index")
    )


def verdicts(trajectories: pl.DataFrame) -> pl.DataFrame:
    """Return one row a run with what was observed at its end, `collapsed` among it.

    A run has collapsed if its rejects fall without rest: their mean log-probability ends more than `FALL` nats below
    its start, and more than the share `LATE` of that fall belongs to the second half of the training (one that goes on
    steadily has half of it there, one that settles next to nothing); or if it fell by more than `FAR` nats; or if a
    number is not finite. `harmed`: it ends
    with less reward than the reference.
    """
    run = ["arm", "multiple", "seed"]
    ordered = trajectories.sort(*run, "step")
    middle = pl.col("reject_logp").get(CHECKPOINTS // 2)
    first, last = pl.col("reject_logp").first(), pl.col("reject_logp").last()
    finite = pl.all_horizontal(pl.col("reject_logp", "kl", "reward", "loss").is_finite().all())
    return (
        ordered.group_by(run, maintain_order=True)
        .agg(
            pl.exclude("step", "reject_logp", *run).last(),
            reject_logp=last,
            fall=first - last,
            late=(middle - last) / (first - last),
            reference_reward=pl.col("reward").first(),
            finite=finite,
        )
        .with_columns(
            collapsed=~pl.col("finite") | (pl.col("fall") > FAR) | ((pl.col("fall") > FALL) & (pl.col("late") > LATE)),
            # The best reward is 1 in every domain.
            relative_reward=(pl.col("reward") - pl.col("reference_reward")) / (1 - pl.col("reference_reward")),
            harmed=~pl.col("finite") | (pl.col("reward") < pl.col("reference_reward")),
            predicted=pl.col("multiple") < 1,
        )
    )
