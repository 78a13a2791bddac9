"""EM on the accepts beside PMPO with rejects, for a mixture of Gaussians on bandit/gmm-v0; under a minute.

    python -m benchmarks.experiments.mixture.run

Writes raw.parquet, report.md and two pictures to benchmarks/results/mixture/. A policy is a mixture of diagonal
Gaussians without context. All start from one clone of the behaviour, and their labels vary in three ways:

    share    every label of the scarcer class, the other's cut down to the share: a missing label is informative
    budget   the labels of a few rows drawn at random, and none of the others
    noise    every label, each flipped at this rate
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import polars as pl
import torch
import typer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from benchmarks.experiments import shared
from benchmarks.experiments.mixture import report
from benchmarks.experiments.mixture.em import fit_mixture, pmpo_weight, start_mixture
from pmpo_offline import objectives, tasks
from pmpo_offline.build import build_dataset
from pmpo_offline.data import Dataset, columns
from pmpo_offline.declarations import catalog
from pmpo_offline.objectives import stability
from pmpo_offline.policies import Mixture
from pmpo_offline.tasks.bandit import GMM, GOOD

DATASET = "bandit/gmm-v0"
CONDITIONS = {"share": (0.001, 0.01, 0.1, 0.5), "budget": (50, 500), "noise": (0.1, 0.2)}
COMPONENTS, FLOOR, ITERATIONS = 8, 0.02, 60  # of the mixtures: their number and least deviation; steps of EM
FACTOR = 1.05  # beta relative to its bound
UPDATES, BATCH, RATE = 800, 192, 0.02  # of Adam, one cycle
DRAWS = 5000  # actions a run is scored on


@dataclass(frozen=True)
class Condition:
    """Labels (N,), and the numbers that the bound of beta rests on."""

    kind: str
    amount: float
    seed: int
    label: Tensor
    reject_mass: float
    labelled_reject_mass: float
    reject_share: float

    @classmethod
    def of(cls, dataset: Dataset, kind: str, amount: float, seed: int) -> Condition:
        if kind == "budget":
            every = torch.from_numpy(np.array(columns.labels(dataset.table)))
            known = torch.randperm(len(every), generator=torch.Generator().manual_seed(seed))[: int(amount)]
            label = torch.zeros_like(every).index_put((known,), every[known])
            rejects = int((label < 0).sum())
            return cls(kind, amount, seed, label, rejects / amount, rejects / len(every), rejects / amount)
        share, noise = (amount, None) if kind == "share" else (None, amount)
        view = dataset.relabelled(imbalance=share, noise=noise, seed=seed)
        label, meta = torch.from_numpy(np.array(columns.labels(view.table))), view.metadata
        return cls(kind, amount, seed, label, meta.reject_mass, meta.labelled_reject_mass, meta.reject_share)


@dataclass(frozen=True)
class Learner:
    """One way of learning from labels; EM learns from accepts alone unless `rows`."""

    name: str
    alpha: float
    gradient: bool = True
    normalize: Literal["joint", "set"] = "joint"
    cloning: bool = False
    """No rejects, but the divergence as strong as for A+R."""
    rows: bool = False
    """beta by the bound of a policy that can single out rows."""
    noise_known: bool = False
    """beta by the bound that flipped labels relax."""
    shuffled: bool = False
    components: int = COMPONENTS
    floor: float = FLOOR
    kinds: tuple[str, ...] = tuple(CONDITIONS)

    def beta(self, condition: Condition) -> float:
        """Return FACTOR times its bound."""
        if self.noise_known:
            return FACTOR * stability.beta_min(
                self.alpha, condition.reject_mass, self.normalize, noise=condition.amount
            )
        mass = condition.labelled_reject_mass if self.rows else condition.reject_mass
        alpha = 0.5 if self.cloning else self.alpha
        return FACTOR * stability.beta_min(alpha, mass, self.normalize, condition.reject_share)

    def label(self, condition: Condition) -> Tensor:
        """Return the labels that it learns from, (N,)."""
        if self.cloning:
            return condition.label.clamp(min=0)
        if not self.shuffled:
            return condition.label
        generator = torch.Generator().manual_seed(condition.seed)
        return condition.label[torch.randperm(len(condition.label), generator=generator)]


LEARNERS = (
    Learner("EM, one Gaussian", 1.0, gradient=False, components=1),
    Learner("EM", 1.0, gradient=False),
    Learner("EM, floor 0.1", 1.0, gradient=False, floor=0.1),
    Learner("A", 1.0),
    Learner("A+KL", 1.0, cloning=True),
    Learner("R", 0.0),
    Learner("A+R", 0.5),
    Learner("A+R by EM", 0.5, gradient=False, rows=True, kinds=("share",)),
    Learner("A+R, rows' bound", 0.5, rows=True, kinds=("budget",)),
    Learner("A+R set", 0.5, normalize="set"),
    Learner("A+R set, noise known", 0.5, normalize="set", noise_known=True, kinds=("noise",)),
    Learner("A+R set, shuffled", 0.5, normalize="set", shuffled=True),
)
Runs = list[tuple[Learner, Condition]]


def main(
    out: Annotated[Path, typer.Option(help="Where to write.")] = shared.RESULTS / "mixture",
    seeds: Annotated[int, typer.Option(min=1, help="Runs a row: labels, start and minibatches differ.")] = 5,
) -> None:
    """Train, score and report."""
    dataset = build_dataset(DATASET)
    action = torch.from_numpy(np.array(columns.matrix(dataset.table, "action"))).double()
    conditions = [
        Condition.of(dataset, kind, amount, seed)
        for kind, amounts in CONDITIONS.items()
        for amount in amounts
        for seed in range(seeds)
    ]
    runs, mixture = learn(action, conditions, seeds)
    frame = score(runs, mixture, accepted_elsewhere(dataset))
    shared.save(frame, out / "raw.parquet")
    first = {
        (learner.name, c.kind, c.amount): (pick(mixture, slice(i, i + 1)), c.label)
        for i, (learner, c) in enumerate(runs)
        if c.seed == 0
    }
    report.write(out, frame, action, first)
    typer.echo(f"wrote {out}")


def learn(action: Tensor, conditions: Sequence[Condition], seeds: int) -> tuple[Runs, Mixture]:
    """Return all runs with their mixtures, stacked; the first block is the clone itself."""
    every = torch.ones(seeds, len(action), dtype=torch.float64)
    start = start_mixture(action[None], every, COMPONENTS, range(seeds), min_std=FLOOR)
    clone, _ = fit_mixture(start, action[None], every, iterations=ITERATIONS, min_std=FLOOR)

    runs: Runs = [(Learner("clone", math.nan), condition) for condition in conditions]
    found = [starts(clone, runs)]
    for learner in LEARNERS:
        if not learner.gradient:
            block = [(learner, condition) for condition in conditions if condition.kind in learner.kinds]
            found.append(widened(by_em(starts(clone, block), action, block, learner)))
            runs += block
    steep = [(each, c) for each in LEARNERS if each.gradient for c in conditions if c.kind in each.kinds]
    found.append(by_gradient(starts(clone, steep), action, steep))
    return runs + steep, Mixture(*(torch.cat(each) for each in zip(*map(parts, found), strict=True)))


def starts(clone: Mixture, runs: Runs) -> Mixture:
    return pick(clone, torch.tensor([condition.seed for _, condition in runs]))


def widened(mixture: Mixture) -> Mixture:
    """Return the same density with COMPONENTS components, the added ones of weight zero."""
    missing = COMPONENTS - mixture.log_weight.shape[-1]
    log_weight = torch.nn.functional.pad(mixture.log_weight, (0, missing), value=-math.inf)
    copies = (torch.cat([part, part[:, :, :1].expand(-1, -1, missing, -1)], 2) for part in parts(mixture)[1:])
    return Mixture(log_weight, *copies)


def by_em(start: Mixture, action: Tensor, runs: Runs, learner: Learner) -> Mixture:
    """Run EM on the accepted rows, or on all rows with PMPO's own weights."""
    label = torch.stack([condition.label for _, condition in runs])
    if learner.rows:
        beta = torch.tensor([learner.beta(condition) for _, condition in runs]).unsqueeze(1)
        rows, weight = action[None], pmpo_weight(label, alpha=learner.alpha, beta=beta)
    else:
        rows = pad_sequence([action[each > 0] for each in label], batch_first=True)
        weight = pad_sequence([torch.ones_like(action[each > 0][:, 0]) for each in label], batch_first=True)
    if learner.components != COMPONENTS:
        start = start_mixture(rows, weight, learner.components, [c.seed for _, c in runs], min_std=learner.floor)
    start = Mixture(start.log_weight, start.mean, start.log_std.clamp(min=math.log(learner.floor)))
    return fit_mixture(start, rows, weight, iterations=ITERATIONS, min_std=learner.floor)[0]


