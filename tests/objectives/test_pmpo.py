"""PMPO against numbers worked out by hand, its one-class limits and the direction of its gradient."""

import math

import pytest
import torch
from torch import Tensor

from pmpo_offline.objectives import bc, pmpo

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
