"""Gaussian policies: the bound on beta and the optima, against policies that were optimised numerically."""

import itertools
import math

import numpy as np
import pytest
import torch
from helpers.optimising import optimise
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from pmpo_offline.objectives import pmpo
from pmpo_offline.objectives.divergences import gaussian_kl
from pmpo_offline.objectives.stability import gaussian_beta_min, gaussian_optimum

POINTS = torch.tensor([[-2.0], [-1.0], [0.5], [1.0], [3.0]], dtype=torch.float64)
LABEL = torch.tensor([-1.0, 1.0, 1.0, 0.0, -1.0])
ACCEPTED, REJECTED, NOTHING = POINTS[LABEL > 0], POINTS[LABEL < 0], POINTS[:0]


def gaussian_loss(mean: Tensor, log_std: Tensor, points: Tensor = POINTS, label: Tensor = LABEL, **settings) -> Tensor:
    """The loss of a Gaussian policy; the divergence from the points' own Gaussian equals cloning them."""
    logp = torch.distributions.Normal(mean, log_std.exp()).log_prob(points).sum(-1)
    kl = gaussian_kl(points.mean(0), points.std(0, correction=0).log(), mean, log_std)
    return pmpo(logp, label, kl, **settings)[0]


def bounded(*samples: Tensor, **settings) -> bool:
    """Whether the loss has a minimum."""
    try:
        gaussian_optimum(*samples, **settings)
    except ValueError:
        return False
    return True


# The bound


def sphere() -> tuple[Tensor, Tensor, Tensor]:
    """10-D sphere, reference N(0, I), the quarter nearest the centre accepted, the farthest rejected."""
    points = torch.randn(200_000, 10, generator=torch.Generator().manual_seed(0))
    order = points.square().sum(-1).argsort()
    return points[order[:50_000]], points[order[-50_000:]], points


@pytest.mark.parametrize(("alpha", "bound"), [(0.5, 0.555), (0.0, 1.61)])
def test_the_bound_on_the_sphere(alpha: float, bound: float):
    """The known numbers are those of "set"; "joint" halves them here, where each class is half of the labelled rows."""
    samples = sphere()
    exact = gaussian_beta_min(*samples, alpha=alpha, normalize="set")
    assert exact == pytest.approx(bound, rel=0.02)
    assert gaussian_beta_min(*samples, alpha=alpha, normalize="joint") == pytest.approx(exact / 2)
    assert not bounded(*samples, alpha=alpha, beta=0.999 * exact)
    assert bounded(*samples, alpha=alpha, beta=1.001 * exact)


@pytest.mark.parametrize("normalize", ["set", "joint"])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 0.9])
def test_the_bound_is_the_larger_root_of_the_quadratic(normalize: str, alpha: float):
    """W S of the worst dimension, computed at three betas from the definition, determines the parabola."""
    generator = torch.Generator().manual_seed(0)
    samples = [
        torch.randn(30, 3, generator=generator, dtype=torch.float64) * scale + shift
        for scale, shift in ((1, 0.5), (2, -1), (1.5, 0))
    ]
    bound = gaussian_beta_min(*samples, alpha=alpha, normalize=normalize)

    def product(beta: float) -> Tensor:
        a, r = (alpha, 1 - alpha) if normalize == "set" else (alpha / 2, (1 - alpha) / 2)
        groups = list(zip((a, -r, beta), samples, strict=True))
        w = a - r + beta
        mu = sum(weight * y.mean(0) for weight, y in groups) / w
        return w * sum(weight * (y - mu).square().mean(0) for weight, y in groups)

    at = torch.tensor([3.0, 4.0, 5.0]).double()
    parabolas = np.polyfit(at.numpy(), torch.stack([product(beta) for beta in at.tolist()]).numpy(), 2)
    roots = [max(np.roots(parabola).real) for parabola in parabolas.T]
    assert bound == pytest.approx(max(0.0, *roots), rel=1e-6)


