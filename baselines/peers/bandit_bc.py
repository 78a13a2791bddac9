"""d3rlpy's BC on the accepted actions of a bandit, as a row of a table: the leaderboard's entry `d3rlpy-bc`.

    python -m baselines.peers.bandit_bc OUTPUT                 # after `make peers`; a minute of CPU time
    pmpo-offline submit OUTPUT --name d3rlpy-bc

It regresses on the actions that our `bc-accepted` fits by likelihood, in as many updates of as many rows, and its
greedy action plays the same held-out episodes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

DATASET, SHARE, UPDATES, BATCH, RATE = "bandit/sphere-v0", 0.5, 200, 256, 1e-3
PEERS = Path(__file__).parents[2] / ".venv-peers" / "bin" / "python"


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


def main(output: Path, peers: Path) -> None:
    """Bench the suite's own rows, then add d3rlpy's."""
    import polars as pl

    from pmpo_offline import bench, evaluate, load_dataset
    from pmpo_offline.benchmark.results import Results
    from pmpo_offline.data import columns

    bench("bandit", datasets=DATASET, imbalance=[SHARE], algos="pmpo", output=output, workers=1)
    dataset = load_dataset(DATASET, imbalance=SHARE)
    accepted = columns.labels(dataset.table) > 0
    rows = {name: columns.matrix(dataset.table, name)[accepted] for name in ("observation", "action")}
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "rows.npz"), Path(folder, "actions.npz")
        np.savez(source, **rows, reward=columns.vector(dataset.table, "reward")[accepted])
        subprocess.run([str(peers), __file__, "learn", str(source), str(target)], check=True)
        actions = dict(np.load(target))
    results, parts = Results(output), []
    ours = results.read().filter(pl.col("algo") == "bc-accepted")
    for seed, action in actions.items():
        own = ours.filter(pl.col("seed") == int(seed)).sort("episode")
        played = evaluate(
            lambda states, a=action: np.repeat(a[None], len(states), 0), dataset.metadata.task, episodes=len(own)
        )
        parts.append(own.with_columns(played["return"], played["success"], played["length"]))
    library = {"library": "d3rlpy 2.8.1", "updates": UPDATES, "batch": BATCH, "learning_rate": RATE}
    empty = (pl.lit(None, pl.Float64).alias(name) for name in ("reach", "loss"))
    scores = pl.concat(parts).with_columns(*empty, settings=pl.lit("{}"), training=pl.lit(json.dumps(library)))
    scores = scores.with_columns(algo=pl.lit("bc-accepted (d3rlpy)"), filtered=pl.lit(False))
    results.write("d3rlpybcaccepted", scores.drop("key"))


if __name__ == "__main__":
    if sys.argv[1] == "learn":
        learn(*sys.argv[2:])
    else:
        main(Path(sys.argv[1]), Path(sys.argv[2]) if sys.argv[2:] else PEERS)
