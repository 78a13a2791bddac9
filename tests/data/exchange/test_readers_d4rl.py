"""D4RL's files: every value of every step, ends of every kind, and what is refused."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import h5py
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
    hdf5,
    npz,
    read,
    two_dropped,
    without,
)
from helpers.imports import refused

from pmpo_offline import data
from pmpo_offline.data.exchange import export_dataset
from pmpo_offline.data.exchange.readers.d4rl import SCORES

refusal = partial(refused, read)


@every
def test_d4rl_with_next_observations(tmp_path: Path, lengths: list[int]) -> None:
    written = experience(lengths)
    recorded = read(hdf5(tmp_path / "set.hdf5", as_d4rl(written)))
    assert_same(recorded.experience, written)
    assert recorded.notes["rows_without_successor_dropped"] == 0
    assert recorded.notes["episodes_ended_by_next_observations"] == 0


def test_ends_as_gymnasium_calls_them(tmp_path: Path) -> None:
    written = experience([3, 1, 4])
    names = {"terminals": "terminations", "timeouts": "truncations"}
    arrays = {names.get(name, name): values for name, values in as_d4rl(written).items()}
    assert_same(read(hdf5(tmp_path / "set.hdf5", arrays)).experience, written)
    assert_same(read(npz(tmp_path / "set.npz", arrays)).experience, written)
    kept = read(hdf5(tmp_path / "set.hdf5", without(arrays, "next_observations"))).experience
    assert kept.length.tolist() == [3, 3]  # the episode of one row that ran out of time is no step
    assert "lacks timeouts and next_observations" in refusal(
        hdf5(tmp_path / "set.hdf5", without(arrays, "next_observations", "truncations"))
    )


def test_observations_as_replay_buffers_call_them(tmp_path: Path) -> None:
    written = experience([3, 1, 4])
    names = {"observations": "obs", "next_observations": "next_obs"}
    arrays = {names.get(name, name): values for name, values in as_d4rl(written).items()}
    assert_same(read(hdf5(tmp_path / "set.hdf5", arrays)).experience, written)
    assert_same(read(npz(tmp_path / "set.npz", arrays)).experience, written)


@every
def test_d4rl_where_only_next_observations_tell_when_time_ran_out(tmp_path: Path, lengths: list[int]) -> None:
    written = experience(lengths)
    recorded = read(hdf5(tmp_path / "set.hdf5", without(as_d4rl(written), "timeouts")))
    assert_same(recorded.experience, written)
    assert recorded.notes["episodes_ended_by_next_observations"] == int((~written.terminated[:-1]).sum())


@every
def test_d4rl_without_next_observations_invents_no_successor(tmp_path: Path, lengths: list[int]) -> None:
    """As D4RL's own reader has it: the last row of an episode that ran out of time is no step, but its final state."""
    written = experience(lengths)
    recorded = read(hdf5(tmp_path / "set.hdf5", without(as_d4rl(written), "next_observations")))
    cut = ~written.terminated
    kept = (written.length > 1) | ~cut
    row = np.arange(len(written.reward))
    last = np.cumsum(written.length) - 1
    step = ~np.isin(row, last[cut])
    got = recorded.experience
    for name in ("observation", "action", "reward"):
        assert np.array_equal(getattr(got, name), getattr(written, name)[step]), name
    assert np.array_equal(got.length, (written.length - cut)[kept])
    assert np.array_equal(got.terminated, written.terminated[kept])
    # The observation of the row that was dropped; or, after a termination, the stand-in that nobody values.
    assert np.array_equal(got.final_observation, written.observation[last][kept])
    assert recorded.notes["rows_without_successor_dropped"] == int(cut.sum())


def test_d4rl_matches_its_own_rules_for_learning(tmp_path: Path) -> None:
    """`qlearning_dataset`'s transitions, but for the file's last row, which it drops even where the task ended."""
    written = experience([4, 2, 3, 1, 5])
    arrays = without(as_d4rl(written), "next_observations")
    got = read(hdf5(tmp_path / "set.hdf5", arrays)).experience
    rows = [i for i in range(len(written.reward) - 1) if not arrays["timeouts"][i]]
    assert np.array_equal(got.observation, written.observation[rows])
    following = np.roll(got.observation, -1, axis=0)
    last = np.cumsum(got.length) - 1
    following[last] = got.final_observation
    learned = ~np.isin(np.arange(len(rows)), last[got.terminated])  # after a termination D4RL gives the next episode's
    assert np.array_equal(following[learned], written.observation[np.array(rows) + 1][learned])


