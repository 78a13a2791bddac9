"""Laws that every objective obeys, checked on all of OBJECTIVES and on the settings that change what is computed."""

import doctest
import inspect
import math
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pmpo_offline import objectives
from pmpo_offline.objectives import OBJECTIVES, Objective
from pmpo_offline.training.control import batches

ROWS, CANDIDATES = 6, 3
LEARNED = (
    "logp",
    "conditional_logp",
    "own_logp",
    "divergence",
    "group_logp",
    "logp_chosen",
    "logp_rejected",
    "distance",
)
"""What depends on the policy; `policy_value` too, but TD3+BC divides by it without a gradient."""
LABELLED = [name for name, objective in OBJECTIVES.items() if "label" in objective.inputs.values()]
PAIRED = [name for name, objective in OBJECTIVES.items() if "logp_chosen" in objective.inputs.values()]
LAWS = (
    *("exact stacking", "accepts rise", "rejects sink", "one class teaches", "unlabelled rows"),
    *("extreme values", "gradient everywhere", "flipped labels"),
)
"""What an objective may be exempt from."""


@dataclass(frozen=True)
class Case:
    """An objective with settings of its own, called as the objective is."""

    objective: Objective
    settings: dict[str, Any] = field(default_factory=dict)

    def __call__(self, inputs: dict[str, Tensor], **more: Any) -> tuple[Tensor, dict[str, Tensor]]:
        return self.objective(inputs, **{**self.settings, **more})

    @property
    def numbers(self) -> list[str]:
        """The loss's settings that may differ from run to run."""
        own = self.objective.settings.keys() - self.objective.caller.keys()
        return sorted(name for name in own if isinstance(self.objective.settings[name], float))


CASES = {name: Case(objective) for name, objective in OBJECTIVES.items()} | {
    f"{name}, {title}": Case(objective, dict(settings))
    for name, objective in OBJECTIVES.items()
    for title, settings in objective.variants.items()
}

