"""Hyperparameters are validated by name, and β is completed from its bound on the dataset."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from pydantic import BaseModel, ValidationError

from pmpo_offline.data import Dataset, columns
from pmpo_offline.declarations import catalog
from pmpo_offline.declarations.catalog import AlgorithmDeclaration
from pmpo_offline.objectives import OBJECTIVES, Objective
from pmpo_offline.objectives.stability import beta_min
from pmpo_offline.online.improver import OnlineSettings
from pmpo_offline.online.online_control import ControlSettings
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.training import CandidateSettings, CriticSettings, Setup, TrainingSettings
from pmpo_offline.training.config import complete, hyperparameters, warn_below
from pmpo_offline.training.control.fit import _clip, learning_rate, stack_settings
from pmpo_offline.training.critics.label_value import LabelValueSettings
from pmpo_offline.training.critics.reward_critics import ExpectileSettings, TwinDelayedSettings
from pmpo_offline.training.language.config import LanguageSettings

PMPO = catalog.algorithm("pmpo", "rgb-stacking")


def settle(algorithm: AlgorithmDeclaration, settings: dict[str, Any], dataset: Dataset) -> dict[str, Any]:
    return Setup(algorithm, settings, dataset).settled().settings


def test_unknown_training_setting_names_the_near_miss() -> None:
    with pytest.raises(UserError, match="training of pmpo: unknown setting 'updatess': did you mean updates"):
        hyperparameters(PMPO, {"updatess": 3}, TrainingSettings)


@pytest.mark.parametrize(
    "wrong",
    [
        {"updates": 0},
        {"batch": "many"},
        {"learning_rate": -1},
        {"learning_rate": math.inf},
        {"averaging": 1.0},
        {"hidden": 3},
    ],
    ids=str,
)
def test_malformed_training_setting_is_one_line(wrong: dict[str, Any]) -> None:
    name = next(iter(wrong))
    with pytest.raises(UserError, match=rf"^training of pmpo: {name}: ") as caught:
        hyperparameters(PMPO, wrong, TrainingSettings)
    assert "\n" not in str(caught.value)


SETTINGS = (
    *(TrainingSettings, LanguageSettings, CriticSettings, CandidateSettings, OnlineSettings, ControlSettings),
    *(ExpectileSettings, TwinDelayedSettings, LabelValueSettings),
)


@pytest.mark.parametrize("kind", SETTINGS, ids=lambda kind: kind.__name__)
def test_no_setting_is_infinite_and_no_layer_without_units(kind: type[BaseModel]) -> None:
    """Neither can be trained with; `inf` is a number of TOML."""
    fields = kind.model_fields
    given = {name: get_args(field.annotation)[0] for name, field in fields.items() if field.is_required()}
    for name, field in fields.items():
        wrong: Any = math.inf if field.annotation is float else (0, 0) if name.endswith("hidden") else None
        if wrong is not None:
            with pytest.raises(ValidationError, match=name):
                kind.model_validate({**given, name: wrong})


def test_overrides_go_before_the_declared_and_these_before_the_defaults() -> None:
    dpo = catalog.algorithm("dpo", "rgb-stacking")
    assert dpo.training["learning_rate"] != TrainingSettings().learning_rate
    assert hyperparameters(dpo, {}, TrainingSettings).learning_rate == dpo.training["learning_rate"]
    assert hyperparameters(dpo, {"learning_rate": 0.5}, TrainingSettings).learning_rate == 0.5
    assert hyperparameters(dpo, {}, TrainingSettings).batch == TrainingSettings().batch


@pytest.mark.parametrize("normalize", ["joint", "set"])
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_beta_as_a_multiple_of_its_bound(stacking: Dataset, normalize: str, share: float) -> None:
    dataset = stacking.relabelled(imbalance=share)
    metadata = dataset.metadata
    bound = beta_min(0.5, metadata.labelled_reject_mass, normalize, metadata.reject_share)  # type: ignore[arg-type]
    complete = settle(PMPO, {"beta": "1.05x", "normalize": normalize}, dataset)
    assert complete["beta"] == pytest.approx(1.05 * bound)
    assert Setup(PMPO, complete, dataset).bound == pytest.approx(bound)
    assert bound > 0
    assert settle(PMPO, {"beta": 0.7}, dataset)["beta"] == 0.7
    assert settle(PMPO, {"beta": np.float32(0.5)}, dataset)["beta"] == 0.5
    # By hand: (1 - alpha) w_r / P_r.
    weight = metadata.reject_share if normalize == "joint" else 1
    assert bound == pytest.approx(0.5 * weight / metadata.labelled_reject_mass)


def test_bound_of_accepts_alone_is_zero(stacking: Dataset) -> None:
    assert settle(PMPO, {"alpha": 1.0, "beta": "1.05x"}, stacking)["beta"] == 0


def test_settings_are_complete_and_the_users_win(stacking: Dataset) -> None:
    complete = settle(PMPO, {"alpha": 0.25}, stacking)
    assert complete.keys() == OBJECTIVES["pmpo"].settings.keys()
    assert complete["alpha"] == 0.25
    assert settle(PMPO, {}, stacking)["alpha"] == PMPO.settings["alpha"]


@pytest.mark.parametrize("beta", ["x", "1.05", "-1x", "nanx", "infx", "much"])
def test_malformed_multiple(stacking: Dataset, beta: str) -> None:
    with pytest.raises(UserError, match=r"pmpo\.beta is a number of 0 or more, or a multiple of its bound"):
        settle(PMPO, {"beta": beta}, stacking)


def test_multiple_of_no_bound(stacking: Dataset) -> None:
    with pytest.raises(UserError, match=r"dpo\.beta is a number above 0, not '1\.05x'"):
        settle(catalog.algorithm("dpo", "rgb-stacking"), {"beta": "1.05x"}, stacking)


@pytest.mark.parametrize(
    ("algorithm", "setting", "value", "allowed"),
    [
        ("pmpo", "normalize", "foo", "joint or set"),
        ("pmpo", "alpha", 2, "a number from 0 to 1"),
        ("pmpo", "alpha", "0.5x", "a number from 0 to 1"),
        ("pmpo", "alpha", True, "a number from 0 to 1"),
        ("pmpo", "beta", -0.1, "a number of 0 or more, or a multiple"),
        ("pmpo", "beta", math.inf, "a number of 0 or more, or a multiple"),
        ("dpo", "beta", 0, "a number above 0"),
        ("kto", "beta", -1.0, "a number above 0"),
        ("kto", "undesirable_weight", -1.0, "a number of 0 or more"),
        ("mpo", "temperature", 0, "a number above 0"),
        ("mpo", "temperature", math.nan, "a number above 0"),
    ],
)
def test_value_that_is_not_allowed(stacking: Dataset, algorithm: str, setting: str, value: Any, allowed: str) -> None:
    with pytest.raises(UserError) as caught:
        settle(catalog.algorithm(algorithm, "rgb-stacking"), {setting: value}, stacking)
    assert str(caught.value).startswith(f"{algorithm}.{setting} is {allowed}")
    assert str(caught.value).endswith(f", not {value!r}")


def test_whole_numbers_are_numbers(stacking: Dataset) -> None:
    complete = settle(PMPO, {"alpha": 1, "beta": 2}, stacking)
    assert [type(complete[name]) for name in ("alpha", "beta")] == [float, float]


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES.keys())
def test_every_setting_declares_its_range_and_every_default_lies_in_it(objective: Objective) -> None:
    assert objective.allowed.keys() == objective.settings.keys()
    assert all(objective.settings[name] in allowed for name, allowed in objective.allowed.items())


def test_rejects_that_the_reference_never_produces(stacking: Dataset) -> None:
    metadata = stacking.metadata.model_copy(update={"labelled_reject_mass": 0.0, "reject_share": 0.5})
    dataset = replace(stacking, metadata=metadata)
    with pytest.raises(UserError, match="unbounded on test/stacking-v0 at every β"):
        settle(PMPO, {"beta": "1.05x"}, dataset)


def test_unknown_objective_setting_names_the_near_miss(stacking: Dataset) -> None:
    with pytest.raises(UserError, match="unknown setting of pmpo 'alhpa': did you mean alpha"):
        settle(PMPO, {"alhpa": 0.5}, stacking)
    with pytest.raises(UserError, match=r"learning_rate belongs to the training, .* overrides"):
        settle(PMPO, {"learning_rate": 1}, stacking)


def test_one_warning_for_all_that_are_below_their_bound(stacking: Dataset) -> None:
    share = stacking.metadata.reject_share  # every row is labelled: P_r = w_r = share, the bound is 1/2
    assert 0.5 < share < 0.9
    collapse = 0.5 * share - 0.5 * (1 - share)
    for betas, shown, ending in (
        (
            (0.01, 0.4, 2.0),
            ["β = 0.01 < 0.5", "β = 0.4 < 0.5"],
            "collapses onto one of them; `pmpo-offline doctor` says more",
        ),
        (
            (collapse + 1e-3,),
            [f"β = {collapse + 1e-3:g} < 0.5"],
            "but one that sees the state may run away where it sees rejects alone; `pmpo-offline doctor` says more",
        ),
        (
            (collapse,),
            [f"β = {collapse:g} < 0.5"],
            f"at {collapse:.3g} or less, by the labels of all states together, a policy over a few outcomes collapses "
            "onto one of them; `pmpo-offline doctor` says more",
        ),
    ):
        with pytest.warns(UserWarning, match="below its bound the loss has no minimum") as caught:
            warn_below([Setup(PMPO, {"beta": beta}, stacking).settled() for beta in betas])
        assert len(caught) == 1
        message = str(caught[0].message)
        assert message.startswith(f"{PMPO.name}: {', '.join(shown)}: below its bound")
        assert message.endswith(ending)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_below([Setup(PMPO, {"beta": 0.5}, stacking).settled()])


def test_settings_that_differ_become_one_value_a_run() -> None:
    settings = [{"alpha": 0.5, "beta": 1.0}, {"alpha": 0.5, "beta": 2}]
    stacked = stack_settings(settings, 3, torch.device("cpu"))
    assert stacked["alpha"] == 0.5
    assert stacked["beta"].tolist() == [[1.0]] * 3 + [[2.0]] * 3


def test_settings_that_differ_in_words_cannot_be_stacked() -> None:
    with pytest.raises(UserError, match="differ in numbers only, not in normalize \\(joint, set\\)"):
        stack_settings([{"normalize": "joint"}, {"normalize": "set"}], 1, torch.device("cpu"))


def test_learning_rate_is_one_cycle() -> None:
    hyper = TrainingSettings(updates=100, learning_rate=1.0)
    rates = [learning_rate(step, hyper) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)  # half way down
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.001
    assert learning_rate(0, TrainingSettings(updates=1, learning_rate=1.0)) == 1.0


def test_the_bound_follows_what_holds_the_rejects_back(stacking: Dataset) -> None:
    dataset = stacking.relabelled("return:q0.5:20", imbalance=0.3)
    metadata = dataset.metadata
    assert 0 < metadata.labelled_reject_mass < metadata.reject_share < 1, "some rows are unlabelled"

    def bound(**settings: Any) -> float:
        found = Setup(PMPO, complete(PMPO, {"alpha": 0.25, **settings}), dataset).bound
        assert found is not None
        return found

    plain = 0.75 * metadata.reject_share / metadata.labelled_reject_mass
    assert bound() == pytest.approx(plain)
    assert bound(over="labelled") == pytest.approx(0.75), "over the labelled rows P_r is the rejects' share of them"
    assert bound(floor=1e-9) == 0.0, "a reject is pushed no further than the floor"
    floored = settle(PMPO, {"alpha": 0.25, "floor": 1e-9, "beta": "2x"}, dataset)
    assert floored["beta"] == pytest.approx(2 * plain), "a multiple is one of the bound without the floor"
    assert bound(reject_mass=0.4) == pytest.approx(0.4 * plain), "beta / P_r weighs the divergence"
    assert bound(divergence="forward") == bound(divergence="alpha", order=1) == bound(divergence="renyi", order=1)
    for settings in ({"divergence": "reverse", "order": 1}, {"divergence": "alpha"}, {"divergence": "renyi"}):
        assert bound(**settings) == math.inf, "finite where the policy forgets an outcome: it holds nothing back"
        assert bound(**settings, alpha=1) == 0.0, "there are no rejects to hold back"
        with pytest.raises(UserError, match=f"unbounded .* the {settings['divergence']} divergence does not hold"):
            settle(PMPO, {**settings, "beta": "1.05x"}, dataset)


def test_the_bound_is_that_of_the_rows_in_a_batch(stacking: Dataset) -> None:
    dataset = stacking.relabelled(imbalance=0.3)
    assert dataset.metadata.reject_share != 0.5

    def of(rows: str) -> Any:
        return PMPO.model_copy(update={"rows": rows})

    for normalize, bound in (("set", 0.75 / 0.5), ("joint", 0.75)):  # (1 - alpha) w_r / P_r
        values = complete(PMPO, {"alpha": 0.25, "normalize": normalize})
        assert Setup(of("balanced"), values, dataset).bound == pytest.approx(bound)
        assert Setup(of("accepted"), values, dataset).bound == 0
    derived = settle(of("balanced"), {"normalize": "set", "reject_mass": "dataset", "beta": "1x"}, dataset)
    assert (derived["reject_mass"], derived["beta"]) == (0.5, pytest.approx(0.5))
    with pytest.raises(UserError, match='not known for rows = "top"'):
        settle(of("top"), {"beta": "1x"}, dataset)


def test_a_temperature_in_deviations_of_the_advantages(stacking: Dataset, advantage: Dataset) -> None:
    awr = catalog.algorithm("awr", "rgb-stacking")
    deviation = float(columns.vector(advantage.table, "score").std())
    assert settle(awr, {"temperature": "0.5sd"}, advantage)["temperature"] == pytest.approx(0.5 * deviation)
    assert settle(awr, {"temperature": 3}, stacking)["temperature"] == 3.0
    with pytest.raises(UserError, match=r"deviations of the advantages, and test/stacking-v0 is scored by success"):
        settle(awr, {"temperature": "1sd"}, stacking)
    for wrong in ("0sd", "sd", "1x"):
        with pytest.raises(UserError, match=r'above 0, or a multiple of the advantages\' deviation such as "1sd", not'):
            settle(awr, {"temperature": wrong}, advantage)
    with pytest.raises(UserError, match=r"mpo\.temperature is a number above 0, not '1sd'"):
        settle(catalog.algorithm("mpo", "rgb-stacking"), {"temperature": "1sd"}, advantage)


def test_the_derived_weight_takes_the_reject_mass_from_the_dataset(stacking: Dataset) -> None:
    metadata = stacking.metadata
    derived = settle(PMPO, {"normalize": "set", "reject_mass": "dataset", "beta": "1x"}, stacking)
    assert derived["reject_mass"] == metadata.labelled_reject_mass
    assert derived["beta"] == pytest.approx(0.5), "the paper's own scaling: the bound is 1 - alpha whatever P_r"
    with pytest.raises(UserError, match=r'reject_mass is a number above 0 to 1, or "dataset", not \'data\''):
        settle(PMPO, {"reject_mass": "data"}, stacking)
    with pytest.raises(UserError, match=r"nothing is rejected in .*: give a number"):
        settle(PMPO, {"reject_mass": "dataset"}, stacking.relabelled(imbalance=1.0))


def test_without_contexts_dropped_rejects_count_like_labelled_ones(stacking: Dataset) -> None:
    balanced = stacking.relabelled(imbalance=0.8)
    metadata = balanced.metadata
    assert metadata.labelled_reject_mass < metadata.reject_mass, "rejects lost their labels"
    assert balanced.has_contexts
    same = np.zeros((len(balanced), 2), np.float32)
    column = balanced.table.schema.get_field_index("observation")
    blind = replace(balanced, table=balanced.table.set_column(column, "observation", columns.list_array(same)))
    assert not blind.has_contexts
    settings = complete(PMPO, {})
    assert Setup(PMPO, settings, balanced).bound == pytest.approx(
        0.5 * metadata.reject_share / metadata.labelled_reject_mass
    )
    assert Setup(PMPO, settings, blind).bound == pytest.approx(0.5 * metadata.reject_share / metadata.reject_mass)


def test_each_run_is_clipped_by_its_own_norm() -> None:
    wide, narrow = (torch.nn.Parameter(torch.zeros(2, *shape)) for shape in ((3, 4), (1, 4)))
    for weight in (wide, narrow):
        weight.grad = torch.stack([torch.full(weight.shape[1:], 3.0), torch.full(weight.shape[1:], 0.01)])
    before = wide.grad.clone()
    _clip([wide, narrow], 2.0)
    norms = torch.cat([weight.grad.flatten(1) for weight in (wide, narrow)], dim=1).norm(dim=1)
    assert norms[0] == pytest.approx(2.0, rel=1e-5)
    assert wide.grad[1].equal(before[1]), "a run within the limit is left as it is, whatever runs beside it"


@pytest.mark.parametrize("beta", ["1e300x", 1e12, "-1x"])
def test_settings_that_no_loss_can_be_computed_with_are_refused(beta: float | str) -> None:
    with pytest.raises(UserError, match=r"pmpo\.beta is a number"):
        complete(catalog.algorithm("pmpo"), {"beta": beta})


def test_a_number_of_updates_that_never_ends_is_refused() -> None:
    with pytest.raises(UserError, match=r"updates.*less than or equal to 1000000000"):
        hyperparameters(catalog.algorithm("pmpo"), {"updates": 10**12}, TrainingSettings)
