"""BCO against numbers worked out by hand, DPO (which it bounds) and its optimum."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pmpo_offline.objectives import OBJECTIVES, bco, bco_shift, dpo

LN2, LN3 = math.log(2), math.log(3)
REF = torch.tensor([-1.0, -2.0, -3.0])
LABEL = torch.tensor([1.0, -1.0, 0.0])
SURE = -math.log(0.75)  # -log sigmoid(ln 3) = .287682


def test_three_rows_by_hand():
    # r = 4 ln3 and 0, so that the shift at beta 1/2 is ln3 and both classes lie ln3 on their side of it
    logp = (REF + torch.tensor([4 * LN3, 0.0, 9.0])).requires_grad_()
    loss, metrics = bco(logp, REF, LABEL, beta=0.5)
    loss.backward()
    assert loss.item() == pytest.approx(2 * SURE)
    assert logp.grad.tolist() == pytest.approx([-0.125, 0.125, 0.0])  # .5 (1 - 3/4), and no gradient of the shift
    assert metrics["shift"].item() == pytest.approx(LN3)
    assert metrics["accept_reward"].item() == pytest.approx(2 * LN3)
    assert metrics["reject_reward"].item() == pytest.approx(0.0, abs=1e-6)


def test_each_class_is_averaged_over_its_own_rows():
    # accepts at ln3 and 0, a reject at 0, shift 0: (-ln .75 + ln 2) / 2 + ln 2
    logp = REF + torch.tensor([LN3, 0.0, 0.0])
    loss, _ = bco(logp, REF, torch.tensor([1.0, 1.0, -1.0]), beta=1.0, shift=torch.tensor(0.0))
    assert loss.item() == pytest.approx((SURE + LN2) / 2 + LN2)


def test_the_shift_is_half_way_between_the_classes_whatever_their_sizes():
    reward = torch.tensor([1.0, 2.0, 3.0, -6.0])
    _, metrics = bco(reward, torch.zeros(4), torch.tensor([1.0, 1.0, 1.0, -1.0]), beta=1.0)
    assert metrics["shift"].item() == pytest.approx(-2.0)  # (2 - 6) / 2


def test_the_shift_of_all_rows_makes_parts_the_whole():
    logp = torch.tensor([0.5, -1.0, 2.0, -3.0])
    ref, label = torch.zeros(4), torch.tensor([1.0, -1.0, 1.0, -1.0])
    shift = bco_shift(logp.requires_grad_(), ref, label, beta=2.0)
    assert shift.item() == pytest.approx(2 * (1.25 - 2.0) / 2)
    assert not shift.requires_grad
    whole, _ = bco(logp, ref, label, beta=2.0)
    given = {"logp": logp, "ref_logp": ref, "label": label, "reward_shift": shift}
    halves = [
        OBJECTIVES["bco"]({name: each[half] if each.dim() else each for name, each in given.items()}, beta=2.0)[0]
        for half in (slice(2), slice(2, 4))
    ]
    assert torch.stack(halves).mean().item() == pytest.approx(whole.item())
    alone = [bco(logp[half], ref[half], label[half], beta=2.0)[0] for half in (slice(2), slice(2, 4))]
    assert torch.stack(alone).mean().item() != pytest.approx(whole.item(), rel=1e-3)


def test_a_running_shift_may_be_given_and_carries_no_gradient():
    shift = torch.tensor([0.0, LN3], requires_grad=True)
    logp = (REF + LN3).expand(2, 3).clone().requires_grad_()
    loss, metrics = bco(logp, REF, LABEL, beta=1.0, shift=shift)
    loss.sum().backward()
    assert loss.tolist() == pytest.approx([SURE - math.log(0.25), 2 * LN2])
    assert metrics["shift"].tolist() == pytest.approx([0.0, LN3])
    assert shift.grad is None


def test_one_class_and_no_class():
    """An absent class adds nothing, to the shift neither: the rows lie around their own mean."""

    def of(label: list[float]) -> tuple[float, float]:
        loss, metrics = bco(REF + LN3, REF, torch.tensor(label), beta=1.0)
        return loss.item(), metrics["shift"].item()

    assert of([1.0, 1.0, 1.0]) == pytest.approx((LN2, LN3))
    assert of([-1.0, -1.0, 0.0]) == pytest.approx((LN2, LN3))
    assert of([0.0, 0.0, 0.0]) == (0.0, 0.0)


rewards = st.lists(st.floats(-30, 30), min_size=1, max_size=5)


@given(accepts=rewards, rejects=rewards, shift=st.floats(-30, 30))
def test_it_bounds_dpo_on_all_pairs_from_above(accepts: list[float], rejects: list[float], shift: float):
    """-log s(a - d) - log s(d - b) >= -log s(a - b) for every shift d, which is the paper's theorem."""
    reward = torch.tensor(accepts + rejects, dtype=torch.float64)
    label = torch.tensor([1.0] * len(accepts) + [-1.0] * len(rejects))
    a, b = torch.cartesian_prod(reward[: len(accepts)], reward[len(accepts) :]).T
    pairs, _ = dpo(a, b, torch.zeros(len(a)), torch.zeros(len(a)), beta=1.0)
    zero = torch.zeros(len(reward))
    assert bco(reward, zero, label, beta=1.0)[0] >= pairs - 1e-9
    assert bco(reward, zero, label, beta=1.0, shift=torch.tensor(shift))[0] >= pairs - 1e-9


def test_the_optimum_is_the_log_odds_of_the_classes():
    """A table of outcomes with labels at random: s(r - shift) = P(accept) / (P(accept) + P(reject)), class by class."""
    accept, reject = torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]], dtype=torch.float64)  # given the class
    reward = (accept / reject).log().requires_grad_()
    weight, label = torch.cat([accept, reject]), torch.tensor([1.0] * 3 + [-1.0] * 3)
    loss, _ = bco(reward.repeat(2), torch.zeros(6), label, beta=1.0, shift=torch.tensor(0.0), weight=weight)
    loss.backward()
    assert reward.grad.abs().max() < 1e-12


def test_an_unreduced_shift_is_refused():
    with pytest.raises(ValueError, match=r"average it over the rows"):
        bco(REF, REF, LABEL, shift=torch.zeros(3))


def test_it_is_finite_where_the_policy_gives_an_outcome_no_more():
    """A reject at -inf is done with; an accept costs infinity, but nothing is NaN, the shift least of all."""
    logp = torch.tensor([-1.0, -math.inf, -2.0], requires_grad=True)
    loss, metrics = bco(logp, REF, torch.tensor([1.0, -1.0, -1.0]), beta=1.0)
    loss.backward()
    assert loss.isfinite()
    assert logp.grad.isfinite().all()
    assert logp.grad[1] == 0
    assert metrics["shift"].item() == pytest.approx(0.5)  # (0 + 1) / 2: of the rows that have a reward
    lost = torch.tensor([-math.inf, -1.0, -3.0], requires_grad=True)
    loss, metrics = bco(lost, REF, LABEL, beta=1.0)
    loss.backward()
    assert loss == math.inf
    assert lost.grad.tolist() == pytest.approx([-1.0, 0.5, 0.0])
    assert metrics["shift"].isfinite()