def test_d4rl_columns_of_one_and_float64_and_infos(tmp_path: Path) -> None:
    written = experience([3, 1, 4])
    arrays = {name: values.astype(np.float64) for name, values in as_d4rl(written).items()}
    arrays |= {name: arrays[name][:, None] for name in ("rewards", "terminals", "timeouts")}
    success = np.arange(8) == 5
    more = {"infos/success": success, "infos/qpos": np.zeros((8, 9)), "metadata/policy": np.zeros(3)}
    recorded = read(hdf5(tmp_path / "set.hdf5", arrays | more))
    assert_same(recorded.experience, written)
    assert recorded.experience.success.tolist() == [False, False, True]
    assert recorded.notes["success"] is True


def test_success_has_several_names_that_must_agree(tmp_path: Path) -> None:
    written = experience([3, 1, 4])
    success = np.arange(8) == 5
    for name in ("infos/is_success", "success", "is_success"):
        recorded = read(hdf5(tmp_path / "set.hdf5", as_d4rl(written) | {name: success}))
        assert recorded.experience.success.tolist() == [False, False, True]
        assert recorded.notes["success"] is True
    both = as_d4rl(written) | {"infos/success": success}
    assert read(hdf5(tmp_path / "set.hdf5", both | {"success": success})).notes["success"] is True
    assert "infos/success and success contradict each other" in refusal(
        hdf5(tmp_path / "set.hdf5", both | {"success": ~success})
    )
    states = as_states(experience([3]))
    solved = read(npz(tmp_path / "set.npz", states | {"success": states["is_last"]}))
    assert (solved.notes["success"], solved.experience.success.tolist()) == (True, [True])


@pytest.mark.parametrize(
    "name", ["hopper_medium-v2", "hopper-medium-v2", "halfcheetah_medium_expert-v0", "pen-human-v1"]
)
def test_names_of_d4rl_bring_its_own_scores(tmp_path: Path, name: str) -> None:
    source = found(hdf5(tmp_path / f"{name}.hdf5", as_d4rl(experience([2]))))
    environment, version = name.replace("_", "-").split("-")[0], name[-2:]
    assert source.environment is not None
    assert source.environment.id == f"d4rl/{environment}-{version}"
    assert source.references is not None
    assert (source.references.min, source.references.max) == SCORES[environment]
    assert source.references.versions == {"d4rl": version}
    assert source.licence == "CC-BY-4.0"


@pytest.mark.parametrize("name", ["hopper", "hopper-medium-v5", "hopper-v2", "my-hopper-medium-v2", "Hopper-v5"])
def test_other_names_bring_none(tmp_path: Path, name: str) -> None:
    source = found(hdf5(tmp_path / f"{name}.hdf5", as_d4rl(experience([2]))))
    assert (source.environment, source.references, source.licence) == (None, None, "unknown")


def test_our_own_hopper_is_not_d4rls_whatever_it_is_called(tmp_path: Path) -> None:
    from helpers.aligned import stored

    written = experience([3, 1, 4])
    dataset = stored(
        tmp_path / "home", [3, 1, 4], task="mujoco/hopper", references=data.References(min=1, max=2, how="x")
    )
    folder = export_dataset(dataset, "d4rl", tmp_path / "out")
    (file,) = folder.glob("*.hdf5")
    source = found(file.rename(tmp_path / "hopper-medium-v0.hdf5"))
    assert (source.task, source.environment) == ("mujoco/hopper", None)
    assert source.references is not None
    assert (source.references.min, source.references.max) == (1, 2)
    assert_same(source.read().experience, written)


def test_a_stranger_s_attribute_task_makes_no_export_of_ours(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "hopper_medium-v2.hdf5", as_d4rl(experience([2])))
    with h5py.File(path, "a") as file:
        file.attrs["task"] = "run"
    source = found(path)
    assert source.task is None
    assert source.environment is not None


