"""The optimizer and its schedule are PyTorch's own, to the last bit, without PyTorch's compiler."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pmpo_offline.build import build_dataset
from pmpo_offline.training.adam import Adam, one_cycle

UPDATES = 20


def losses(weights: list[torch.Tensor], update: int) -> torch.Tensor:
    """A loss of two runs whose gradients differ from update to update."""
    matrix, vector = weights
    return ((matrix @ vector - update).square() + matrix.sum(-1, keepdim=True).abs()).mean((1, 2))


def start() -> list[torch.Tensor]:
    """A matrix and a vector of each of two runs."""
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(shape, generator=generator, requires_grad=True) for shape in ((2, 7, 5), (2, 5, 1))]


@pytest.mark.parametrize("decay", [0.0, 0.03])
@pytest.mark.parametrize("eps", [1e-8, 1e-5])
def test_adam_is_that_of_pytorch(decay: float, eps: float) -> None:
    """Weights and moments after some updates on a one-cycle schedule; Adam where nothing decays."""
    mine, theirs = start(), start()
    ours = Adam(mine, 0.01, decay=decay, eps=eps)
    kind = torch.optim.AdamW if decay else torch.optim.Adam
    reference = kind(theirs, lr=0.01, weight_decay=decay, eps=eps, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(reference, 0.01, total_steps=UPDATES)
    for update in range(UPDATES):
        ours.rate, ours.beta = one_cycle(update, UPDATES, 0.01)
        ours.minimise(losses(mine, update))
        reference.zero_grad()
        losses(theirs, update).sum().backward()
        reference.step()
        schedule.step() if update < UPDATES - 1 else None
    moments = [moment for weight in theirs for moment in reference.state[weight].values()]
    for found, expected in zip([*mine, *ours.moments], [*theirs, *moments], strict=True):
        assert torch.equal(found, expected)


def test_an_optimizer_whose_moments_are_restored_goes_on_alike() -> None:
    """Writing weights and moments of an earlier update into a fresh optimizer ends at the same weights."""
    weights = start()
    whole = Adam(weights, 0.01)
    for update in range(UPDATES):
        if update == 7:
            saved = [tensor.detach().clone() for tensor in (*weights, *whole.moments)]
        whole.minimise(losses(weights, update))
    others = start()
    rest = Adam(others, 0.01)
    with torch.no_grad():
        for tensor, value in zip([*others, *rest.moments], saved, strict=True):
            tensor.copy_(value)
    for update in range(7, UPDATES):
        rest.minimise(losses(others, update))
    assert all(torch.equal(one, other) for one, other in zip(weights, others, strict=True))


@pytest.mark.parametrize("updates", [2, 3, 10, 301])
@pytest.mark.parametrize("peak", [3e-4, 0.007])
def test_one_cycle_is_that_of_pytorch(updates: int, peak: float) -> None:
    """Rate and first β of every update, also of schedules so short that they only fall."""
    reference = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=peak)
    schedule = torch.optim.lr_scheduler.OneCycleLR(reference, peak, total_steps=updates)
    for update in range(updates):
        group = reference.param_groups[0]
        assert one_cycle(update, updates, peak) == (group["lr"], group["betas"][0])
        if update < updates - 1:
            reference.step()
            schedule.step()


def test_training_does_not_import_the_compiler(tmp_path: Path) -> None:
    """A command that trains on a stored dataset does without `torch._dynamo`, `transformers` and pandas."""
    dataset = build_dataset("bandit/sphere-v0", episodes=50, home=tmp_path)
    code = """
import sys
from pmpo_offline.cli.main import run
done = run(["train", *sys.argv[1:], "--algo", "pmpo", "--set", "beta=1", "--steps", "2"])
sys.exit(done or bool({"torch._dynamo", "transformers", "pandas"} & {*sys.modules}))
"""
    options = ["--dataset", dataset.metadata.id, "--home", str(tmp_path), "--output", str(tmp_path / "run")]
    assert subprocess.run([sys.executable, "-c", code, *options], check=False).returncode == 0
