"""Laws that every objective obeys, checked on all of OBJECTIVES and on the settings that change what is computed."""

import math

import pytest
import torch
from helpers.objective_cases import CASES, LABELLED, LEARNED, PAIRED, ROWS, Case, by_rows, every_case, learned, sample
from torch import Tensor

from pmpo_offline.objectives import OBJECTIVES, Objective


def raises(objective: Objective, gradient: Tensor) -> bool:
    """Whether descent raises every entry, or at least lowers none where an objective may be flat."""
    return bool((gradient <= 0 if "gradient everywhere" in objective.exempt else gradient < 0).all())


def drawn(*shape: int, below: int, seed: int = 0) -> Tensor:
    """Integers at random."""
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(seed))


# Values and gradients


@every_case
def test_gradients_in_double_precision(case: Case):
    inputs = {**sample(2), "reward_shift": torch.tensor([0.3, -0.1]).double()}  # one of the rows has no gradient
    leaves = learned(case.objective, inputs)
    assert torch.autograd.gradcheck(
        lambda *values: case({**inputs, **dict(zip(leaves, values, strict=True))})[0], tuple(leaves.values())
    )


@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_stacked_runs_equal_separate_runs(case: Case, dtype: torch.dtype):
    """To the last bit, in the loss, the metrics and the gradients, each run with settings of its own."""
    inputs = sample(2, 3, dtype=dtype)
    leaves = learned(case.objective, inputs)
    generator = torch.Generator().manual_seed(1)
    swept = {name: (torch.rand(2, 3, 1, generator=generator) * 0.8 + 0.1).to(dtype) for name in case.numbers}
    loss, metrics = case(inputs, **swept)
    gradients = torch.autograd.grad(loss.sum(), list(leaves.values()))
    tolerance = {"rtol": 0, "atol": 0}
    if "exact stacking" in case.objective.exempt:
        tolerance = {"rtol": 1e-6, "atol": 1e-6}

    assert loss.shape == (2, 3)
    for run in ((i, j) for i in range(2) for j in range(3)):
        alone = {name: value[run].detach().clone() for name, value in inputs.items()}
        leaves_alone = learned(case.objective, alone)
        loss_alone, metrics_alone = case(alone, **{name: value[run].item() for name, value in swept.items()})
        gradients_alone = torch.autograd.grad(loss_alone, list(leaves_alone.values()))

        torch.testing.assert_close(loss[run], loss_alone, **tolerance)
        torch.testing.assert_close({name: value[run] for name, value in metrics.items()}, metrics_alone, **tolerance)
        torch.testing.assert_close([gradient[run] for gradient in gradients], list(gradients_alone), **tolerance)


@every_case
def test_a_sweep_needs_no_copies_of_the_batch(case: Case):
    inputs = sample()
    for name in case.numbers:
        values = [0.2, 0.5, 0.9]
        together = case(inputs, **{name: torch.tensor(values).double().unsqueeze(-1)})
        assert together[0].shape == (3,)
        for i, value in enumerate(values):
            loss, metrics = case(inputs, **{name: value})
            torch.testing.assert_close(together[0][i], loss)
            torch.testing.assert_close({key: each[i] for key, each in together[1].items()}, metrics)


@every_case
def test_the_order_of_the_rows_does_not_matter(case: Case):
    """Of 16 orders, stacked."""
    orders = torch.rand(16, ROWS, generator=torch.Generator().manual_seed(0)).argsort(-1)
    inputs = sample()
    ordered = {name: value[orders] if value.dim() else value.expand(16) for name, value in inputs.items()}
    torch.testing.assert_close(case(ordered)[0], case(inputs)[0].expand(16))


COUNTS = torch.cat([torch.tensor([[0] * ROWS, [0, 0, 0, 1, 0, 0], [3] * ROWS]), drawn(8, ROWS, below=4)])


@every_case
def test_a_weight_is_a_number_of_copies(case: Case):
    inputs = sample()
    for weight in COUNTS:
        copies = by_rows(inputs, torch.arange(ROWS).repeat_interleave(weight))
        torch.testing.assert_close(case(inputs, weight=weight), case(copies))


@every_case
def test_every_number_of_rows_and_of_runs(case: Case):
    shapes = [(0, ()), (0, (2,)), (0, (1, 3)), (1, ()), (1, (3, 2)), (2, (1,)), (5, (2,)), (9, ()), (9, (3, 3))]
    for seed, (batch, runs) in enumerate(shapes):
        rows, inputs = drawn(batch, below=ROWS, seed=seed), sample(*runs, seed=seed)
        inputs = {
            name: each.index_select(len(runs), rows) if each.dim() > len(runs) else each
            for name, each in inputs.items()
        }
        loss, metrics = case(inputs)
        assert loss.shape == runs
        assert loss.isfinite().all()
        assert all(value.isfinite().all() and value.shape == runs for value in metrics.values())


