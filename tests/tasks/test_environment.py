"""A Gymnasium environment as a task: what is played there is what a loop of one's own plays."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from pmpo_offline.evaluation import evaluate
from pmpo_offline.policies import MixturePolicy
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.tasks.environment import EnvironmentTask


class Line(gymnasium.Env[Any, Any]):
    """A point that moves along a line for three steps; it succeeds at the goal, and the reward is its speed."""

    observation_space = spaces.Dict({"at": spaces.Box(-9, 9, (1,)), "goal": spaces.Box(-9, 9, (1,))})
    action_space = spaces.Box(-1, 1, (1, 1))

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.at, self.goal, self.steps = 0.0, float(self.np_random.integers(1, 3)), 0
        return self._seen(), {}

    def step(self, action: Any) -> Any:
        assert Line.action_space.contains(action)
        self.at, self.steps = self.at + float(action[0, 0]), self.steps + 1
        return self._seen(), action[0, 0], False, self.steps == 3, {"is_success": self.at == self.goal}

    def _seen(self) -> dict[str, Any]:
        return {"at": np.array([self.at], np.float32), "goal": np.array([self.goal], np.float32)}


def to_goal(seen: Any) -> Any:
    return seen[:, 1:] - seen[:, :1]


def test_a_function_reaches_every_goal_and_its_actions_are_clipped() -> None:
    scores = evaluate(to_goal, Line(), episodes=20)
    assert scores["success"].all()
    assert set(scores["return"].to_list()) == {1.0, 2.0}, "the goals differ, and are the returns"
    assert scores["layout"].unique().to_list() == ["Line"]
    assert scores.equals(evaluate(to_goal, Line(), episodes=20)), "the same episodes every time"
    assert not evaluate(lambda seen: np.full((len(seen), 1), 9.0), Line(), episodes=5)["success"].any()


class Steps(Line):
    """A line on which discrete actions go back, stay and go on; they are counted from -1."""

    action_space = spaces.Discrete(3, start=-1)

    def step(self, action: Any) -> Any:
        assert -1 <= action <= 1
        return super().step(np.full((1, 1), action, np.float32))


def test_the_largest_number_is_the_discrete_action() -> None:
    def choose(seen: Any) -> Any:
        return np.eye(3)[1 + np.sign(to_goal(seen)[:, 0]).astype(int)]

    scores = evaluate(choose, Steps(), episodes=10)
    assert scores["success"].all()


def test_a_registered_environment_is_found_by_its_id() -> None:
    gymnasium.register("Line-v0", lambda: Line(), max_episode_steps=2)
    scores = evaluate(to_goal, "Line-v0", episodes=4)
    assert (scores["length"] == 2).all(), "its time limit is the registered one"
    assert evaluate(to_goal, EnvironmentTask(Line, "mine/line"), episodes=1)["layout"].to_list() == ["mine/line"]


def test_what_cannot_be_played_is_refused_by_name() -> None:
    class Keys(Line):
        action_space = spaces.MultiBinary(2)

    with pytest.raises(UserError, match=r"are MultiBinary\(2\): policies here act in a Box or a Discrete space"):
        evaluate(to_goal, Keys())
    with pytest.raises(UserError, match="environment nothing:Env-v0: No module named 'nothing'"):
        evaluate(to_goal, "nothing:Env-v0")


@pytest.mark.parametrize(
    ("observations", "actions", "message"),
    [
        (6, 1, "the observations of the policy have 6 numbers, and those of Pendulum-v1 have 3"),
        (3, 2, "the actions of the policy have 2 numbers, and those of Pendulum-v1 have 1"),
    ],
)
def test_a_policy_of_another_task_is_refused(observations: int, actions: int, message: str) -> None:
    policy = MixturePolicy([0], torch.zeros(observations), torch.ones(observations), actions, hidden=())
    with pytest.raises(UserError, match=message):
        evaluate(policy, "Pendulum-v1", episodes=1)
