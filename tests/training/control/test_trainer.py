"""One trainer for every objective: what is declared learns, stacked runs equal runs alone, mistakes are named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.quick_training import LEARNERS, QUICK, declared, quick, weights

from pmpo_offline import data
from pmpo_offline.data import Dataset, Rows, gathering, mapping
from pmpo_offline.declarations import catalog
from pmpo_offline.objectives import OBJECTIVES
from pmpo_offline.policies import MixturePolicy
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.training import Setup, train


@pytest.fixture(scope="session")
def references(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clones that the tests share."""
    return tmp_path_factory.mktemp("references")


@pytest.mark.parametrize("name", [each.name for each in catalog.algorithms("rgb-stacking")])
def test_every_declared_algorithm_learns(stacking: Dataset, advantage: Dataset, references: Path, name: str) -> None:
    algorithm = catalog.algorithm(name, "rgb-stacking")
    if "advantage" in OBJECTIVES[algorithm.objective].inputs.values():
        stacking = advantage
    trained = quick(stacking, name, references, (0, 1))
    complete = Setup(algorithm, {}, stacking).settled().settings
    assert trained.runs == [(complete, 0), (complete, 1)]
    assert trained.bounds == [Setup(algorithm, complete, stacking).bound]
    assert trained.policy.runs == 2
    assert not trained.policy.training
    assert torch.isfinite(weights(trained.policy)).all()
    assert not weights(trained.policy, 0).equal(weights(trained.policy, 1))
    if name != "bc":  # the clone itself comes out of the references' folder, where no metrics are kept
        assert torch.isfinite(trained.metrics["loss"]).all()
        assert trained.metrics["loss"].shape == (2,)
        clone = quick(stacking, "bc", references, (0, 1))
        assert not weights(trained.policy).equal(weights(clone.policy))


def test_filtered_clones_are_one_where_all_is_labelled(advantage: Dataset, references: Path) -> None:
    everything = advantage.relabelled(imbalance="collected")
    assert not everything.metadata.counts.unlabelled
    accepted, unrejected = (quick(everything, name, references, (0, 1)) for name in ("bc-accepted", "bc-unrejected"))
    assert weights(accepted.policy).equal(weights(unrejected.policy))


@pytest.mark.parametrize("divergence", ["forward", "reverse", "alpha", "renyi"])
def test_pmpo_may_keep_to_a_reference_policy(stacking: Dataset, references: Path, divergence: str) -> None:
    settings: list[dict[str, Any]] = [
        {"divergence": divergence, "beta": 5.0, "order": order, "floor": 1e-9} for order in (0.3, 0.7)
    ]
    trained = quick(stacking, "pmpo", references, (0, 1), settings)
    assert trained.metrics["kl"].shape == (4,)
    assert torch.isfinite(trained.metrics["loss"]).all()
    alone = quick(stacking, "pmpo", references, (1,), settings[1:])
    torch.testing.assert_close(weights(trained.policy, 3), weights(alone.policy), atol=1e-5, rtol=1e-4)
    ordered = divergence in ("alpha", "renyi")
    assert weights(trained.policy, 0).equal(weights(trained.policy, 2)) != ordered, "order is theirs alone"


def test_a_refreshed_reference_follows_the_policy(stacking: Dataset, references: Path) -> None:
    def kl(refresh: float) -> float:
        overrides = {**QUICK, "refresh": refresh, "updates": 40, "components": 1}  # a closed form, no noise
        trained = train(stacking, "kto", overrides=overrides, references=references, device="cpu")
        return float(trained.metrics["kl"])

    assert 0 <= kl(0.5) < kl(0.0)
    with pytest.raises(UserError, match="refresh moves a reference policy and there is none"):
        train(stacking, "pmpo", overrides={**QUICK, "refresh": 0.1}, device="cpu")


@pytest.mark.parametrize("name", LEARNERS)
def test_stacked_seeds_equal_seeds_alone(stacking: Dataset, references: Path, name: str) -> None:
    together = quick(stacking, name, references, (3, 5)).policy
    for run, seed in enumerate((3, 5)):
        alone = quick(stacking, name, references, (seed,)).policy
        torch.testing.assert_close(weights(together, run), weights(alone), atol=1e-5, rtol=1e-4)


