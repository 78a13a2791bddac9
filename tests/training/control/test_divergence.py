"""The divergence from the reference policy: closed where it can be, drawn elsewhere, and both say the same."""

from __future__ import annotations

import pytest
import torch

from pmpo_offline.objectives.divergences import gaussian_alpha, gaussian_kl, gaussian_renyi
from pmpo_offline.policies import Mixture
from pmpo_offline.training.control.divergence import from_reference

RUNS, STATES, DIM = 2, 400, 3
KINDS = ["forward", "reverse", "alpha", "renyi"]


def gaussian(shift: float, log_std: float, components: int = 1) -> Mixture:
    """The same Gaussian in every state, written as a mixture of equal components."""
    shape = (RUNS, STATES, components, DIM)
    weight = torch.full((RUNS, STATES, components), 1 / components).log()
    return Mixture(weight, torch.full(shape, shift), torch.full(shape, log_std))


def expected(kind: str, order: float) -> torch.Tensor:
    p = torch.zeros(DIM), torch.full((DIM,), -0.5)
    q = torch.full((DIM,), 0.2), torch.full((DIM,), -0.4)
    return {
        "forward": gaussian_kl(*p, *q),
        "reverse": gaussian_kl(*q, *p),
        "alpha": gaussian_alpha(*p, *q, order),
        "renyi": gaussian_renyi(*p, *q, order),
    }[kind]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", [0.5, 0.9])
def test_drawn_divergences_are_those_in_closed_form(kind: str, order: float) -> None:
    reference, policy = gaussian(0.0, -0.5), gaussian(0.2, -0.4)
    closed = from_reference(policy, reference, kind, order, seed=0)
    torch.testing.assert_close(closed, expected(kind, order).expand(RUNS, STATES))
    # The same distributions as mixtures of two: there is no closed form, and eight draws a state stand in for it.
    drawn = from_reference(gaussian(0.2, -0.4, 2), gaussian(0.0, -0.5, 2), kind, order, seed=0)
    assert drawn.shape == (RUNS, STATES)
    assert drawn.mean().item() == pytest.approx(closed.mean().item(), rel=0.25)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("components", [1, 2])
def test_no_way_from_itself(kind: str, components: int) -> None:
    one = gaussian(0.1, -0.3, components)
    assert from_reference(one, one, kind, 0.5, seed=3).abs().max() < 1e-5


@pytest.mark.parametrize("components", [1, 2])
@pytest.mark.parametrize("kind", ["alpha", "renyi"])
def test_an_order_for_each_run(kind: str, components: int) -> None:
    reference, policy = gaussian(0.0, -0.5, components), gaussian(0.2, -0.4, components)
    orders = torch.tensor([[0.3], [0.8]])
    both = from_reference(policy, reference, kind, orders, seed=0)
    for run, order in enumerate((0.3, 0.8)):
        torch.testing.assert_close(both[run], from_reference(policy, reference, kind, order, seed=0)[run])


def test_runs_share_the_draws() -> None:
    first, second = gaussian(0.0, 0.0, 2).draw(2, torch.Generator().manual_seed(5)).unbind(-2)
    assert first[0].equal(first[1])
    assert not first.equal(second)