every_objective = pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES.keys())
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def sample(*runs: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Every input of the vocabulary at random, three labels in equal parts."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn((*runs, *shape), generator=generator, dtype=torch.float64).to(dtype)

    rows = {
        name: draw(ROWS) - 2
        for name in ("logp", "ref_logp", "logp_chosen", "logp_rejected", "ref_chosen", "ref_rejected")
    }
    rows["conditional_logp"] = draw(ROWS) - 2
    groups = {name: draw(ROWS, CANDIDATES) for name in ("group_logp", "group_score", "own_logp", "own_ref_logp")}
    lengths = {name: draw(ROWS).abs() * 9 + 1 for name in ("length_chosen", "length_rejected")}
    label = torch.tensor([1.0, 1.0, -1.0, -1.0, 0.0, 0.0], dtype=dtype).expand(*runs, ROWS)
    once = {"advantage": draw(ROWS), "divergence": draw().square(), "policy_kl": draw().square()}
    once |= {"policy_value": draw(ROWS), "distance": draw(ROWS).square()}
    shares = {name: draw(ROWS).sigmoid() for name in ("accept_rate", "state_value")}
    return {**rows, **groups, **lengths, **once, **shares, "label": label}


def learned(objective: Objective, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The objective's inputs that carry a gradient, made leaves in place."""
    names = [name for name in objective.inputs.values() if name in LEARNED]
    inputs.update({name: inputs[name].clone().requires_grad_() for name in names})
    return {name: inputs[name] for name in names}


def by_rows(inputs: dict[str, Tensor], index: Tensor) -> dict[str, Tensor]:
    """A batch of these rows, for inputs without runs."""
    return {name: value[index] if value.dim() else value for name, value in inputs.items()}


def raises(objective: Objective, gradient: Tensor) -> bool:
    """Whether descent raises every entry, or at least lowers none where an objective may be flat."""
    return bool((gradient <= 0 if "gradient everywhere" in objective.exempt else gradient < 0).all())


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
@given(order=st.permutations(range(ROWS)))
@settings(max_examples=20)
def test_the_order_of_the_rows_does_not_matter(case: Case, order: list[int]):
    inputs = sample()
    torch.testing.assert_close(case(inputs)[0], case(by_rows(inputs, torch.tensor(order)))[0])


@every_case
@given(counts=st.lists(st.integers(0, 3), min_size=ROWS, max_size=ROWS))
@settings(max_examples=30)
def test_a_weight_is_a_number_of_copies(case: Case, counts: list[int]):
    inputs, weight = sample(), torch.tensor(counts)
    copies = by_rows(inputs, torch.arange(ROWS).repeat_interleave(weight))
    torch.testing.assert_close(case(inputs, weight=weight), case(copies))


@every_case
@given(batch=st.integers(0, 9), runs=st.lists(st.integers(1, 3), max_size=2), seed=st.integers(0, 99))
@settings(max_examples=20)
def test_every_number_of_rows_and_of_runs(case: Case, batch: int, runs: list[int], seed: int):
    rows = torch.randint(ROWS, (batch,), generator=torch.Generator().manual_seed(seed))
    inputs = sample(*runs, seed=seed)
    inputs = {
        name: each.index_select(len(runs), rows) if each.dim() > len(runs) else each for name, each in inputs.items()
    }
    loss, metrics = case(inputs)
    assert loss.shape == tuple(runs)
    assert loss.isfinite().all()
    assert all(value.isfinite().all() and value.shape == tuple(runs) for value in metrics.values())


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
@given(seed=st.integers(0, 10**6))
@settings(max_examples=50)
def test_extreme_log_probabilities_stay_finite(case: Case, seed: int):
    far = 1e15 if "extreme values" in case.objective.exempt else 1e30
    extreme, generator = torch.tensor([-far, far, -1.0, 0.0]), torch.Generator().manual_seed(seed)
    inputs = sample(dtype=torch.float32)
    for name, value in inputs.items():
        if value.dim() and name not in ("label", "accept_rate"):
            inputs[name] = extreme[torch.randint(4, value.shape, generator=generator)]
    leaves = learned(case.objective, inputs)
    loss, metrics = case(inputs)
    loss.backward()
    assert loss.isfinite()
    assert all(value.isfinite() for value in metrics.values())
    assert all(leaf.grad.isfinite().all() for leaf in leaves.values())


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


@every_case
def test_every_objective_compiles_without_a_graph_break(case: Case):
    inputs = sample(2)
    torch.compiler.reset()  # the compiled lambda is one piece of code to it, and it keeps eight versions of one
    compiled = torch.compile(lambda values: case(values), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(inputs), case(inputs))


# Declarations


@every_objective
def test_declarations(objective: Objective):
    assert OBJECTIVES[objective.name] is objective
    assert set(objective.inputs.values()) <= sample().keys()
    assert objective.allowed.keys() == objective.settings.keys()
    assert all(objective.settings[name] in allowed for name, allowed in objective.allowed.items())
    assert objective(sample(), **objective.settings)[0].shape == ()
    assert inspect.unwrap(getattr(objectives, objective.name)) is objective.loss
    assert objective.loss.__doc__
    assert objective.exempt.keys() <= set(LAWS)
    assert set(objective.families) <= {"control", "language"}
    assert objective.families


@every_objective
def test_the_function_refuses_values_that_are_not_allowed(objective: Objective):
    call = getattr(objectives, objective.name)
    own = {parameter: sample()[name] for parameter, name in objective.inputs.items()}
    torch.testing.assert_close(call(**own), objective(sample()))
    for name, allowed in objective.allowed.items():
        if name not in objective.caller:
            wrong = [1.5 if -0.1 in allowed else -0.1, math.nan, "foo"]
            for value in [*wrong, torch.tensor([[0.5], [wrong[0]]]), np.float32(wrong[0])]:
                with pytest.raises(ValueError, match=f"{name} is {re.escape(str(allowed))}, not "):
                    call(**own, **{name: value})


@every_objective
def test_the_function_refuses_what_are_no_tensors(objective: Objective):
    own = {parameter: sample()[name] for parameter, name in objective.inputs.items()}
    optional = {parameter: torch.ones(ROWS) for parameter in (*objective.optional, "weight")}
    for name in (*own, *optional):
        for value, kind in (([0.0, 1.0], "list"), (np.ones(2), "ndarray"), (1.0, "float")):
            with pytest.raises(ValueError, match=f"{name} is a tensor, not a {kind}: wrap it in torch.as_tensor"):
                getattr(objectives, objective.name)(**{**own, **optional, name: value})


@pytest.mark.parametrize("name", LABELLED)
@pytest.mark.parametrize(
    ("label", "message"),
    [
        ([0, 1, 1, 0, 0, 1], "integer labels of 0 and no -1 are ambiguous"),
        ([0.0, 1.0, -1.0, math.nan, 1.0, 1.0], "holds other values"),
        ([0.0, 1.0, -1.0, 0.5, 1.0, 1.0], "holds other values"),
        ([0, 1, -1, 2, 1, 1], "holds other values"),
    ],
)
def test_the_function_refuses_what_are_no_labels(name: str, label: list[float], message: str):
    inputs = {**sample(), "label": torch.tensor(label)}
    with pytest.raises(ValueError, match=message):
        getattr(objectives, name)(**{to: inputs[of] for to, of in OBJECTIVES[name].inputs.items()})


@pytest.mark.parametrize("name", LABELLED)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": torch.ones(1)}, "label has 1 rows and logp has 6"),
        ({"label": torch.tensor(1.0)}, "label has no dimension of rows"),
        ({"weight": torch.ones(1)}, "weight has 1 rows and logp has 6"),
        ({"weight": torch.tensor([1.0, 1, 1, 1, 1, -0.5])}, "weight is a finite number of 0 or more"),
        ({"weight": torch.tensor([1.0, 1, 1, 1, 1, math.nan])}, "weight is a finite number of 0 or more"),
    ],
)
def test_the_function_refuses_rows_that_do_not_match_and_weights_that_are_none(
    name: str, changes: dict[str, Tensor], message: str
):
    inputs = sample()
    arguments = {to: inputs[of] for to, of in OBJECTIVES[name].inputs.items()} | changes
    with pytest.raises(ValueError, match=message):
        getattr(objectives, name)(**arguments)


