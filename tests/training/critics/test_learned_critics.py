"""Critics beside the policy: values known in closed form, policies that follow from them, exact resumption."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.recorded import recorded
from torch import Tensor

from pmpo_offline import on_progress
from pmpo_offline.data import Dataset, Rows
from pmpo_offline.declarations import catalog
from pmpo_offline.declarations.catalog import AlgorithmDeclaration
from pmpo_offline.policies import MixturePolicy
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.training import Trained, train
from pmpo_offline.training.critics.reward_critics import Critic, make_critic
from pmpo_offline.training.doctor import doctor

LEARNERS = ["iql", "td3-bc"]
QUICK: dict[str, Any] = {"updates": 12, "batch": 32, "hidden": [16]}


def declared(name: str, **changes: Any) -> AlgorithmDeclaration:
    """A shipped learner with other values of some fields; those of its critic go over the declared ones."""
    algorithm = catalog.algorithm(name).model_dump()
    small = {"hidden": [16], "learning_rate": 2e-2, "follow": 0.4}
    changes["critic"] = {**algorithm["critic"], **small, **changes.get("critic", {})}
    return AlgorithmDeclaration.model_validate({**algorithm, **changes})


def chain() -> Dataset:
    """Half of the episodes earn 1 in the second of two states, half nothing; the action there is +1 or -1."""
    observation = [[0.0], [1.0]] * 20
    action = [[0.0], [1.0], [0.0], [-1.0]] * 10
    return recorded(observation, action, [0, 1, 0, 0] * 10, [2] * 20, [True] * 20, [[9.0]] * 20)


def walk(length: int = 6, count: int = 20, seed: int = 0) -> Dataset:
    """Random episodes, terminated and cut in turns."""
    rng, n = np.random.default_rng(seed), length * count
    return recorded(
        rng.normal(size=(n, 3)),
        rng.uniform(-1, 1, (n, 2)),
        rng.random(n),
        [length] * count,
        [True, False] * (count // 2),
        rng.normal(size=(count, 3)),
    )


def fitted(dataset: Dataset, algorithm: AlgorithmDeclaration, updates: int) -> tuple[Critic, Rows]:
    """A critic of two runs after so many updates on all rows, beside a policy that does not move."""
    rows = Rows.of(dataset)
    policy = MixturePolicy(
        (0, 1), torch.zeros(rows.states.shape[1]), torch.ones(rows.states.shape[1]), rows.action.shape[1], components=1,
        hidden=(8,),
    )  # fmt: skip
    found = make_critic(algorithm, rows, (0, 1), policy)
    assert found is not None
    index = torch.arange(len(rows)).expand(2, -1)
    for step in range(updates):
        found.learn(SimpleNamespace(index=index), step)
    return found, rows


@pytest.mark.parametrize("expectile", [0.5, 0.8])
def test_iql_values_a_state_by_the_expectile_of_its_actions(expectile: float) -> None:
    """V of the second state is the expectile of {0, 1}, which is the level itself, and Q of the first .5 times that."""
    settings = {"expectile": expectile, "discount": 0.5}
    found, rows = fitted(chain(), declared("iql", critic=settings), 150)
    second = rows.observation[:, 0] == 1
    value = found.value(torch.arange(len(rows)).expand(2, -1), rows.action.expand(2, -1, -1)) / (1 - 0.5)
    torch.testing.assert_close(value[:, ~second], torch.full((2, 20), 0.5 * expectile), atol=0.03, rtol=0)
    torch.testing.assert_close(value[:, second], rows.reward[second].expand(2, -1), atol=0.03, rtol=0)
    advantage = found.advantage[:, second] / 2  # episodes of two steps, whose returns span 0 to 1
    torch.testing.assert_close(advantage, (rows.reward[second] - expectile).expand(2, -1), atol=0.03, rtol=0)
    assert found.advantage[:, ~second].abs().max() < 0.06, "one action only: no better and no worse"


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize(("terminated", "value"), [(True, 1.0), (False, 2.0)], ids=["terminated", "cut"])
def test_what_is_cut_goes_on_and_what_ends_is_over(name: str, terminated: bool, value: float) -> None:
    """One state that pays 1 a step: 1 where the episode ends, 1 / (1 - .5) where it is only cut."""
    rows = np.zeros((8, 1))
    dataset = recorded(rows, rows, np.ones(8), [1] * 8, [terminated] * 8, rows)
    found, _ = fitted(dataset, declared(name, critic={"discount": 0.5}), 80)
    learned = found.value(torch.zeros(2, 1, dtype=torch.int64), torch.zeros(2, 1, 1)) / (1 - 0.5)
    torch.testing.assert_close(learned, torch.full((2, 1), value), atol=0.06, rtol=0)


def test_td3_values_what_the_policy_would_do_next() -> None:
    """From the first state to the second, where an action earns itself: Q of the first is the policy's action there."""
    action = np.linspace(-1, 1, 41)[:, None]
    observation = np.concatenate([np.zeros((20, 1)), np.ones((41, 1))])
    dataset = recorded(
        observation,
        np.concatenate([np.zeros((20, 1)), action]),
        np.concatenate([np.zeros(20), action[:, 0]]),
        [1] * 61,
        [False] * 20 + [True] * 41,
        np.ones((61, 1)),
    )
    algorithm = declared("td3-bc", critic={"discount": 0.5, "noise": 0.0})
    rows = Rows.of(dataset)
    policy = MixturePolicy((0, 1), torch.zeros(1), torch.ones(1), 1, components=1, hidden=(8,))
    with torch.no_grad():
        policy.network[-1].weight.zero_()  # type: ignore[operator, union-attr]
        policy.network[-1].bias[..., 1] = torch.tensor([[0.4], [-3.0]])  # type: ignore[index]
    found = make_critic(algorithm, rows, (0, 1), policy)
    assert found is not None
    for step in range(150):
        found.learn(SimpleNamespace(index=torch.arange(61).expand(2, -1)), step)
    learned = found.value(torch.zeros(2, 1, dtype=torch.int64), torch.zeros(2, 1, 1)) / (1 - 0.5)
    assert learned.flatten().tolist() == pytest.approx([0.5 * 0.4, 0.5 * -1.0], abs=0.05), (
        "clipped as the environment does"
    )
    better = found.advantage[:, 20:].mean(1)  # recorded actions are 0 on average
    assert better.tolist() == pytest.approx([-0.4, 1.0], abs=0.07)


