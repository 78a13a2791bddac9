"""The tasks of dm_control's suite: models and initial states are dm_control's, the rest is batched.

Observations are dm_control's, flattened in its order. Every reward is exact: velocities and positions are those after
the action. Each task is a function that builds both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import mujoco
import numpy as np

from pmpo_offline.tasks.control.planar import Tree
from pmpo_offline.tasks.control.simulation import Rules, State, quiet
from pmpo_offline.tasks.simulated import Array

Slope = Literal["gaussian", "linear", "quadratic"]
Pair = tuple[Callable[[State], Array], Callable[[State, Array, State], Array]]
"""A task's observation and reward."""


def cartpole_swingup(model: mujoco.MjModel) -> Pair:
    """Swing the pole up and keep the cart at the middle; O = 5: cart, cos and sin of the pole, two velocities."""

    def observe(now: State) -> Array:
        cart, pole = now.qpos[:, :1], now.qpos[:, 1:]
        return np.concatenate([cart, np.cos(pole), np.sin(pole), now.qvel], axis=1)

    def reward(_: State, action: Array, now: State) -> Array:
        upright = (np.cos(now.qpos[:, 1]) + 1) / 2
        centered = (1 + tolerance(now.qpos[:, 0], (0, 0), margin=2)) / 2
        calm = (4 + tolerance(action[:, 0], (0, 0), margin=1, slope="quadratic", at_margin=0)) / 5
        slow = (1 + tolerance(now.qvel[:, 1], (0, 0), margin=5)) / 2
        return np.asarray(upright * calm * slow * centered)

    return observe, reward


def cheetah_run(model: mujoco.MjModel) -> Pair:
    """Run at 10 m/s; O = 17: positions but the horizontal one, velocities."""
    body = Tree.of(model).center_of_all()

    def observe(now: State) -> Array:
        return np.concatenate([now.qpos[:, 1:], now.qvel], axis=1)

    def reward(_: State, action: Array, now: State) -> Array:
        return tolerance(body.speed(now.qpos, now.qvel), (10, np.inf), margin=10, slope="linear", at_margin=0)

    return observe, reward


def walker_walk(model: mujoco.MjModel) -> Pair:
    """Walk upright at 1 m/s; O = 24: (cos, sin) of the seven bodies, the torso's height, velocities."""
    tree = Tree.of(model)
    torso, body = tree.body("torso"), tree.center_of_all()

    def observe(now: State) -> Array:
        angle = tree.angles(now.qpos)
        turned = np.stack([np.cos(angle), np.sin(angle)], axis=2).reshape(len(angle), -1)
        return np.concatenate([turned, torso.height(now.qpos)[:, None], now.qvel], axis=1)

    def reward(_: State, action: Array, now: State) -> Array:
        standing = tolerance(torso.height(now.qpos), (1.2, np.inf), margin=0.6)
        upright = (1 + np.cos(tree.angles(now.qpos)[:, 0])) / 2
        speed = body.speed(now.qpos, now.qvel)
        moving = tolerance(speed, (1, np.inf), margin=0.5, slope="linear", at_margin=0.5)
        return np.asarray((3 * standing + upright) / 4 * (5 * moving + 1) / 6)

    return observe, reward


def finger_spin(model: mujoco.MjModel) -> Pair:
    """Spin the body at 15 rad/s; O = 9: two joints, the spinner's tip (x, z), three velocities, log of two touches."""
    reach = model.site("tip").pos[2]
    touches = [int(model.sensor(name).adr[0]) for name in ("touchtop", "touchbottom")]

    def observe(now: State) -> Array:
        spinner = now.qpos[:, 2]  # about -y
        tip = reach * np.stack([-np.sin(spinner), np.cos(spinner)], axis=1)
        # Touch is a force of the last physics step, for dm_control too.
        return np.concatenate([now.qpos[:, :2], tip, now.qvel, np.log1p(now.sensors[:, touches])], axis=1)

    def reward(_: State, action: Array, now: State) -> Array:
        return (now.qvel[:, 2] <= -15).astype(np.float64)

    return observe, reward


