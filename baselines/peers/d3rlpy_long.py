"""d3rlpy's IQL and TD3+BC at 10,000 updates, as rows of `control-long`: the leaderboard's entry `d3rlpy-long`.

    python -m baselines.peers.d3rlpy_long OUTPUT               # after `make peers`; thirty minutes of CPU time
    python -m baselines.peers.d3rlpy_long OUTPUT iql-256       # one of them: the other can follow
    pmpo-offline submit OUTPUT --name d3rlpy-long

Networks, rates, batch and updates are those of our `iql-256` and `td3-bc-256`, and the held-out episodes are the same.
Beside them the suite's reference, filtered clone and shuffled control are run. What was finished in OUTPUT is not run
again: neither our rows nor d3rlpy's policies.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from baselines.peers import environment
from baselines.peers.d3rlpy_scores import d3rlpy_policy
from baselines.peers.rows import add_row
from pmpo_offline import bench, build_dataset, evaluate
from pmpo_offline.benchmark.results import Results
from pmpo_offline.data.exchange import export_dataset

DATASET, UPDATES, RUNS = "mujoco/halfcheetah-medium-replay-v0", 10_000, range(5)
LEARNERS = ("iql-256", "td3-bc-256")


def main(output: Path, *learners: str) -> None:
    """Bench the suite's own rows, then add d3rlpy's."""
    torch.set_num_threads(1)
    bench("control-long", datasets=DATASET, algos="pmpo", updates=UPDATES, output=output, workers=1)
    dataset, results = build_dataset(DATASET), Results(output)
    export = output / "d3rlpy" / "export"
    if not export.exists():
        export_dataset(dataset, "d3rlpy", export)
    results.record("python -m baselines.peers.d3rlpy_long OUTPUT")
    (file,) = export.glob("*.h5")
    how = {"library": f"d3rlpy {environment.version('d3rlpy')}", "updates": UPDATES, "hidden": [256, 256]}
    reference = results.read().filter("reference")
    for learner in learners or LEARNERS:
        runs = (
            evaluate(
                d3rlpy_policy(file, learner, UPDATES, seed),
                dataset.metadata.task,
                episodes=reference["episode"].n_unique(),
                workers=1,
            )
            for seed in RUNS
        )
        add_row(results, f"{learner} (d3rlpy)", reference, runs, how)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
