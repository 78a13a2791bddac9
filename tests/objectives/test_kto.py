"""KTO against numbers worked out by hand."""

import math

import pytest
import torch

from pmpo_offline.objectives import kto

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
