"""Steps in the manner of RLDS: every value, ends of every kind, and what is refused."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.aligned import experience
from helpers.foreign import (
    Arrays,
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

refusal = partial(refused, read)


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