@given(
    points=st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), min_size=3, max_size=8),
    label=st.lists(st.sampled_from([1.0, -1.0, 0.0]), min_size=8, max_size=8).map(torch.tensor),
    alpha=st.floats(0, 1),
    excess=st.sampled_from([0.3, 0.9, 0.999, 1.001, 1.1, 3.0]),
    normalize=st.sampled_from(["set", "joint"]),
)
def test_it_separates_the_bounded_from_the_unbounded(
    points: list, label: Tensor, alpha: float, excess: float, normalize: str
):
    reference = torch.tensor(points, dtype=torch.float64)
    label = label[: len(reference)]
    assume((reference.std(0) > 0.1).all())
    samples = reference[label > 0], reference[label < 0], reference
    bound = gaussian_beta_min(*samples, alpha=alpha, normalize=normalize)
    assert 0 <= bound < math.inf
    assume(bound > 1e-3)
    settings = {"alpha": alpha, "beta": excess * bound, "normalize": normalize}

    assert bounded(*samples, **settings) == (excess > 1)
    if excess > 1:
        mean, std = gaussian_optimum(*samples, **settings)
        best = gaussian_loss(mean, std.log(), reference, label, **settings)
        for move in (0.1, -0.1):
            assert best <= gaussian_loss(mean + move, std.log(), reference, label, **settings) + 1e-9
            assert best <= gaussian_loss(mean, std.log() + move, reference, label, **settings) + 1e-9
    else:
        with pytest.raises(ValueError, match="no minimum"):
            gaussian_optimum(*samples, **settings)


def test_one_class_and_no_class():
    for normalize in ("set", "joint"):
        assert gaussian_beta_min(ACCEPTED, NOTHING, POINTS, alpha=0.5, normalize=normalize) == 0.0
        assert gaussian_beta_min(ACCEPTED, REJECTED, POINTS, alpha=1.0, normalize=normalize) == 0.0
        assert gaussian_beta_min(NOTHING, NOTHING, POINTS, alpha=0.5, normalize=normalize) == 0.0
    # Rejects alone need beta > 1 - alpha for W > 0, and S > 0 may ask for more.
    assert gaussian_beta_min(NOTHING, POINTS, POINTS, alpha=0.2) == pytest.approx(0.8)  # the reference's own moments
    sides = torch.tensor([[-2.0], [2.0]])
    assert gaussian_beta_min(NOTHING, sides, sides / 2, alpha=0.0) == pytest.approx(4.0)  # variance 4 against 1
    assert gaussian_beta_min(NOTHING, sides / 2, sides, alpha=0.0) == pytest.approx(1.0)  # W > 0 is what binds
    aside = sides / 2 + 1  # the same variance, 1 aside: (beta - 1)(beta - 2) = 1
    assert gaussian_beta_min(NOTHING, aside, sides / 2, alpha=0.0) == pytest.approx((3 + math.sqrt(5)) / 2)


def test_accepts_that_spread_wider_than_the_rejects_need_no_divergence():
    assert gaussian_beta_min(2 * POINTS, POINTS - POINTS.mean(), POINTS, alpha=0.7) == 0.0
    assert bounded(2 * POINTS, POINTS - POINTS.mean(), POINTS, alpha=0.7, beta=0.0)


def test_a_dimension_without_variation():
    still = torch.ones(4, 1)
    assert gaussian_beta_min(still, still, still, alpha=0.5) == math.inf
    assert gaussian_beta_min(NOTHING, POINTS, still, alpha=0.5) == math.inf
    # Accepts that vary more than the rejects still hold the deviation up.
    assert gaussian_beta_min(2 * POINTS, POINTS, still * POINTS.mean(), alpha=0.5) < math.inf


def test_the_widest_need_decides():
    samples = [
        torch.cat([x, y], -1) for x, y in ((ACCEPTED, ACCEPTED * 0.9), (REJECTED, REJECTED * 1.2), (POINTS, POINTS))
    ]
    alone = [gaussian_beta_min(*(x[:, d : d + 1] for x in samples), alpha=0.5) for d in range(2)]
    assert gaussian_beta_min(*samples, alpha=0.5) == max(alone)


