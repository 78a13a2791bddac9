"""α and β from the labels: the weights of rows that the rule promises, by hand and by the objective's own gradient."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pmpo_offline.data import Dataset, columns
from pmpo_offline.declarations import catalog
from pmpo_offline.objectives import pmpo
from pmpo_offline.training import Setup, states
from pmpo_offline.training.doctor import doctor
from pmpo_offline.training.suggestion import MARGIN, noise_bound, suggest, suggest_beta

PMPO = catalog.algorithm("pmpo", "rgb-stacking")


@pytest.fixture(autouse=True)
def quick_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels are predicted from states by a classifier of few updates: nothing here depends on how well it does."""
    monkeypatch.setattr(states, "_UPDATES", 20)


def setup(dataset: Dataset, **chosen: Any) -> Setup:
    return Setup(PMPO, {"beta": 1.0, **chosen}, dataset).settled()


def labels_kept(
    dataset: Dataset, accepts: float, rejects: float, *, counted: bool = False, noise: float = 0
) -> Dataset:
    """Keep the first part of the accepts' and of the rejects' labels of a dataset by steps.

    `counted`: as dropped for a balance, else as if the others never had a label.
    """
    label = columns.labels(dataset.table).copy()
    before = [int((label == sign).sum()) for sign in (1, -1)]
    for sign, share in ((1, accepts), (-1, rejects)):
        rows = np.flatnonzero(label == sign)
        label[rows[round(share * len(rows)) :]] = 0
    after = [int((label == sign).sum()) for sign in (1, -1)]
    dropped = [b - a if counted else 0 for b, a in zip(before, after, strict=True)]
    counts = {"accepted": after[0], "rejected": after[1], "unlabelled": len(label) - sum(after)}
    meta = dataset.metadata
    changed: dict[str, Any] = {
        "unit": "step",
        "noise": noise,
        "counts": meta.counts.model_copy(update=counts),
        "imbalance": meta.imbalance.model_copy(update={"dropped_accepted": dropped[0], "dropped_rejected": dropped[1]}),
        "reject_mass": (after[1] + dropped[1]) / len(label),
        "labelled_reject_mass": after[1] / len(label),
        "reject_share": after[1] / sum(after),
    }
    return replace(dataset, metadata=meta.model_copy(update=changed), table=columns.replace(dataset.table, label=label))


def blind(dataset: Dataset) -> Dataset:
    """Return the dataset with one observation throughout."""
    same = np.zeros((len(dataset), 2), np.float32)
    column = dataset.table.schema.get_field_index("observation")
    return replace(dataset, table=dataset.table.set_column(column, "observation", columns.list_array(same)))


def row_weights(dataset: Dataset, alpha: float, beta: float, normalize: str) -> list[float]:
    """What the loss gives an accepted, an unlabelled and a rejected row, in units of the first."""
    label = torch.tensor(columns.labels(dataset.table)).double()
    logp = torch.zeros(len(label), dtype=torch.float64, requires_grad=True)
    loss, _ = pmpo(logp, label, -logp.mean(), alpha=alpha, beta=beta, normalize=normalize)  # type: ignore[arg-type]
    (gradient,) = torch.autograd.grad(-loss, logp)
    weights = [float(gradient[label == sign][0]) for sign in (1, 0, -1)]
    return [weight / weights[0] for weight in weights]


@pytest.mark.parametrize("normalize", ["joint", "set"])
@pytest.mark.parametrize(
    ("accepts", "rejects", "counted", "worth"),
    [
        (0.3, 1.0, True, 1.0),  # only accepts lost their labels: unlabelled rows are good
        (1.0, 0.3, True, 0.0),  # only rejects did
        (0.2, 0.2, False, None),  # at random: as good as the labelled ones
    ],
)
def test_unlabelled_rows_weigh_what_they_are_worth_and_rejects_next_to_nothing(
    stacking: Dataset, accepts: float, rejects: float, counted: bool, worth: float | None, normalize: str
) -> None:
    dataset = labels_kept(stacking, accepts, rejects, counted=counted)
    chosen = setup(dataset, normalize=normalize)
    found = suggest(chosen)
    assert found is not None
    if worth is None:
        worth = 1 - dataset.metadata.reject_share
    bound = chosen.change(alpha=found["alpha"]).bound
    assert bound is not None
    assert found["beta"] == suggest_beta(chosen.change(alpha=found["alpha"]))
    accept, unlabelled, reject = row_weights(dataset, found["alpha"], bound, normalize)
    assert (accept, unlabelled, reject) == pytest.approx((1, worth, 0), abs=1e-6)
    if normalize == "joint":
        assert found["alpha"] == pytest.approx(1 - worth, abs=1e-6)


def test_where_there_is_nothing_to_suggest(stacking: Dataset) -> None:
    assert suggest(setup(stacking)) is None, "every row has a label"
    accepts = stacking.relabelled(imbalance=1.0)
    assert suggest(setup(accepts)) is None, "there are no rejects"
    rejects = labels_kept(stacking, 0.0, 0.5)
    assert suggest(setup(rejects)) == {"alpha": 0.0, "beta": suggest_beta(setup(rejects, alpha=0.0))}


def test_flips_between_outcomes_that_look_alike_lower_the_suggestion(stacking: Dataset) -> None:
    noise = 0.1
    dataset = blind(labels_kept(stacking, 0.4, 0.4, noise=noise))
    share = dataset.metadata.reject_share
    good = (1 - share - noise) / (1 - 2 * noise)
    found = suggest(setup(dataset))
    assert found is not None
    # α = (1 - γ) / (1 - ρ) with ρ = -e / (1 - e), γ = g (1 - 2e) / (1 - e); β + α = 1 - e: missing at random
    assert found["alpha"] == pytest.approx(1 - noise - good * (1 - 2 * noise))
    assert found["beta"] / MARGIN + found["alpha"] == pytest.approx(1 - noise, rel=0.02)
    assert suggest_beta(setup(dataset)) == pytest.approx(MARGIN * noise_bound(setup(dataset)))
    seeing = labels_kept(stacking, 0.4, 0.4, noise=noise)
    assert noise_bound(setup(seeing)) is None
    assert doctor(dataset, PMPO).suggested_beta < doctor(dataset, PMPO).bound


def test_rejects_that_never_had_a_label_count_where_rows_look_alike(stacking: Dataset) -> None:
    dataset = blind(labels_kept(stacking, 0.5, 0.5))
    assert setup(dataset).bound == pytest.approx(0.5, rel=0.02), "as if all were labelled"
    margin = replace(
        dataset,
        metadata=dataset.metadata.model_copy(
            update={"label": dataset.metadata.label.model_copy(update={"dead_zone": 0.1})}
        ),
    )
    assert setup(margin).bound == pytest.approx(1.0, rel=0.02)


def test_labels_dropped_after_flips_over_labelled_rows(stacking: Dataset) -> None:
    dataset = blind(labels_kept(stacking, 0.25, 1.0, counted=True, noise=0.2))
    share = dataset.metadata.reject_share
    left = 0.2 * 0.25 / (0.2 * 0.25 + 0.8)  # of a bad outcome's labels, those that accept it
    by_hand = 0.5 * share * (1 - left) / share - 0.5 * (1 - share) * left / (1 - share)
    assert noise_bound(setup(dataset, over="labelled")) == pytest.approx(by_hand, rel=1e-3)
