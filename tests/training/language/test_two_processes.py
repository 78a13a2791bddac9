"""Two processes on the CPU (gloo), with the environment that `accelerate launch` sets, train as one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
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


LAUNCH = """
import sys
from pathlib import Path
from accelerate import debug_launcher
from helpers.launched import write_history
debug_launcher(write_history, (Path(sys.argv[1]),), num_processes=2)
"""


@pytest.mark.skipif(
    torch.cuda.is_available(), reason="processes are forked, which autograd with a GPU does not survive"
)
def test_two_processes_have_the_losses_of_one(tmp_path: Path) -> None:
    # It forks, which only a process survives that no library has started threads in: this one may have run other tests.
    paths = os.pathsep.join(path for path in sys.path if path)
    subprocess.run(
        [sys.executable, "-c", LAUNCH, str(tmp_path)], env={**os.environ, "PYTHONPATH": paths}, check=True, timeout=600
    )
    for objective, rows in LEARNERS:
        two = json.loads((tmp_path / f"{objective}.json").read_text())
        one = history(tmp_path / "alone", objective, rows, 12, 1)
        assert {line["ranks"] for line in two} == {2}
        assert len(one) == len(two) == 5
        for ours, theirs in zip(one, two, strict=True):
            for name in (*NAMES, {"pmpo": "kl", "kto": "kl", "bco": "shift"}[objective]):
                assert theirs[name] == pytest.approx(ours[name], abs=2e-5), (objective, name)