def reacher_easy(model: mujoco.MjModel) -> Pair:
    """Hold the finger in the target; O = 6: two joints, finger to target (x, y), two velocities."""
    upper, lower = (model.body(name).pos[0] for name in ("hand", "finger"))
    radii = model.geom("target").size[0] + model.geom("finger").size[0]

    def to_target(now: State) -> Array:
        shoulder, elbow = now.qpos[:, 0], now.qpos.sum(axis=1)
        x, y = (upper * f(shoulder) + lower * f(elbow) for f in (np.cos, np.sin))
        return np.asarray(now.target - np.stack([x, y], axis=1))

    def observe(now: State) -> Array:
        return np.concatenate([now.qpos, to_target(now), now.qvel], axis=1)

    def reward(_: State, action: Array, now: State) -> Array:
        return tolerance(np.linalg.norm(to_target(now), axis=1), (0, radii))

    return observe, reward


def hopper_hop(model: mujoco.MjModel) -> Pair:
    """Hop at 2 m/s; O = 15: positions but the horizontal one, velocities, log of the foot's two touches."""
    tree = Tree.of(model)
    torso, foot, body = tree.center("torso"), tree.center("foot"), tree.center_of_all()
    touches = [int(model.sensor(name).adr[0]) for name in ("touch_toe", "touch_heel")]

    def observe(now: State) -> Array:
        return np.concatenate([now.qpos[:, 1:], now.qvel, np.log1p(now.sensors[:, touches])], axis=1)

    def reward(_: State, action: Array, now: State) -> Array:
        standing = tolerance(torso.height(now.qpos) - foot.height(now.qpos), (0.6, 2))
        speed = body.speed(now.qpos, now.qvel)
        return np.asarray(standing * tolerance(speed, (2, np.inf), margin=1, slope="linear", at_margin=0.5))

    return observe, reward


_BUILDERS = (cartpole_swingup, cheetah_run, walker_walk, finger_spin, reacher_easy, hopper_hop)
TASKS: dict[str, Callable[[mujoco.MjModel], Pair]] = {task.__name__.replace("_", "-"): task for task in _BUILDERS}
"""Builders of observation and reward by dm_control's domain and task."""


def rules(name: str) -> Rules:
    """Return the rules of `dm_control/<name>`; `KeyError` if the name is not in `TASKS`."""
    random = np.random.RandomState()  # dm_control draws from nothing else
    with quiet():
        from dm_control import suite  # slow to import
    with quiet():  # importing it sets another receiver of MuJoCo's warnings
        environment: Any = suite.load(*name.split("-", 1), task_kwargs={"random": random})
    environment.reset()  # this is where a task alters its model
    physics = environment.physics
    model = physics.model.ptr
    observe, reward = TASKS[name](model)
    has_target = name.startswith("reacher")

    def begin(seed: int) -> State:
        random.seed(seed)
        environment.reset()
        data = physics.data
        target = physics.named.model.geom_pos["target", :2] if has_target else np.zeros(2)
        return State(data.qpos.copy(), data.qvel.copy(), data.sensordata.copy(), np.array(target))

    return Rules(
        id=f"dm_control/{name}",
        model=model,
        substeps=round(environment.control_timestep() / physics.timestep()),
        horizon=1000,
        begin=begin,
        observe=observe,
        reward=reward,
    )


def tolerance(
    x: Array,
    bounds: tuple[float | Array, float | Array],
    margin: float = 0.0,
    slope: Slope = "gaussian",
    at_margin: float = 0.1,
) -> Array:
    """Return how well `x` lies within the bounds, of its shape: 1 inside, sloping to 0 outside, as dm_control has it.

    With d the distance to the interval in margins and v the value at distance 1:

        gaussian   exp(d² ln v)
        linear     max(0, 1 - d (1 - v))
        quadratic  max(0, 1 - d² (1 - v))

    Without a margin everything outside is 0.

    Args:
        x: any quantity.
        bounds: both ends of the interval, inclusive; infinite for none.
        margin: distance, in the units of `x`, at which the value is `at_margin`.
        slope: the form outside the interval.
        at_margin: v, in (0, 1); 0 too where the form is not gaussian.
    """
    low, high = bounds
    distance = np.maximum(np.maximum(low - x, x - high), 0.0)
    if margin == 0:
        return np.asarray(distance == 0, np.float64)
    distance /= margin
    if slope == "gaussian":
        return np.asarray(np.exp(distance**2 * np.log(at_margin)))
    power = 1 if slope == "linear" else 2
    return np.asarray(np.maximum(0.0, 1 - distance**power * (1 - at_margin)))
