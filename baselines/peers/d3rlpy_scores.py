"""Our BC and TD3+BC beside d3rlpy's, trained on the same exported data and scored in the same simulator.

    python -m baselines.peers.d3rlpy_scores                    # `make peers` first; some ten minutes of CPU time
    python -m baselines.peers.d3rlpy_scores --datasets mujoco/hopper-medium-replay-v0 --learners bc

A row of the table is a learner on a dataset. Rows found under the same settings and versions are not run again.

Each learner of d3rlpy runs in the peers' environment on `export --to d3rlpy`, with the network sizes, rates, batch and
updates of ours; its policy comes back as TorchScript and plays the same held-out episodes as ours. What still differs:
ours fits a Gaussian by likelihood, cools its learning rate and averages its weights; d3rlpy regresses on actions.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # before torch reads them

import numpy as np
import torch
from numpy.typing import NDArray

from baselines.peers import environment
from benchmarks.experiments import shared
from pmpo_offline import evaluation, on_progress
from pmpo_offline.build import build_dataset
from pmpo_offline.data import Dataset
from pmpo_offline.data.exchange import export_dataset
from pmpo_offline.declarations import catalog
from pmpo_offline.policies.function import Act
from pmpo_offline.runtime.files import atomic_file
from pmpo_offline.training import train

RECIPES = Path(__file__).with_name("recipes")
DATASETS = (
    "mujoco/hopper-medium-replay-v0",
    str(RECIPES / "cheetah-run-medium.toml"),
    str(RECIPES / "cartpole-swingup-medium-expert.toml"),
)
LEARNERS = ("bc", "td3-bc")


def main() -> None:
    """Train and score everything, print the table, and write JSON and Markdown."""
    options = parse()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    stem = options.out / "d3rlpy"
    found = {"updates": options.updates, "seeds": options.seeds, "episodes": options.episodes, **versions()}
    rows = finished(stem.with_suffix(".json"), found)
    for name in options.datasets.split(","):
        with on_progress(report):
            dataset = build_dataset(name, home=options.home, workers=1)
        for learner in options.learners.split(","):
            if not any((row["dataset"], row["learner"]) == (dataset.metadata.id, learner) for row in rows):
                rows.append(compare(dataset, learner, options))
                replace(stem.with_suffix(".json"), json.dumps(found | {"rows": rows}, indent=1) + "\n")
                print(*cells(rows[-1]), file=sys.stderr, flush=True)
    page = markdown(found | {"rows": rows})
    replace(stem.with_suffix(".md"), page)
    print(page)


def replace(path: Path, text: str) -> None:
    """Write a file, whole or not at all: a row takes minutes."""
    with atomic_file(path) as scratch:
        scratch.write_text(text)


def finished(path: Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows that an earlier run of the same settings and versions left."""
    left = json.loads(path.read_text()) if path.exists() else {}
    return list(left["rows"]) if left.items() >= settings.items() else []


