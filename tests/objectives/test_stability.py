"""Policies over a few outcomes: the bound on beta and the optima, against policies that were optimised numerically."""

import itertools
import math

import pytest
import torch
from helpers.optimising import optimise
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from pmpo_offline.objectives import pmpo
from pmpo_offline.objectives.divergences import categorical_alpha, categorical_kl, categorical_renyi
from pmpo_offline.objectives.stability import beta_min, optimal_policy

REFERENCE = torch.tensor([0.1, 0.25, 0.2, 0.3, 0.15], dtype=torch.float64)
ACCEPT = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0], dtype=torch.float64)  # outcomes 0 and 2: P_a = .3
REJECT = torch.tensor([0.0, 1.0, 0.0, 1.0, 1.0], dtype=torch.float64)  # outcomes 1, 3 and 4: P_r = .7
P_A, P_R = 0.3, 0.7


def tabular_loss(
    logits: Tensor, accept: Tensor = ACCEPT, reject: Tensor = REJECT, reference: Tensor = REFERENCE, **settings: object
) -> Tensor:
    """The exact loss of a softmax policy: every outcome once as accept and once as reject, weighted by probability."""
    logp = logits.log_softmax(-1)
    label = torch.tensor([1.0] * len(logp) + [-1.0] * len(logp))
    weight = torch.cat([reference * accept, reference * reject])
    return pmpo(logp.repeat(2), label, categorical_kl(reference.log(), logp), weight=weight, **settings)[0]


# beta_min


@pytest.mark.parametrize(
    ("alpha", "reject_mass", "bound"),
    [(0.5, 0.5, 1.0), (0.5, 0.9, 0.5 / 0.9), (0.5, 0.1, 5.0), (0.0, 0.5, 2.0), (0.0, 0.1, 10.0), (1.0, 0.1, 0.0)],
)
def test_worked_set_examples(alpha: float, reject_mass: float, bound: float):
    assert beta_min(alpha, reject_mass, normalize="set") == pytest.approx(bound)
    assert beta_min(alpha, reject_mass, normalize="set", reject_share=0.9) == pytest.approx(bound)


def test_joint_bound():
    assert beta_min(0.5, 0.2, normalize="joint") == beta_min(0.5, 0.9, normalize="joint") == pytest.approx(0.5)
    # 10 % accepted, made from data with P_r = .55: .5 * .9 / .55
    assert beta_min(0.5, 0.55, normalize="joint", reject_share=0.9) == pytest.approx(0.818182)


def test_bound_without_rejects_and_with_rejects_from_elsewhere():
    for normalize in ("set", "joint"):
        assert beta_min(0.5, 0.0, normalize=normalize) == 0.0
        assert beta_min(0.5, 0.4, normalize=normalize, reject_share=0.0) == 0.0
        assert beta_min(1.0, 0.0, normalize=normalize, reject_share=0.5) == 0.0
        assert beta_min(0.5, 0.0, normalize=normalize, reject_share=0.5) == math.inf


@pytest.mark.parametrize(
    "arguments",
    [(-0.1, 0.5), (1.1, 0.5), (0.5, -0.1), (0.5, 1.5), (math.nan, 0.5), (0.5, 0.5, "mean"), (0.5, 0.5, "joint", 2.0)],
)
def test_arguments_out_of_range_are_refused(arguments: tuple):
    with pytest.raises(ValueError):
        beta_min(*arguments)


@pytest.mark.parametrize("normalize", ["set", "joint"])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5])
@pytest.mark.parametrize("noise", [0.05, 0.2, 0.4])
def test_flipped_labels_relax_the_bound_to_where_the_optimum_appears(normalize: str, alpha: float, noise: float):
    reject = torch.tensor([1 - noise] * 2 + [noise] * 3, dtype=torch.float64)  # the first two should be rejected
    reject_mass = float(REFERENCE @ reject)
    bound = beta_min(alpha, reject_mass, normalize, noise=noise)
    assert bound < beta_min(alpha, reject_mass, normalize)
    settings = {"alpha": alpha, "normalize": normalize}
    best = optimal_policy(REFERENCE, 1 - reject, reject, beta=bound * (1 + 1e-9) + 1e-9, **settings)
    assert best[:2].sum() < 1e-6, "at the bound nothing is left of what should be rejected"
    if bound > 0:
        with pytest.raises(ValueError, match="no minimum"):
            optimal_policy(REFERENCE, 1 - reject, reject, beta=0.999 * bound, **settings)


