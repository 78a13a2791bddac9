"""Stacked layers are the separate layers, side by side."""

from __future__ import annotations

import pytest
import torch

from pmpo_offline.policies.network import StackedLinear, stacked_mlp


@pytest.fixture(autouse=True)
def _same_numbers_every_time() -> None:
    torch.manual_seed(0)


def test_stacked_linear_is_one_linear_map_a_run() -> None:
    layer = StackedLinear([torch.Generator().manual_seed(seed) for seed in range(3)], 4, 6)
    with torch.no_grad():
        layer.bias.normal_()
    x = torch.randn(3, 5, 4)
    y = layer(x)
    assert y.shape == (3, 5, 6)
    for run in range(3):
        torch.testing.assert_close(y[run], torch.nn.functional.linear(x[run], layer.weight[run].T, layer.bias[run, 0]))


def test_initial_weights_have_the_declared_scale() -> None:
    layer = StackedLinear([torch.Generator().manual_seed(0)], 400, 500, gain=2**0.5)
    # Uniform on ± gain * sqrt(3 / inputs): the deviation is gain / sqrt(inputs).
    torch.testing.assert_close(layer.weight.std(), torch.tensor((2 / 400) ** 0.5), rtol=0.01, atol=0)
    assert not layer.bias.any()


def test_a_run_learns_alone() -> None:
    network = stacked_mlp([0, 1, 2], 4, (8,), 2)
    network(torch.randn(3, 5, 4))[1].square().sum().backward()
    for weight in network.parameters():
        assert weight.grad is not None
        assert weight.grad[1].any()
        assert not weight.grad[[0, 2]].any()


def test_runs_of_equal_seed_are_equal_and_others_differ() -> None:
    network = stacked_mlp([3, 4, 3], 4, (8, 8), 2)
    for weight in network.parameters():
        assert weight[0].equal(weight[2])
    assert not next(network.parameters())[0].equal(next(network.parameters())[1])


@pytest.mark.parametrize("outputs", [2, 13, 63, 64, 100])
def test_narrow_and_wide_layers_are_the_same_map_with_the_same_gradients(outputs: int) -> None:
    layer = StackedLinear([torch.Generator().manual_seed(seed) for seed in range(3)], 16, outputs).double()
    x, upstream = torch.randn(3, 8, 16, dtype=torch.float64), torch.randn(3, 8, outputs, dtype=torch.float64)
    gradients = []
    for apply in (layer, lambda x: torch.baddbmm(layer.bias, x, layer.weight)):
        given = x.clone().requires_grad_()
        y = apply(given)
        gradients.append((y.detach(), *torch.autograd.grad((y * upstream).sum(), [given, *layer.parameters()])))
    for mine, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-12, atol=1e-12)


def test_gradients_are_stored_like_their_weights() -> None:
    layer = StackedLinear([torch.Generator()], 4, 3)
    layer(torch.randn(1, 5, 4)).sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.is_contiguous()