def by_gradient(start: Mixture, action: Tensor, runs: Runs) -> Mixture:
    """Minimise objectives.pmpo by Adam, all runs stacked; without a divergence only accepted rows are drawn."""
    label = torch.stack([learner.label(condition) for learner, condition in runs])
    alpha = torch.tensor([learner.alpha for learner, _ in runs]).unsqueeze(1)
    beta = torch.tensor([learner.beta(condition) for learner, condition in runs]).unsqueeze(1)
    everything = torch.arange(len(action))
    pools = [everything if b else row.gt(0).nonzero().squeeze(1) for row, b in zip(label, beta, strict=True)]
    size, pool = torch.tensor([len(each) for each in pools]).unsqueeze(1), pad_sequence(pools, batch_first=True)
    # The normalisation is a string, so each needs a call of its own.
    joint = torch.tensor([learner.normalize == "joint" for learner, _ in runs])
    normalisations: tuple[tuple[Literal["joint", "set"], Tensor], ...] = (("joint", joint), ("set", ~joint))

    leaves = [part.float().clone().requires_grad_() for part in parts(start)]
    optimizer = torch.optim.Adam(leaves)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, UPDATES, pct_start=0.1)
    generator, action = torch.Generator().manual_seed(0), action.float()
    for _ in range(UPDATES):
        index = pool.gather(1, (torch.rand(len(runs), BATCH, generator=generator) * size).long())
        logp, seen = (
            Mixture(leaves[0].log_softmax(-1), leaves[1], leaves[2]).log_prob(action[index]),
            label.gather(1, index),
        )
        loss = torch.zeros(())
        for normalize, mask in normalisations:
            part = logp[mask]
            each, _ = objectives.pmpo(
                part, seen[mask], -part.mean(-1), alpha=alpha[mask], beta=beta[mask], normalize=normalize
            )
            loss = loss + each.sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            leaves[2].clamp_(min=math.log(FLOOR))  # a projection: a deviation on the floor may rise again
    log_weight, mean, log_std = (leaf.detach().double() for leaf in leaves)
    return Mixture(log_weight.log_softmax(-1), mean, log_std)