@pytest.mark.parametrize("name", LABELLED)
def test_accepts_rise_and_rejects_sink(name: str):
    """At the reference, where nothing is beyond a target."""
    inputs, objective = sample(), OBJECTIVES[name]
    inputs["ref_logp"] = inputs["logp"].clone()
    loss, _ = objective(inputs | learned(objective, inputs))
    loss.backward()
    gradient = inputs["logp"].grad
    assert (gradient[:2] == 0).all() if "accepts rise" in objective.exempt else raises(objective, gradient[:2])
    assert (gradient[2:4] <= 0).all() if "rejects sink" in objective.exempt else raises(objective, -gradient[2:4])


@pytest.mark.parametrize("name", PAIRED)
def test_at_the_reference_the_chosen_rise_and_the_rejected_sink(name: str):
    inputs = sample()
    inputs |= {"logp_chosen": inputs["ref_chosen"].clone(), "logp_rejected": inputs["ref_rejected"].clone()}
    leaves = learned(OBJECTIVES[name], inputs)
    OBJECTIVES[name](inputs)[0].backward()
    assert raises(OBJECTIVES[name], leaves["logp_chosen"].grad)
    assert raises(OBJECTIVES[name], -leaves["logp_rejected"].grad)


@every_case
def test_only_what_the_policy_gives_has_a_gradient(case: Case):
    """A reference, labels and learned values that require one are read, and left alone."""
    counted = {name: value for name, value in sample(2).items() if name.startswith("length")}
    inputs = {name: value.clone().requires_grad_() for name, value in sample(2).items()} | counted
    case(inputs)[0].sum().backward()
    taught = {name for name, value in inputs.items() if value.grad is not None and value.grad.any()}
    assert taught == set(case.objective.inputs.values()) & {*LEARNED, "policy_value"}


@pytest.mark.parametrize("name", LABELLED)
def test_a_bool_label_is_accept_or_reject(name: str):
    inputs = by_rows(sample(), torch.arange(4))
    torch.testing.assert_close(OBJECTIVES[name]({**inputs, "label": inputs["label"] > 0}), OBJECTIVES[name](inputs))


# Classes and rows that are missing


def taught_by_both(case: Case) -> Tensor:
    """Which rows have a gradient where both classes are there."""
    inputs = sample()
    leaves = learned(case.objective, inputs)
    case(inputs)[0].backward()
    return leaves["logp"].grad != 0


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.objective.name in LABELLED])
@pytest.mark.parametrize("present", [(1.0,), (-1.0,), ()], ids=["accepts only", "rejects only", "no labels"])
def test_an_absent_class_contributes_zero(name: str, present: tuple[float, ...]):
    inputs, case = sample(), CASES[name]
    inputs["divergence"] = torch.zeros((), dtype=torch.float64)
    inputs["label"] = torch.where(
        sum((inputs["label"] == sign for sign in present), torch.zeros(ROWS)) > 0, inputs["label"], 0
    )
    leaves = learned(case.objective, inputs)
    loss, metrics = case(inputs)
    loss.backward()
    taught = ((inputs["label"] != 0) | ("unlabelled rows" in case.objective.exempt)) & taught_by_both(case)
    if "one class teaches" in case.objective.exempt:
        taught &= False

    assert loss.isfinite()
    assert all(value.isfinite() for value in metrics.values())
    pushed = leaves["logp"].grad != 0
    if "unlabelled rows" not in case.objective.exempt:
        assert not (pushed & ~taught).any()
    assert "gradient everywhere" in case.objective.exempt or (pushed | ~taught).all()
    if "accept_logp" in metrics:
        of = inputs.get("conditional_logp" if "conditional_logp" in case.objective.inputs else "logp")
        assert metrics["accept_logp"] == (of[:2].mean() if 1.0 in present else 0)
    if not taught.any():
        assert loss == 0


@pytest.mark.parametrize("name", [name for name in LABELLED if "unlabelled rows" not in OBJECTIVES[name].exempt])
def test_unlabelled_rows_have_no_gradient_and_may_hold_anything(name: str):
    inputs = sample()
    inputs["logp"] = inputs["logp"].index_fill(0, torch.tensor([4, 5]), -math.inf)
    inputs["ref_logp"] = inputs["ref_logp"].index_fill(0, torch.tensor([4, 5]), -math.inf)
    leaves = learned(OBJECTIVES[name], inputs)
    loss, metrics = OBJECTIVES[name](inputs)
    loss.backward()
    assert loss.isfinite()
    assert all(value.isfinite() for value in metrics.values())
    assert leaves["logp"].grad[:4].any()
    assert leaves["logp"].grad.isfinite().all()
    assert leaves["logp"].grad[4:].tolist() == [0.0, 0.0]


