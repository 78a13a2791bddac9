"""Two processes on the CPU (gloo), with the environment that `accelerate launch` sets, train as one does."""

from __future__ import annotations

import json
from multiprocessing.context import BaseContext
from pathlib import Path

import pytest
import torch
from accelerate import debug_launcher
from helpers.launched import LEARNERS, history, write_history

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


@pytest.mark.skipif(
    torch.cuda.is_available(), reason="processes are forked, which autograd with a GPU does not survive"
)
def test_two_processes_have_the_losses_of_one(tmp_path: Path, forkserver: BaseContext) -> None:
    # It forks, which only a process survives that no library has started threads in: this one may have run other tests.
    process = forkserver.Process(target=debug_launcher, args=(write_history, (tmp_path,), 2))
    process.start()
    process.join()
    assert process.exitcode == 0
    for objective, rows in LEARNERS:
        two = json.loads((tmp_path / f"{objective}.json").read_text())
        one = history(tmp_path / "alone", objective, rows, 12, 1)
        assert {line["ranks"] for line in two} == {2}
        assert len(one) == len(two) == 5
        for ours, theirs in zip(one, two, strict=True):
            for name in (*NAMES, {"pmpo": "kl", "kto": "kl", "bco": "shift"}[objective]):
                assert theirs[name] == pytest.approx(ours[name], abs=2e-5), (objective, name)
