"""What objectives of labels need beside log-probabilities, as the control trainer provides it."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pmpo_offline.build import build_dataset
from pmpo_offline.data import Dataset, Rows
from pmpo_offline.declarations import catalog
from pmpo_offline.declarations.catalog import AlgorithmDeclaration
from pmpo_offline.objectives import OBJECTIVES, bco_shift
from pmpo_offline.policies import MixturePolicy
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.training import Setup, TrainingSettings, config, train
from pmpo_offline.training.control.batches import Learner, RowBatch
from pmpo_offline.training.control.fit import fit
from pmpo_offline.training.control.sampler import Sampler
from pmpo_offline.training.control.stack import Stack
from pmpo_offline.training.control.trainer import fresh_policy

QUICK: dict[str, Any] = {"updates": 12, "batch": 32, "hidden": [16], "components": 2}


def settle(algorithm: AlgorithmDeclaration, settings: dict[str, Any], dataset: Dataset) -> dict[str, Any]:
    return Setup(algorithm, settings, dataset).settled().settings


@pytest.fixture(scope="module")
def bandit(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Single actions, half of them accepted, without contexts."""
    return build_dataset("bandit/sphere-v0", episodes=2000, home=tmp_path_factory.mktemp("bandit"))


def batch_of(dataset: Dataset, name: str, family: str, **settings: Any) -> RowBatch:
    algorithm = catalog.algorithm(name, family)
    observation, action = Rows.of(dataset).observation, Rows.of(dataset).action
    policy, reference = (
        MixturePolicy([seed], observation.mean(0), observation.std(0), action.shape[1], components=2, hidden=(16,))
        for seed in (0, 7)
    )
    sampler = Sampler(dataset, algorithm, (0,), shuffle=False, device=torch.device("cpu"))
    batch = sampler.batch(0, 64, Learner(policy, reference, {**config.complete(algorithm, {}), **settings}))
    assert isinstance(batch, RowBatch)
    return batch


def test_the_policys_own_actions(stacking: Dataset) -> None:
    batch = batch_of(stacking, "d2o", "rgb-stacking")
    assert batch.own_logp.shape == batch.own_ref_logp.shape == (1, 64, 4)
    assert batch.own_logp.requires_grad
    assert not batch.own_ref_logp.requires_grad
    # E_pi[log pi - log pi_ref] is a divergence: on its own actions the policy is the likelier one
    assert (batch.own_logp - batch.own_ref_logp).mean() > 0


def test_accept_rates_need_a_context_that_recurs(stacking: Dataset, bandit: Dataset) -> None:
    rate = batch_of(bandit, "rpo", "bandit").accept_rate
    counts = bandit.metadata.counts
    assert rate.shape == (1, 64)
    assert rate.unique().tolist() == pytest.approx([counts.accepted / (counts.accepted + counts.rejected)])
    with pytest.raises(UserError, match=r"every state was recorded once: take an algorithm whose value is learned"):
        batch_of(stacking, "sspo", "rgb-stacking").accept_rate  # noqa: B018


def test_a_learned_value_is_the_soft_value_of_the_labels(bandit: Dataset) -> None:
    """Without contexts, and with a policy that cannot move, V is the mean reward; the trained one is the soft value."""
    dro = catalog.algorithm("dro", "bandit")
    dro = dro.model_copy(update={"critic": {**dro.critic, "hidden": (8,), "learning_rate": 0.01}})
    trained = train(bandit, dro, overrides={"components": 2, "learning_rate": 0.05}, device="cpu")
    share = 1 - bandit.metadata.reject_share
    soft = math.log(1 - share + share * math.e)
    assert share < float(trained.metrics["value"]) < soft + 0.05
    assert float(trained.metrics["accept_reward"]) > 0.2  # towards 1 - V
    assert float(trained.metrics["reject_reward"]) < -0.2  # towards -V


def test_the_running_shift_of_bco_is_the_mean_of_those_before(bandit: Dataset) -> None:
    """The first minibatch is scored at the reference, where all rewards are 0."""

    def after(updates: int) -> dict[str, Tensor]:
        algorithm = catalog.algorithm("bco", "bandit")
        stack = Stack(bandit, algorithm, overrides={**QUICK, "updates": updates})
        sampler = Sampler(bandit, algorithm, (0,), shuffle=False, device=torch.device("cpu"))
        policy = fresh_policy(sampler, stack.hyper)
        return fit(stack, sampler, policy, deepcopy(policy).requires_grad_(False))

    second, third = after(2), after(3)
    assert second["shift"].item() == 0
    assert second["batch_shift"].item() != 0
    assert third["shift"].item() == pytest.approx(second["batch_shift"].item() / 2, rel=1e-4)


def test_bco_is_a_new_training_and_others_are_not(stacking: Dataset) -> None:
    assert OBJECTIVES["bco"].version == {"objective_revision": 1}
    assert OBJECTIVES["kto"].version == {}


