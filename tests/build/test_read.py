"""From other people's files to a dataset: tasks and scores that are not mixed up, labels, reuse, refusals."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.foreign import as_d4rl, as_states, bounded, hdf5, minari_of, npz
from helpers.imports import refused

from pmpo_offline import data
from pmpo_offline.build.pipeline import save_notes
from pmpo_offline.build.read import import_dataset
from pmpo_offline.data import Dataset, Experience, columns
from pmpo_offline.runtime.errors import PmpoOfflineError
from pmpo_offline.runtime.hashing import hash_file
from pmpo_offline.runtime.progress import on_progress


@pytest.fixture
def home(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return home


refusal = partial(refused, import_dataset)


def tables(dataset: Dataset) -> list[Any]:
    return [dataset.table, dataset.episodes]


@pytest.mark.parametrize("format", ["arrow", "hdf5"])
def test_what_is_stored_is_what_was_there(home: Path, tmp_path: Path, format: data.Format) -> None:
    written = bounded([3, 1, 40, 1, 2])
    path = hdf5(tmp_path / "my arm (left).hdf5", as_d4rl(written))
    dataset = import_dataset(path, format=format)
    assert (dataset.metadata.id, dataset.path) == ("d4rl/my-arm-left-v0", home / "d4rl/my-arm-left-v0")
    transitions, _ = written.tables()
    for name in ("observation", "action", "reward", "terminated", "truncated", "episode", "step"):
        assert dataset.table[name].equals(transitions[name]), name
    assert dataset.episodes is not None
    assert np.array_equal(columns.matrix(dataset.episodes, "final_observation"), written.final_observation)
    said = dataset.metadata
    assert (str(said.label), said.unit, said.task, said.licence) == (
        "return:q0.5",
        "episode",
        "d4rl/my-arm-left-v0",
        "unknown",
    )
    assert said.provenance.hashes[path.name] == hash_file(path)
    assert set(said.provenance.packages) >= {"pmpo-offline", "h5py", "numpy"}
    assert said.provenance.settings["rows_without_successor_dropped"] == 0
    assert data.verify(said.id) == []


def test_labels_come_from_success_where_the_source_tells_of_both_kinds(home: Path, tmp_path: Path) -> None:
    written = bounded([3, 1, 4])
    arrays = as_d4rl(written)
    for success, label in ((np.arange(8) == 3, "success:0.5"), (np.zeros(8, bool), "return:q0.5")):
        path = hdf5(tmp_path / f"{label[:4]}.hdf5", arrays | {"infos/success": success})
        dataset = import_dataset(path)
        assert str(dataset.metadata.label) == label
    assert "does not say which episodes succeeded: label it by return:q0.5" in refusal(
        hdf5(tmp_path / "silent.hdf5", arrays), label="success"
    )


def test_without_rewards_nothing_is_labelled(home: Path, tmp_path: Path) -> None:
    states = as_states(bounded([3, 1, 4]))
    path = npz(
        tmp_path / "cube-single-play-v0.npz",
        {"observations": states["observation"], "actions": states["action"] * 0, "terminals": states["is_last"]},
    )
    with pytest.warns(UserWarning, match="nothing is labelled"):
        said = import_dataset(path).metadata
    assert (said.id, said.task) == ("ogbench/cube-single-play-v0", "ogbench/cube-single-v0")
    assert (said.counts.accepted, said.counts.rejected, said.counts.unlabelled) == (0, 0, 8)
    for label in ("return", "advantage", "return_to_go", "q_rank"):
        assert f"holds no rewards, from which {label} would follow" in refusal(path, label=label)


def test_what_stands_is_opened_and_other_labels_read_nothing_again(home: Path, tmp_path: Path) -> None:
    path = hdf5(tmp_path / "set-v4.hdf5", as_d4rl(bounded([3, 1, 4, 2, 2, 6])))
    first = import_dataset(path)
    raw = {each: each.stat().st_mtime_ns for each in (home / ".raw").rglob("*") if each.is_file()}
    stamp = (first.path / "dataset.json").stat().st_mtime_ns
    told: list[str] = []
    with on_progress(lambda *each: told.append(each[0])):
        assert import_dataset(path).path == first.path
    assert (first.path / "dataset.json").stat().st_mtime_ns == stamp
    assert not told
    ids = {
        "d4rl/set-accept50-v4": {"imbalance": 0.5},
        "d4rl/set-noise20-v4": {"noise": 0.2},
        "d4rl/set-seed3-v4": {"seed": 3},
        "d4rl/set-return-to-go-v4": {"label": "return_to_go"},
        "mine/own-v7": {"id": "mine/own-v7", "imbalance": 0.5},
    }
    for id, changes in ids.items():
        dataset = import_dataset(path, **changes)
        assert dataset.metadata.id == id
        settings = {key: value for key, value in changes.items() if key != "id"}
        same = first.relabelled(**settings)
        assert dataset.table.equals(same.table)
    assert {each: each.stat().st_mtime_ns for each in (home / ".raw").rglob("*") if each.is_file()} == raw


def test_another_content_does_not_pass_for_what_stands(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "set-v0.hdf5"
    before = tables(import_dataset(hdf5(path, as_d4rl(bounded([3, 1, 4])))))
    before = [table.to_pylist() for table in before]
    path.unlink()
    hdf5(path, as_d4rl(bounded([2, 2])))
    assert "d4rl/set-v0 exists in" in refusal(path)
    assert ", imported from other files, with other settings or by another version: add overwrite=True" in refusal(path)
    assert [table.to_pylist() for table in tables(data.load_dataset("d4rl/set-v0"))] == before
    assert len(import_dataset(path, overwrite=True)) == 4
    assert "exists as arrow" in refusal(path, format="hdf5")


def test_advantages_are_judged_once_a_seed(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pmpo_offline.build import read
    from pmpo_offline.training import CandidateSettings, CriticSettings

    small = {"hidden": (16,), "folds": 2, "updates": 20, "sweeps": 1, "batch": 32}
    monkeypatch.setattr(read, "CriticSettings", lambda: CriticSettings(**small))
    monkeypatch.setattr(read, "CandidateSettings", lambda: CandidateSettings(states=50, updates=20))
    reward = np.random.default_rng(0).normal(size=91).astype(np.float32)
    path = hdf5(tmp_path / "set-v0.hdf5", as_d4rl(bounded([30, 1, 40, 20], reward=reward)))
    dataset = import_dataset(path, label="advantage")
    assert dataset.metadata.id == "d4rl/set-advantage-v0"
    scores, labels = columns.vector(dataset.table, "score"), columns.labels(dataset.table)
    assert np.array_equal(labels, np.sign(scores))
    assert dataset.metadata.score.settings["critic"]["folds"] == 2  # type: ignore[index,call-overload]
    judged = sorted(each.name for each in (home / ".raw").rglob("judged-*"))
    import_dataset(path, label="advantage", imbalance=0.3)
    assert sorted(each.name for each in (home / ".raw").rglob("judged-*")) == judged
    other = import_dataset(path, label="advantage", seed=1)
    assert not np.array_equal(columns.vector(other.table, "score"), scores)
    ranked = import_dataset(path, label="q_rank")
    assert ranked.metadata.kind == "candidates"
    assert ranked.candidates is not None
    assert ranked.candidates.num_rows == 50 * 4


# What is refused


@pytest.mark.parametrize(
    "id", ["nothing", "../../etc/x-v0", "/etc/x-v0", "a/b", "test/x-v0/..", "test/../../x-v0", ".raw/x-v0"]
)
def test_ids_that_are_none_or_escape(home: Path, tmp_path: Path, id: str) -> None:
    path = hdf5(tmp_path / "set.hdf5", as_d4rl(bounded([3])))
    assert "is no dataset id: write namespace/name-vN" in refusal(path, id=id)
    assert not home.exists()


def test_names_inside_files_do_not_escape_either(home: Path, tmp_path: Path) -> None:
    name = minari_of(tmp_path, None, metadata={"dataset_id": "../../../tmp/evil"})
    assert import_dataset(name).path == home / "minari/tmp/evil-v0"


def test_the_home_is_not_left_through_a_link(home: Path, tmp_path: Path) -> None:
    (tmp_path / "outside/x-v0").mkdir(parents=True)
    home.mkdir()
    (home / "test").symlink_to(tmp_path / "outside")
    path = hdf5(tmp_path / "set.hdf5", as_d4rl(bounded([3])))
    assert "is a link that leads out of" in refusal(path, id="test/x-v0", overwrite=True)


def test_a_source_is_never_replaced_by_its_import(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = hdf5(tmp_path / "set.hdf5", as_d4rl(bounded([3, 2])))
    first = import_dataset(path, id="test/set-v0", format="hdf5")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(home))
    line = refusal("minari:test/set-v0", id="test/set-v0", overwrite=True)
    assert "where its import would go: choose another id or home" in line
    again = import_dataset("minari:test/set-v0")
    assert again.table.equals(first.table)
    assert (again.metadata.id, again.metadata.task) == ("minari/test/set-v0", first.metadata.task)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"imbalance": 1.5}, "import: imbalance 1.5: choose a number between 0 and 1"),
        ({"noise": -0.1}, "import: noise -0.1: choose a number between 0 and 1"),
        ({"seed": -1}, "import: seed -1"),
        ({"label": "retrun"}, "unknown score 'retrun': did you mean return"),
        ({"label": "column"}, "set has no column of labels: name one with score"),
        ({"label": "return:1e9", "imbalance": 0.5}, "imbalance 0.5 is impossible with 0 accepted and 2 rejected"),
    ],
    ids=str,
)
def test_settings_that_are_malformed_or_impossible(
    home: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    path = hdf5(tmp_path / "set.hdf5", as_d4rl(bounded([3, 2])))
    assert message in refusal(path, **settings)
    assert data.stored_ids(home) == []


def test_a_damaged_record_of_what_was_read_is_said(home: Path, tmp_path: Path) -> None:
    path = hdf5(tmp_path / "set.hdf5", as_d4rl(bounded([3, 2])))
    import_dataset(path)
    (record,) = (home / ".raw").rglob("experience.npz")
    record.write_bytes(record.read_bytes()[:100])
    with pytest.raises(
        PmpoOfflineError, match=r"experience\.npz or feedback\.npz or notes\.json in .* is damaged .*: delete it"
    ):
        import_dataset(path, label="reward")
    assert len(import_dataset(path, overwrite=True)) == 5
    assert len(import_dataset(path, label="reward")) == 5


def test_overwriting_reads_the_source_again_whatever_is_cached(home: Path, tmp_path: Path) -> None:
    path = hdf5(tmp_path / "set.hdf5", as_d4rl(bounded([3, 2])))
    first = import_dataset(path)
    (notes,) = (home / ".raw").rglob("notes.json")
    recorded, feedback = notes.with_name("experience.npz"), notes.with_name("feedback.npz")
    planted = replace(Experience.load(recorded), reward=np.full(5, 9.0, np.float32))
    planted.save(recorded)
    content = json.loads(notes.read_text())
    save_notes(
        notes, {name: content[name] for name in content if name != "sha256"}, recorded, feedback
    )  # with the right checksum
    again = import_dataset(path, overwrite=True)
    assert again.fingerprint == first.fingerprint
    assert again.table["reward"].to_pylist() != [9.0] * 5


# The command


def test_the_command_prints_one_object(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pmpo_offline.cli.main import run

    path = hdf5(tmp_path / "set-v1.hdf5", as_d4rl(bounded([3, 2, 4])))
    assert run(["import", str(path), "--imbalance", "0.5", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["id"] == "d4rl/set-accept50-v1"
    assert set(said) >= {"path", "kind", "unit", "accepted", "rejected", "unlabelled", "share", "reject_mass"}
    assert (said["accepted"], said["rejected"]) == (1, 1)
    assert run(["import", str(path), "--id", "mine/b-v0"]) == 0
    assert re.search(r"^id +mine/b-v0$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["import", "minari:nothing"], "error: minari:nothing is no Minari id: write minari:namespace/name-vN"),
        (["import", "none.hdf5"], "error: none.hdf5: there is no such file or folder; known are minari, lerobot"),
        (["import", "x", "--format", "zip"], "error: Invalid value for '--format': "),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], line: str
) -> None:
    from pmpo_offline.cli.main import run

    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(line)
    assert err.count("\n") == 1
