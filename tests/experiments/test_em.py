"""EM never lowers the likelihood, equals scikit-learn's, and solves PMPO where no row weighs less than nothing."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor

from benchmarks.experiments.mixture.em import expectation, fit_mixture, maximisation, pmpo_weight, start_mixture
from pmpo_offline import objectives
from pmpo_offline.objectives import stability
from pmpo_offline.policies import Mixture

FLOOR = 1e-6  # so low that no component of this data meets it


def blobs(runs: int, rows: int, seed: int = 0, dim: int = 2) -> Tensor:
    """Rows around four places, (runs, rows, dim), float64."""
    generator = torch.Generator().manual_seed(seed)
    place = torch.randn(runs, 4, dim, generator=generator, dtype=torch.float64)
    kind = torch.randint(4, (runs, rows, 1), generator=generator).expand(-1, -1, dim)
    noise = torch.randn(runs, rows, dim, generator=generator, dtype=torch.float64)
    return place.gather(1, kind) + 0.3 * noise


def ones(action: Tensor) -> Tensor:
    return torch.ones(action.shape[:2], dtype=action.dtype)


def parts(mixture: Mixture) -> tuple[Tensor, Tensor, Tensor]:
    return mixture.log_weight, mixture.mean, mixture.log_std


def close(one: Mixture, other: Mixture, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(parts(one), parts(other), rtol=tolerance, atol=tolerance)


def likelihood(mixture: Mixture, action: Tensor, weight: Tensor) -> Tensor:
    return (weight * mixture.log_prob(action)).sum(-1) / weight.sum(-1)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    rows=st.integers(1, 60),
    components=st.integers(1, 6),
    dim=st.integers(1, 3),
    spread=st.sampled_from([1e-3, 1.0, 1e3]),
    floor=st.sampled_from([FLOOR, 0.05, 0.5]),
    zeros=st.floats(0, 0.9),
)
def test_no_step_lowers_the_likelihood(
    seed: int, rows: int, components: int, dim: int, spread: float, floor: float, zeros: float
):
    # Not even where the floor is met: the M-step is the best there is under it.
    action = spread * blobs(2, rows, seed, dim)
    generator = torch.Generator().manual_seed(seed)
    weight = torch.rand(2, rows, generator=generator, dtype=torch.float64) * 10
    weight = torch.where(torch.rand(2, rows, generator=generator) < zeros, 0, weight)
    start = start_mixture(action, weight, components, [seed, seed + 1], min_std=floor)
    mixture, trace = fit_mixture(start, action, weight, iterations=25, min_std=floor)
    assert trace.shape == (2, 26)
    assert (trace.diff() >= -1e-9).all()
    assert all(part.isfinite().all() for part in (mixture.mean, mixture.log_std, trace))
    torch.testing.assert_close(mixture.log_weight.exp().sum(-1), torch.ones(2, 1, dtype=torch.float64))


def test_without_the_floor_being_met_every_step_raises_it():
    action = blobs(3, 200)
    start = start_mixture(action, ones(action), 4, [0, 1, 2], min_std=FLOOR)
    mixture, trace = fit_mixture(start, action, ones(action), iterations=30, min_std=FLOOR)
    assert mixture.log_std.exp().min() > 100 * FLOOR
    assert (trace[:, :10].diff() > 0).all()
    torch.testing.assert_close(trace[:, 0], likelihood(start, action, ones(action)))
    torch.testing.assert_close(trace[:, -1], likelihood(mixture, action, ones(action)))


def peer(start: Mixture, action: Tensor, iterations: int) -> tuple[GaussianMixture, Mixture]:
    """scikit-learn's EM from the same start, one run."""
    model = GaussianMixture(
        start.log_weight.shape[-1],
        covariance_type="diag",
        tol=0.0,
        reg_covar=0.0,
        max_iter=iterations,
        weights_init=start.log_weight[0, 0].exp().numpy(),
        means_init=start.mean[0, 0].numpy(),
        precisions_init=(-2 * start.log_std[0, 0]).exp().numpy(),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a number of steps is what is asked for
        model.fit(action[0].numpy())
    mine = [model.weights_, model.means_, np.sqrt(model.covariances_)]
    weight, mean, std = (torch.from_numpy(value)[None, None] for value in mine)
    return model, Mixture(weight.log(), mean, std.log())


@pytest.mark.parametrize("iterations", [1, 2, 40])
def test_equals_scikit_learn(iterations: int):
    action = blobs(1, 300, seed=3)
    start = start_mixture(action, ones(action), 4, [5], min_std=FLOOR)
    mixture, trace = fit_mixture(start, action, ones(action), iterations=iterations, min_std=FLOOR)
    model, theirs = peer(start, action, iterations)
    close(mixture, theirs, 1e-6)
    assert trace[0, iterations - 1] == pytest.approx(model.lower_bound_, abs=1e-9)
    assert trace[0, -1] == pytest.approx(model.score(action[0].numpy()), abs=1e-9)
    responsibility, log_prob = expectation(mixture, action)
    np.testing.assert_allclose(responsibility[0], model.predict_proba(action[0].numpy()), atol=1e-6)
    np.testing.assert_allclose(log_prob[0], model.score_samples(action[0].numpy()), atol=1e-6)


def test_whole_weights_are_copies_of_rows_also_to_scikit_learn():
    action, copies = blobs(1, 120, seed=4), torch.randint(0, 4, (120,), generator=torch.Generator().manual_seed(0))
    start = start_mixture(action, ones(action), 3, [0], min_std=FLOOR)
    repeated = action.repeat_interleave(copies, 1)
    weighted, trace = fit_mixture(start, action, copies[None].double(), iterations=20, min_std=FLOOR)
    plain, plain_trace = fit_mixture(start, repeated, ones(repeated), iterations=20, min_std=FLOOR)
    close(weighted, plain)
    torch.testing.assert_close(trace, plain_trace)
    close(weighted, peer(start, repeated, 20)[1], 1e-6)


@pytest.mark.parametrize("rubbish", [0.0, math.nan, math.inf, 1e200])
def test_rows_of_weight_zero_may_hold_anything(rubbish: float):
    action = blobs(2, 50)
    weight = ones(action)
    weight[:, 30:] = 0
    clean = start_mixture(action[:, :30], weight[:, :30], 3, [0, 1])
    expected = fit_mixture(clean, action[:, :30], weight[:, :30], iterations=10)
    action[:, 30:] = rubbish
    close(start_mixture(action, weight, 3, [0, 1]), clean)
    mixture, trace = fit_mixture(clean, action, weight, iterations=10)
    close(mixture, expected[0])
    torch.testing.assert_close(trace, expected[1])


def test_a_component_without_rows_gets_weight_zero_and_keeps_its_place():
    action = blobs(1, 40)
    start = start_mixture(action, ones(action), 3, [0])
    start.mean[:, :, 1] = 1e4
    mixture, trace = fit_mixture(start, action, ones(action), iterations=10)
    assert mixture.log_weight[0, 0, 1] == -math.inf
    assert (mixture.mean[0, 0, 1] == 1e4).all()
    assert trace.isfinite().all()
    others = Mixture(*(part[:, :, [0, 2]] for part in parts(mixture)))
    torch.testing.assert_close(mixture.log_prob(action), others.log_prob(action))
    everywhere = Mixture(*(part.expand(1, 40, *part.shape[2:]) for part in parts(mixture)))
    drawn = everywhere.component(torch.linspace(0, 1 - 1e-9, 40, dtype=torch.float64))
    assert drawn.abs().max() < 100


def test_a_run_without_rows_stays_as_it_is():
    action = blobs(2, 40)
    weight = ones(action)
    weight[1] = 0
    start = start_mixture(action, weight, 3, [0, 1])
    mixture, trace = fit_mixture(start, action, weight, iterations=5)
    close(Mixture(*(part[1:] for part in parts(mixture))), Mixture(*(part[1:] for part in parts(start))))
    assert trace[1].tolist() == [0.0] * 6
    assert trace[0, -1] > trace[0, 0]


def test_fewer_rows_than_components():
    action = blobs(1, 2)
    mixture, trace = fit_mixture(start_mixture(action, ones(action), 5, [0]), action, ones(action), iterations=50)
    assert all(part.isfinite().all() for part in (mixture.mean, mixture.log_std, trace))
    assert mixture.log_std.exp().min() == pytest.approx(0.01)  # each row's own component comes to rest on the floor


def test_stacked_runs_equal_separate_runs():
    action, weight = blobs(3, 80), torch.rand(3, 80, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    start = start_mixture(action, weight, 4, [7, 8, 9])
    together, trace = fit_mixture(start, action, weight, iterations=20)
    for run, seed in enumerate([7, 8, 9]):
        one = slice(run, run + 1)
        alone = start_mixture(action[one], weight[one], 4, [seed])
        close(alone, Mixture(*(part[one] for part in parts(start))))
        mixture, alone_trace = fit_mixture(alone, action[one], weight[one], iterations=20)
        close(mixture, Mixture(*(part[one] for part in parts(together))))
        torch.testing.assert_close(alone_trace[0], trace[run])


def test_runs_may_share_the_rows():
    action, weight = blobs(1, 80), torch.rand(3, 80, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    copied = action.expand(3, -1, -1).contiguous()
    start = start_mixture(action, weight, 4, [7, 8, 9])
    close(start, start_mixture(copied, weight, 4, [7, 8, 9]))
    close(fit_mixture(start, action, weight)[0], fit_mixture(start, copied, weight)[0])


def test_one_component_is_the_weighted_mean_and_deviation():
    action, weight = blobs(1, 60), torch.rand(1, 60, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    mixture, trace = fit_mixture(start_mixture(action, weight, 1, [0]), action, weight, iterations=1)
    mean = np.average(action[0].numpy(), axis=0, weights=weight[0].numpy())
    variance = np.average((action[0].numpy() - mean) ** 2, axis=0, weights=weight[0].numpy())
    np.testing.assert_allclose(mixture.mean[0, 0, 0], mean)
    np.testing.assert_allclose(mixture.log_std[0, 0, 0].exp() ** 2, variance)
    assert trace.shape == (1, 2)


def test_the_m_step_by_hand():
    # Two rows, fully owned by different components, the second twice as heavy.
    action = torch.tensor([[[0.0], [4.0]]])
    start = Mixture(torch.zeros(1, 1, 2), torch.zeros(1, 1, 2, 1), torch.zeros(1, 1, 2, 1))
    mixture = maximisation(start, action, torch.eye(2).unsqueeze(0), torch.tensor([[1.0, 2.0]]), min_std=0.5)
    torch.testing.assert_close(mixture.log_weight.exp(), torch.tensor([[[1 / 3, 2 / 3]]]))
    assert mixture.mean.flatten().tolist() == [0.0, 4.0]
    torch.testing.assert_close(mixture.log_std.exp(), torch.full((1, 1, 2, 1), 0.5))


@pytest.mark.parametrize("normalize", ["joint", "set"])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_pmpo_s_loss_is_the_likelihood_under_its_row_weights(alpha: float, normalize: str):
    label = torch.tensor([[1, 1, -1, -1, -1, 0, 0, 0.0], [1, -1, -1, -1, -1, -1, 0, 0]])
    bounds = [
        stability.beta_min(alpha, rejects / 8, normalize, rejects / labelled)  # type: ignore[arg-type]
        for rejects, labelled in ((3, 5), (5, 6))
    ]
    beta = torch.tensor(bounds).unsqueeze(1) * 1.05
    weight = pmpo_weight(label, alpha=alpha, beta=beta, normalize=normalize)  # type: ignore[arg-type]
    assert (weight >= 0).all()
    logp = torch.randn(2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    loss, _ = objectives.pmpo(logp, label, -logp.mean(-1), alpha=alpha, beta=beta, normalize=normalize)  # type: ignore[arg-type]
    torch.testing.assert_close(-(weight * logp).sum(-1), loss)
    if alpha < 1:
        with pytest.raises(ValueError, match="below its bound"):
            pmpo_weight(label, alpha=alpha, beta=0.95 * beta, normalize=normalize)  # type: ignore[arg-type]
        at_bound = pmpo_weight(label, alpha=alpha, beta=beta / 1.05, normalize=normalize)  # type: ignore[arg-type]
        assert at_bound[label < 0].max() < 1e-7


def test_accepts_alone_weigh_all_the_same():
    label = torch.tensor([[1, 1, 1, -1, 0]])
    assert pmpo_weight(label, alpha=1.0, beta=0.0, normalize="set").tolist() == [[1 / 3, 1 / 3, 1 / 3, 0.0, 0.0]]


def test_em_ends_where_the_gradient_of_pmpo_is_zero():
    # The stationary point of EM is one of PMPO itself, rejects and divergence included.
    action = blobs(1, 150, seed=6)
    label = torch.where(action[..., 0] > 0.3, 1.0, -1.0)
    label[:, ::3] = 0
    beta = 1.05 * stability.beta_min(
        0.5, float((label < 0).double().mean()), "joint", float((label[label != 0] < 0).double().mean())
    )
    weight = pmpo_weight(label, alpha=0.5, beta=beta)
    mixture, _ = fit_mixture(start_mixture(action, weight, 3, [0]), action, weight, iterations=3000, min_std=FLOOR)
    leaves = [part.clone().requires_grad_() for part in parts(mixture)]
    logp = Mixture(leaves[0].log_softmax(-1), leaves[1], leaves[2]).log_prob(action)
    loss, _ = objectives.pmpo(logp, label, -logp.mean(-1), alpha=0.5, beta=beta)
    gradient = torch.autograd.grad(loss.sum(), leaves)
    assert max(float(part.abs().max()) for part in gradient) < 1e-6


def test_what_it_refuses():
    action = blobs(1, 10)
    start = start_mixture(action, ones(action), 2, [0])
    with pytest.raises(ValueError, match="at least 0, not -1"):
        fit_mixture(start, action, -ones(action))
    with pytest.raises(ValueError, match="at least 0, not nan"):
        fit_mixture(start, action, ones(action) * math.nan)
    with pytest.raises(ValueError, match=r"\(runs, rows\) = \(1, 10\)"):
        fit_mixture(start, action, torch.ones(10))
    with pytest.raises(ValueError, match="min_std is above 0"):
        fit_mixture(start, action, ones(action), min_std=0.0)
    with pytest.raises(ValueError, match="below min_std 100"):
        fit_mixture(start, action, ones(action), min_std=100.0)
