"""PMPO against numbers worked out by hand, its one-class limits and the direction of its gradient."""

import math

import pytest
import torch
from torch import Tensor

from pmpo_offline.objectives import bc, pmpo
from pmpo_offline.objectives.divergences import categorical_kl

LOGP = [-1.0, -2.0, -4.0, -0.5]
LABEL = torch.tensor([1.0, 1.0, -1.0, 0.0])
KL = torch.tensor(0.3)


def loss_and_gradient(
    label: Tensor, logp: list[float] = LOGP, kl: Tensor = KL, **settings: object
) -> tuple[float, list]:
    rows = torch.tensor(logp, requires_grad=True)
    loss, _ = pmpo(rows, label, kl, **settings)
    loss.backward()
    return loss.item(), rows.grad.tolist()


def test_set_averages_each_class_over_its_own_rows():
    loss, gradient = loss_and_gradient(LABEL, alpha=0.6, beta=0.5, normalize="set")
    # -.6 * (-1 - 2)/2 + .4 * (-4)/1 + .5 * .3 = .9 - 1.6 + .15
    assert loss == pytest.approx(-0.55)
    assert gradient == pytest.approx([-0.3, -0.3, 0.4, 0.0])


def test_joint_divides_both_sums_by_the_labelled_rows():
    loss, gradient = loss_and_gradient(LABEL, alpha=0.6, beta=0.5, normalize="joint")
    # -.6 * (-1 - 2)/3 + .4 * (-4)/3 + .5 * .3 = .6 - .533333 + .15
    assert loss == pytest.approx(0.2166667)
    assert gradient == pytest.approx([-0.2, -0.2, 0.4 / 3, 0.0])


def test_weights_make_weighted_averages():
    weight = torch.tensor([1.0, 3.0, 2.0, 5.0])
    # -.6 * (-1 - 6)/4 + .4 * (-8)/2 + .15 = 1.05 - 1.6 + .15
    assert loss_and_gradient(LABEL, alpha=0.6, beta=0.5, normalize="set", weight=weight)[0] == pytest.approx(-0.4)
    # -.6 * (-1 - 6)/6 + .4 * (-8)/6 + .15 = .7 - .533333 + .15
    assert loss_and_gradient(LABEL, alpha=0.6, beta=0.5, normalize="joint", weight=weight)[0] == pytest.approx(
        0.3166667
    )


def test_metrics_of_the_worked_example():
    _, metrics = pmpo(torch.tensor(LOGP), LABEL, KL, alpha=0.6, beta=0.5, normalize="joint")
    assert {name: value.item() for name, value in metrics.items()} == pytest.approx(
        {"accept_logp": -1.5, "reject_logp": -4.0, "kl": 0.3, "accept_share": 2 / 3, "label_share": 3 / 4}
    )


def test_bool_labels_are_accept_and_reject():
    as_bool = loss_and_gradient(torch.tensor([True, True, False, False]))
    assert as_bool == loss_and_gradient(torch.tensor([1.0, 1.0, -1.0, -1.0]))


@pytest.mark.parametrize("normalize", ["set", "joint"])
def test_one_class_and_no_class(normalize: str):
    def of(label: list[float]) -> tuple[float, list[float]]:
        return loss_and_gradient(torch.tensor(label), [-1.0, -3.0], alpha=0.75, beta=2.0, normalize=normalize)

    # only accepts: -.75 * (-4)/2 + 2 * .3;   only rejects: .25 * (-4)/2 + 2 * .3;   nothing labelled: 2 * .3
    assert of([1.0, 1.0]) == (pytest.approx(2.1), pytest.approx([-0.375, -0.375]))
    assert of([-1.0, -1.0]) == (pytest.approx(0.1), pytest.approx([0.125, 0.125]))
    assert of([0.0, 0.0]) == (pytest.approx(0.6), [0.0, 0.0])