def test_td3_bc_rests_between_the_recorded_actions_and_the_best_one() -> None:
    """An action earns itself and the recorded ones are 0 on average: the policy rests at sqrt(alpha / 2), or at 1."""
    action = np.linspace(-1, 1, 41)[:, None]
    dataset = recorded(np.zeros((41, 1)), action, action[:, 0], [1] * 41, [True] * 41, np.zeros((41, 1)))
    alphas: list[dict[str, Any]] = [{"alpha": alpha} for alpha in (0.0, 0.18, 0.98, 8.0)]
    overrides = {"updates": 250, "batch": 64, "hidden": [8], "learning_rate": 2e-2, "averaging": 0.96}
    algorithm = declared("td3-bc", critic={"discount": 0.0})
    policy = train(dataset, algorithm, settings=alphas, overrides=overrides, device="cpu").policy
    acts = policy(torch.zeros(4, 1, 1)).mode().clamp(-1, 1).flatten().tolist()
    assert acts == pytest.approx([0.0, 0.3, 0.7, 1.0], abs=0.08)


def test_iql_prefers_what_turned_out_better() -> None:
    overrides = {"updates": 300, "batch": 64, "hidden": [32], "learning_rate": 1e-2, "averaging": 0.98}
    algorithm = declared("iql", critic={"learning_rate": 1e-2, "follow": 0.2})
    policy = train(chain(), algorithm, seeds=(0, 1), overrides=overrides, device="cpu").policy
    assert policy(torch.ones(2, 1, 1)).mode().flatten().tolist() == pytest.approx([1.0, 1.0], abs=0.1)


def test_a_row_is_seen_with_what_followed_it() -> None:
    dataset = recorded(
        [[0.0], [1], [2], [3], [4]], np.zeros((5, 1)), [1, 2, 3, 4, 5], [3, 2], [True, False], [[7.0], [8]]
    )
    critic, rows = fitted(dataset, declared("iql", critic={"discount": 0.9}), 0)
    index = torch.arange(5).unsqueeze(0)
    following = critic.next_state(index) * rows.observation.std() + rows.observation.mean()
    torch.testing.assert_close(following.flatten(), torch.tensor([1.0, 2, 7, 4, 8]))
    reward, discount = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5]]), torch.tensor([[0.9, 0.9, 0, 0.9, 0.9]])
    torch.testing.assert_close(critic.bootstrapped(index, torch.tensor(2.0)), reward + discount * 2)


def weights(policy: MixturePolicy, run: int | slice = slice(None)) -> Tensor:
    return torch.cat([weight[run].flatten() for weight in policy.parameters()])