def test_stacked_settings_equal_settings_alone(stacking: Dataset, references: Path) -> None:
    sweep: list[dict[str, Any]] = [{"alpha": 0.3, "beta": "1.05x"}, {"alpha": 0.9, "beta": 2.0}]
    together = quick(stacking, "pmpo", references, (0, 1), sweep)
    assert [(each["alpha"], seed) for each, seed in together.runs] == [(0.3, 0), (0.3, 1), (0.9, 0), (0.9, 1)]
    assert len(together.bounds) == 2
    for place, settings in enumerate(sweep):
        alone = quick(stacking, "pmpo", references, (0, 1), [settings])
        assert alone.bounds == [together.bounds[place]]
        for run in range(2):
            torch.testing.assert_close(
                weights(together.policy, 2 * place + run), weights(alone.policy, run), atol=1e-5, rtol=1e-4
            )
    assert (weights(together.policy, 0) - weights(together.policy, 2)).abs().max() > 1e-3, "the settings do matter"


def test_shuffled_stack_equals_shuffled_alone(stacking: Dataset) -> None:
    def shuffled(seeds: Sequence[int]) -> MixturePolicy:
        return train(stacking, "pmpo", seeds=seeds, overrides=QUICK, shuffle_labels=True, device="cpu").policy

    together = shuffled((0, 1))
    torch.testing.assert_close(weights(together, 1), weights(shuffled((1,))), atol=1e-5, rtol=1e-4)
    honest = train(stacking, "pmpo", seeds=(0, 1), overrides=QUICK, device="cpu").policy
    assert not weights(together).equal(weights(honest))


def test_learner_from_a_reference_starts_there(stacking: Dataset, references: Path) -> None:
    clone = weights(quick(stacking, "bc", references, (0,)).policy)
    still = train(
        stacking,
        "kto",
        seeds=(0,),
        overrides={**QUICK, "learning_rate": 1e-12, "weight_decay": 0},
        references=None,
        device="cpu",
    )
    unlearned = weights(still.policy)
    # Its clone was trained at that rate too, so it is the fresh policy; a rate that moves does move both.
    assert not unlearned.equal(clone)
    moved = weights(quick(stacking, "kto", references, (0,)).policy)
    assert (moved - clone).norm() < (unlearned - clone).norm()


def mean_logp(policy: MixturePolicy, rows: Rows, mask: torch.Tensor) -> float:
    with torch.no_grad():
        return float(policy(rows.observation[mask].unsqueeze(0)).log_prob(rows.action[mask].unsqueeze(0)).mean())


def test_feedback_moves_the_policy_the_way_it_says(stacking: Dataset) -> None:
    rows = Rows.of(stacking)
    accepted, rejected = rows.label > 0, rows.label < 0
    overrides = {**QUICK, "updates": 150, "hidden": [32], "averaging": 0.9}

    def gap(name: str, settings: dict[str, Any]) -> tuple[float, float]:
        policy = train(stacking, name, settings=[settings], overrides=overrides, device="cpu").policy
        return mean_logp(policy, rows, accepted), mean_logp(policy, rows, rejected)

    clone, only = gap("bc", {}), gap("bc-accepted", {})
    accepts = gap("pmpo", {"alpha": 1.0, "beta": 0.0})
    both = gap("pmpo", {"alpha": 0.5, "beta": "1.05x"})
    # All of them prefer the accepted steps to the rejected ones by more than cloning everything does.
    assert accepts[0] - accepts[1] > clone[0] - clone[1]
    assert only[0] - only[1] > clone[0] - clone[1]
    assert both[0] - both[1] > clone[0] - clone[1]


def test_mistakes_are_the_users(stacking: Dataset) -> None:
    with pytest.raises(UserError, match="unknown algorithm 'pmop': did you mean pmpo"):
        train(stacking, "pmop")
    with pytest.raises(UserError, match="training of pmpo: unknown setting 'update': did you mean updates"):
        train(stacking, "pmpo", overrides={"update": 3})
    with pytest.raises(UserError, match="unknown setting of dpo 'betta': did you mean beta"):
        train(stacking, "dpo", settings=[{"betta": 3}])


