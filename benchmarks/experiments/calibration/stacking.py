"""How often does the critic rank candidates of stacking as the simulator does?

    python -m benchmarks.experiments.calibration.stacking --home …

DPO, MPO and their kin learn from four actions a state that a clone proposes and a critic ranks. Here the simulator
plays recorded episodes up to one of these states, tries each of the four, and the episode's own behaviour plays on with
the same noise after each. Writes stacking.parquet, a row a state, candidate and noise, and stacking.md.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
import typer
from numpy.typing import NDArray

from benchmarks.experiments import shared
from pmpo_offline.build import build_dataset
from pmpo_offline.data import Dataset, columns
from pmpo_offline.declarations import catalog
from pmpo_offline.evaluation.statistics import interval
from pmpo_offline.tasks.stacking.scene import random_layout, random_triplet
from pmpo_offline.tasks.stacking.simulation import HORIZON, StackingSimulation
from pmpo_offline.tasks.stacking.task import Script, StackingBehavior, correlated_noise

ID, CANDIDATES, DISCOUNT = "rgb-stacking/proxy-v0", 4, 0.97
"""The discount is the one that the critic's values have."""
Array = NDArray[np.float64]


def main(
    states: Annotated[int, typer.Option(help="States, of as many episodes.")] = 64,
    rollouts: Annotated[int, typer.Option(help="Noises that are played after every candidate.")] = 4,
    out: Annotated[Path, typer.Option(help="Where to write.")] = shared.RESULTS / "calibration",
    home: Annotated[Path | None, typer.Option(help="Where datasets are.")] = None,
) -> None:
    """Estimate the truth and write both files; the table is made again from the one that is there."""
    path = out / "stacking.parquet"
    if not path.exists():
        dataset = build_dataset(ID, imbalance=0.1, home=home)
        began = time.process_time()
        found = measured(dataset, states, rollouts)
        shared.save(found.with_columns(cpu_seconds=pl.lit(time.process_time() - began)), path)
    (out / "stacking.md").write_text(report(pl.read_parquet(path)), encoding="utf-8")


def measured(dataset: Dataset, states: int, rollouts: int, seed: int = 5) -> pl.DataFrame:
    """Return the critic's scores and the true returns of the candidates of some states, each of another episode."""
    rng = np.random.default_rng(seed)
    assert dataset.candidates is not None
    row = columns.vector(dataset.candidates, "row").reshape(-1, CANDIDATES)[:, 0]
    episode = columns.vector(dataset.table, "episode")[row]
    shuffled = rng.permutation(len(row))
    first = shuffled[np.unique(episode[shuffled], return_index=True)[1]]  # of every episode
    group = rng.permutation(first)[:states]
    score = columns.vector(dataset.candidates, "score").reshape(-1, CANDIDATES)[group]
    action = columns.matrix(dataset.candidates, "action").reshape(len(row), CANDIDATES, -1)[group].astype(np.float64)
    returns = played(dataset, row[group], action, rollouts, rng)  # (S, K, R)
    places = np.indices(returns.shape)
    return pl.DataFrame(
        {
            "state": row[group][places[0].ravel()],
            "candidate": places[1].ravel(),
            "noise": places[2].ravel(),
            "score": np.broadcast_to(score[..., None], returns.shape).ravel(),
            "return": returns.ravel(),
        }
    )