@pytest.mark.parametrize("name", LEARNERS)
def test_stacked_runs_equal_runs_alone(name: str) -> None:
    setting = next(iter(catalog.algorithm(name).settings))
    sweep = [{setting: 0.5}, {setting: 2.0}]
    together = train(walk(), declared(name), seeds=(3, 5), settings=sweep, overrides=QUICK, device="cpu").policy
    for run, (each, seed) in enumerate((each, seed) for each in sweep for seed in (3, 5)):
        alone = train(walk(), declared(name), seeds=(seed,), settings=[each], overrides=QUICK, device="cpu").policy
        torch.testing.assert_close(weights(together, run), weights(alone), atol=1e-5, rtol=1e-4)
    assert not weights(together, 0).equal(weights(together, 2)), "the settings do matter"


@pytest.mark.filterwarnings("ignore:.*below its bound")
@pytest.mark.parametrize("name", [each.name for each in catalog.algorithms("control")])
def test_every_learner_that_is_declared_for_control_learns(advantage: Dataset, name: str) -> None:
    algorithm = catalog.algorithm(name, "control")
    trained = train(advantage, algorithm, seeds=(0, 1), overrides={**QUICK, "components": 1}, device="cpu")
    assert torch.isfinite(weights(trained.policy)).all()
    assert not weights(trained.policy, 0).equal(weights(trained.policy, 1))


class Interrupted(Exception):
    """What Ctrl-C is here."""


def stop(at: int) -> Callable[[str, int, int], None]:
    """Progress that interrupts when it is so far."""

    def progress(stage: str, done: int, total: int) -> None:
        if done >= at:
            raise Interrupted

    return progress


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("updates", [15, 16])
def test_interrupted_training_ends_bit_for_bit_alike(tmp_path: Path, name: str, updates: int) -> None:
    overrides = {**QUICK, "updates": updates, "checkpoint_every": 5}

    def run(folder: str, progress: Callable[[str, int, int], None] | None = None) -> Trained:
        with on_progress(progress):
            return train(walk(), declared(name), seeds=(0, 1), overrides=overrides, device="cpu",
                         checkpoint=tmp_path / folder)  # fmt: skip

    whole = run("whole")
    with pytest.raises(Interrupted):
        run("cut", stop(updates))
    assert (tmp_path / "cut").is_file()
    with pytest.raises(UserError, match="the checkpoint of another training"):
        train(walk(), declared(name, critic={"discount": 0.5}), seeds=(0, 1), overrides=overrides, device="cpu",
              checkpoint=tmp_path / "cut")  # fmt: skip
    resumed = run("cut")
    assert weights(resumed.policy).equal(weights(whole.policy))
    assert resumed.metrics.keys() == whole.metrics.keys()
    assert all(resumed.metrics[key].equal(value) for key, value in whole.metrics.items())


def refused(message: str, algorithm: AlgorithmDeclaration, dataset: Dataset | None = None, **overrides: Any) -> None:
    with pytest.raises(UserError, match=message) as caught:
        train(dataset or walk(), algorithm, overrides={**QUICK, **overrides}, device="cpu")
    assert "\n" not in str(caught.value)


def test_mistakes_are_the_users() -> None:
    refused("critic of iql: expectile: input should be less than 1, not", declared("iql", critic={"expectile": 1.5}))
    refused("critic of iql: unknown setting 'expectil': did you mean exp", declared("iql", critic={"expectil": 0.5}))
    refused("unknown kind of critic in algorithm td3-bc: 'td4': did you", declared("td3-bc", critic={"kind": "td4"}))
    without = AlgorithmDeclaration.model_validate({**catalog.algorithm("td3-bc").model_dump(), "critic": {}})
    refused(r"climbs a learned value: declare a \[critic\]", without)
    refused("a single Gaussian: set components = 1", declared("td3-bc"), components=2)
    refused('iql has a critic, which learns from recorded steps, and rows = "pairs"', declared("iql", rows="pairs"))
    refused("holds responses, not transitions", declared("iql"), replace(walk(), episodes=None))


def test_a_critic_of_its_own_needs_no_advantages_in_the_data() -> None:
    assert doctor(walk(), declared("iql")).verdict == "ready"
    own = declared("awr", critic={"kind": "td3"}, settings={"temperature": 1.0})
    assert doctor(walk(), own).verdict == "ready"
    plain = own.model_copy(update={"critic": {}})
    assert doctor(walk(), plain).verdict == "cannot learn"
    assert doctor(walk(), catalog.algorithm("awr")).verdict == "cannot learn"
    trained = train(walk(), own, overrides=QUICK, device="cpu")
    assert torch.isfinite(trained.metrics["loss"]).all()