@pytest.mark.parametrize("normalize", ["set", "joint"])
def test_a_gradient_step_lowers_the_rejected_and_raises_the_accepted_probability(normalize: str):
    logits = torch.zeros(3, requires_grad=True)  # outcome 0 accepted, 1 rejected, 2 never seen
    loss, _ = pmpo(logits.log_softmax(-1)[:2], torch.tensor([1.0, -1.0]), torch.tensor(0.0), normalize=normalize)
    loss.backward()
    accepted, rejected, _ = (logits - logits.grad).softmax(-1).tolist()
    assert rejected < 1 / 3 < accepted


@pytest.mark.parametrize("normalize", ["set", "joint"])
def test_rejects_alone_lower_the_rejected_probability(normalize: str):
    logits = torch.zeros(3, requires_grad=True)
    loss, _ = pmpo(logits.log_softmax(-1)[1:2], torch.tensor([-1.0]), torch.tensor(0.0), alpha=0.0, normalize=normalize)
    loss.backward()
    assert (logits - logits.grad).softmax(-1)[1] < 1 / 3


def test_alpha_one_beta_zero_is_cloning_of_the_accepts():
    label = torch.randn(64).sign()
    ours, theirs = (torch.randn(64).requires_grad_() for _ in range(2))
    theirs.data.copy_(ours.data)

    loss, _ = pmpo(ours, label, torch.tensor(math.inf), alpha=1.0, beta=0.0, normalize="set")
    cloning, _ = bc(theirs, weight=(label > 0).float())
    loss.backward()
    cloning.backward()

    assert torch.equal(loss, cloning)
    assert torch.equal(ours.grad, theirs.grad)
    torch.testing.assert_close(loss, bc(theirs[label > 0])[0])


def test_joint_alpha_one_beta_zero_is_cloning_of_the_accepts_times_their_share():
    label, logp = torch.randn(2, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    joint, _ = pmpo(logp, label.sign(), torch.tensor(0.0), alpha=1.0, beta=0.0, normalize="joint")
    torch.testing.assert_close(joint, bc(logp[label > 0])[0] * (label > 0).double().mean())


# The derived weight


def test_beta_is_divided_by_the_reject_mass():
    assert loss_and_gradient(LABEL, beta=0.5, reject_mass=0.25) == loss_and_gradient(LABEL, beta=2.0)
    assert loss_and_gradient(LABEL, beta=0.7, reject_mass=1.0) == loss_and_gradient(LABEL, beta=0.7)


def test_rejects_alone_with_beta_one_lead_to_the_target_of_the_e_step():
    """alpha = 0, beta = 1, `reject_mass` = P_r: the minimum is q(y) ~ pi_ref(y) (1 - p(reject|y)), noisy or not."""
    reference = torch.tensor([0.1, 0.25, 0.2, 0.3, 0.15], dtype=torch.float64)
    reject = torch.tensor([0.0, 0.9, 0.5, 0.2, 0.7], dtype=torch.float64)
    reject_mass = (reference * reject).sum().item()
    target = reference * (1 - reject) / (1 - reject_mass)

    logits = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=300, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        logp = logits.log_softmax(-1)
        kl = categorical_kl(reference.log(), logp)
        settings = {"alpha": 0.0, "beta": 1.0, "normalize": "set", "reject_mass": reject_mass}
        loss, _ = pmpo(logp, -torch.ones(5), kl, weight=reference * reject, **settings)
        loss.backward()
        return loss

    optimizer.step(closure)
    torch.testing.assert_close(logits.detach().softmax(-1), target, atol=5e-6, rtol=0)


@pytest.mark.parametrize("reject_mass", [0.0, -0.5, 1.5, math.nan])
def test_a_reject_mass_out_of_range_is_refused(reject_mass: float):
    with pytest.raises(ValueError, match="reject_mass"):
        pmpo(torch.tensor(LOGP), LABEL, KL, reject_mass=reject_mass)


# The floor


def test_rejects_fade_below_the_floor():
    floor = 0.25
    loss, gradient = loss_and_gradient(LABEL, alpha=0.6, beta=0.5, normalize="set", floor=floor)
    probability = math.exp(-4)
    # -.6 * (-1 - 2)/2 + .4 * log(.25 + e^-4) + .5 * .3
    assert loss == pytest.approx(0.9 + 0.4 * math.log(floor + probability) + 0.15)
    assert gradient == pytest.approx([-0.3, -0.3, 0.4 * probability / (floor + probability), 0.0])
    # At no probability at all the term ends at log floor, and nothing pushes any more.
    loss, gradient = loss_and_gradient(LABEL, [-1.0, -2.0, -math.inf, -0.5], alpha=0.6, normalize="set", floor=floor)
    assert (loss, gradient[2]) == (pytest.approx(0.9 + 0.4 * math.log(floor) + 0.3), 0.0)


def test_the_floor_leaves_likely_rejects_as_they_are():
    """Densities may be far above 1: the floor is nothing beside them."""
    high = [40.0, 50.0, 60.0, 70.0]
    assert loss_and_gradient(LABEL, high, floor=1e-9) == loss_and_gradient(LABEL, high)


@pytest.mark.parametrize("normalize", ["set", "joint"])
def test_a_floor_of_zero_is_the_plain_form_bit_for_bit(normalize: str):
    logp, label = torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(0))
    label = label.sign()
    weight = torch.rand(3, 64, generator=torch.Generator().manual_seed(1))

    def result(floor: float | Tensor) -> tuple[Tensor, Tensor]:
        rows = logp.clone().requires_grad_()
        loss, _ = pmpo(rows, label, torch.zeros(3), alpha=0.3, normalize=normalize, floor=floor, weight=weight)
        return loss.detach(), torch.autograd.grad(loss.sum(), rows)[0]

    # a number takes another way through the code than tensors do
    torch.testing.assert_close(result(0.0), result(torch.zeros(3, 1)), rtol=0, atol=0)
    torch.testing.assert_close(result(0.0), result(torch.tensor(0.0)), rtol=0, atol=0)
    assert not torch.equal(result(0.0)[0], result(0.1)[0])


