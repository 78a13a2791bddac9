"""BCO against the trainer that TRL had until 1.13: loss and gradient on the same random inputs, in float64.

TRL averages over all rows of a minibatch, where the paper and ours average over each class; so ours is asked for the
two classes one by one, and they are weighed by their shares of the minibatch.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pmpo_offline import objectives

OLDER = Path(sys.prefix) / "trl-1.13.0"
ROWS = 24
ACCEPTED = (0.5, 0.2, 1.0, 0.0)
"""Share of each minibatch of a case, in order: the trainer's running mean goes over all so far."""
CASES = [(beta, spread) for beta in (0.05, 1.0) for spread in (0.1, 3.0, 100.0)]

Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def inputs() -> Tensors:
    """Random log-probabilities and labels of every case's minibatches."""
    generator = torch.Generator().manual_seed(0)
    made: Tensors = {}
    for case, (beta, spread) in enumerate(CASES):
        made[f"{case}.beta"] = torch.tensor(beta, dtype=torch.float64)
        for i, share in enumerate(ACCEPTED):
            for name in ("logp", "ref"):
                made[f"{case}.{i}.{name}"] = spread * torch.randn(ROWS, generator=generator, dtype=torch.float64)
            made[f"{case}.{i}.label"] = torch.where(torch.rand(ROWS, generator=generator) < share, 1.0, -1.0)
    return made


@pytest.fixture(scope="module")
def theirs(inputs: Tensors, tmp_path_factory: pytest.TempPathFactory) -> Tensors:
    """What the older TRL makes of them."""
    if not OLDER.is_dir():
        pytest.fail(f"{OLDER} is missing: `make peers` puts TRL 1.13.0 there")
    folder = tmp_path_factory.mktemp("bco")
    given, wanted = folder / "inputs.safetensors", folder / "outputs.safetensors"
    save_file(inputs, given)
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("trl_bco.py")), str(given), str(wanted)],
        env={**os.environ, "PYTHONPATH": str(OLDER)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return load_file(wanted)


@pytest.mark.parametrize("case", range(len(CASES)))
def test_bco(case: int, inputs: Tensors, theirs: Tensors, agree: Any) -> None:
    """Loss and gradient in the log-probabilities of every minibatch of the case."""
    for i in range(len(ACCEPTED)):
        logp, ref, label = (inputs[f"{case}.{i}.{name}"] for name in ("logp", "ref", "label"))
        logp = logp.clone().requires_grad_()
        loss = torch.zeros((), dtype=torch.float64)
        for sign in (1.0, -1.0):
            of_class, _ = objectives.bco(
                logp,
                ref,
                torch.where(label == sign, label, 0),
                beta=CASES[case][0],
                shift=theirs[f"{case}.{i}.shift"],
            )
            loss = loss + (label == sign).double().mean() * of_class
        (gradient,) = torch.autograd.grad(loss, logp)
        ours = (loss.detach(), gradient)
        agree("BCOTrainer of TRL 1.13.0", ours, (theirs[f"{case}.{i}.loss"], theirs[f"{case}.{i}.gradient"]))
