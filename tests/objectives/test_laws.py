"""Laws that every objective obeys, checked on all of OBJECTIVES."""

import doctest
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pmpo_offline import objectives
from pmpo_offline.objectives import OBJECTIVES, Objective

ROWS, CANDIDATES = 6, 3
LEARNED = ("logp", "divergence", "group_logp", "logp_chosen", "logp_rejected")  # what depends on the policy
SWEPT = {"alpha", "beta", "temperature", "desirable_weight", "undesirable_weight"}

every_objective = pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES.keys())


def sample(*runs: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Every input of the vocabulary at random, three labels in equal parts."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn((*runs, *shape), generator=generator, dtype=torch.float64).to(dtype)

    rows = {
        name: draw(ROWS) - 2
        for name in ("logp", "ref_logp", "logp_chosen", "logp_rejected", "ref_chosen", "ref_rejected")
    }
    groups = {name: draw(ROWS, CANDIDATES) for name in ("group_logp", "group_score")}
    lengths = {name: draw(ROWS).abs() * 9 + 1 for name in ("length_chosen", "length_rejected")}
    label = torch.tensor([1.0, 1.0, -1.0, -1.0, 0.0, 0.0], dtype=dtype).expand(*runs, ROWS)
    once = {"advantage": draw(ROWS), "divergence": draw().square(), "policy_kl": draw().square()}
    return {**rows, **groups, **lengths, **once, "label": label}


def learned(objective: Objective, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The objective's inputs that carry a gradient, made leaves in place."""
    names = [name for name in objective.inputs.values() if name in LEARNED]
    inputs.update({name: inputs[name].clone().requires_grad_() for name in names})
    return {name: inputs[name] for name in names}


def by_rows(inputs: dict[str, Tensor], index: Tensor) -> dict[str, Tensor]:
    """A batch of these rows, for inputs without runs."""
    return {name: value[index] if value.dim() else value for name, value in inputs.items()}


@every_objective
def test_gradients_in_double_precision(objective: Objective):
    inputs = sample(2)
    leaves = learned(objective, inputs)
    assert torch.autograd.gradcheck(
        lambda *values: objective({**inputs, **dict(zip(leaves, values, strict=True))})[0], tuple(leaves.values())
    )


@every_objective
def test_stacked_runs_equal_separate_runs(objective: Objective):
    inputs = sample(2, 3)
    leaves = learned(objective, inputs)
    swept = {name: torch.rand(2, 3, 1, dtype=torch.float64) + 0.1 for name in objective.settings if name in SWEPT}
    loss, metrics = objective(inputs, **swept)
    gradients = torch.autograd.grad(loss.sum(), list(leaves.values()))

    assert loss.shape == (2, 3)
    for run in ((i, j) for i in range(2) for j in range(3)):
        alone = {name: value[run].detach() for name, value in inputs.items()}
        leaves_alone = learned(objective, alone)
        settings = {name: value[run].item() for name, value in swept.items()}
        loss_alone, metrics_alone = objective(alone, **settings)
        gradients_alone = torch.autograd.grad(loss_alone, list(leaves_alone.values()))

        torch.testing.assert_close(loss[run], loss_alone)
        torch.testing.assert_close({name: value[run] for name, value in metrics.items()}, metrics_alone)
        torch.testing.assert_close([gradient[run] for gradient in gradients], list(gradients_alone))


@every_objective
@given(order=st.permutations(range(ROWS)))
def test_the_order_of_the_rows_does_not_matter(objective: Objective, order: list[int]):
    inputs = sample()
    torch.testing.assert_close(objective(inputs)[0], objective(by_rows(inputs, torch.tensor(order)))[0])


@every_objective
@given(counts=st.lists(st.integers(0, 3), min_size=ROWS, max_size=ROWS))
def test_a_weight_is_a_number_of_copies(objective: Objective, counts: list[int]):
    inputs, weight = sample(), torch.tensor(counts)
    copies = by_rows(inputs, torch.arange(ROWS).repeat_interleave(weight))
    torch.testing.assert_close(objective(inputs, weight=weight), objective(copies))


@every_objective
@pytest.mark.parametrize("rubbish", [-math.inf, math.inf, math.nan])
def test_rows_of_weight_zero_may_hold_anything(objective: Objective, rubbish: float):
    inputs = sample()
    clean = objective(by_rows(inputs, torch.tensor([0, 1, 2, 3])))
    weight = torch.tensor([1, 1, 1, 1, 0, 0])
    inputs = {
        name: value.index_fill(0, torch.tensor([4, 5]), rubbish) if value.dim() else value
        for name, value in inputs.items()
    }
    leaves = learned(objective, inputs)
    loss, metrics = objective(inputs, weight=weight)
    loss.backward()

    torch.testing.assert_close((loss, metrics), clean)
    assert all(not leaf.grad[4:].any() for leaf in leaves.values() if leaf.dim())
    assert all(leaf.grad.isfinite().all() for leaf in leaves.values())


@pytest.mark.parametrize("name", ["pmpo", "kto"])
def test_unlabelled_rows_have_no_gradient_and_may_hold_anything(name: str):
    inputs = sample()
    inputs["logp"] = inputs["logp"].index_fill(0, torch.tensor([4, 5]), -math.inf)
    inputs["ref_logp"] = inputs["ref_logp"].index_fill(0, torch.tensor([4, 5]), -math.inf)
    leaves = learned(OBJECTIVES[name], inputs)
    loss, metrics = OBJECTIVES[name](inputs)
    loss.backward()
    assert loss.isfinite()
    assert all(value.isfinite() for value in metrics.values())
    assert leaves["logp"].grad[:4].all()
    assert leaves["logp"].grad[4:].tolist() == [0.0, 0.0]


@every_objective
def test_nothing_to_learn_from_is_zero(objective: Objective):
    inputs = {**sample(3), "divergence": torch.zeros(3)}
    leaves = learned(objective, inputs)
    loss, metrics = objective(inputs, weight=torch.zeros(3, ROWS))
    loss.sum().backward()
    assert loss.tolist() == [0.0, 0.0, 0.0]
    assert all(value.isfinite().all() for value in metrics.values())
    assert all(not leaf.grad.any() for leaf in leaves.values() if leaf.dim() > 1)


@every_objective
@given(st.data())
def test_extreme_log_probabilities_stay_finite(objective: Objective, data: st.DataObject):
    far = 1e15 if "ipo" in objective.name else 1e30  # IPO squares: float32 ends at 1e38
    extreme = st.sampled_from([-far, far, -1.0, 0.0])
    inputs = sample(dtype=torch.float32)
    for name, value in inputs.items():
        if value.dim() and name != "label":
            drawn = data.draw(st.lists(extreme, min_size=value.numel(), max_size=value.numel()), label=name)
            inputs[name] = torch.tensor(drawn).reshape(value.shape)
    leaves = learned(objective, inputs)
    loss, metrics = objective(inputs)
    loss.backward()
    assert loss.isfinite()
    assert all(value.isfinite() for value in metrics.values())
    assert all(leaf.grad.isfinite().all() for leaf in leaves.values())


@every_objective
def test_half_precision_is_widened(objective: Objective):
    narrow = sample(2, dtype=torch.bfloat16)
    loss, metrics = objective(narrow)
    wide = {name: value.float() for name, value in narrow.items()}
    assert loss.dtype == torch.float32
    torch.testing.assert_close((loss, metrics), objective(wide))


@every_objective
def test_metrics_are_detached_and_shaped_as_the_loss(objective: Objective):
    inputs = sample(2, 3)
    learned(objective, inputs)
    loss, metrics = objective(inputs)
    assert loss.requires_grad
    assert all(not value.requires_grad and value.shape == (2, 3) for value in metrics.values())


@every_objective
def test_settings_of_another_shape_are_refused(objective: Objective):
    for name in SWEPT & objective.settings.keys():
        with pytest.raises(ValueError, match=r"\(\*runs, 1\)"):
            objective(sample(ROWS), **{name: torch.ones(ROWS)})  # would pair runs with rows without a word


@every_objective
def test_every_objective_compiles_without_a_graph_break(objective: Objective):
    inputs = sample(2)
    torch.compiler.reset()  # the compiled lambda is one piece of code to it, and it keeps eight versions of one
    compiled = torch.compile(lambda values: objective(values), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(inputs), objective(inputs))


@every_objective
def test_declarations(objective: Objective):
    assert OBJECTIVES[objective.name] is objective
    assert set(objective.inputs.values()) <= sample().keys()
    assert objective(sample())[0].shape == ()


def test_only_pmpo_has_a_bound():
    assert [name for name, objective in OBJECTIVES.items() if objective.bound] == ["pmpo"]


def test_settings_of_the_caller_are_declared_and_kept_from_the_loss():
    pmpo = OBJECTIVES["pmpo"]
    assert pmpo.caller == {"divergence": "behavior", "order": 0.5, "over": "all"}
    assert pmpo.settings.items() >= {"alpha": 0.5, "beta": 1.0, "normalize": "joint", **pmpo.caller}.items()
    torch.testing.assert_close(pmpo(sample(), **pmpo.settings), pmpo(sample()))


def test_the_example_in_the_docstring():
    assert doctest.testmod(objectives) == (0, 4)  # failed, attempted