def played(dataset: Dataset, row: NDArray[np.int64], action: Array, rollouts: int, rng: np.random.Generator) -> Array:
    """Return the discounted rewards after each candidate (S, K, A) under so many noises, (S, K, R)."""
    states, candidates, dim = action.shape
    shape = (states, candidates, rollouts)
    start, seeds = (columns.vector(dataset.episodes, name) for name in ("start", "seed"))
    episode = columns.vector(dataset.table, "episode")[row]
    recorded, seen = columns.matrix(dataset.table, "action"), columns.matrix(dataset.table, "observation")
    declared = StackingBehavior.parse("rgb-stacking/proxy", catalog.dataset(ID).behavior)
    by_name = {behavior.name: behavior for behavior in declared}
    names = dataset.episodes["behavior"].to_pylist()  # type: ignore[index]
    behaviors = [by_name[names[each]] for each in episode]
    noise = np.stack([correlated_noise(np.full(rollouts, b.noise), HORIZON, rng) for b in behaviors])  # (S, R, T, A)
    layouts = []
    for each in episode:
        own = np.random.default_rng(int(seeds[each]))
        own.choice(len(declared), p=np.array([b.weight for b in declared]) / sum(b.weight for b in declared))
        layouts.append(random_layout(own, random_triplet(own)))

    base = StackingSimulation(layouts)
    at = row - start[episode]
    for t in range(int(at.max())):
        going = np.flatnonzero(at > t)
        if not np.array_equal(base.observation[going], seen[start[episode[going]] + t]):
            raise RuntimeError(f"{dataset.metadata.id} was recorded by another simulator: build it again")
        base.step(recorded[start[episode[going]] + t].astype(np.float64), going)

    copies = np.arange(states).repeat(candidates * rollouts)
    branch = StackingSimulation([layouts[each] for each in copies])
    branch.state[:], branch.sensors[:] = base.state[copies], base.sensors[copies]
    branch._elapsed[:] = at[copies]
    script = Script.of([behaviors[each] for each in copies])
    noises = np.broadcast_to(noise[:, None], (*shape, HORIZON, dim)).reshape(len(copies), HORIZON, dim)
    total, going = np.zeros(len(copies)), np.arange(len(copies))
    for t in range(HORIZON):
        if t == 0:
            chosen = np.broadcast_to(action[:, :, None], (*shape, dim)).reshape(-1, dim)
        else:
            chosen = np.clip(script.take(going).act(branch.scene(going)) + noises[going, t], -1, 1)
        step = branch.step(chosen, going)
        total[going] += DISCOUNT**t * step.reward
        going = going[~step.done]
        if not len(going):
            break
    return total.reshape(shape)


def report(found: pl.DataFrame) -> str:
    """Return stacking.md: agreement of the critic with the simulator, and of the simulator with itself."""
    shape = [found[name].n_unique() for name in ("state", "candidate", "noise")]
    score, truth = (found[name].to_numpy().reshape(shape) for name in ("score", "return"))
    half = shape[2] // 2
    rows = [
        [
            name,
            *(
                shared.spread(interval([values], lambda each: each.mean(-1)), 2)
                for values in (sides(a, b), pairs(a, b))
            ),
        ]
        for name, a, b in (
            ("critic, against all noises", score[..., 0], truth.mean(-1)),
            (
                "simulator, half of the noises against the others",
                truth[..., :half].mean(-1),
                truth[..., half:].mean(-1),
            ),
        )
    ]
    return "\n".join(
        [
            "# Does the critic rank stacking's candidates right?",
            "",
            f"`python -m benchmarks.experiments.calibration.stacking`: {shape[0]} recorded states of as many episodes, "
            f"{shape[1]} candidates each as DPO, IPO, NCA and MPO see them, {shape[2]} continuations of the episode's "
            f"own behaviour after each (common noise), returns discounted by {DISCOUNT}; {found['cpu_seconds'][0]:.0f} "
            "CPU-seconds. Chance is .50; t intervals over states. The second row is a ceiling: noise that is left in "
            "the truth holds both rows down.",
            "",
            *shared.table(["", "top 2 and bottom 2", "accept above reject"], rows, "lr"),
            "",
        ]
    )


def sides(ranked: Array, truth: Array) -> Array:
    """Return each state's share of candidates on the right side of top 2 and bottom 2."""
    half = ranked.shape[1] // 2
    ours, theirs = (each.argsort(1).argsort(1) >= half for each in (ranked, truth))
    agreed: Array = (ours == theirs).mean(1)
    return agreed


def pairs(ranked: Array, truth: Array) -> Array:
    """Return each state's share of pairs, of a candidate ranked in the upper half with one below, that are truly so."""
    half = ranked.shape[1] // 2
    ordered = np.take_along_axis(truth, ranked.argsort(1), 1)
    better: Array = (ordered[:, half:, None] > ordered[:, None, :half]).mean((1, 2))
    return better


if __name__ == "__main__":
    shared.script(main)
