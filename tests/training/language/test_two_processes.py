"""Two processes of `accelerate launch` on the CPU (gloo) train as one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.launched import LEARNERS, history

NAMES = (
    "loss",
    "grad_norm",
    "logps/chosen",
    "logps/rejected",
    "rewards/chosen",
    "rewards/rejected",
    "eval_loss",
    "eval_logps/chosen",
)


def test_two_processes_have_the_losses_of_one(tmp_path: Path) -> None:
    tests = Path(__file__).parents[2]
    script, path = tests / "helpers" / "launched.py", os.pathsep.join([str(tests), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true"}
    environment["PYTHONPATH"] = path
    # Its option --cpu leaves several processes to MPI; this one starts them itself, and they use what they find.
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    ended = subprocess.run(
        [sys.executable, *launch, str(script), str(tmp_path)], env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    for objective, rows in LEARNERS:
        two = json.loads((tmp_path / f"{objective}.json").read_text())
        one = history(tmp_path / "alone", objective, rows, 12, 1)
        assert {line["ranks"] for line in two} == {2}
        assert len(one) == len(two) == 5
        for ours, theirs in zip(one, two, strict=True):
            for name in (*NAMES, {"pmpo": "kl", "kto": "kl", "bco": "shift"}[objective]):
                assert theirs[name] == pytest.approx(ours[name], abs=2e-5), (objective, name)