def test_a_floor_bounds_what_has_no_minimum():
    """Two outcomes, rejects alone, beta far below its bound: the plain loss falls forever, the floored one does not."""

    def sunk(floor: float) -> list[float]:
        logits = torch.tensor([[0.0, -1e3], [0.0, -1e6]])
        logp = logits.log_softmax(-1)
        loss, _ = pmpo(logp[:, 1:], -torch.ones(2, 1), torch.zeros(2), alpha=0.0, beta=0.0, floor=floor)
        return loss.tolist()

    assert sunk(0.0) == [-1e3, -1e6]
    assert sunk(1e-9) == pytest.approx([math.log(1e-9)] * 2)


@pytest.mark.parametrize("rubbish", [-math.inf, math.inf, math.nan])
def test_a_floor_does_not_wake_rows_that_are_no_rejects(rubbish: float):
    logp = [-1.0, -2.0, -4.0, rubbish]
    clean = loss_and_gradient(LABEL[:3], logp[:3], floor=0.1)
    loss, gradient = loss_and_gradient(LABEL, logp, floor=0.1)
    assert (loss, gradient[:3], gradient[3]) == (clean[0], clean[1], 0.0)


def test_a_negative_floor_is_refused():
    with pytest.raises(ValueError, match="floor"):
        pmpo(torch.tensor(LOGP), LABEL, KL, floor=-0.1)


# Sweeps


def test_alpha_and_beta_may_differ_from_run_to_run():
    logp = torch.tensor(LOGP).expand(2, 4)
    loss, metrics = pmpo(
        logp,
        LABEL,
        KL.expand(2),
        alpha=torch.tensor([[0.6], [1.0]]),
        beta=torch.tensor([[0.5], [2.0]]),
        normalize="set",
    )
    assert loss.tolist() == pytest.approx([-0.55, 1.5 + 0.6])
    assert all(value.shape == (2,) for value in metrics.values())


