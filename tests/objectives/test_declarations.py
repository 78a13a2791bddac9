"""What every objective declares is so, and the public functions refuse what they cannot compute."""

import doctest
import inspect
import math
import re

import numpy as np
import pytest
import torch
from helpers.objective_cases import LABELLED, LAWS, ROWS, every_objective, sample
from torch import Tensor

from pmpo_offline import objectives
from pmpo_offline.objectives import OBJECTIVES, Objective
from pmpo_offline.training.control import batches


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
            with pytest.raises(ValueError, match=f"{name} is a tensor, not {kind}: wrap it in torch.as_tensor"):
                getattr(objectives, objective.name)(**{**own, **optional, name: value})


@pytest.mark.parametrize("name", LABELLED)
@pytest.mark.parametrize(
    ("label", "message"),
    [
        (torch.ones(6, dtype=torch.uint8), "label is of torch.uint8: give Boolean labels"),
        (torch.ones(6, dtype=torch.uint16), "label is of torch.uint16: give Boolean labels"),
        (torch.ones(6, dtype=torch.complex64), "label is of torch.complex64: give Boolean labels"),
        ([0, 1, 1, 0, 0, 1], "integer labels of 0 and no -1 are ambiguous"),
        ([0.0, 1.0, -1.0, math.nan, 1.0, 1.0], "holds other values"),
        ([0.0, 1.0, -1.0, 0.5, 1.0, 1.0], "holds other values"),
        ([0, 1, -1, 2, 1, 1], "holds other values"),
    ],
)
def test_the_function_refuses_what_are_no_labels(name: str, label: list[float] | torch.Tensor, message: str):
    inputs = {**sample(), "label": torch.as_tensor(label)}
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
    assert doctest.testmod(objectives) == (0, 5)  # failed, attempted
