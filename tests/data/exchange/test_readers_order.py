"""Rows that are no episodes one after the other, numbers that float32 rounds, and discrete actions that are floats."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.aligned import experience
from helpers.foreign import Arrays, as_d4rl, npz, read
from helpers.imports import refused

from pmpo_offline.build import import_dataset, show
from pmpo_offline.data import Experience, columns
from pmpo_offline.runtime.errors import UserError

LENGTHS = [4, 3, 5, 2]
NUMBER = np.repeat(np.arange(4), LENGTHS)
STEP = np.concatenate([np.arange(length) for length in LENGTHS])
SHUFFLED = np.random.default_rng(0).permutation(len(STEP))
ALTERNATING = np.argsort(STEP, kind="stable")
"""As several environments in turn write their steps."""


def parquet(path: Path, arrays: Arrays) -> Path:
    """Steps in our own columns."""
    names = {
        "observation": "observations",
        "next_observation": "next_observations",
        "action": "actions",
        "reward": "rewards",
        "terminated": "terminals",
        "truncated": "timeouts",
    }
    ours = {name: arrays[theirs] for name, theirs in names.items() if theirs in arrays}
    ours |= {name: values for name, values in arrays.items() if name not in names.values()}
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table({name: values.tolist() for name, values in ours.items()}), path)
    return path


def written(path: Path, arrays: Arrays, rows: np.ndarray, *without: str) -> Path:
    some = {name: values[rows] for name, values in arrays.items() if name not in without}
    return parquet(path, some) if path.suffix == ".parquet" else npz(path, some)


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_a_shuffled_buffer_is_refused(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(UserError, match="the rows do not follow one another"):
        read(written(tmp_path / f"set{suffix}", as_d4rl(experience(LENGTHS)), SHUFFLED))


def test_a_shuffled_buffer_in_the_layout_of_ogbench_is_refused(tmp_path: Path) -> None:
    arrays = as_d4rl(experience(LENGTHS))
    with pytest.raises(UserError, match="the rows do not follow one another"):
        read(written(tmp_path / "set.npz", arrays, SHUFFLED, "rewards", "timeouts"))


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
@pytest.mark.parametrize("name", ["episode", "traj_id"])
def test_columns_that_number_episodes_must_agree_with_their_ends(tmp_path: Path, suffix: str, name: str) -> None:
    arrays = as_d4rl(experience(LENGTHS)) | {name: NUMBER}
    sound = written(tmp_path / f"sound{suffix}", arrays, np.arange(len(STEP)))
    assert read(sound).experience.length.tolist() == LENGTHS
    with pytest.raises(UserError, match=rf"{name} (changes from|\d+ comes back)"):
        read(written(tmp_path / f"set{suffix}", arrays, ALTERNATING, "next_observations"))


def test_columns_that_number_steps_must_rise_within_an_episode(tmp_path: Path) -> None:
    arrays = as_d4rl(experience(LENGTHS)) | {"step": STEP}
    with pytest.raises(UserError, match="step goes from 0 to 0 after row 0, within an episode"):
        read(written(tmp_path / "set.parquet", arrays, ALTERNATING, "next_observations"))


def test_small_observations_do_not_hide_where_episodes_end(tmp_path: Path) -> None:
    arrays = as_d4rl(experience(LENGTHS))
    arrays |= {name: arrays[name] * np.float32(1e-9) for name in ("observations", "next_observations")}
    assert (
        read(written(tmp_path / "set.npz", arrays, np.arange(len(STEP)), "timeouts")).experience.length.tolist()
        == LENGTHS
    )


def test_steps_that_only_reset_the_environment_are_warned_of(tmp_path: Path) -> None:
    """Gymnasium 1 resets a vector environment in a step of its own: from the final observation to the first one."""
    whole, last = as_d4rl(experience(LENGTHS)), np.cumsum(LENGTHS) - 1
    resets = {name: np.zeros_like(values[:3]) for name, values in whole.items()}
    resets |= {
        "observations": whole["next_observations"][last[:3]],
        "next_observations": whole["observations"][last[:3] + 1],
    }
    arrays = {name: np.insert(values, last[:3] + 1, resets[name], axis=0) for name, values in whole.items()}
    for path in (npz(tmp_path / "set.npz", arrays), parquet(tmp_path / "set.parquet", arrays)):
        with pytest.warns(UserWarning, match="most episodes begin with the observation"):
            import_dataset(path, home=tmp_path / path.suffix[1:])
    assert "episodes_begin_where_the_last_ended" not in read(npz(tmp_path / "b.npz", whole)).notes


def test_files_of_a_folder_are_read_by_their_numbers(tmp_path: Path) -> None:
    arrays = as_d4rl(experience([24]))
    for part in range(12):
        parquet(
            tmp_path / f"set/part-{part}.parquet", {name: values[2 * part :][:2] for name, values in arrays.items()}
        )
    assert read(tmp_path / "set").experience.length.tolist() == [24]


BIG = 16_777_216


@pytest.mark.parametrize("suffix", [".npz", ".hdf5"])
def test_numbers_that_float32_rounds_are_counted(tmp_path: Path, suffix: str) -> None:
    arrays: dict[str, Any] = as_d4rl(experience(LENGTHS))
    arrays["observations"] = arrays["observations"].astype(np.float64)
    arrays["observations"][[1, 5], 0] = BIG + 1
    arrays["next_observations"] = arrays["next_observations"].astype(np.float64)
    arrays["next_observations"][[0, 4], 0] = BIG + 1
    arrays["grade"] = BIG + np.arange(len(STEP), dtype=np.float64)
    if suffix == ".npz":
        path = npz(tmp_path / "set.npz", arrays)
    else:
        import h5py

        path = tmp_path / "set.hdf5"
        with h5py.File(path, "w") as file:
            file.update(arrays)
    with pytest.warns(UserWarning, match="2 rows of observations, 2 rows of next_observations, 7 rows of grade"):
        dataset = import_dataset(path, score="grade", home=tmp_path / "home")
    shown = show(dataset)
    assert shown["report"] == {"rounded": {"observations": 2, "next_observations": 2, "grade": 7}}
    assert shown["dropped"] == {}


def test_whole_numbers_that_are_floats_may_be_choices(tmp_path: Path) -> None:
    chosen = np.arange(len(STEP), dtype=np.float32)[:, None] % 3
    path = npz(tmp_path / "set.npz", as_d4rl(replace(experience(LENGTHS), action=chosen)))
    with pytest.warns(UserWarning, match="whole numbers up to 2 and are taken as continuous.*--actions 3"):
        assert import_dataset(path, home=tmp_path / "numbers").metadata.actions is None
    dataset = import_dataset(path, actions=3, home=tmp_path / "home")
    assert dataset.metadata.actions == 3
    assert columns.matrix(dataset.table, "action")[:, 0].tolist() == chosen[:, 0].tolist()


def test_less_is_better_where_it_is_said(tmp_path: Path) -> None:
    def labels(**asked: Any) -> list[bool]:
        found: Experience = experience(LENGTHS)
        path = npz(tmp_path / "set.npz", as_d4rl(found) | {"rank": 2 + NUMBER, "loss": 0.5 + NUMBER})
        return list(import_dataset(path, home=tmp_path / "home", **asked).episodes["label"].to_pylist())

    assert labels(score="rank") == labels(score="-loss") == [True, True, False, False]
    assert labels(score="+loss") == [False, False, True, True]
    with pytest.raises(UserError, match="write score=-loss"):
        labels(score="loss")


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("episode_id", np.repeat(["a", "b", "c"], [5, 2, 7]), "episode_id changes from a to b after row 4"),
        ("episode_id", np.repeat(["a", "b", "a", "c"], LENGTHS), "episode_id a comes back after row 6"),
        ("episode", np.repeat([0.0, 1.0, 0.0, 2.0], LENGTHS), "episode 0.0 comes back after row 6"),
        ("step", -STEP.astype(float), "step goes from -0.0 to -1.0 after row 0"),
        ("timestamp", -STEP / 10, "timestamp goes from 0.0 to -0.1 after row 0"),
        ("time", -STEP / 10, "or rename it if it is how long a step took"),
    ],
)
def test_texts_floats_and_times_number_rows_too(tmp_path: Path, name: str, values: np.ndarray, said: str) -> None:
    arrays = as_d4rl(experience(LENGTHS))
    assert said in refused(read, parquet(tmp_path / "set.parquet", arrays | {name: values}))
    fine = {"episode_id": np.array(list("abcd"))[NUMBER], "timestamp": STEP / 10, "step": STEP.astype(float)}
    assert len(read(parquet(tmp_path / "fine.parquet", arrays | fine)).experience.length) == 4
