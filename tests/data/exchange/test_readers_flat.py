"""D4RL, OGBench and RLDS files: every value of every step, ends of every kind, and what is refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.aligned import experience
from helpers.foreign import Arrays, as_d4rl, as_states, assert_same, found, hdf5, npz, read

from pmpo_offline import data
from pmpo_offline.data.exchange import d4rl_scores, export_dataset
from pmpo_offline.data.exchange.readers import READERS, holds_arrays
from pmpo_offline.runtime.errors import UserError

LENGTHS = {
    "single steps": [1, 1, 1, 1],
    "mixed": [3, 1, 4, 1, 12],
    "long": [2, 40_000, 1],
    "many episodes": [1 + index % 3 for index in range(10_000)],
}
every = pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())


def refusal(path: Path | str) -> str:
    with pytest.raises(UserError) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def without(arrays: Arrays, *names: str) -> Arrays:
    return {name: values for name, values in arrays.items() if name not in names}


# D4RL


@every
def test_d4rl_with_next_observations(tmp_path: Path, lengths: list[int]) -> None:
    written = experience(lengths)
    recorded = read(hdf5(tmp_path / "set.hdf5", as_d4rl(written)))
    assert_same(recorded.experience, written)
    assert recorded.notes["rows_without_successor_dropped"] == 0
    assert recorded.notes["episodes_ended_by_next_observations"] == 0


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
    assert (source.references.min, source.references.max) == d4rl_scores.SCORES[environment]
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
        (without(changed("x", 0), "x", "actions", "rewards"), "lacks actions, rewards"),
        (without(changed("x", 0), "x", "timeouts", "next_observations"), "lacks timeouts and next_observations"),
        (
            changed("rewards", np.zeros(7)),
            "observations has 8 rows and rewards has 7: every array needs one row a step",
        ),
        (changed("timeouts", np.zeros(9)), "observations has 8 rows and timeouts has 9"),
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
        (changed("actions", np.zeros(8)), "actions has shape (8,), and that shape is not supported"),
        (changed("observations", np.zeros((8, 64, 64, 3), np.uint8)), "images are not supported"),
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
        ({"a": np.zeros(3)}, "set.hdf5 is not recognised by its arrays, a: known are minari, lerobot"),
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


def two_dropped(rows: int, episodes: int, first: dict[str, str]) -> dict[str, Any]:
    """Return the report of an import that drops two rows, one of them a whole episode, for the reason in `first`."""
    counts = {"rows": rows, "episodes": episodes, "episodes_dropped": 1}
    return {**counts, "dropped": dict.fromkeys(first, 2), "first_dropped": first}


def test_rows_that_are_dropped_are_counted_and_named(tmp_path: Path) -> None:
    written = experience([4, 1, 6, 3])
    recorded = read(hdf5(tmp_path / "set.hdf5", without(as_d4rl(written), "next_observations")))
    reason = "the last row of an episode that ran out of time: what followed it is not in the file"
    assert recorded.notes["report"] == two_dropped(14, 3, {reason: "row 4"})
    assert "report" not in read(hdf5(tmp_path / "whole.hdf5", as_d4rl(written))).notes


# Files that are no files


@pytest.mark.parametrize("suffix", ["hdf5", "npz", "parquet"])
def test_missing_empty_and_damaged_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"set.{suffix}"
    assert "there is no such file or folder; known are minari, lerobot" in refusal(path)
    path.touch()
    assert refusal(path) == f"{path} is empty"
    path.write_bytes(b"not at all" * 100)
    assert f"{path} cannot be read, it is damaged or no .{suffix} file" in refusal(path)


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_truncated_files(tmp_path: Path, share: float) -> None:
    written = experience([300])
    states = as_states(written)
    table = pa.table({name: list(values) for name, values in states.items()})
    whole = [hdf5(tmp_path / "a.hdf5", as_d4rl(written)), npz(tmp_path / "b.npz", states), tmp_path / "c.parquet"]
    pq.write_table(table, whole[2])
    for path in whole:
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
        assert "cannot be read, it is damaged" in refusal(path)


def test_a_damaged_byte_inside_is_noticed(tmp_path: Path) -> None:
    path = npz(tmp_path / "set.npz", as_states(experience([300])))
    content = bytearray(path.read_bytes())
    content[400:440] = b"x" * 40
    path.write_bytes(content)
    assert "cannot be read, it is damaged" in refusal(path)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    states = as_states(experience([2]))
    states["action"] = np.array([Trap(), Trap(), Trap()], object)
    np.savez(tmp_path / "set.npz", allow_pickle=True, **states)
    assert "cannot be read" in refusal(tmp_path / "set.npz")
    (tmp_path / "set.pkl").write_bytes(pickle.dumps(Trap()))
    assert "is no file of arrays: they end in .npz, .hdf5, .h5, .parquet" in refusal(tmp_path / "set.pkl")
    assert not (tmp_path / "sprung").exists()


def test_folders_and_names_that_are_neither(tmp_path: Path) -> None:
    assert "holds no Minari data set and no files of arrays; known are minari, lerobot" in refusal(tmp_path)
    assert "gcs: is no place to import from" in refusal("gcs:bucket/set")
    (inside := tmp_path / "exported" / "bandit" / "sphere-v0" / "data").mkdir(parents=True)
    (inside / "metadata.json").write_text("{}")
    assert holds_arrays(tmp_path / "exported"), "JSON of a Minari data set is no text"
    assert f"give one of them, as {inside.parent}" in refusal(tmp_path / "exported")
    hdf5(tmp_path / "main_data.hdf5", {"episode_0/observations": np.zeros((2, 3))})
    assert "is the inside of a Minari data set" in refusal(tmp_path / "main_data.hdf5")
    np.savez(tmp_path / "part-0.npz", observations=np.zeros((2, 3)))
    assert "holds .npz and .hdf5 files: give one of them" in refusal(tmp_path)


# RLDS


@pytest.mark.parametrize("suffix", ["npz", "hdf5", "parquet"])
@every
def test_rlds(tmp_path: Path, lengths: list[int], suffix: str) -> None:
    written = experience(lengths)
    path = tmp_path / f"set.{suffix}"
    assert_same(read(write_states(path, as_states(written))).experience, written)


def write_states(path: Path, states: Arrays) -> Path:
    if path.suffix == ".parquet":
        lists = {
            name: pa.FixedSizeListArray.from_arrays(values.reshape(-1), values.shape[1]) if values.ndim == 2 else values
            for name, values in states.items()
        }
        lists["observation"] = lists["observation"].cast(pa.list_(pa.float32()))  # as most writers have it
        pq.write_table(pa.table(lists), path)
        return path
    return (hdf5 if path.suffix == ".hdf5" else npz)(path, states)


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_rlds_in_a_folder_goes_on_from_file_to_file(tmp_path: Path, suffix: str) -> None:
    written = experience([3, 1, 40, 2])
    states = as_states(written)
    folder = tmp_path / "shards"
    folder.mkdir()
    for part, start in enumerate(range(0, 50, 10)):
        write_states(
            folder / f"part-{part}.{suffix}", {name: values[start : start + 10] for name, values in states.items()}
        )
    source = found(folder)
    assert list(source.files) == [f"part-{part}.{suffix}" for part in range(5)]
    assert_same(source.read().experience, written)


def test_rlds_parts_of_observations_are_joined_by_name(tmp_path: Path) -> None:
    written = experience([3, 1, 4])
    states = as_states(written)
    whole = states.pop("observation")
    parts = {"observation/a": whole[:, :1], "observation/b": whole[:, 1:]}
    for path in (npz(tmp_path / "set.npz", states | parts), hdf5(tmp_path / "set.hdf5", states | parts)):
        assert_same(read(path).experience, written)


def test_rlds_episodes_that_broke_off_lose_the_step_whose_successor_is_lost(tmp_path: Path) -> None:
    written = experience([3, 2, 4])
    states = as_states(written)
    # Episode 1 (rows 4-6) and episode 2 (rows 7-11) end without a last step: their final observations are missing.
    keep = ~np.isin(np.arange(12), [6, 11])
    recorded = read(npz(tmp_path / "set.npz", {name: values[keep] for name, values in states.items()}))
    got = recorded.experience
    assert got.length.tolist() == [3, 1, 3]
    assert got.terminated.tolist() == [True, False, False]
    assert np.array_equal(got.final_observation[1:], written.observation[[4, 8]])
    assert recorded.notes["episodes_without_a_last_step"] == 2


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("is_first", 0, "row 0 is not is_first"),
        ("is_first", 4, "row 3 is_last, and the row after it is not is_first"),
        ("is_last", 3, "row 3 is_terminal and not is_last"),
    ],
)
def test_rlds_marks_that_contradict_one_another(tmp_path: Path, name: str, row: int, message: str) -> None:
    states = as_states(experience([3, 2]))
    states[name][row] = False
    assert message in refusal(npz(tmp_path / "set.npz", states))


def test_rlds_lists_of_unequal_lengths_and_nulls(tmp_path: Path) -> None:
    states: dict[str, Any] = {name: list(values) for name, values in as_states(experience([3])).items()}
    states["observation"] = [[0.0, 1.0], [2.0], [3.0, 4.0, 5.0], [6.0, 7.0]]
    pq.write_table(pa.table(states), tmp_path / "a.parquet")
    assert "the lists of observation are of unequal lengths" in refusal(tmp_path / "a.parquet")
    states["observation"] = [[0.0, 1.0]] * 4
    pq.write_table(pa.table(states | {"reward": [0.0, None, 0.0, 0.0]}), tmp_path / "b.parquet")
    assert "reward holds NaN or infinite values, first in row 1" in refusal(tmp_path / "b.parquet")
    unused = {"reward": [0.0, 1.0, 2.0, None], "action": [*map(list, states["action"][:3]), None]}  # of the last step
    pq.write_table(pa.table(states | unused), tmp_path / "d.parquet")
    assert read(tmp_path / "d.parquet").experience.reward.tolist() == [0.0, 1.0, 2.0]
    assert "lacks reward" in refusal(npz(tmp_path / "c.npz", without(as_states(experience([3])), "reward")))


def test_rlds_last_steps_mean_nothing_and_may_be_nan(tmp_path: Path) -> None:
    written = experience([4, 1, 6, 3])
    states = as_states(written)
    for name in ("action", "reward"):
        states[name][states["is_last"]] = np.nan
    assert_same(read(npz(tmp_path / "set.npz", states)).experience, written)
    states["reward"][2] = np.nan
    assert "reward holds NaN or infinite values, first in row 2 (1 rows in all)" in refusal(
        npz(tmp_path / "bad.npz", states)
    )


def test_rlds_rows_that_are_lost_are_counted(tmp_path: Path) -> None:
    states = as_states(experience([3, 2, 4]))
    keep = ~np.isin(np.arange(12), [6, 8, 9, 10, 11])  # the last episode is one state
    recorded = read(npz(tmp_path / "set.npz", {name: values[keep] for name, values in states.items()}))
    assert recorded.experience.length.tolist() == [3, 1]
    reason = "the last row of an episode without a last step: what followed it is not in the file"
    assert recorded.notes["report"] == two_dropped(7, 2, {reason: "row 5"})


def test_large_lists_of_parquet(tmp_path: Path) -> None:
    written = experience([3, 1])
    lists = {name: list(values) for name, values in as_states(written).items()}
    table = pa.table(lists)
    for name in ("observation", "action"):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, table[name].cast(pa.large_list(pa.float32())))
    pq.write_table(table, tmp_path / "set.parquet")
    assert_same(read(tmp_path / "set.parquet").experience, written)


# OGBench


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


def test_junk_is_no_npz_file(tmp_path: Path) -> None:
    (tmp_path / "set.npz").write_bytes(b"junk")
    assert "damaged or no .npz file: it is no archive of arrays; get it again" in refusal(tmp_path / "set.npz")


@pytest.mark.parametrize("name", READERS)
def test_every_reader_has_an_example_and_says_what_it_reads(name: str) -> None:
    reader = READERS[name]
    assert reader.name == name
    assert reader.reads
    assert reader.example


def test_names_that_are_not_text_are_left_out(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "hopper.hdf5", as_d4rl(experience([3, 2])))
    with h5py.File(path, "r+") as file:
        file[b"\xff\xfe"] = np.zeros(5)
    assert read(path).experience.length.tolist() == [3, 2]
