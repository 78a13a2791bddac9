"""KTO against numbers worked out by hand."""

import math

import pytest
import torch

from pmpo_offline.objectives import OBJECTIVES, kto, kto_reference_point, kto_weight_range

LN3 = math.log(3)  # sigmoid(ln 3) = 3/4
REF = torch.tensor([-1.0, -2.0, -3.0])
LABEL = torch.tensor([1.0, -1.0, 0.0])


def test_three_rows_by_hand():
    # Accept and reject have r = 1 + ln3; with kl = 1: r - kl = ln3, so 1 - 3/4 and 1 - 1/4; the third is unlabelled.
    logp = (REF + 1 + LN3).requires_grad_()
    loss, metrics = kto(logp, REF, LABEL, kl=torch.tensor(1.0), beta=1.0, desirable_weight=2.0)
    loss.backward()
    assert loss.item() == pytest.approx(0.625)  # (2 * .25 + 1 * .75) / 2
    # d sigmoid = 3/4 * 1/4 = .1875, over 2 labelled rows
    assert logp.grad.tolist() == pytest.approx([-0.1875, 0.09375, 0.0])
    assert metrics["accept_reward"].item() == pytest.approx(1 + LN3)
    assert metrics["accept_logp"].item() == pytest.approx(LN3)
    assert metrics["reject_logp"].item() == pytest.approx(-1 + LN3)


def test_the_reference_point_is_clamped_and_carries_no_gradient():
    negative = torch.tensor(-3.0, requires_grad=True)
    loss, metrics = kto(REF.clone().requires_grad_(), REF, LABEL, kl=negative)
    loss.backward()
    assert loss.item() == pytest.approx(0.5)  # sigmoid(0) on both rows
    assert metrics["kl"].item() == 0.0
    assert negative.grad is None


def test_one_class_and_no_class():
    def of(label: list[float]) -> float:
        logp = REF + torch.tensor([LN3, LN3, LN3])
        return kto(logp, REF, torch.tensor(label), kl=torch.tensor(0.0), beta=1.0)[0].item()

    assert of([1.0, 1.0, 1.0]) == pytest.approx(0.25)
    assert of([-1.0, -1.0, -1.0]) == pytest.approx(0.75)
    assert of([0.0, 0.0, 0.0]) == 0.0


def test_far_from_the_reference_point_nothing_pulls_any_more():
    """The slope of a row is beta sigmoid' <= beta / 4, at most at the reference point: an outlier cannot run away."""
    logp = (REF[:1] + torch.tensor([0.0, 5.0, 50.0, -50.0])).requires_grad_()
    kto(logp, REF[:1].expand(4), torch.ones(4), kl=torch.tensor(0.0), beta=1.0)[0].backward()
    slopes = (-4 * logp.grad).tolist()
    assert slopes[0] == pytest.approx(0.25)
    assert slopes[1] == pytest.approx(0.006648, rel=1e-3)  # s(5) s(-5) = .993307 * .006693
    assert max(slopes[2:]) < 1e-20


def test_only_the_log_ratio_counts():
    logp, ref = torch.randn(2, 20, dtype=torch.float64)
    label, shift, kl = torch.randn(20).sign(), torch.randn(20, dtype=torch.float64), torch.tensor(0.2)
    torch.testing.assert_close(kto(logp, ref, label, kl=kl)[0], kto(logp + shift, ref + shift, label, kl=kl)[0])


def test_class_weights_may_differ_from_run_to_run():
    logp, kl = (REF + 1 + LN3).expand(2, 3), torch.ones(2)
    loss, _ = kto(logp, REF, LABEL, kl=kl, beta=1.0, undesirable_weight=torch.tensor([[1.0], [3.0]]))
    assert loss.tolist() == pytest.approx([0.5, 1.25])  # (.25 + .75)/2, (.25 + 3 * .75)/2


def test_an_unreduced_divergence_is_refused():
    with pytest.raises(ValueError, match="average it over the rows"):
        kto(REF, REF, LABEL, kl=torch.zeros(3))


# The reference point and the class weights


def test_reference_point_by_hand():
    logp, ref = (
        torch.tensor([[-1.0, -2.0], [-5.0, -1.0]], requires_grad=True),
        torch.tensor([[-2.0, -4.0], [-2.0, -2.0]]),
    )
    point = kto_reference_point(logp, ref)
    assert point.tolist() == [1.5, 0.0]  # (1 + 2) / 2, and max(0, (-3 + 1) / 2)
    assert not point.requires_grad
    weighted = kto_reference_point(logp, ref, weight=torch.tensor([1.0, 3.0]))
    assert weighted.tolist() == [1.75, 0.0]


def test_reference_point_of_nothing_is_zero():
    assert kto_reference_point(torch.zeros(2, 0), torch.zeros(2, 0)).tolist() == [0.0, 0.0]
    assert kto_reference_point(torch.tensor([math.nan]), torch.tensor([0.0]), weight=torch.zeros(1)) == 0


def test_reference_point_of_outcomes_of_the_policy_itself_estimates_the_divergence():
    """With contexts that do not matter, mismatched outcomes are samples of the policy: KL(N(1, 1) || N(0, 1)) = 1/2."""
    policy, reference = torch.distributions.Normal(1.0, 1.0), torch.distributions.Normal(0.0, 1.0)
    outcome = 1 + torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    point = kto_reference_point(policy.log_prob(outcome), reference.log_prob(outcome))
    assert point.item() == pytest.approx(0.5, abs=0.01)


def test_weight_range_by_hand():
    assert kto_weight_range(100, 300) == (3.0, 4.0)
    assert kto_weight_range(50, 50) == pytest.approx((1.0, 4 / 3))
    low, high = kto_weight_range(900, 100)
    assert (low * 900 / 100, high * 900 / 100) == pytest.approx((1.0, 4 / 3))
    assert low in OBJECTIVES["kto"].allowed["desirable_weight"]


@pytest.mark.parametrize("counts", [(0, 5), (5, 0), (0, 0), (math.nan, 5)])
def test_one_class_has_no_weight_range(counts: tuple[float, float]):
    with pytest.raises(ValueError, match="two classes"):
        kto_weight_range(*counts)