@pytest.mark.parametrize("normalize", ["set", "joint"])
def test_flipped_labels_of_which_accepts_were_dropped(normalize: str):
    noise, kept = 0.1, 0.5
    reject = torch.tensor([1 - noise] * 2 + [noise] * 3, dtype=torch.float64)
    accept = kept * (1 - reject)
    mass, labelled = float(REFERENCE @ reject), float(REFERENCE @ (reject + accept))
    bound = beta_min(0.5, mass, normalize, mass / labelled, noise=noise, accept_mass=1 - mass)
    best = optimal_policy(REFERENCE, accept, reject, alpha=0.5, beta=bound * (1 + 1e-9), normalize=normalize)
    assert best[:2].sum() < 1e-6
    with pytest.raises(ValueError, match="no minimum"):
        optimal_policy(REFERENCE, accept, reject, alpha=0.5, beta=0.999 * bound, normalize=normalize)


def test_flipped_labels_by_hand():
    # set: .5 * .9 / .8 - .5 * .1 / .2
    assert beta_min(0.5, 0.8, noise=0.1) == pytest.approx(0.3125)
    # joint, balanced to a half each: .5 * .5 * .9 / .8 - .5 * .5 * .1 / .2
    assert beta_min(0.5, 0.8, "joint", 0.5, noise=0.1) == pytest.approx(0.15625)
    # set, a tenth never labelled: .5 * .9 / .8 - .5 * .1 / .1
    assert beta_min(0.5, 0.8, noise=0.1, accept_mass=0.1) == pytest.approx(0.0625)
    assert beta_min(0.5, 0.8, noise=0.3) == 0.0
    with pytest.raises(ValueError, match="noise"):
        beta_min(0.5, 0.8, noise=0.6)


# Tabular policies


@pytest.mark.parametrize(
    ("normalize", "alpha", "excess"), [*itertools.product(["set", "joint"], [0.0, 0.5, 0.8], [1.1, 1.5, 3.0])]
)
def test_optimised_policies_reach_the_closed_form(normalize: str, alpha: float, excess: float):
    beta = excess * beta_min(alpha, P_R, normalize)
    logits = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    optimise(lambda: tabular_loss(logits, alpha=alpha, beta=beta, normalize=normalize), logits)
    policy = logits.detach().softmax(-1)

    torch.testing.assert_close(
        policy,
        optimal_policy(REFERENCE, ACCEPT, REJECT, alpha=alpha, beta=beta, normalize=normalize),
        atol=5e-6,
        rtol=0,
    )
    if normalize == "set":
        reject_mass = (beta * P_R - (1 - alpha)) / (2 * alpha - 1 + beta)
    else:
        reject_mass = P_R * (beta - (1 - alpha)) / (beta + alpha * P_A - (1 - alpha) * P_R)
    assert (policy * REJECT).sum().item() == pytest.approx(reject_mass, abs=5e-6)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.8])
@pytest.mark.parametrize("excess", [1.1, 3.0])
def test_the_derived_weight_is_measured_in_units_of_the_bound(alpha: float, excess: float):
    """With `reject_mass` = P_r the bound of "set" is 1 - alpha, whatever P_r."""
    beta = excess * (1 - alpha)
    assert beta_min(alpha, P_R, "set") * P_R == pytest.approx(1 - alpha)
    logits = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    optimise(lambda: tabular_loss(logits, alpha=alpha, beta=beta, normalize="set", reject_mass=P_R), logits)
    torch.testing.assert_close(
        logits.detach().softmax(-1),
        optimal_policy(REFERENCE, ACCEPT, REJECT, alpha=alpha, beta=beta / P_R, normalize="set"),
        atol=5e-6,
        rtol=0,
    )


@pytest.mark.parametrize("normalize", ["set", "joint"])
def test_optimum_of_noisy_and_missing_labels(normalize: str):
    accept = torch.tensor([0.9, 0.2, 0.5, 0.0, 0.1], dtype=torch.float64)
    reject = torch.tensor([0.1, 0.6, 0.2, 0.0, 0.9], dtype=torch.float64)
    settings = {"alpha": 0.4, "beta": 1.7, "normalize": normalize}
    logits = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    optimise(lambda: tabular_loss(logits, accept, reject, **settings), logits)
    torch.testing.assert_close(
        logits.detach().softmax(-1), optimal_policy(REFERENCE, accept, reject, **settings), atol=5e-6, rtol=0
    )


@pytest.mark.parametrize(("normalize", "alpha"), [*itertools.product(["set", "joint"], [0.0, 0.5, 0.8])])
def test_the_loss_falls_forever_below_the_bound_and_not_above_it(normalize: str, alpha: float):
    def fall(beta: float) -> float:
        """How much the loss falls while the rejects' logits sink from -1e3 to -1e6."""
        sunk = [tabular_loss(-depth * REJECT, alpha=alpha, beta=beta, normalize=normalize) for depth in (1e3, 1e6)]
        return (sunk[0] - sunk[1]).item()

    bound = beta_min(alpha, P_R, normalize)
    assert fall(0.99 * bound) > 100
    assert fall(1.01 * bound) < -100


