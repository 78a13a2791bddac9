"""OGBench's files, in their three layouts."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.aligned import experience
from helpers.foreign import (
    Arrays,
    as_d4rl,
    as_states,
    assert_same,
    every,
    found,
    npz,
    read,
    without,
)
from helpers.imports import refused

refusal = partial(refused, read)


def as_ogbench(written: Any, layout: str) -> Arrays:
    """In the layout of OGBench's files, or of what its own reader returns of them, compact or regular."""
    states = as_states(written)
    ends = states["is_last"].astype(np.float32)
    raw = {"observations": states["observation"], "actions": states["action"], "terminals": ends}
    if layout == "file":
        return raw
    last_steps = np.append(ends[1:], 1.0)
    if layout == "compact":
        return raw | {"valids": 1 - ends, "terminals": np.minimum(ends + last_steps, 1)}
    step = ends == 0
    after = np.append(False, step[:-1])
    return {
        "observations": raw["observations"][step],
        "next_observations": raw["observations"][after],
        "actions": raw["actions"][step],
        "terminals": last_steps[step],
    }


layouts = pytest.mark.parametrize("layout", ["file", "compact", "regular"])


@layouts
@every
def test_ogbench(tmp_path: Path, lengths: list[int], layout: str) -> None:
    written = experience(lengths)
    source = found(npz(tmp_path / "cube-single-play-v0.npz", as_ogbench(written, layout)))
    recorded = source.read()
    assert_same(recorded.experience, written, "reward", "terminated")
    assert not recorded.experience.reward.any()
    assert not recorded.experience.terminated.any()
    assert (recorded.notes["rewards"], recorded.notes["success"]) == (False, False)
    assert source.environment is not None
    assert source.environment.id == "ogbench/cube-single-v0"


@layouts
def test_ogbench_with_the_rewards_and_masks_of_a_single_task(tmp_path: Path, layout: str) -> None:
    written = experience([3, 1, 4])
    arrays = as_ogbench(written, layout)
    states = as_states(written)
    step = ~states["is_last"]
    solved = np.zeros(11, bool)
    solved[[1, 9]] = True  # in the middle of episode 0, in the last step of episode 2
    solved[[3, 5, 10]] = True  # in the bare states, which count for nothing
    more = {"rewards": states["reward"], "masks": 1.0 - solved}
    if layout == "regular":
        more = {name: values[step] for name, values in more.items()}
    recorded = read(npz(tmp_path / "set.npz", arrays | more))
    # An episode is solved where any step is; it is terminated where its last step is.
    assert_same(recorded.experience, written, "terminated")
    assert recorded.experience.success.tolist() == [True, False, True]
    assert recorded.experience.terminated.tolist() == [False, False, True]


def test_several_discrete_actions_a_step_are_refused(tmp_path: Path) -> None:
    arrays = as_ogbench(experience([3]), "file")
    arrays["actions"] = arrays["actions"].astype(np.int32)
    assert "one discrete action a step can be read" in refusal(npz(tmp_path / "powderworld-easy-play-v0.npz", arrays))


def test_rewards_without_masks_are_no_sign_of_ogbench(tmp_path: Path) -> None:
    arrays = as_d4rl(experience([4, 1, 6, 3]))
    named = without(arrays, "timeouts", "next_observations")
    assert "lacks timeouts and next_observations" in refusal(npz(tmp_path / "set-v0.npz", named))
    assert found(npz(tmp_path / "whole.npz", without(arrays, "timeouts"))).format == "d4rl"


def test_ogbench_padding_may_be_nan(tmp_path: Path) -> None:
    written = experience([3, 1, 4])
    arrays = as_ogbench(written, "file")
    arrays["actions"] = np.where(arrays["terminals"][:, None] == 1, np.nan, arrays["actions"])
    assert_same(read(npz(tmp_path / "set.npz", arrays)).experience, written, "reward", "terminated")
