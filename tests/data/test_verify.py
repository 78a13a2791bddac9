"""Files that are missing, truncated, edited or of another version are found, in one line each."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from helpers.encoded import Store, rewrite

from pmpo_offline import data
from pmpo_offline.data import columns
from pmpo_offline.data.storage import problems
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError

ID = "test/small-v0"
FILES = {
    "arrow": ["transitions.arrow", "episodes.arrow", "candidates.arrow", "README.md"],
    "hdf5": ["data/main_data.hdf5", "data/metadata.json", "episodes.hdf5", "candidates.hdf5", "README.md"],
}
CASES = [(form, name) for form, names in FILES.items() for name in names]


def refused(kind: type[Exception] = PmpoOfflineError) -> str:
    with pytest.raises(kind) as error:
        data.load_dataset(ID)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(("form", "name"), CASES)
def test_an_edited_byte_is_found(store: Store, form: data.Format, name: str) -> None:
    path = store(format=form, candidates=4).path / name
    assert data.verify(ID) == []
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert data.verify(ID) == [f"{name}: edited after it was written (its sha256 differs)"]


@pytest.mark.parametrize(("form", "name"), CASES)
def test_a_truncated_file_is_found_and_not_opened(store: Store, form: data.Format, name: str) -> None:
    path = store(format=form, candidates=4).path / name
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-8])
    assert data.verify(ID) == [f"{name}: {size - 8} bytes instead of {size}"]
    assert f"{name}: {size - 8} bytes instead of {size}; build or import it again with --overwrite" in refused()


@pytest.mark.parametrize(("form", "name"), CASES)
def test_a_missing_file_is_found_and_not_opened(store: Store, form: data.Format, name: str) -> None:
    (store(format=form, candidates=4).path / name).unlink()
    assert data.verify(ID) == [f"{name}: missing"]
    assert f"{name}: missing" in refused()


@pytest.mark.parametrize("form", ["arrow", "hdf5"])
def test_files_of_the_right_size_and_the_wrong_content_end_in_one_line(store: Store, form: data.Format) -> None:
    dataset = store(format=form)
    for name in dataset.metadata.files:
        if name.endswith((".arrow", ".hdf5")):
            path = dataset.path / name
            path.write_bytes(b"\0" * path.stat().st_size)
    assert "cannot be read" in refused()
    assert len(data.verify(ID)) == 2


def test_another_schema_version_is_refused_with_a_remedy(store: Store) -> None:
    rewrite(store().path, lambda content: content.update(schema_version=2, new_field="of the future"))
    assert "has schema version 2, this pmpo-offline reads 1: build or import it again" in refused(UserError)
    assert len(data.verify(ID)) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("counts"), "counts: field required"),
        (lambda content: content.update(kind="films"), ": kind: input"),
        (lambda content: content.update(surprise=1), "unknown key 'surprise'"),
        (lambda content: content.pop("schema_version"), "no JSON with a schema_version"),
    ],
)
def test_malformed_metadata_names_the_field(
    store: Store, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    rewrite(store().path, change)
    assert message in refused()
    assert message in data.verify(ID)[0]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"3"])
def test_metadata_that_is_no_json_ends_in_one_line(store: Store, content: bytes) -> None:
    (store().path / "dataset.json").write_bytes(content)
    assert "is damaged: no JSON with a schema_version" in refused()


def test_edited_counts_are_found(store: Store) -> None:
    rewrite(store().path, lambda content: content["counts"].update(accepted=99))
    assert data.verify(ID) == [
        "dataset.json: 99 accepted, 3 rejected, 0 unlabelled; the tables hold 3, 3, 0",
    ]


def test_edited_counts_of_candidates_are_found(store: Store) -> None:
    rewrite(store([4], candidates=4).path, lambda content: content["candidates"].update(rejected=0))
    assert data.verify(ID) == [
        "dataset.json: candidates 4 accepted, 0 rejected, 0 unlabelled; the tables hold 4, 4, 0",
    ]


@pytest.mark.parametrize("name", ["labelled_reject_mass", "reject_share"])
def test_edited_shares_are_found(store: Store, name: str) -> None:
    dataset = store()
    rewrite(dataset.path, lambda content: content.update({name: 0.125}))
    true = getattr(dataset.metadata, name)
    assert data.verify(ID) == [f"dataset.json: {name} 0.125, the tables give {true:g}"]


def test_a_row_labelled_unlike_its_episode_is_found(store: Store) -> None:
    dataset = store([3, 1, 4], label="success")
    flipped = pa.array(np.where(np.arange(8) < 4, columns.labels(dataset.table) < 0, columns.labels(dataset.table) > 0))
    tables = {"transitions": columns.replace(dataset.table, label=flipped), "episodes": dataset.episodes}
    assert "transitions.label: differs from the label of its episode" in problems(dataset.metadata, tables)


def test_rows_that_are_out_of_place_are_found(store: Store) -> None:
    dataset = store([3, 1, 4], candidates=4)
    tables = {"transitions": dataset.table, "episodes": dataset.episodes, "candidates": dataset.candidates}
    assert problems(dataset.metadata, tables) == []
    shuffled = dataset.table.take([1, 0, 2, 3, 4, 5, 6, 7])
    assert problems(dataset.metadata, tables | {"transitions": shuffled}) == [
        "transitions.step: does not count each episode's rows from 0"
    ]
    far = columns.replace(dataset.candidates, row=pa.array(columns.vector(dataset.candidates, "row") + 8))
    assert problems(dataset.metadata, tables | {"candidates": far}) == ["candidates.row: points outside transitions"]


@pytest.mark.parametrize(
    "change",
    [
        {"references": {"min": 0.0, "max": 9.0, "how": "made up", "versions": {}}},
        {"licence": "MIT"},
        {"seed": 7},
        {"noise": 0.25},
        {"task": "bandit/sphere"},
    ],
)
def test_an_edited_dataset_json_is_found_and_not_opened(store: Store, change: dict[str, Any]) -> None:
    path = store().path / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert data.verify(ID) == ["dataset.json: edited after it was written (its sha256 differs)"]
    assert "dataset.json: edited after it was written" in refused()


def test_the_hash_of_dataset_json_is_one_that_sha256sum_checks_and_older_datasets_do_without(store: Store) -> None:
    path = store().path
    subprocess.run(["sha256sum", "--check", "--quiet", "dataset.json.sha256"], cwd=path, check=True)
    assert data.is_sealed(path)
    (path / "dataset.json.sha256").unlink()
    assert not data.is_sealed(path)
    assert data.verify(ID) == []
    assert len(data.load_dataset(ID)) == 17


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda content: content.update(threshold=-3.0), "threshold -3, the tables give "),
        (lambda content: content.update(reject_mass=0.125), "reject_mass 0.125, the tables give "),
        (
            lambda content: content["imbalance"].update(dropped_accepted=5),
            "imbalance.dropped_accepted 5, the tables give",
        ),
        (lambda content: content["imbalance"].update(achieved=0.3), "imbalance.achieved 0.3, the tables give 0.5"),
        (lambda content: content.update(noise=1.0), "transitions.label: differs from what label return:q0.5, noise"),
        (lambda content: content["label"].update(value=0.9), "transitions.label: differs from what label return:q0.9"),
        (
            lambda content: content.update(references={"min": 1.0, "max": 1.0, "how": "", "versions": {}}),
            "references from 1 to 1",
        ),
    ],
)
def test_what_the_scores_determine_is_derived_again(
    store: Store, change: Callable[[dict[str, Any]], object], problem: str
) -> None:
    rewrite(store().path, change)
    assert any(problem in line for line in data.verify(ID))


@pytest.mark.parametrize("form", ["arrow", "hdf5"])
@pytest.mark.parametrize(
    "settings",
    [{"noise": 0.3, "imbalance": 0.25, "seed": 3}, {"label": "advantage"}, {"label": "q_rank"}],
)
def test_datasets_of_every_labelling_are_sound(store: Store, form: data.Format, settings: dict[str, Any]) -> None:
    store([20] * 8, candidates=4, format=form, **settings)
    assert data.verify(ID) == []


def test_a_change_in_place_is_found_where_the_content_matters(store: Store) -> None:
    dataset = store()
    path = dataset.path / "transitions.arrow"
    content = path.read_bytes()
    reward = columns.vector(dataset.table, "reward").tobytes()
    assert content.count(reward) == 1
    path.write_bytes(content.replace(reward, reward[::-1]))
    assert len(data.load_dataset(ID)) == 17
    with pytest.raises(PmpoOfflineError, match=r"transitions\.arrow: edited after it was written"):
        data.load_dataset(ID, verify=True)


def test_the_content_hash_is_of_the_rows_in_memory(store: Store) -> None:
    dataset = store([3, 1, 4], candidates=4)
    assert dataset.relabelled("success", noise=1.0).content_hash == dataset.content_hash
    other = columns.replace(dataset.table, reward=-columns.vector(dataset.table, "reward"))
    hashes = [
        replace(dataset, table=other).content_hash,
        replace(dataset, candidates=None).content_hash,
        replace(dataset, table=other).relabelled("success").content_hash,
        dataset.content_hash,
    ]
    assert len(set(hashes)) == 3
    assert hashes[0] == hashes[2]


def test_verifying_an_unknown_dataset_is_a_user_error(home: Path) -> None:
    with pytest.raises(UserError, match="unknown dataset"):
        data.verify(ID)