@pytest.mark.parametrize(
    "divergence",
    [
        lambda reference, policy: categorical_kl(policy, reference),
        lambda reference, policy: categorical_alpha(reference, policy, 0.9),
        lambda reference, policy: categorical_renyi(reference, policy, 0.9),
    ],
    ids=["reverse", "alpha", "renyi"],
)
@pytest.mark.parametrize("beta", [1.0, 100.0])
def test_no_beta_of_another_divergence_bounds_the_loss_but_a_floor_does(divergence, beta: float):
    logp = torch.stack([(-depth * REJECT).log_softmax(-1) for depth in (1e3, 1e4, 1e6)])
    rows = {"label": (ACCEPT - REJECT).expand(3, 5), "kl": divergence(REFERENCE.log(), logp), "weight": REFERENCE}
    assert (pmpo(logp, **rows, alpha=0.5, beta=beta)[0].diff() < -100).all()
    assert pmpo(logp, **rows, alpha=0.5, beta=beta, floor=1e-9)[0].diff().abs().max() < 1e-6
    rows["kl"] = categorical_kl(REFERENCE.log(), logp)
    assert (pmpo(logp, **rows, alpha=0.5, beta=beta)[0].diff() > 100).all()  # the bound is 0.5


def test_gradient_descent_diverges_below_the_bound():
    def reject_mass_after(steps: int, beta: float) -> float:
        logits = torch.zeros(5, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.SGD([logits], lr=1.0)
        for _ in range(steps):
            optimizer.zero_grad()
            tabular_loss(logits, alpha=0.0, beta=beta, normalize="joint").backward()
            optimizer.step()
        return (logits.softmax(-1) * REJECT).sum().item()

    assert reject_mass_after(400, beta=0.8) < 1e-6  # bound: 1
    assert reject_mass_after(400, beta=1.5) == pytest.approx(0.7 * 0.5 / 0.8, abs=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_balancing_moves_the_joint_bound(alpha: float):
    """Dropping accepts to a share of 10 % raises the bound, as long as the divergence runs over all rows."""
    kept = P_R / 9 / P_A  # of the accepts, so that they are a tenth of the labelled rows
    bound = beta_min(alpha, P_R, "joint", reject_share=0.9)
    for beta, outcome in ((0.99 * bound, "no minimum"), (1.01 * bound, "a minimum")):
        sunk = [tabular_loss(-x * REJECT, kept * ACCEPT, alpha=alpha, beta=beta, normalize="joint") for x in (1e3, 1e6)]
        assert (sunk[1] > sunk[0]) == (outcome == "a minimum")
    with pytest.raises(ValueError, match="no minimum"):
        optimal_policy(REFERENCE, kept * ACCEPT, REJECT, alpha=alpha, beta=0.99 * bound, normalize="joint")
    assert bound == pytest.approx((1 - alpha) * 0.9 / 0.7)


probabilities = st.lists(st.floats(0.05, 1.0), min_size=5, max_size=5).map(lambda x: torch.tensor(x).double() / sum(x))


@given(
    reference=probabilities,
    labels=st.lists(st.sampled_from([1.0, -1.0, 0.0]), min_size=5, max_size=5).map(torch.tensor),
    alpha=st.floats(0, 1),
    beta=st.floats(0.01, 20),
    other=probabilities,
    normalize=st.sampled_from(["set", "joint"]),
)
def test_beta_min_says_exactly_when_a_minimum_exists(
    reference: Tensor, labels: Tensor, alpha: float, beta: float, other: Tensor, normalize: str
):
    accept, reject = (labels > 0).double(), (labels < 0).double()
    reject_mass, labelled = (reference * reject).sum().item(), (reference * labels.abs()).sum().item()
    bound = beta_min(alpha, reject_mass, normalize, reject_share=reject_mass / labelled if labelled else 0.0)
    settings = {"alpha": alpha, "beta": beta, "normalize": normalize}
    assume(abs(beta - bound) > 1e-6)

    if beta < bound:
        with pytest.raises(ValueError, match="no minimum"):
            optimal_policy(reference, accept, reject, **settings)
    else:
        best = optimal_policy(reference, accept, reject, **settings)
        at_best, at_other = (tabular_loss(p.log(), accept, reject, reference, **settings) for p in (best, other))
        assert best.sum().item() == pytest.approx(1.0)
        assert at_best <= at_other + 1e-9


def test_rejects_only_of_everything_has_no_minimum_at_its_bound():
    everything = torch.ones(5, dtype=torch.float64)
    with pytest.raises(ValueError, match="no minimum"):  # all coefficients vanish: any policy will do, none is best
        optimal_policy(REFERENCE, 0 * everything, everything, alpha=0.0, beta=REFERENCE.sum().item())