def test_the_families_of_an_objective_are_those_whose_minibatches_have_its_inputs():
    control = (batches.RowBatch, batches.CandidateBatch, batches.PairBatch)
    assert {name for name, each in OBJECTIVES.items() if "control" in each.families} == {
        name for name, each in OBJECTIVES.items() if any(set(each.inputs.values()) <= set(dir(of)) for of in control)
    }


def test_our_objectives():
    assert set(OBJECTIVES) >= {
        *("pmpo", "bc", "bc_accepts", "binary_crr", "awr", "unlikelihood", "mpo"),
        *("dpo", "ipo", "ipo_length_normalized", "nca", "kto", "bco", "td3_bc"),
    }
    assert OBJECTIVES["pmpo"].bound is objectives.stability.beta_min


def test_settings_of_the_caller_are_declared_and_kept_from_the_loss():
    pmpo = OBJECTIVES["pmpo"]
    assert pmpo.caller == {"divergence": "behavior", "order": 0.5, "over": "all"}
    own = {"alpha": 0.5, "beta": 1.0, "normalize": "joint", "reject_mass": 1.0, "floor": 0.0}
    assert pmpo.settings == {**own, **pmpo.caller}
    other = {"divergence": "renyi", "order": torch.ones(2, 1), "over": "labelled"}
    torch.testing.assert_close(pmpo(sample(), **own, **other), pmpo(sample()))


def test_tensors_that_a_loss_can_do_without_are_no_settings():
    assert OBJECTIVES["bco"].settings == {"beta": 0.1}
    assert OBJECTIVES["bc"].settings == {}


def test_the_example_in_the_docstring():
    assert doctest.testmod(objectives) == (0, 4)  # failed, attempted