def test_one_class_and_too_little_weight():
    assert bounded(POINTS, NOTHING, POINTS, alpha=0.5, beta=0.1)
    assert not bounded(NOTHING, POINTS, POINTS, alpha=0.5, beta=0.5)  # W = 0
    centre, sides = torch.tensor([[0.0]]), torch.tensor([[-1.0], [1.0]])
    assert not bounded(NOTHING, centre, sides, alpha=0.0, beta=0.5)  # W = -.5 although S = .5: it explodes
    assert bounded(NOTHING, POINTS, POINTS, alpha=0.5, beta=0.6, normalize="joint")


# The optimum


@pytest.mark.parametrize("normalize", ["set", "joint"])
def test_the_optimum_by_hand(normalize: str):
    mean, std = gaussian_optimum(ACCEPTED, REJECTED, POINTS, alpha=0.5, beta=2.0, normalize=normalize)

    # a = r = .5 ("set") or .25 ("joint", two of four each); W = 2; accepts average -.25, rejects .5, all points .3
    a = 0.5 if normalize == "set" else 0.25
    mu = (a * -0.25 - a * 0.5 + 2 * 0.3) / 2
    square = {
        "accept": ((-1 - mu) ** 2 + (0.5 - mu) ** 2) / 2,
        "reject": ((-2 - mu) ** 2 + (3 - mu) ** 2) / 2,
        "all": ((POINTS - mu) ** 2).mean().item(),
    }
    s = a * square["accept"] - a * square["reject"] + 2 * square["all"]
    assert mean.item() == pytest.approx(mu)
    assert std.square().item() == pytest.approx(s / 2)


@pytest.mark.parametrize(
    ("normalize", "alpha", "excess"), [*itertools.product(["set", "joint"], [0.0, 0.5, 0.8], [1.2, 3.0])]
)
def test_optimised_policies_reach_the_closed_form(normalize: str, alpha: float, excess: float):
    points = torch.cat([POINTS, POINTS.flip(0) ** 2 / 3], -1)
    samples = points[LABEL > 0], points[LABEL < 0], points
    beta = excess * gaussian_beta_min(*samples, alpha=alpha, normalize=normalize)
    settings = {"alpha": alpha, "beta": beta, "normalize": normalize}
    mean, log_std = (torch.zeros(2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    optimise(lambda: gaussian_loss(mean, log_std, points, **settings), mean, log_std)

    best_mean, best_std = gaussian_optimum(*samples, **settings)
    torch.testing.assert_close(mean.detach(), best_mean, atol=5e-6, rtol=0)
    torch.testing.assert_close(log_std.detach().exp(), best_std, atol=5e-6, rtol=0)


@pytest.mark.parametrize("beta", [0.2, 0.5, 1.0, 2.0])
def test_without_a_minimum_the_deviation_collapses(beta: float):
    settings = {"alpha": 0.5, "beta": beta, "normalize": "set"}
    mean = torch.tensor([(0.5 * -0.25 - 0.5 * 0.5 + beta * 0.3) / beta], dtype=torch.float64)
    narrow, narrower = (gaussian_loss(mean, torch.tensor([x]).double(), **settings) for x in (-5.0, -10.0))
    assert bounded(ACCEPTED, REJECTED, POINTS, **settings) == (narrower > narrow).item()


def test_mistaken_arguments_are_refused():
    with pytest.raises(ValueError, match="joint"):
        gaussian_beta_min(ACCEPTED, REJECTED, POINTS, alpha=0.5, normalize="mean")
    with pytest.raises(ValueError, match="no minimum"):
        gaussian_optimum(NOTHING, POINTS, POINTS, alpha=0.5, beta=0.5)


def test_arguments_that_say_nothing_are_refused():
    y = torch.randn(5, 2)
    for alpha in (-0.1, 2.0, float("nan")):
        with pytest.raises(ValueError, match="alpha lies in"):
            gaussian_beta_min(y, y, y, alpha=alpha)
    with pytest.raises(ValueError, match="outcomes of the reference"):
        gaussian_beta_min(y, y, y[:0], alpha=0.5)
