"""Exports are whole or absent, touch nothing that is not theirs, and say what they hold."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import polars as pl
import pytest
from helpers.encoded import Make, Store

from pmpo_offline import data
from pmpo_offline.data import columns
from pmpo_offline.data.exchange import export_dataset, left_out
from pmpo_offline.data.exchange.exported import MARKER
from pmpo_offline.data.exchange.writers import lerobot, parquet
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.runtime.progress import on_progress

FORMATS = ["minari", "d4rl", "d3rlpy", "lerobot", "huggingface", "parquet"]
every = pytest.mark.parametrize("to", FORMATS)


def everything_in(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@every
def test_export_describes_its_dataset_and_how_to_load_it(store: Store, tmp_path: Path, to: str) -> None:
    dataset = store([3, 1, 4], "success")
    reports: list[tuple[str, int, int]] = []
    with on_progress(lambda *each: reports.append(each)):
        folder = export_dataset(dataset, to, tmp_path / "out")
    about = json.loads((folder / MARKER).read_text())
    assert (about["format"], about["left_out"], about["dataset"]["id"]) == (to, [], "test/small-v0")
    assert "```python" in (folder / "README.md").read_text()
    assert reports[-1][0] == f"export to {to}"
    assert reports[-1][1] == reports[-1][2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "out"]  # no scratch is left


@every
def test_export_is_replaced_only_with_overwrite(store: Store, tmp_path: Path, to: str) -> None:
    dataset, out = store([3, 1, 4], "success"), tmp_path / "out"
    folder = export_dataset(dataset, to, out)
    before = everything_in(folder)
    with pytest.raises(UserError, match="exists already: use overwrite=True"):
        export_dataset(dataset, to, out)
    assert everything_in(folder) == before
    assert export_dataset(store([2], "success", overwrite=True), to, out, overwrite=True) == folder
    assert json.loads((folder / MARKER).read_text())["dataset"]["counts"]["rows"] == 2


@every
def test_what_is_no_export_is_never_overwritten(store: Store, tmp_path: Path, to: str) -> None:
    dataset = store()
    treasure = tmp_path / "out/test/small-v0" if to == "minari" else tmp_path / "out"
    treasure.mkdir(parents=True)
    (treasure / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="is no export of pmpo-offline: move it away"):
        export_dataset(dataset, to, tmp_path / "out", overwrite=True)
    assert everything_in(treasure) == {"thesis.tex": b"years of work"}


def test_empty_folder_is_filled(store: Store, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert export_dataset(store(), "parquet", tmp_path / "out") == tmp_path / "out"


def test_minari_shares_its_folder_with_other_datasets(store: Store, tmp_path: Path) -> None:
    for name in ("test/small-v0", "test/other-v0"):
        export_dataset(store(id=name), "minari", tmp_path / "out")
    assert {path.parent.name for path in (tmp_path / "out").rglob(MARKER)} == {"small-v0", "other-v0"}


@pytest.mark.parametrize("form", ["arrow", "hdf5"])
def test_a_dataset_is_not_exported_over_itself(store: Store, home: Path, form: data.Format) -> None:
    dataset = store(format=form)
    for to, where in (("minari", home), ("parquet", dataset.path), ("parquet", dataset.path / "inside")):
        with pytest.raises(UserError, match="is the dataset's own folder"):
            export_dataset(dataset, to, where, overwrite=True)
    assert data.verify("test/small-v0") == []


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file can grow beyond 20 kB, which stands in for a disk that is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("to", FORMATS)
def test_full_disk_leaves_nothing_and_is_one_line(
    store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str], request: pytest.FixtureRequest, to: str
) -> None:
    dataset, out = store([50] * 40, "advantage"), tmp_path / "out"
    request.getfixturevalue("full_disk")
    with pytest.raises(PmpoOfflineError) as error:
        export_dataset(dataset, to, out / to)
    folder = out / to / ("test/small-v0" if to == "minari" else "")
    assert str(error.value) == f"cannot write {folder}: File too large; free some space or export to another folder"
    assert capfd.readouterr().err == ""
    assert everything_in(out) == {}
    assert not list(tmp_path.rglob("*.partial"))


def test_ctrl_c_leaves_what_stood(store: Store, tmp_path: Path) -> None:
    dataset = store()
    before = everything_in(export_dataset(dataset, "d4rl", tmp_path / "out"))

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with on_progress(interrupt), pytest.raises(KeyboardInterrupt):
        export_dataset(dataset, "d4rl", tmp_path / "out", overwrite=True)
    assert everything_in(tmp_path / "out") == before


def test_labels_in_memory_are_what_is_exported(store: Store, tmp_path: Path) -> None:
    dataset = store([5] * 20, "return", imbalance=0.1).relabelled(imbalance="collected")
    folder = export_dataset(dataset, "parquet", tmp_path / "out")
    labels = pl.read_parquet(folder / "transitions")["label"]
    assert labels.to_list() == dataset.table["label"].to_pylist()
    assert json.loads((folder / MARKER).read_text())["dataset"]["imbalance"]["asked"] is None


@every
def test_candidates_go_where_there_is_a_place_for_them(store: Store, tmp_path: Path, to: str) -> None:
    dataset = store([3, 1, 4], "success", candidates=4)
    folder = export_dataset(dataset, to, tmp_path / "out")
    assert left_out(dataset, to) == (["candidates"] if to == "lerobot" else [])
    labels = columns.labels(dataset.candidates)
    if to in ("parquet", "huggingface"):
        path = next(folder.glob("candidates/*.parquet"))
        assert pl.read_parquet(path)["label"].to_list() == dataset.candidates["label"].to_pylist()
    elif to != "lerobot":
        path = folder / "candidates.hdf5" if to == "minari" else next(folder.glob("*.h*5"))
        with h5py.File(path) as file:
            group = file if to == "minari" else file["metadata/candidates"]
            assert (group["label"][()] == labels).all()
            assert (group["row"][()] == columns.vector(dataset.candidates, "row")).all()


def test_labels_on_candidates_are_not_lost_to_lerobot(store: Store, tmp_path: Path) -> None:
    dataset = store([3, 1, 4], "q_rank", candidates=4)
    with pytest.raises(UserError, match=r"holds candidates: choose minari, .*\bparquet\b.*, not lerobot$"):
        export_dataset(dataset, "lerobot", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_references_reach_minari(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import minari

    references = data.References(min=-1.0, max=3.0, how="by hand")
    export_dataset(store([3, 1], references=references), "minari", tmp_path / "out")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "out"))
    assert list(minari.list_local_datasets()) == ["test/small-v0"]
    loaded = minari.load_dataset("test/small-v0")
    assert minari.get_normalized_score(loaded, np.array([-1.0, 1.0, 3.0])).tolist() == [0.0, 0.5, 1.0]


def test_lerobot_statistics_and_tasks(store: Store, tmp_path: Path) -> None:
    import pandas

    dataset = store([3, 1, 4], "success")
    folder = export_dataset(dataset, "lerobot", tmp_path / "out")
    tasks = pandas.read_parquet(folder / "meta/tasks.parquet")
    assert tasks.loc["test"].task_index == 0  # as LeRobot looks one up
    stats = json.loads((folder / "meta/stats.json").read_text())
    observation = columns.matrix(dataset.table, "observation").astype(np.float64)
    for name in ("min", "max", "mean", "std"):
        assert np.allclose(stats["observation.state"][name], getattr(observation, name)(axis=0))
    assert stats["next.reward"]["count"] == [8]
    episodes = pl.read_parquet(folder / "meta/episodes/*/*.parquet")
    assert np.allclose(episodes["stats/observation.state/mean"].to_list()[2], observation[4:].mean(axis=0))
    info = json.loads((folder / "meta/info.json").read_text())
    frames = pl.read_parquet(folder / "data/*/*.parquet")
    assert set(info["features"]) == set(frames.columns)
    assert info["features"]["observation.state"]["shape"] == [3]


def test_lerobot_files_are_cut_between_episodes() -> None:
    assert lerobot._files(np.array([3, 4, 9, 20, 21]), rows=5).tolist() == [0, 0, 1, 2, 3]


def test_hugging_face_files_hold_whole_blocks(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = store([50] * 40)
    assert parquet.rows_a_file(dataset) % 65_536 == 0
    monkeypatch.setattr(parquet, "FILE_SIZE", 1)
    assert parquet.rows_a_file(dataset) == 65_536


def test_mistakes_are_one_line(store: Store, tmp_path: Path, make: Make) -> None:
    dataset = store()
    for arguments, message in (
        ({"to": "minary"}, "unknown format 'minary': did you mean minari"),
        ({"to": "d4rl", "fps": 10}, "only lerobot has frames"),
        ({"to": "lerobot", "fps": 0}, "only lerobot has frames"),
    ):
        with pytest.raises(UserError, match=message):
            export_dataset(dataset, directory=tmp_path / "out", **arguments)
    with pytest.raises(UserError, match="unknown dataset 'test/smal-v0': did you mean test/small-v0"):
        export_dataset("test/smal-v0", "d4rl", tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(PmpoOfflineError, match=r"cannot write .*file/out"):
        export_dataset(dataset, "d4rl", tmp_path / "file/out")