@every_case
@pytest.mark.parametrize("rubbish", [-math.inf, math.inf, math.nan])
def test_rows_of_weight_zero_may_hold_anything(case: Case, rubbish: float):
    inputs = sample()
    clean = case(by_rows(inputs, torch.tensor([0, 1, 2, 3])))
    weight = torch.tensor([1, 1, 1, 1, 0, 0])
    inputs = {
        name: value.index_fill(0, torch.tensor([4, 5]), rubbish) if value.dim() else value
        for name, value in inputs.items()
    }
    leaves = learned(case.objective, inputs)
    loss, metrics = case(inputs, weight=weight)
    loss.backward()

    torch.testing.assert_close((loss, metrics), clean)
    assert all(not leaf.grad[4:].any() for leaf in leaves.values() if leaf.dim())
    assert all(leaf.grad.isfinite().all() for leaf in leaves.values())


@every_case
def test_nothing_to_learn_from_is_zero(case: Case):
    inputs = {**sample(3), "divergence": torch.zeros(3)}
    leaves = learned(case.objective, inputs)
    loss, metrics = case(inputs, weight=torch.zeros(3, ROWS))
    loss.sum().backward()
    assert loss.tolist() == [0.0, 0.0, 0.0]
    assert all(value.isfinite().all() for value in metrics.values())
    assert all(not leaf.grad.any() for leaf in leaves.values() if leaf.dim() > 1)


# Numbers that are large, narrow or of the wrong shape


@every_case
def test_extreme_log_probabilities_stay_finite(case: Case):
    """In 64 batches, stacked."""
    far = 1e15 if "extreme values" in case.objective.exempt else 1e30
    extreme = torch.tensor([-far, far, -1.0, 0.0])
    inputs = sample(64, dtype=torch.float32)
    for seed, (name, value) in enumerate(inputs.items()):
        if value.dim() > 1 and name not in ("label", "accept_rate"):
            inputs[name] = extreme[drawn(*value.shape, below=4, seed=seed)]
    leaves = learned(case.objective, inputs)
    loss, metrics = case(inputs)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert all(value.isfinite().all() for value in metrics.values())
    assert all(leaf.grad.isfinite().all() for leaf in leaves.values())


@every_case
@pytest.mark.parametrize("row", range(ROWS))
def test_an_outcome_that_policy_or_reference_no_longer_gives_is_no_nan(case: Case, row: int):
    """The loss may be infinite; NaN would say nothing of where it comes from."""
    for name in {name for name in case.objective.inputs.values() if "logp" in name or name.startswith("ref_")}:
        inputs = sample()
        inputs[name] = inputs[name].index_fill(0, torch.tensor(row), -math.inf)
        leaves = learned(case.objective, inputs)
        loss, metrics = case(inputs)
        assert not loss.isnan(), name
        assert not any(value.isnan() for value in metrics.values()), name
        loss.backward()
        assert all(leaf.grad.isfinite().all() for leaf in leaves.values()), name


@every_case
def test_half_precision_is_widened(case: Case):
    narrow = sample(2, dtype=torch.bfloat16)
    loss, metrics = case(narrow)
    wide = {name: value.float() for name, value in narrow.items()}
    assert loss.dtype == torch.float32
    assert all(value.dtype == torch.float32 for value in metrics.values())
    torch.testing.assert_close((loss, metrics), case(wide))


@every_case
def test_metrics_are_detached_and_shaped_as_the_loss(case: Case):
    inputs = sample(2, 3)
    learned(case.objective, inputs)
    loss, metrics = case(inputs)
    assert loss.requires_grad
    assert all(not value.requires_grad and value.shape == (2, 3) for value in metrics.values())


@every_case
def test_settings_of_another_shape_are_refused(case: Case):
    for name in case.numbers:
        with pytest.raises(ValueError, match=r"\(\*runs, 1\)"):
            case(sample(ROWS), **{name: torch.ones(ROWS)})  # would pair runs with rows without a word


def test_every_objective_compiles_without_a_graph_break():
    """In one graph, which takes half of the time; the error shows the line that breaks it."""
    inputs = sample(2)
    compiled = torch.compile(
        lambda values: {name: case(values) for name, case in CASES.items()}, backend="eager", fullgraph=True
    )
    for name, found in compiled(inputs).items():
        torch.testing.assert_close(found, CASES[name](inputs), msg=lambda text, name=name: f"{name}: {text}")
