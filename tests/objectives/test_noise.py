"""De-biased objectives: on flipped labels they are, on average, what they would be on the true ones."""

import itertools

import pytest
import torch
from helpers.objective_cases import CASES, Case, sample
from torch import Tensor

from pmpo_offline.objectives import OBJECTIVES, debias, pmpo

ROBUST = {name: case for name, case in CASES.items() if case.objective.noise}
ADDITIVE = [
    *("pmpo", "pmpo, a floor", "kto", "apo_zero_unpaired", "topr"),
    *("weighted_reinforce", "weighted_reinforce, negative samples alone"),
]
"""Sums over labelled rows, divided by a count that no flip changes."""


def flipped(label: Tensor, flips: tuple[bool, ...]) -> Tensor:
    """The labels, some of the labelled ones turned."""
    turned = label.clone()
    turned[label != 0] *= 1 - 2 * torch.tensor(flips).double()
    return turned


@pytest.mark.parametrize("name", ADDITIVE)
@pytest.mark.parametrize("rate", [0.1, 0.4])
def test_sums_over_rows_are_unbiased(name: str, rate: float):
    """By enumeration of all flips of four labels: the losses weighed by their probabilities."""
    inputs, case = sample(), CASES[name]
    average = torch.zeros((), dtype=torch.float64)
    for flips in itertools.product([False, True], repeat=4):
        noisy = {**inputs, "label": flipped(inputs["label"], flips)}
        probability = rate ** sum(flips) * (1 - rate) ** (4 - sum(flips))
        average += probability * case(noisy, flip_rate=rate)[0]
    torch.testing.assert_close(average, case(inputs)[0])


def population(inputs: dict[str, Tensor], rate: float) -> tuple[dict[str, Tensor], Tensor]:
    """All rows with both labels that noise may leave them with, and the probability of each."""
    rows = {
        name: torch.cat([value, value], -2 if value.dim() == 2 else -1) for name, value in inputs.items() if value.dim()
    }
    rows["label"] = torch.cat([inputs["label"], -inputs["label"]])
    rows["accept_rate"] = rate + (1 - 2 * rate) * rows["accept_rate"]  # as it is observed
    labelled = inputs["label"] != 0
    weight = torch.cat([torch.where(labelled, 1 - rate, 1.0), torch.where(labelled, rate, 0.0)])
    return {**inputs, **rows}, weight


@pytest.mark.parametrize("case", ROBUST.values(), ids=ROBUST.keys())
def test_the_noisy_population_gives_the_clean_loss(case: Case):
    """In large batches, whatever the objective divides by: loss, metrics that are means, and gradient."""
    inputs = sample()
    noisy, weight = population(inputs, 0.2)
    torch.testing.assert_close(case(noisy, weight=weight, flip_rate=0.2)[0], case(inputs)[0])


@pytest.mark.parametrize("name", ["kto", "bco", "pmpo, each class by itself", "sppo_unpaired"])
def test_balanced_batches_estimate_the_balanced_clean_loss(name: str):
    """One accept among four labels; noise makes two in five of it, and the sampler as many of both kinds."""
    rate, inputs, case = 0.25, sample(), CASES[name]
    inputs["label"] = torch.tensor([1.0, -1.0, -1.0, -1.0, 0.0, 0.0])
    clean, _ = case(inputs, weight=torch.tensor([1.0, 1 / 3, 1 / 3, 1 / 3, 0.0, 0.0]))
    noisy, weight = population(inputs, rate)
    accepted, rejected = noisy["label"] > 0, noisy["label"] < 0
    share = float(weight[accepted].sum() / weight[accepted | rejected].sum())
    assert share == pytest.approx(0.75 / 4 + 3 * 0.25 / 4)
    weight = weight / torch.where(accepted, weight[accepted].sum(), weight[rejected].sum())
    loss, _ = case(noisy, weight=torch.where(noisy["label"] != 0, weight, 0), flip_rate=rate, accept_share=share)
    if "kl" not in case.objective.inputs or name == "kto":
        torch.testing.assert_close(loss, clean)


