"""d3rlpy's behaviour cloning, for `mlp.py`: reads a number of updates a line, answers with the seconds they took.

python d3rlpy_bc.py rows.npz cpu     (in the environment of baselines/peers)
"""

from __future__ import annotations

import json
import os
import sys
import time

import d3rlpy
import numpy as np
import torch

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # whatever d3rlpy prints is no answer

given = np.load(sys.argv[1])
ends = np.zeros(len(given["action"]), np.float32)
ends[given["length"] - 1 :: given["length"]] = 1
dataset = d3rlpy.dataset.MDPDataset(
    observations=given["observation"],
    actions=given["action"],
    rewards=np.zeros(len(ends), np.float32),
    terminals=ends,
    action_space=d3rlpy.ActionSpace.CONTINUOUS,
)
cloning = d3rlpy.algos.BCConfig(
    batch_size=256,
    policy_type="stochastic",  # a mean and a deviation, as ours; d3rlpy fits a sample of it by squared error
    encoder_factory=d3rlpy.models.VectorEncoderFactory([256, 256]),
).create(device="cuda:0" if sys.argv[2] == "cuda" else "cpu:0")


def say(**answer: object) -> None:
    print(json.dumps(answer), file=answers, flush=True)


def synchronise() -> None:
    if sys.argv[2] == "cuda":
        torch.cuda.synchronize()


quiet = {"logger_adapter": d3rlpy.logging.NoopAdapterFactory(), "show_progress": False, "save_interval": 1 << 30}
say(version=d3rlpy.__version__)
for line in sys.stdin:
    updates = int(line)
    synchronise()
    wall, cpu = time.perf_counter(), time.process_time()
    cloning.fit(dataset, n_steps=updates, n_steps_per_epoch=updates, **quiet)
    synchronise()
    say(wall=time.perf_counter() - wall, cpu=time.process_time() - cpu)
