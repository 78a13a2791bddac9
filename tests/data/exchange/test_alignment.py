"""Around every path, every value stays with its (episode, step): the diagram in `data/schema.py`, proved.

What is written is read back by the library that it is for. d3rlpy lives in an environment of its own and does the same
in `baselines/peers`; LeRobot, which is heavy, is stood in for by its documented layout.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import torch
from helpers.aligned import ID, LENGTHS, Columns, assert_aligned, stored

from pmpo_offline import data
from pmpo_offline.build.read import import_dataset
from pmpo_offline.data import columns
from pmpo_offline.data.exchange import export_dataset

every = pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
NAMES = ("observation", "action", "reward", "next_observation", "terminated", "truncated")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[int]], data.Dataset]:
    """The dataset of these lengths in Arrow form, written once."""
    once = cache(lambda lengths: stored(tmp_path_factory.mktemp("home"), lengths))
    return lambda lengths: once(tuple(lengths))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, kept: Callable) -> Callable[[list[int], str], Path]:
    """The folder of its export, written once."""
    once = cache(lambda lengths, to: export_dataset(kept(lengths), to, tmp_path_factory.mktemp(to)))
    return lambda lengths, to: once(tuple(lengths), to)


@every
@pytest.mark.parametrize("form", ["arrow", "hdf5"])
def test_the_store(tmp_path: Path, kept: Callable, lengths: list[int], form: data.Format) -> None:
    dataset = kept(lengths) if form == "arrow" else stored(tmp_path, lengths, form)
    assert_aligned(everything(dataset), lengths)
    batch = dataset.sample(1000, torch.Generator().manual_seed(0))
    drawn = {name: batch[name].numpy() for name in NAMES}
    assert_aligned(drawn, lengths, only=batch["row"].numpy())


@every
def test_minari(monkeypatch: pytest.MonkeyPatch, exported: Callable, lengths: list[int]) -> None:
    import minari

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(exported(lengths, "minari").parents[1]))
    loaded = minari.load_dataset(ID)
    assert (loaded.total_episodes, loaded.total_steps) == (len(lengths), sum(lengths))
    # Minari takes milliseconds an episode: of many, every fiftieth.
    chosen = np.arange(0, len(lengths), max(1, len(lengths) // 200))
    episodes = list(loaded.iterate_episodes(chosen))
    found = {
        "observation": np.concatenate([each.observations[:-1] for each in episodes]),
        "next_observation": np.concatenate([each.observations[1:] for each in episodes]),
        "action": np.concatenate([each.actions for each in episodes]),
        "reward": np.concatenate([each.rewards for each in episodes]),
        "terminated": np.concatenate([each.terminations for each in episodes]),
        "truncated": np.concatenate([each.truncations for each in episodes]),
    }
    only = np.flatnonzero(np.isin(np.repeat(np.arange(len(lengths)), lengths), chosen))
    assert_aligned(found, lengths, only)
    assert_aligned({"reward": np.concatenate([each.infos["score"][1:] for each in episodes])}, lengths, only)


@every
def test_d4rl(kept: Callable, exported: Callable, lengths: list[int]) -> None:
    dataset = kept(lengths)
    path = exported(lengths, "d4rl") / "aligned-v0.hdf5"
    names = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")
    with h5py.File(path) as file:
        assert_aligned({ours: file[theirs][()] for ours, theirs in zip(NAMES, names, strict=True)}, lengths)
        assert_aligned({"reward": file["scores"][()]}, lengths)
        assert (file["labels"][()] == columns.labels(dataset.table)).all()
        final = file["metadata/episodes/final_observation"][()]
        assert (final == columns.matrix(dataset.episodes, "final_observation")).all()


@every
def test_d3rlpy(exported: Callable, lengths: list[int]) -> None:
    path = exported(lengths, "d3rlpy") / "aligned-v0.h5"
    with h5py.File(path) as file:
        episodes = range(int(file["num_episodes"][()]))
        assert len(episodes) == len(lengths)
        parts = {
            name: [file[f"{name}_{index}"][()] for index in episodes] for name in ("observations", "actions", "rewards")
        }
        assert [len(part) for part in parts["actions"]] == lengths
        assert [bool(file[f"terminated_{index}"][()]) for index in episodes] == [e % 3 == 0 for e in episodes]
        assert_aligned({"reward": file["scores"][()]}, lengths)
    joined = {name: np.concatenate(each) for name, each in parts.items()}
    found = {"observation": joined["observations"], "action": joined["actions"], "reward": joined["rewards"][:, 0]}
    assert_aligned(found, lengths)


@every
def test_lerobot(tmp_path: Path, kept: Callable, lengths: list[int]) -> None:
    dataset = kept(lengths)
    folder = export_dataset(dataset, "lerobot", tmp_path / "out", fps=10)
    info = json.loads((folder / "meta/info.json").read_text())
    episodes = pl.read_parquet(folder / "meta/episodes/*/*.parquet").sort("episode_index")
    files = {
        info["data_path"].format(chunk_index=chunk, file_index=file)
        for chunk, file in episodes.select("data/chunk_index", "data/file_index").unique().iter_rows()
    }
    frames = pl.concat([pl.from_arrow(pq.read_table(folder / file)) for file in sorted(files)])
    assert (frames["index"].to_numpy() == np.arange(sum(lengths))).all()
    observation = frames["observation.state"].to_numpy()
    following = np.concatenate([observation[1:], observation[-1:]])
    following[episodes["dataset_to_index"].to_numpy() - 1] = episodes["final_observation"].to_numpy()
    found = {
        "observation": observation,
        "action": frames["action"].to_numpy(),
        "reward": frames["next.reward"].to_numpy(),
        "next_observation": following,
    }
    assert_aligned(found, lengths)
    assert (episodes["length"].to_numpy() == lengths).all()
    done = frames["next.done"].to_numpy()
    assert (np.flatnonzero(done) == episodes["dataset_to_index"].to_numpy() - 1).all()
    assert np.allclose(frames["timestamp"].to_numpy(), frames["frame_index"].to_numpy() / 10)
    assert (frames["label"].to_numpy() == columns.labels(dataset.table)).all()


@every
def test_hugging_face(hugging_face: Callable, exported: Callable, lengths: list[int]) -> None:
    folder = exported(lengths, "huggingface")
    rows = hugging_face(folder)["train"].with_format("numpy")
    assert_aligned({name: rows[name][:] for name in NAMES}, lengths)
    assert hugging_face(folder, "episodes")["train"]["length"][:] == lengths


@every
def test_parquet(exported: Callable, lengths: list[int]) -> None:
    folder = exported(lengths, "parquet")
    frame = pl.read_parquet(folder / "transitions")
    assert_aligned({name: frame[name].to_numpy() for name in NAMES}, lengths)
    assert pl.read_parquet(folder / "episodes")["length"].to_list() == lengths


@pytest.mark.parametrize(
    ("to", "lengths"),
    [
        *((to, lengths) for to in ("minari", "d4rl", "ogbench", "parquet", "lerobot") for lengths in LENGTHS.values()),
        *((to, [1 + index % 3 for index in range(11)]) for to in ("d3rlpy", "robomimic", "huggingface")),
    ],
)
@pytest.mark.filterwarnings("ignore:.*actions reach")  # they hold the step
def test_out_and_in_again(tmp_path: Path, kept: Callable, exported: Callable, lengths: list[int], to: str) -> None:
    before, folder = kept(lengths), exported(lengths, to)
    source = folder if to == "minari" else file_of(folder)
    after = import_dataset(source, label="reward:q0.5", home=tmp_path)
    assert_aligned(everything(after), lengths)
    assert after.table["label"].equals(before.table["label"])
    for name in ("start", "length", "return", "terminated", "final_observation"):
        assert after.episodes[name].equals(before.episodes[name])


def file_of(folder: Path) -> Path:
    """The file of an export that is one file, else the folder."""
    return next((path for path in folder.iterdir() if path.suffix in (".hdf5", ".h5", ".npz")), folder)


def everything(dataset: data.Dataset) -> Columns:
    """The columns of all rows, in order."""
    found: Columns = {"next_observation": dataset.next_observation(np.arange(len(dataset)))}
    found |= {name: columns.matrix(dataset.table, name) for name in ("observation", "action")}
    return found | {name: columns.vector(dataset.table, name) for name in ("reward", "terminated", "truncated")}
