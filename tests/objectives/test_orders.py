"""Alpha- and Renyi divergences: against 80 digits and quadrature, at their Kullback-Leibler limits and near them."""

import decimal
import itertools
import math
from decimal import Decimal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from torch import Tensor

from pmpo_offline.objectives.divergences import (
    categorical_alpha,
    categorical_kl,
    categorical_renyi,
    gaussian_alpha,
    gaussian_kl,
    gaussian_renyi,
    sampled_alpha,
    sampled_renyi,
)

ORDERS = (0.0, 1e-30, 1e-7, 1e-5, 1e-3, 0.3, 0.5, 0.7, 1 - 1e-3, 1 - 1e-5, 1 - 1e-7, 1.0)
NEAR_THE_ENDS = (1e-7, 1e-5, 1 - 1e-5, 1 - 1e-7)
CLOSED = {"categorical": (categorical_kl, categorical_alpha, categorical_renyi)} | {
    "gaussian": (gaussian_kl, gaussian_alpha, gaussian_renyi)
}
closed_forms = pytest.mark.parametrize("family", CLOSED)


def random_pair(family: str, *shape: int, seed: int = 0, spread: float = 1.0) -> tuple[Tensor, ...]:
    """Two distributions of a family, as the arguments of its divergences, in double precision."""
    draw = torch.randn((4, *shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * spread
    return tuple(draw[:2].log_softmax(-1)) if family == "categorical" else tuple(draw)


def swapped(pair: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    half = len(pair) // 2
    return pair[half:] + pair[:half]


# Values


@pytest.mark.parametrize("order", ORDERS[1:-1])
def test_categorical_against_eighty_digits(order: float):
    """The defining formula, which at order 1e-7 multiplies rounding by 1e7: here it has the digits to spare."""
    logits = torch.randn(2, 2, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for p, q in logits.log_softmax(-1):
        with decimal.localcontext(prec=80):
            a = Decimal(order)
            # the 64-bit numbers sum to 1 only to 16 digits, and the formula needs all of them
            exact_p, exact_q = ([Decimal(x).exp() for x in log.tolist()] for log in (p, q))
            exact_p, exact_q = ([x / sum(each) for x in each] for each in (exact_p, exact_q))
            moment = sum(((a * x.ln() + (1 - a) * y.ln()).exp() for x, y in zip(exact_p, exact_q, strict=True)))
            alpha, renyi = float((1 - moment) / (a * (1 - a))), float(-moment.ln() / (1 - a))
        assert categorical_alpha(p, q, order).item() == pytest.approx(alpha, rel=1e-12)
        assert categorical_renyi(p, q, order).item() == pytest.approx(renyi, rel=1e-12)
        assert categorical_alpha(p.float(), q.float(), order).item() == pytest.approx(alpha, rel=2e-6)
        assert categorical_renyi(p.float(), q.float(), order).item() == pytest.approx(renyi, rel=2e-6)


@pytest.mark.parametrize("order", ORDERS[2:-2])
def test_gaussian_against_quadrature(order: float):
    for mean_p, std_p, mean_q, std_q in [(0.3, 0.8, -0.4, 1.3), (0.0, 1.5, 1.0, 0.6)]:

        def less_than_average(y: float) -> float:
            """The integrand a p + (1 - a) q - p^a q^(1-a), nowhere negative, in a form that keeps its digits."""
            p, q = (-(((y - m) / s) ** 2) / 2 - math.log(s) for m, s in ((mean_p, std_p), (mean_q, std_q)))  # noqa: B023
            density, ratio = math.exp(p) / math.sqrt(2 * math.pi), q - p
            if order >= 0.5:
                return density * ((1 - order) * math.expm1(ratio) - math.expm1((1 - order) * ratio))
            return density * math.exp(ratio) * (order * math.expm1(-ratio) - math.expm1(-order * ratio))

        lost = quad(less_than_average, -12, 12, epsabs=0, epsrel=1e-9, limit=200)[0]
        alpha, renyi = lost / (order * (1 - order)), -math.log1p(-lost) / (1 - order)
        wide = torch.tensor([mean_p, math.log(std_p), mean_q, math.log(std_q)], dtype=torch.float64).unsqueeze(-1)
        narrow = wide.float()
        assert gaussian_alpha(*wide, order).item() == pytest.approx(alpha, rel=1e-8)
        assert gaussian_renyi(*wide, order).item() == pytest.approx(renyi, rel=1e-8)
        assert gaussian_alpha(*narrow, order).item() == pytest.approx(alpha, rel=2e-6)
        assert gaussian_renyi(*narrow, order).item() == pytest.approx(renyi, rel=2e-6)


def test_half_way_by_hand():
    p, q = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.9, 0.1]).log()
    affinity = math.sqrt(0.45) + math.sqrt(0.05)  # .894427
    assert categorical_alpha(p, q, 0.5).item() == pytest.approx(4 * (1 - affinity))
    assert categorical_renyi(p, q, 0.5).item() == pytest.approx(-2 * math.log(affinity))
    # N(0, 1) and N(2, 1): the affinity is exp(-2^2 / 8)
    gap = [torch.tensor([x]) for x in (0.0, 0.0, 2.0, 0.0)]
    assert gaussian_alpha(*gap, 0.5).item() == pytest.approx(4 * (1 - math.exp(-0.5)))
    assert gaussian_renyi(*gap, 0.5).item() == pytest.approx(1.0)


@closed_forms
@pytest.mark.parametrize("order", ORDERS)
def test_they_are_per_row_and_symmetric_in_the_order(family: str, order: float):
    """D_a(p || q) = D_(1-a)(q || p) and (1 - a) R_a(p || q) = a R_(1-a)(q || p)."""
    _, alpha, renyi = CLOSED[family]
    pair = random_pair(family, 7, 3)
    assert alpha(*pair, order).shape == renyi(*pair, order).shape == (7,)
    torch.testing.assert_close(alpha(*pair, order), alpha(*swapped(pair), 1 - order), rtol=1e-9, atol=0)
    if 1e-20 < order < 1:
        torch.testing.assert_close(
            (1 - order) * renyi(*pair, order), order * renyi(*swapped(pair), 1 - order), rtol=1e-9, atol=0
        )


# Limits


@closed_forms
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_ends_are_the_divergences_of_kullback_and_leibler_bit_for_bit(family: str, dtype: torch.dtype):
    kl, alpha, renyi = CLOSED[family]
    pair = tuple(x.to(dtype) for x in random_pair(family, 50, 4))

    def with_gradient(function, *arguments: Tensor) -> list[Tensor]:
        leaves = [x.clone().requires_grad_() for x in arguments]
        value = function(*leaves)
        return [value.detach(), *torch.autograd.grad(value.sum(), leaves)]

    forward, reverse = with_gradient(kl, *pair), with_gradient(kl, *swapped(pair))
    reverse = [reverse[0], *swapped(tuple(reverse[1:]))]
    for order in (1.0, torch.ones(1, dtype=dtype), 1 - 1e-14):
        torch.testing.assert_close(with_gradient(lambda *x, a=order: alpha(*x, a), *pair), forward, rtol=0, atol=0)
        torch.testing.assert_close(with_gradient(lambda *x, a=order: renyi(*x, a), *pair), forward, rtol=0, atol=0)
    for order in (0.0, torch.zeros(1, dtype=dtype), 1e-14):
        torch.testing.assert_close(with_gradient(lambda *x, a=order: alpha(*x, a), *pair), reverse, rtol=0, atol=0)
        assert not renyi(*pair, order).any()


@closed_forms
@pytest.mark.parametrize("order", NEAR_THE_ENDS)
@pytest.mark.parametrize("spread", [0.01, 0.3, 1.0, 3.0])
def test_near_an_end_single_precision_has_all_its_digits(family: str, order: float, spread: float):
    """The report's defect: at 1e-5 the literal formula is wrong in the third digit, at 1e-7 it has none left."""
    kl, *both = CLOSED[family]
    pair = random_pair(family, 200, 4, seed=2, spread=spread)

    def with_gradient(function, dtype: torch.dtype) -> list[Tensor]:
        leaves = [x.to(dtype).clone().requires_grad_() for x in pair]
        value = function(*leaves, order)
        return [x.detach().double() for x in (value, *torch.autograd.grad(value.sum(), leaves))]

    for function in both:
        single, double = with_gradient(function, torch.float32), with_gradient(function, torch.float64)
        torch.testing.assert_close(single[0], double[0], rtol=3e-6, atol=2e-7)
        torch.testing.assert_close(single[1:], double[1:], rtol=1e-4, atol=1e-5)
    end = kl(*pair) if order > 0.5 else kl(*swapped(pair))
    ours = both[0](*pair, order)
    assert ((ours - end).abs() <= 2 * min(order, 1 - order) * (end + 1) ** 2 * 100).all()


@pytest.mark.parametrize("order", NEAR_THE_ENDS)
def test_the_literal_formula_would_not_do(order: float):
    p, q = (x.float() for x in random_pair("categorical", 200, 4, seed=2))
    literal = (1 - (order * p + (1 - order) * q).exp().sum(-1)) / (order * (1 - order))
    exact = categorical_alpha(p.double(), q.double(), order)
    assert (literal - exact).abs().max() > 1e-3 > 1e3 * (categorical_alpha(p, q, order) - exact).abs().max()


# Laws

simplex = st.lists(st.floats(-8, 8), min_size=4, max_size=4).map(lambda x: torch.tensor(x).double().log_softmax(-1))
gaussian = st.lists(st.floats(-2, 2), min_size=4, max_size=4).map(lambda x: torch.tensor(x).double().reshape(2, 2))
order = st.floats(0, 1)


@given(p=simplex, q=simplex, gaussian_p=gaussian, gaussian_q=gaussian, order=order)
def test_never_negative_and_zero_between_equals(p: Tensor, q: Tensor, gaussian_p: Tensor, gaussian_q: Tensor, order):
    for function in (categorical_alpha, categorical_renyi):
        assert function(p, q, order) >= -1e-14
        assert function(p, p, order) == 0
    for function in (gaussian_alpha, gaussian_renyi):
        assert function(*gaussian_p, *gaussian_q, order) >= -1e-14
        assert function(*gaussian_p, *gaussian_p, order) == 0


@given(p=simplex, shift=st.floats(0.05, 3), order=st.floats(0.01, 1))
def test_only_equals_are_zero(p: Tensor, shift: float, order: float):
    q = (p + shift * torch.tensor([1, 0, 0, -1])).log_softmax(-1)
    assert categorical_alpha(p, q, order) > 1e-9 * shift**2
    assert categorical_renyi(p, q, order) > 1e-11 * shift**2


@given(p=simplex, q=simplex, gaussian_p=gaussian, gaussian_q=gaussian, orders=st.tuples(order, order).map(sorted))
def test_renyi_grows_with_the_order(p: Tensor, q: Tensor, gaussian_p: Tensor, gaussian_q: Tensor, orders: list[float]):
    for renyi, pair in ((categorical_renyi, (p, q)), (gaussian_renyi, (*gaussian_p, *gaussian_q))):
        lower, higher = (renyi(*pair, order) for order in orders)
        assert lower <= higher * (1 + 1e-12) + 1e-14
        assert higher <= (categorical_kl(p, q) if len(pair) == 2 else gaussian_kl(*pair)) * (1 + 1e-12) + 1e-14


@given(p=simplex, q=simplex, order=order, outcomes=st.permutations(range(4)))
def test_the_order_of_the_outcomes_does_not_matter(p: Tensor, q: Tensor, order: float, outcomes: list[int]):
    for function in (categorical_alpha, categorical_renyi):
        torch.testing.assert_close(
            function(p[outcomes], q[outcomes], order), function(p, q, order), rtol=1e-9, atol=1e-14
        )


@given(p=simplex, q=simplex, order=order)
def test_alpha_and_renyi_say_the_same(p: Tensor, q: Tensor, order: float):
    alpha, renyi = categorical_alpha(p, q, order), categorical_renyi(p, q, order)
    if 1e-9 < order < 1 - 1e-9:
        torch.testing.assert_close(-torch.expm1(-(1 - order) * renyi) / (order * (1 - order)), alpha)


def test_renyi_adds_up_over_dimensions_and_alpha_does_not():
    pair = random_pair("gaussian", 3)
    alone = [tuple(x[d : d + 1] for x in pair) for d in range(3)]
    torch.testing.assert_close(gaussian_renyi(*pair, 0.3), sum(gaussian_renyi(*one, 0.3) for one in alone))
    assert gaussian_alpha(*pair, 0.3) < sum(gaussian_alpha(*one, 0.3) for one in alone)


@closed_forms
@pytest.mark.parametrize("order", [0.0, 1e-5, 0.2, 0.5, 0.8, 1 - 1e-5, 1.0])
def test_gradients_in_double_precision(family: str, order: float):
    pair = tuple(x.requires_grad_() for x in random_pair(family, 3, 2))
    for function in CLOSED[family][1:]:
        assert torch.autograd.gradcheck(lambda *x, f=function: f(*x, order), pair, atol=1e-6)


# Outcomes without probability, and numbers far out


def test_outcomes_that_one_lacks():
    narrow, wide = torch.tensor([1.0, 0.0]).double().log(), torch.tensor([0.25, 0.75]).double().log()
    for order in (0.2, 0.5, 0.8):
        moment = 0.25 ** (1 - order)
        assert categorical_alpha(narrow, wide, order).item() == pytest.approx((1 - moment) / (order * (1 - order)))
        assert categorical_renyi(narrow, wide, order).item() == pytest.approx(math.log(4))
    assert categorical_alpha(narrow, wide, 1.0).item() == pytest.approx(math.log(4))
    assert categorical_alpha(narrow, wide, 0.0).item() == math.inf
    assert categorical_renyi(narrow, wide, 0.0).item() == pytest.approx(math.log(4))  # -log q(p > 0)
    assert categorical_renyi(wide, narrow, 0.0).item() == 0.0


def test_nothing_in_common():
    left, right = torch.tensor([1.0, 0.0]).log(), torch.tensor([0.0, 1.0]).log().requires_grad_()
    alpha, renyi = categorical_alpha(left, right, 0.25), categorical_renyi(left, right, 0.25)
    renyi.backward()
    assert alpha.item() == pytest.approx(1 / (0.25 * 0.75))
    assert renyi.item() == math.inf
    assert right.grad.tolist() == [0.0, 0.0]


def test_tiny_moments_keep_their_logarithm():
    p, q = torch.tensor([[0.0, -200.0], [-200.0, 0.0]])
    assert categorical_renyi(p, q, 0.5).item() == pytest.approx(2 * (100 - math.log(2)))
    assert categorical_renyi(p, q, 0.25).item() == pytest.approx(50 / 0.75)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("order", [0.0, 1e-300, 1e-7, 0.3, 0.5, 0.7, 1 - 1e-7, 1.0, "a stack of them"])
def test_nothing_becomes_no_number(dtype: torch.dtype, order: float | str):
    given = torch.tensor([[0.0], [1e-6], [0.5], [1 - 1e-6], [1.0]]) if isinstance(order, str) else order

    def check(functions: tuple, arguments: Tensor, finite: bool) -> None:
        """`arguments` holds every combination, (arguments, combinations, ...)."""
        for function in functions:
            leaf = arguments.clone().requires_grad_()
            value = function(*leaf.unsqueeze(1), given)  # a dimension of runs before that of combinations
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
            assert not value.isnan().any()
            assert not gradient.isnan().any()
            assert not finite or (value.isfinite().all() and gradient.isfinite().all())

    def combinations(*choices: list[float]) -> Tensor:
        return torch.tensor(list(itertools.product(*choices)), dtype=dtype).T

    logits = combinations(*[[0.0, -1e30, -100.0, -math.inf]] * 4).unflatten(0, (2, 2))
    possible = (logits > -math.inf).any(1).all(0)
    logp = logits[..., possible].movedim(1, -1).log_softmax(-1)
    check((categorical_alpha, categorical_renyi), logp, finite=False)  # infinite where the divergence is
    moments = combinations([0.0, 1e6, -1e6], [-15.0, 0.0, 15.0], [0.0], [-15.0, 0.0, 15.0])
    check((gaussian_alpha, gaussian_renyi), moments.unsqueeze(-1), finite=True)
    rows = combinations(*[[0.0, -1e30, 1e30, -100.0, 100.0]] * 4).unflatten(0, (2, 2)).movedim(1, -1)
    given = given.unsqueeze(-1) if isinstance(given, Tensor) else given
    check((sampled_alpha, sampled_renyi), rows, finite=True)


# Shapes and arguments


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_order_for_each_run_equals_separate_runs(dtype: torch.dtype):
    orders = (0.0, 1e-5, 0.25, 0.5, 0.9, 1.0)
    stacked = torch.tensor(orders, dtype=torch.float64).unsqueeze(-1)
    for family, (_, *functions) in CLOSED.items():
        pair = tuple(x.to(dtype) for x in random_pair(family, len(orders), 5, 4))
        for function in functions:
            together = function(*pair, stacked)
            assert together.shape == (len(orders), 5)
            for run, order in enumerate(orders):
                assert torch.equal(together[run], function(*(x[run] for x in pair), order))
            assert torch.equal(function(*(x[0] for x in pair), stacked)[3], function(*(x[0] for x in pair), 0.5))
    rows = torch.randn(2, len(orders), 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    for function in (sampled_alpha, sampled_renyi):
        together = function(*rows, stacked)
        for run, order in enumerate(orders):
            torch.testing.assert_close(together[run], function(*rows[:, run], order), rtol=1e-6, atol=1e-7)


def test_half_precision_is_widened():
    pair = [x.bfloat16() for x in random_pair("gaussian", 3, 2)]
    for function in (gaussian_alpha, gaussian_renyi):
        assert function(*pair, 0.3).dtype == torch.float32
    for function in (categorical_alpha, categorical_renyi, sampled_alpha, sampled_renyi):
        assert function(*pair[:2], 0.3).dtype == torch.float32


@pytest.mark.parametrize("order", [-0.1, 1.1, math.nan, math.inf])
def test_orders_out_of_range_are_refused(order: float):
    rows = torch.zeros(2, 3)
    for function in (categorical_alpha, categorical_renyi, sampled_alpha, sampled_renyi):
        with pytest.raises(ValueError, match=r"lies in \[0, 1\]"):
            function(*rows, order)
    with pytest.raises(ValueError, match=r"lies in \[0, 1\]"):
        gaussian_alpha(rows, rows, rows, rows, order)


def test_orders_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"\(\*runs, 1\)"):
        categorical_alpha(torch.zeros(4, 3), torch.zeros(4, 3), torch.ones(4))


def test_they_compile_without_a_graph_break():
    pair, rows = random_pair("gaussian", 3, 2), random_pair("categorical", 3, 2)

    def every(order: float) -> list[Tensor]:
        closed = [gaussian_alpha(*pair, order), gaussian_renyi(*pair, order)]
        others = (categorical_alpha, categorical_renyi, sampled_alpha, sampled_renyi)
        return closed + [function(*rows, order) for function in others]

    torch.testing.assert_close(torch.compile(every, backend="eager", fullgraph=True)(0.3), every(0.3))
