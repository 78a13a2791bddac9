"""d3rlpy's BC on the accepted actions of a bandit, as a row of a table: the leaderboard's entry `d3rlpy-bc`.

    python -m baselines.peers.bandit_bc OUTPUT                 # after `make peers`; a minute of CPU time
    pmpo-offline submit OUTPUT --name d3rlpy-bc

It regresses on the actions that our `bc-accepted` fits by likelihood, in as many updates of as many rows, and its
greedy action plays the same held-out episodes.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from baselines.peers import environment

DATASET, SHARE, UPDATES, BATCH, RATE = "bandit/sphere-v0", 0.5, 200, 256, 1e-3


def learn(source: str, target: str) -> None:
    """Train five seeds in the peers' environment and write each one's action."""
    import d3rlpy
    import torch

    torch.set_num_threads(1)
    rows, actions = np.load(source), {}
    ends = np.ones(len(rows["reward"]), np.float32)
    dataset = d3rlpy.dataset.MDPDataset(rows["observation"], rows["action"], rows["reward"], ends)
    quiet = {"show_progress": False, "logger_adapter": d3rlpy.logging.NoopAdapterFactory(), "save_interval": 1 << 30}
    for seed in range(5):
        d3rlpy.seed(seed)
        learner = d3rlpy.algos.BCConfig(learning_rate=RATE, batch_size=BATCH).create()
        learner.fit(dataset, n_steps=UPDATES, n_steps_per_epoch=UPDATES, **quiet)
        actions[str(seed)] = learner.predict(rows["observation"][:1])[0]
    np.savez(target, **actions)


def main(output: Path) -> None:
    """Bench the suite's own rows, then add d3rlpy's."""
    from baselines.peers.rows import add_row
    from pmpo_offline import bench, build_dataset, evaluate
    from pmpo_offline.benchmark.results import Results
    from pmpo_offline.data import columns

    bench("bandit", datasets=DATASET, imbalance=[SHARE], algos="pmpo", output=output, workers=1)
    dataset = build_dataset(DATASET, imbalance=SHARE)
    accepted = columns.labels(dataset.table) > 0
    rows = {name: columns.matrix(dataset.table, name)[accepted] for name in ("observation", "action")}
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "rows.npz"), Path(folder, "actions.npz")
        np.savez(source, **rows, reward=columns.vector(dataset.table, "reward")[accepted])
        environment.run("-m", "baselines.peers.bandit_bc", "learn", source, target)
        actions = np.load(target).values()
    results = Results(output)
    results.record("python -m baselines.peers.bandit_bc OUTPUT")
    ours = results.read().filter(algo="bc-accepted")
    episodes = ours["episode"].n_unique()
    runs = [
        evaluate(lambda states, a=a: np.repeat(a[None], len(states), 0), dataset.metadata.task, episodes=episodes)
        for a in actions
    ]
    library = f"d3rlpy {environment.version('d3rlpy')}"
    how = {"library": library, "updates": UPDATES, "batch": BATCH, "learning_rate": RATE}
    add_row(results, "bc-accepted (d3rlpy)", ours, runs, how)


if __name__ == "__main__":
    if sys.argv[1] == "learn":
        learn(*sys.argv[2:])
    else:
        main(Path(sys.argv[1]))
