"""Both forms on disk hold equal tables with every row in its place, and stock readers open them unchanged."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from helpers.encoded import Make, Store, observed
from helpers.labelled import labelled

from pmpo_offline import data
from pmpo_offline.data import columns

FORMS: tuple[data.Format, ...] = ("arrow", "hdf5")
LENGTHS = {
    "single steps": [1, 1, 1],
    "one long episode": [2, 40_000, 1],  # longer than int16 counts: where Minari's Arrow form returns wrong rows
    "many episodes": [1 + index % 7 for index in range(120)],
}


def assert_aligned(dataset: data.Dataset, lengths: list[int]) -> None:
    """Every value of every row says the (episode, step) at which it stands."""
    episode = np.repeat(np.arange(len(lengths)), lengths)
    step = np.concatenate([np.arange(length) for length in lengths])
    assert (columns.matrix(dataset.table, "observation") == observed(episode, step)).all()
    assert (columns.matrix(dataset.table, "action") == np.stack([episode, step], axis=-1) + 0.5).all()
    assert (columns.vector(dataset.table, "episode") == episode).all()
    assert (columns.vector(dataset.table, "step") == step).all()
    ends = columns.vector(dataset.table, "terminated") | columns.vector(dataset.table, "truncated")
    assert (np.flatnonzero(ends) == np.cumsum(lengths) - 1).all()
    final = columns.matrix(dataset.episodes, "final_observation")
    assert (final == observed(np.arange(len(lengths)), np.array(lengths))).all()
    assert (columns.vector(dataset.episodes, "start") == np.cumsum(lengths) - lengths).all()


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
@pytest.mark.parametrize("label", ["return:0", "advantage"])
def test_both_forms_hold_equal_tables(store: Store, make: Make, lengths: list[int], label: str) -> None:
    _, written = make(lengths, label, candidates=4)
    for form in FORMS:
        dataset = store(lengths, label, candidates=4, format=form, id=f"test/{form}-v0")
        assert_aligned(dataset, lengths)
        assert dataset.table.equals(written["transitions"])
        assert dataset.episodes.equals(written["episodes"])
        assert dataset.candidates.equals(written["candidates"])
        assert dataset.table.schema.equals(written["transitions"].schema, check_metadata=True)
        assert data.verify(f"test/{form}-v0") == []


def test_absent_scores_and_labels_stay_absent(store: Store) -> None:
    tables = [store([200], "advantage", format=form, id=f"test/{form}-v0").table for form in FORMS]
    for table in tables:
        assert 0 < table["score"].null_count == table["label"].null_count < 200
        assert not np.isnan(table["score"].drop_null().to_numpy()).any()


def test_a_nan_score_is_stored_as_an_absent_one(make: Make, home: Path) -> None:
    metadata, tables = make([200], "advantage")
    score = columns.vector(tables["transitions"], "score")
    assert np.isnan(score).any()
    with_nan = columns.replace(tables["transitions"], score=pa.array(score))
    data.write(home / "test/small-v0", metadata, tables | {"transitions": with_nan})
    assert data.load_dataset("test/small-v0").table["score"].null_count == np.isnan(score).sum()


def test_responses_are_equal_in_both_forms(home: Path) -> None:
    texts = ["plain", "", "ünïcödé ✓", "two\nlines", 'quo"ted']
    table = pa.table(
        {
            "prompt": texts,
            "completion": texts[::-1],
            "score": pa.array([1, -1, None, 0.5, 2], pa.float32()),
            "label": pa.nulls(5, pa.bool_()),
            "prompt_id": pa.array(range(5), pa.int32()),
            "response_id": pa.array([0] * 5, pa.int32()),
            "source": ["s"] * 5,
            "split": ["train"] * 5,
        },
        data.responses_schema(),
    )
    metadata, tables = labelled(table, None, "reward", id="language/test-v0")
    for form in FORMS:
        data.write(home / "language/test-v0", metadata, tables, form=form, overwrite=True)
        dataset = data.load_dataset("language/test-v0")
        assert dataset.table.equals(tables["responses"])
        assert data.verify("language/test-v0") == []


def test_polars_and_pyarrow_read_the_arrow_form(store: Store) -> None:
    lengths = [3, 1, 4]
    dataset = store(lengths, "success", candidates=4)
    frame = pl.scan_ipc(dataset.path / "transitions.arrow").collect()
    assert frame["episode"].to_list() == [0, 0, 0, 1, 2, 2, 2, 2]
    assert (frame["observation"].to_numpy() == columns.matrix(dataset.table, "observation")).all()
    assert frame["label"].to_list() == dataset.table["label"].to_pylist()
    episodes = pl.read_ipc(dataset.path / "episodes.arrow")
    assert episodes["behavior"].to_list() == ["expert", "clumsy", "expert"]
    with pa.memory_map(str(dataset.path / "candidates.arrow")) as source:
        reader = pa.ipc.open_file(source)
        assert reader.num_record_batches == 1
        assert reader.read_all().equals(dataset.candidates)


def test_hugging_face_reads_the_arrow_form(store: Store, hugging_face) -> None:
    dataset = store([3, 1, 4], "success", candidates=4)
    loaded = hugging_face(dataset.path)["train"]  # bare: the default configuration is transitions
    assert loaded.features["observation"].length == 3
    assert loaded.features["episode"].dtype == "int32"
    assert loaded.features["label"].dtype == "bool"
    for name, table in (
        ("transitions", dataset.table),
        ("episodes", dataset.episodes),
        ("candidates", dataset.candidates),
    ):
        rows = hugging_face(dataset.path, name)["train"]
        assert rows.column_names == table.column_names
        assert rows[:] == table.to_pydict()


def test_hugging_face_reads_the_flat_files_of_the_hdf5_form(store: Store, hugging_face) -> None:
    dataset = store([3, 1, 4], "success", candidates=4, format="hdf5")
    rows = hugging_face(dataset.path, "candidates")["train"].with_format("numpy")
    assert (rows["row"][:] == columns.vector(dataset.candidates, "row")).all()
    assert (rows["action"][:] == columns.matrix(dataset.candidates, "action")).all()
    assert (rows["label"][:] == columns.labels(dataset.candidates)).all()
    episodes = hugging_face(dataset.path, "episodes")["train"]
    assert episodes["behavior"][:] == ["expert", "clumsy", "expert"]


@pytest.mark.parametrize("references", [None, data.References(min=-1.0, max=3.0, how="by hand")])
def test_stock_minari_opens_the_hdf5_form(
    store: Store, home: Path, monkeypatch: pytest.MonkeyPatch, references: data.References | None
) -> None:
    import minari

    lengths = [3, 1, 40, 2]
    dataset = store(lengths, "success", format="hdf5", id="test/deep/minari-v3", references=references)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(home))
    assert list(minari.list_local_datasets()) == ["test/deep/minari-v3"]
    loaded = minari.load_dataset("test/deep/minari-v3")
    assert (loaded.total_episodes, loaded.total_steps, loaded.id) == (4, 46, "test/deep/minari-v3")
    assert (loaded.observation_space.shape, loaded.action_space.shape) == ((3,), (2,))
    table, success = dataset.table, dataset.episodes["success"].to_pylist()
    start = 0
    for index, episode in enumerate(loaded.iterate_episodes()):
        rows = slice(start, start := start + lengths[index])
        assert episode.id == index
        assert (
            episode.observations == observed(np.full(lengths[index] + 1, index), np.arange(lengths[index] + 1))
        ).all()
        assert (episode.actions == columns.matrix(table, "action")[rows]).all()
        for theirs, ours in (("rewards", "reward"), ("terminations", "terminated"), ("truncations", "truncated")):
            assert (getattr(episode, theirs) == columns.vector(table, ours)[rows]).all()
        assert (episode.infos["label"][1:] == columns.labels(table)[rows]).all()
        assert (episode.infos["score"][1:] == columns.vector(table, "score")[rows]).all()
    attributes = list(loaded.storage.get_episode_metadata(range(4)))
    assert [each["seed"] for each in attributes] == [1000, 1001, 1002, 1003]
    assert [bool(each["label"]) for each in attributes] == [bool(each["success"]) for each in attributes] == success
    if references:
        assert minari.get_normalized_score(loaded, np.array([-1.0, 1.0, 3.0])).tolist() == [0.0, 0.5, 1.0]
    else:
        assert "ref_min_score" not in loaded.storage.metadata


def test_hdf5_files_are_plain_to_h5py(store: Store) -> None:
    dataset = store([3, 2], "advantage", candidates=2, format="hdf5")
    with h5py.File(dataset.path / "candidates.hdf5") as file:
        assert {name: file[name].shape for name in file} == {
            "row": (4,),
            "action": (4, 2),
            "score": (4,),
            "label": (4,),
        }
    with h5py.File(dataset.path / "episodes.hdf5") as file:
        assert file["behavior"].asstr()[()].tolist() == ["expert", "clumsy"]


@pytest.mark.parametrize("form", FORMS)
def test_equal_content_is_equal_bytes(store: Store, form: data.Format) -> None:
    files = [store(format=form, overwrite=True, candidates=4).metadata.files for _ in range(2)]
    assert files[0] == files[1]


def test_the_card_names_counts_rule_and_licence(store: Store) -> None:
    dataset = store([5] * 20, "return", imbalance=0.1, references=data.References(min=0, max=7, how="200 episodes"))
    card = (dataset.path / "README.md").read_text()
    assert "| labels | 1 accepted, 10 rejected, 9 unlabelled |" in card
    assert "`return:q0.5`" in card
    assert "0.09091 (0.1 asked; 9 accepts and 0 rejects left unlabelled for it)" in card
    assert "0 at 0, 100 at 7: 200 episodes" in card
    assert "Apache-2.0" in card
    assert json.loads((dataset.path / "dataset.json").read_text())["imbalance"]["asked"] == 0.1
