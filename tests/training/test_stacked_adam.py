"""Adam with a learning rate a run does what torch's does with one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pmpo_offline.training.adam import StackedAdam

RATES = [0.01, 0.1, 1.0]


def losses(matrix: Tensor, vector: Tensor) -> Tensor:
    """One loss a run, of very different steepness."""
    steepness = torch.tensor([1.0, 1e3, 1e-3])[: len(vector)]
    return steepness * (vector.square().sum(-1) + (matrix - 1).pow(4).flatten(1).sum(-1))


def start(runs: slice) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    matrix, vector = torch.randn(3, 4, 2, generator=generator), torch.randn(3, 5, generator=generator)
    return matrix[runs].clone().requires_grad_(), vector[runs].clone().requires_grad_()


def test_every_run_moves_as_torchs_adam_would_move_it():
    matrix, vector = start(slice(None))
    ours = StackedAdam([matrix, vector], torch.tensor(RATES).unsqueeze(1))
    theirs = []
    for run, rate in enumerate(RATES):
        weights = start(slice(run, run + 1))
        theirs.append((weights, torch.optim.Adam(weights, lr=rate)))
    for _ in range(50):
        losses(matrix, vector).sum().backward()
        ours.step()
        for run, (weights, optimizer) in enumerate(theirs):
            optimizer.zero_grad()
            (losses(*weights) * torch.tensor([1.0, 1e3, 1e-3])[run]).sum().backward()
            optimizer.step()
    for run, (weights, _) in enumerate(theirs):
        torch.testing.assert_close(matrix[run], weights[0][0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(vector[run], weights[1][0], rtol=1e-4, atol=1e-5)


def test_gradients_are_forgotten_and_weights_without_one_stay():
    matrix, vector = start(slice(None))
    before = matrix.detach().clone()
    optimizer = StackedAdam([matrix, vector], 0.1)
    vector.sum().backward()
    optimizer.step()
    assert vector.grad is None
    torch.testing.assert_close(matrix.detach(), before)


def test_a_run_that_diverged_leaves_the_others_alone():
    matrix, vector = start(slice(None))
    optimizer = StackedAdam([matrix, vector], 0.1)
    for _ in range(3):
        (losses(matrix, vector) * torch.tensor([1.0, torch.nan, 1.0])).sum().backward()
        optimizer.step()
    assert vector[1].isnan().all()
    assert vector[[0, 2]].isfinite().all()
    assert matrix[[0, 2]].isfinite().all()


@pytest.mark.parametrize("rate", [torch.ones(2, 1), torch.ones(3, 2)])
def test_rates_that_do_not_fit_are_refused(rate: Tensor):
    with pytest.raises(RuntimeError):
        StackedAdam(start(slice(None)), rate)