def changed(name: str, values: Any) -> Arrays:
    return as_d4rl(experience([3, 1, 4])) | {name: values}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (without(changed("x", 0), "x", "actions"), "lacks actions: it holds next_observations, observations"),
        (without(changed("x", 0), "x", "actions", "terminals"), "lacks actions, terminals"),
        (
            without(changed("x", 0), "x", "terminals"),
            "; needed are, a row a step, observations (M, O), actions (M, A), terminals (M,), true where the task "
            "ended an episode (false throughout if it never does), and timeouts (M,), true in the last row of",
        ),
        (
            without(changed("episode", np.repeat([0, 1, 2], [3, 1, 4])), "terminals"),
            "every other episode, which is np.append(episode[1:] != episode[:-1], True)",
        ),
        (without(changed("x", 0), "x", "timeouts", "next_observations"), "lacks timeouts and next_observations"),
        (
            changed("rewards", np.zeros(7)),
            "rewards has 7 rows and the marks 8: every array needs one row a step",
        ),
        (changed("timeouts", np.zeros(9)), "timeouts has 9 rows and observations 8"),
        (
            changed("rewards", np.array([0, 0, np.nan, 0, 0, np.inf, 0, 0])),
            "rewards holds NaN or infinite values, first in row 2 (2 rows in all)",
        ),
        (changed("observations", np.full((8, 3), np.nan)), "observations holds NaN or infinite values, first in row 0"),
        (changed("actions", np.full((8, 2), 1e300)), "actions holds NaN or infinite values, first in row 0"),
        (
            changed("actions", np.zeros((8, 2), np.int64)),
            "actions is of whole numbers, of shape (8, 2): one discrete action",
        ),
        (changed("actions", np.zeros((8, 0))), "actions has shape (8, 0), and that shape is not supported"),
        (changed("observations", np.zeros((8, 64, 64, 3), np.uint8)), "images are not supported"),
        (changed("next_observations", np.zeros((7, 3))), "next_observations has 7 rows and observations 8: every"),
        (changed("next_observations", np.array(0.0)), "next_observations has 1 rows and observations 8: every"),
        (changed("next_observations", np.zeros((8, 4))), "observations have 3 numbers and next_observations 4"),
        (changed("terminals", np.full(8, 0.5)), "terminals: expected 0 or 1, found 0.5 in row 0"),
        (changed("rewards", np.zeros((8, 2))), "rewards: expected one number a row, found shape (8, 2)"),
        (changed("rewards", np.array([b"a"] * 8)), "rewards: expected numbers, found |S1"),
        ({name: values[:0] for name, values in changed("x", np.zeros(8)).items()}, "observations holds no rows"),
        (
            without({"observations": np.zeros((1, 3)), **changed("x", 0)}, "x", "next_observations")
            | {
                name: np.zeros((1, *shape))
                for name, shape in {
                    "observations": (3,),
                    "actions": (2,),
                    "rewards": (),
                    "terminals": (),
                    "timeouts": (),
                }.items()
            },
            "holds no step: every episode is a single state",
        ),
        (
            {"a": np.zeros(3)},
            "set.hdf5 is not recognised by its arrays, a: call them as D4RL does, observations, actions, rewards, ",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_d4rl_files_that_are_none_say_what_is_wrong(tmp_path: Path, arrays: Arrays, message: str) -> None:
    assert message in refusal(hdf5(tmp_path / "set.hdf5", arrays))


def test_next_observations_are_compared_at_the_coarser_precision(tmp_path: Path) -> None:
    written = experience([40, 40])
    rng = np.random.default_rng(0)
    fine = rng.normal(size=(82, 3)).astype(np.float32)
    states = np.split(fine, 2)
    arrays = as_d4rl(written) | {
        "observations": np.concatenate([each[:-1] for each in states]).astype(np.float16),
        "next_observations": np.concatenate([each[1:] for each in states]),
    }
    recorded = read(hdf5(tmp_path / "half.hdf5", arrays))
    assert recorded.experience.length.tolist() == [40, 40]
    assert recorded.notes["episodes_ended_by_next_observations"] == 0
    stored_as_single = arrays | {"observations": arrays["observations"].astype(np.float32)}
    assert read(hdf5(tmp_path / "single.hdf5", stored_as_single)).experience.length.tolist() == [40, 40]


@pytest.mark.parametrize("names", [(), ("timeouts",)])
def test_a_shuffled_replay_buffer_is_no_set_of_episodes(tmp_path: Path, names: tuple[str, ...]) -> None:
    order = np.random.default_rng(0).permutation(120)
    arrays = {name: values[order] for name, values in as_d4rl(experience([40, 40, 40])).items()}
    message = refusal(hdf5(tmp_path / "buffer.hdf5", without(arrays, *names)))
    assert "the rows do not follow one another: after 11" in message
    assert "a shuffled replay buffer is no set of episodes" in message


def test_a_shuffled_buffer_of_short_episodes_is_told_by_its_unmarked_rows(tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(80)
    arrays = {name: values[order] for name, values in as_d4rl(experience([2] * 40)).items()}
    assert "a shuffled replay buffer is no set of episodes" in refusal(hdf5(tmp_path / "buffer.hdf5", arrays))


def test_a_vector_environment_that_resets_itself_has_no_final_observations(tmp_path: Path) -> None:
    """Its next observation of an episode's last row is the next episode's first: no learner may bootstrap from it."""
    written = experience([4, 3, 6, 3])
    arrays = as_d4rl(written)
    last = np.cumsum(written.length) - 1
    arrays["next_observations"] = arrays["next_observations"].copy()
    arrays["next_observations"][last[:-1]] = written.observation[last[:-1] + 1]
    got = read(hdf5(tmp_path / "vector.hdf5", arrays))
    assert got.experience.length.tolist() == [4, 2, 5, 3]  # the first and the last were ended by the task
    ran_out = ~got.experience.terminated
    assert np.array_equal(got.experience.final_observation[ran_out], written.observation[last[[1, 2]]])
    assert got.notes["rows_without_successor_dropped"] == 2
    report = got.notes["report"]
    assert isinstance(report, dict)
    reason = "the last row of an episode that ran out of time: next_observations has the next episode's first"
    assert report["dropped"] == {reason: 2}
    still = {**arrays, "observations": arrays["observations"] * 0, "next_observations": arrays["observations"] * 0}
    assert read(hdf5(tmp_path / "still.hdf5", still)).experience.length.tolist() == [4, 3, 6, 3]


@pytest.mark.parametrize(("kind", "other"), [("f8", "f4"), ("f4", "f8"), ("f4", "f2"), ("f2", "f2")])
def test_precisions_of_observations_may_differ(tmp_path: Path, kind: str, other: str) -> None:
    rng = np.random.default_rng(1)
    states = np.split(rng.normal(scale=30, size=(62, 3)), 2)
    written = experience([30, 30])
    arrays = as_d4rl(written) | {
        "observations": np.concatenate([each[:-1] for each in states]).astype(kind),
        "next_observations": np.concatenate([each[1:] for each in states]).astype(other),
    }
    assert read(hdf5(tmp_path / "set.hdf5", arrays)).experience.length.tolist() == [30, 30]
    del arrays["timeouts"]
    assert read(hdf5(tmp_path / "unmarked.hdf5", arrays)).experience.length.tolist() == [30, 30]


def test_a_row_that_is_terminal_and_timeout_was_ended_by_the_task(tmp_path: Path) -> None:
    written = experience([3, 1, 4])
    arrays = as_d4rl(written)
    arrays["timeouts"] = arrays["timeouts"] | arrays["terminals"]
    assert_same(read(hdf5(tmp_path / "set.hdf5", arrays)).experience, written)


def test_rows_that_are_dropped_are_counted_and_named(tmp_path: Path) -> None:
    written = experience([4, 1, 6, 3])
    recorded = read(hdf5(tmp_path / "set.hdf5", without(as_d4rl(written), "next_observations")))
    reason = "the last row of an episode that ran out of time: what followed it is not in the file"
    assert recorded.notes["report"] == two_dropped(14, 3, {reason: "row 4"})
    assert "report" not in read(hdf5(tmp_path / "whole.hdf5", as_d4rl(written))).notes