def accepted_elsewhere(dataset: Dataset) -> Tensor:
    """Return accepted actions of the same behaviour that no run has learned from, (M, 2)."""
    declared = catalog.dataset(DATASET)
    fresh = tasks.get(declared.task).collect(
        tasks.CollectionSpec(declared.behavior, 10_000, declared.seed + 1), dataset.path, 1
    )
    return torch.from_numpy(fresh.action[fresh.reward > -1]).double()


def score(runs: Runs, mixture: Mixture, held_out: Tensor) -> pl.DataFrame:
    """Return one row a run; all are scored on the same draws."""
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(DRAWS, generator=generator, dtype=torch.float64)
    normal = torch.randn(DRAWS, 2, generator=generator, dtype=torch.float64)
    wide = Mixture(*(part.expand(part.shape[0], DRAWS, *part.shape[2:]) for part in parts(mixture)))
    drawn = wide.sample(uniform, normal).clamp(-1, 1)
    reward, disc = GMM.reward(drawn), torch.tensor(GOOD, dtype=torch.float64)
    on_island = (drawn.unsqueeze(2) - disc[:, :2]).norm(dim=-1) < disc[:, 2]  # (R, DRAWS, islands)
    return pl.DataFrame(
        {
            "learner": [learner.name for learner, _ in runs],
            "kind": [c.kind for _, c in runs],
            "amount": [float(c.amount) for _, c in runs],
            "seed": [c.seed for _, c in runs],
            "accepted": [int((c.label > 0).sum()) for _, c in runs],
            "rejected": [int((c.label < 0).sum()) for _, c in runs],
            "beta": [learner.beta(c) if learner.name != "clone" else math.nan for learner, c in runs],
            "reward": reward.mean(1).numpy(),
            "accept": (reward > -1).double().mean(1).numpy(),
            "islands": (on_island.double().mean(1) > 0.02).sum(1).numpy(),
            "held_out": mixture.log_prob(held_out[None]).mean(1).numpy(),
        }
    )


def parts(mixture: Mixture) -> tuple[Tensor, Tensor, Tensor]:
    return mixture.log_weight, mixture.mean, mixture.log_std


def pick(mixture: Mixture, runs: slice | Tensor) -> Mixture:
    return Mixture(*(part[runs] for part in parts(mixture)))


if __name__ == "__main__":
    shared.script(main)