def test_nothing_to_learn_from_is_refused_before_a_clone_is_trained(stacking: Dataset, tmp_path: Path) -> None:
    rejects, where = stacking.relabelled(imbalance=0.0), {"references": tmp_path, "device": "cpu"}
    for name in ("dpo", "kto", "bc-accepted"):
        with pytest.raises(UserError, match="the labels leave this algorithm nothing to learn from"):
            train(rejects, name, overrides=QUICK, **where)
    with pytest.raises(UserError, match="pmpo learns from labelled rows and test/stacking-v0 has none"):
        train(stacking.relabelled("q_rank"), "pmpo", overrides=QUICK, **where)
    for name in ("mpo", "dpo"):
        with pytest.raises(UserError, match="the dataset has none: choose one that learns from labels"):
            train(replace(stacking, candidates=None), name, overrides=QUICK, **where)
    assert not list(tmp_path.iterdir())


def test_algorithm_of_ones_own(stacking: Dataset) -> None:
    trained = train(stacking, declared(settings={"alpha": 0.0, "beta": 3.0}), overrides=QUICK, device="cpu")
    assert trained.runs[0][0]["alpha"] == 0.0
    with pytest.raises(UserError, match="all rows have no logp_chosen, an input of dpo: set `rows` in the algorithm's"):
        train(stacking, declared(objective="dpo", settings={}), overrides=QUICK, device="cpu")


def test_inputs_that_control_cannot_give_are_refused_before_anything_is_trained(
    stacking: Dataset, tmp_path: Path
) -> None:
    lengths = declared(objective="ipo_length_normalized", rows="pairs", start="reference", settings={})
    with pytest.raises(UserError, match="length_rejected, which test/stacking-v0 cannot give: it is for language"):
        train(stacking, lengths, overrides=QUICK, references=tmp_path, device="cpu")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_one_class_is_enough_for_pmpo(stacking: Dataset, share: float) -> None:
    trained = train(stacking.relabelled(imbalance=share), "pmpo", overrides=QUICK, device="cpu")
    assert torch.isfinite(trained.metrics["loss"]).all()
    assert torch.isfinite(weights(trained.policy)).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": []}, "seeds are empty"),
        ({"settings": []}, "settings are empty"),
        ({"seeds": [0.5]}, "for seeds, not"),
        ({"seeds": [-1]}, "seeds are integers from 0"),
        ({"seeds": [2**70]}, "seeds are integers from 0"),
    ],
)
def test_seeds_and_settings_are_checked(stacking: Dataset, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        train(stacking, "pmpo", **arguments)


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("name", ["pmpo", "dpo", "dro"])
def test_training_from_mapped_parts_is_bit_for_bit_that_from_packed_memory(
    stacking: Dataset, name: str, ahead: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = train(stacking, name, seeds=(0, 1), overrides=QUICK, device="cpu")
    monkeypatch.setattr(mapping, "PART_BYTES", 100_000)
    data.write(tmp_path / "d", stacking.metadata, stacking.stored)
    monkeypatch.setattr(gathering, "PACKED_BYTES", 0)
    if ahead:
        monkeypatch.setattr(mapping, "RESIDENT", 0)
        monkeypatch.setattr(gathering, "_APART", 1 << 11)
    split = data.load_dataset(tmp_path / "d")
    assert split.table.column("action").num_chunks > 3
    updates_ahead = split.column("observation").ahead // (2 * QUICK["batch"])
    assert (1 < updates_ahead < QUICK["updates"] - 1) if ahead else updates_ahead == 0, updates_ahead
    mapped = train(split, name, seeds=(0, 1), overrides=QUICK, device="cpu")
    for one, other in zip(packed.policy.parameters(), mapped.policy.parameters(), strict=True):
        assert one.equal(other)
    for metric, value in packed.metrics.items():
        assert value.equal(mapped.metrics[metric])