def compare(dataset: Dataset, learner: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train and score one learner on one dataset, ours and d3rlpy's."""
    ours = our_scores(dataset, learner, options)
    with tempfile.TemporaryDirectory() as folder:
        exported = next(export_dataset(dataset, "d3rlpy", Path(folder) / "export").glob("*.h5"))
        theirs = np.stack(list(d3rlpy_scores(dataset, exported, learner, options)))
    return described(dataset, learner, ours, theirs)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", default=",".join(DATASETS), help="ids of control datasets, or recipes")
    parser.add_argument("--learners", default=",".join(LEARNERS))
    parser.add_argument("--updates", type=int, default=2500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=20, help="held-out episodes a run")
    parser.add_argument("--home", type=Path, default=None, help="where datasets are")
    parser.add_argument("--out", type=Path, default=shared.RESULTS / "peers")
    return parser.parse_args()


def our_scores(dataset: Dataset, learner: str, options: argparse.Namespace) -> NDArray[np.float64]:
    """Return the returns (seeds, episodes) of our learner."""
    trained = train(dataset, learner, seeds=range(options.seeds), overrides={"updates": options.updates}, device="cpu")
    frame = evaluation.evaluate(trained.policy, dataset.metadata.task, episodes=options.episodes, workers=1)
    return frame["return"].to_numpy().reshape(options.seeds, options.episodes)


def d3rlpy_scores(
    dataset: Dataset, exported: Path, learner: str, options: argparse.Namespace
) -> Iterator[NDArray[np.float64]]:
    """Yield the returns (episodes,) of each of d3rlpy's runs, in the episodes that ours played."""
    for seed in range(options.seeds):
        policy = d3rlpy_policy(exported, learner, options.updates, seed)
        frame = evaluation.evaluate(policy, dataset.metadata.task, episodes=options.episodes, workers=1)
        yield frame["return"].to_numpy()


def d3rlpy_policy(exported: Path, learner: str, updates: int, seed: int) -> Act:
    """Return the greedy actions of a run of d3rlpy's, which is trained unless its policy lies beside the export."""
    target = exported.with_name(f"{learner}-{updates}-{seed}.pt")
    if not target.exists():
        environment.run(Path(__file__).with_name("d3rlpy_train.py"), exported, learner, updates, seed, target)
    policy = torch.jit.load(str(target))

    def act(observation: NDArray[np.float32]) -> torch.Tensor:
        with torch.no_grad():
            action: torch.Tensor = policy(torch.from_numpy(observation))
        return action

    return act


def described(dataset: Dataset, learner: str, ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> dict[str, Any]:
    """Return a row: each run's mean return and its normalized score."""
    references = catalog.references(dataset.metadata.task)
    if references is None:
        sys.exit(f"task {dataset.metadata.task} has no reference scores: compare on a dataset of a control task")
    low, high = references["min"], references["max"]
    returns = {"ours": ours.mean(1), "d3rlpy": theirs.mean(1)}
    return {
        "dataset": dataset.metadata.id,
        "rows": len(dataset),
        "learner": learner,
        "returns": {name: each.tolist() for name, each in returns.items()},
        **{name: (100 * (each - low) / (high - low)).tolist() for name, each in returns.items()},
    }


def cells(row: dict[str, Any]) -> list[str]:
    """Return a row of the table: means over runs, least and greatest run."""
    scores = [f"{np.mean(row[name]):.1f} ({min(row[name]):.1f}–{max(row[name]):.1f})" for name in ("ours", "d3rlpy")]
    return [f"`{row['dataset']}`", f"{row['rows']:,}", row["learner"], *scores]


def markdown(found: dict[str, Any]) -> str:
    """Return the page."""
    lines = [
        "# Our learners beside d3rlpy's",
        "",
        f"Normalized score, mean (least–greatest) of {found['seeds']} runs of {found['updates']} updates, each played "
        f"in {found['episodes']} held-out episodes in our simulator. d3rlpy {found['d3rlpy']} read what "
        "`export --to d3rlpy` wrote.",
        "",
        *shared.table(("dataset", "rows", "learner", "ours", "d3rlpy"), map(cells, found["rows"]), "lrlr"),
        "",
        f"By `python -m baselines.peers.d3rlpy_scores`, torch {found['torch']}, MuJoCo {found['mujoco']}.",
        "",
    ]
    return "\n".join(lines)


def versions() -> dict[str, str]:
    """Return the versions that the figures hold for."""
    made = shared.machine("torch", "mujoco")
    return {"d3rlpy": environment.version("d3rlpy"), **{name: made[name] for name in ("torch", "mujoco", "python")}}


def report(stage: str, done: int, total: int) -> None:
    """Print the end of each stage."""
    if done == total:
        print(f"{stage}: {total}", file=sys.stderr)


if __name__ == "__main__":
    main()