def test_a_sweep_needs_no_copies_of_the_batch():
    loss, metrics = pmpo(torch.tensor(LOGP), LABEL, KL, beta=torch.tensor([[0.5], [1.0], [2.0]]))
    alone = [pmpo(torch.tensor(LOGP), LABEL, KL, beta=beta)[0].item() for beta in (0.5, 1.0, 2.0)]
    assert loss.tolist() == pytest.approx(alone)
    assert metrics["kl"].shape == (3,)


def test_reject_mass_and_floor_may_differ_from_run_to_run():
    logp, label = torch.randn(2, 4, 64, generator=torch.Generator().manual_seed(0))
    label = label.sign()
    kl, mass, floor = torch.rand(4), torch.tensor([1.0, 0.5, 0.2, 0.9]), torch.tensor([0.0, 1e-9, 0.1, 0.0])
    together, _ = pmpo(logp, label, kl, reject_mass=mass.unsqueeze(-1), floor=floor.unsqueeze(-1))
    for run in range(4):
        alone, _ = pmpo(logp[run], label[run], kl[run], reject_mass=mass[run].item(), floor=floor[run].item())
        torch.testing.assert_close(together[run], alone, rtol=1e-6, atol=1e-7)
    for name in ("reject_mass", "floor"):
        with pytest.raises(ValueError, match=r"\(\*runs, 1\)"):
            pmpo(logp, label, kl, **{name: torch.ones(4)})


@pytest.mark.parametrize("normalize", ["set", "joint"])
def test_gradients_in_double_precision(normalize: str):
    logp = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    kl = torch.rand(2, dtype=torch.float64, requires_grad=True)
    label = torch.tensor([1.0, 1.0, -1.0, -1.0, -1.0, 0.0])
    settings = {"alpha": 0.3, "reject_mass": 0.4, "floor": torch.tensor([[0.0], [0.2]]), "normalize": normalize}
    assert torch.autograd.gradcheck(lambda *x: pmpo(x[0], label, x[1], **settings)[0], (logp, kl))


def test_infinite_rows_without_a_say_change_nothing():
    clean = loss_and_gradient(LABEL, alpha=0.6, beta=0.5)
    dirty = loss_and_gradient(LABEL, [-1.0, -2.0, -4.0, -math.inf], alpha=0.6, beta=0.5)
    assert dirty == clean
    # A coefficient of zero switches its class off as well: alpha = 0 ignores the accepts, alpha = 1 the rejects.
    loss, gradient = loss_and_gradient(LABEL, [-math.inf, -2.0, -4.0, -0.5], alpha=0.0, normalize="set")
    assert (loss, gradient) == (pytest.approx(-4.0 + 0.3), [0.0, 0.0, 1.0, 0.0])
    loss, gradient = loss_and_gradient(LABEL, [-1.0, -2.0, -math.inf, -0.5], alpha=1.0, normalize="set")
    assert (loss, gradient) == (pytest.approx(1.5 + 0.3), [-0.5, -0.5, 0.0, 0.0])


def test_mistaken_arguments_are_refused():
    logp = torch.tensor(LOGP)
    with pytest.raises(ValueError, match="joint"):
        pmpo(logp, LABEL, KL, normalize="mean")
    with pytest.raises(ValueError, match="average it over the rows"):
        pmpo(logp, LABEL, KL.expand(4))


def test_alpha_and_beta_count_only_as_a_sum_where_every_row_is_labelled():
    logp = torch.randn(9, dtype=torch.float64, requires_grad=True)
    label = torch.tensor([1.0, -1, -1, 1, -1, -1, -1, 1, -1], dtype=torch.float64)
    gradients = [
        torch.autograd.grad(pmpo(logp, label, -logp.mean(), alpha=alpha, beta=0.8 - alpha)[0], logp)[0]
        for alpha in (0.0, 0.3, 0.8)
    ]
    by_hand = torch.where(label > 0, -0.8, 0.2) / 9  # an accept weighs alpha + beta, a reject beta - (1 - alpha)
    for gradient in gradients:
        torch.testing.assert_close(gradient, by_hand.to(gradient))