def test_a_policy_with_labels_as_inputs_acts_on_accept(bandit: Dataset) -> None:
    """Given accept the actions of the sphere are nearer to its centre than given reject, and both than nothing said."""
    trained = train(bandit, "conditional", overrides={"updates": 100, "components": 2}, device="cpu").policy
    observation, uniform = torch.zeros(1, 500, 1), torch.linspace(0, 0.999, 500)
    normal = torch.randn(500, trained.action_dim, generator=torch.Generator().manual_seed(0))

    def radius(label: Tensor | None) -> float:
        with torch.no_grad():
            return float(trained(observation, label).sample(uniform, normal).square().sum(-1).mean())

    accept, reject = radius(None), radius(-torch.ones(1, 500))
    assert accept == radius(torch.ones(1, 500))
    assert accept < radius(torch.zeros(1, 500)) < reject
    algorithm = catalog.algorithm("conditional", "bandit").model_copy(update={"start": "reference"})
    with pytest.raises(UserError, match="cannot start from a clone"):
        train(bandit, algorithm, overrides=QUICK, device="cpu")


# Flipped labels


def test_a_flip_rate_is_a_setting_of_every_objective_of_labels(bandit: Dataset) -> None:
    kto, topr = (catalog.algorithm(name, "bandit") for name in ("kto", "topr"))
    assert "flip_rate" not in settle(kto, {}, bandit)
    assert "flip_rate" not in settle(kto, {"flip_rate": 0}, bandit), "results without it keep their keys"
    assert settle(topr, {"flip_rate": 0.1}, bandit)["flip_rate"] == 0.1
    settled = settle(kto, {"flip_rate": 0.1}, bandit)  # of balanced minibatches
    assert settled["accept_share"] == pytest.approx(1 - bandit.metadata.reject_share)
    noisy = bandit.relabelled(noise=0.2)
    assert settle(kto, {"flip_rate": "dataset"}, noisy)["flip_rate"] == 0.2
    assert 0.15 < settle(kto, {"flip_rate": "estimated"}, noisy)["flip_rate"] < 0.4


def test_it_is_divided_from_the_trainers_settings(bandit: Dataset) -> None:
    """As `train --set flip_rate=0.1 --set updates=5` gives them."""
    kto = catalog.algorithm("kto", "bandit")
    given = {"flip_rate": 0.1, "updates": 5}
    assert config.divide(kto, given, TrainingSettings) == ({"flip_rate": 0.1}, {"updates": 5})
    with pytest.raises(UserError, match="unknown setting of dpo"):
        config.divide(catalog.algorithm("dpo", "bandit"), given, TrainingSettings)


@pytest.mark.parametrize(
    ("name", "rate", "message"),
    [
        ("kto", 0.6, r"flip_rate is a number from 0 to 0.499, or \"dataset\""),
        ("dpo", 0.1, "setting of dpo"),
        ("aot", 0.1, "setting of aot"),
        ("conditional", 0.1, "setting of conditional"),
    ],
)
def test_rates_that_mean_nothing_are_refused(bandit: Dataset, name: str, rate: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        settle(catalog.algorithm(name, "bandit"), {"flip_rate": rate}, bandit)


def test_labels_that_flips_alone_explain_are_refused(bandit: Dataset) -> None:
    rare = bandit.relabelled(imbalance=0.1)
    with pytest.raises(UserError, match=r"flips at a rate of 0\.2 would make as many of one class alone"):
        settle(catalog.algorithm("pmpo", "bandit"), {"flip_rate": 0.2}, rare)


@pytest.mark.parametrize("name", ["topr", "kto"])
def test_rates_are_swept_in_one_stack(bandit: Dataset, name: str) -> None:
    sweep = [{}, {"flip_rate": 0.1}, {"flip_rate": 0.3}]
    together = train(bandit, name, settings=sweep, overrides=QUICK, device="cpu")
    assert [settings.get("flip_rate", 0) for settings, _ in together.runs] == [0, 0.1, 0.3]
    assert len(set(together.metrics["loss"].tolist())) == 3
    for place in (0, 2):
        alone = train(bandit, name, settings=[sweep[place]], overrides=QUICK, device="cpu")
        torch.testing.assert_close(together.metrics["loss"][[place]], alone.metrics["loss"], rtol=1e-3, atol=1e-4)


def test_the_bound_of_de_biased_labels(bandit: Dataset) -> None:
    """Where PMPO is linear in the label, alpha = 1/2 and every row labelled, it grows by 1/(1 - 2e)."""
    pmpo = catalog.algorithm("pmpo", "bandit")
    plain = settle(pmpo, {"beta": "1x"}, bandit)["beta"]
    assert settle(pmpo, {"beta": "1x", "flip_rate": 0.2}, bandit)["beta"] == pytest.approx(plain / 0.6)


def test_the_bound_of_de_biased_labels_is_where_a_recorded_reject_weighs_nothing(bandit: Dataset) -> None:
    pmpo = catalog.algorithm("pmpo", "bandit")
    label = torch.from_numpy(np.sign(Rows.of(bandit).label.numpy())).double()
    for settings in ({"alpha": 0.3, "normalize": "set"}, {"alpha": 0.8, "normalize": "joint"}):
        settled = settle(pmpo, {"beta": "1x", "flip_rate": 0.1, **settings}, bandit)
        logp = torch.zeros(len(label), dtype=torch.float64, requires_grad=True)
        OBJECTIVES["pmpo"]({"logp": logp, "label": label, "divergence": -logp.mean()}, **settled)[0].backward()
        assert logp.grad is not None
        assert logp.grad[label < 0].abs().max() * len(label) < 1e-6


def test_bco_shift_of_no_rows_is_zero() -> None:
    assert bco_shift(torch.zeros(2, 0), torch.zeros(2, 0), torch.zeros(2, 0)).tolist() == [0, 0]