def test_half_of_the_accepts_and_a_linear_objective_only_scale():
    """Where a loss is linear in the label, de-biasing is a factor 1/(1 - 2e) on what the label says."""
    logp, label = torch.randn(40, dtype=torch.float64), torch.randn(40).sign()
    robust, _ = OBJECTIVES["pmpo"]({"logp": logp, "label": label, "divergence": -logp.mean()}, beta=0.7, flip_rate=0.2)
    plain, _ = pmpo(logp, label, -logp.mean(), beta=0.7 * (1 - 0.4))
    torch.testing.assert_close(robust * (1 - 0.4), plain)


@pytest.mark.parametrize("name", ["kto", "apo_zero_unpaired"])
def test_a_loss_whose_labels_add_up_to_a_constant_is_only_scaled(name: str):
    """loss(y) + loss(-y) = 1 on every row: ((1 - e) loss - e (1 - loss)) / (1 - 2e)."""
    inputs, objective = sample(), OBJECTIVES[name]
    plain, _ = objective(inputs)
    assert (plain + objective({**inputs, "label": -inputs["label"]})[0]).item() == pytest.approx(1)
    assert objective(inputs, flip_rate=0.2)[0].item() == pytest.approx((plain.item() - 0.2) / 0.6)


def test_a_rate_a_run():
    inputs = sample(3)
    together, _ = OBJECTIVES["kto"](inputs, flip_rate=torch.tensor([[0.0], [0.1], [0.3]]).double())
    for run, rate in enumerate((0.0, 0.1, 0.3)):
        alone = {name: value[run] for name, value in inputs.items()}
        torch.testing.assert_close(together[run], OBJECTIVES["kto"](alone, flip_rate=rate)[0])
    torch.testing.assert_close(together[0], OBJECTIVES["kto"]({k: v[0] for k, v in inputs.items()})[0])


def test_labels_that_are_bool_and_rows_that_are_weighed():
    inputs = {"logp": torch.tensor([-1.0, -2.0]), "label": torch.tensor([True, False])}
    rows, weight = debias(inputs, torch.tensor([1.0, 3.0]), 0.25)
    assert rows["label"].tolist() == [1, -1, -1, 1]
    assert weight.tolist() == [1.5, 4.5, -0.5, -1.5]


def test_an_estimated_count_that_is_not_positive_is_an_absent_class():
    inputs = {"logp": torch.tensor([-1.0, -2.0, -3.0, -4.0]), "label": torch.tensor([1.0, -1, -1, -1])}
    loss, metrics = OBJECTIVES["bc_accepts"](inputs, flip_rate=0.3)  # (.7 - .9) / .4 accepts
    assert loss == 0
    assert metrics["accept_logp"] == 0


@pytest.mark.parametrize("rate", [-0.1, 0.5, 0.9])
def test_rates_out_of_range_are_refused(rate: float):
    with pytest.raises(ValueError, match=r"flip_rate is at least 0 and below 1/2"):
        OBJECTIVES["kto"](sample(), flip_rate=rate)


def test_a_share_that_flips_alone_would_make_is_refused():
    with pytest.raises(ValueError, match="accept_share is between"):
        OBJECTIVES["kto"](sample(), flip_rate=0.2, accept_share=0.2)


@pytest.mark.parametrize("name", ["bc", "dpo", "mpo", "aot_unpaired"])
def test_objectives_without_means_over_labels_have_no_such_option(name: str):
    assert not OBJECTIVES[name].noise
    with pytest.raises(ValueError, match=f"{name} has no flip_rate"):
        OBJECTIVES[name](sample(), flip_rate=0.1)


def test_it_is_no_setting():
    """So that runs without it have the keys that they had."""
    assert "flip_rate" not in OBJECTIVES["pmpo"].settings
