"""From a recipe to a dataset: ids, reuse, labels, and requests that are refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pmpo_offline import data
from pmpo_offline.build import build_dataset
from pmpo_offline.build.collect import Recipe
from pmpo_offline.build.options import Changes
from pmpo_offline.build.pipeline import Spec
from pmpo_offline.cli.main import run
from pmpo_offline.data import Dataset, columns
from pmpo_offline.declarations import catalog
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.runtime.progress import on_progress


def raw_files(home: Path) -> dict[str, int]:
    return {
        str(path.relative_to(home)): path.stat().st_mtime_ns for path in (home / ".raw").rglob("*") if path.is_file()
    }


def changed(recipe: Path, **changes: Any) -> Spec:
    return Recipe.of(catalog.dataset(str(recipe)), Changes(**changes)).spec(Path("nowhere"))


def content(dataset: Dataset) -> list[pa.Table | None]:
    return [dataset.table, dataset.episodes, dataset.candidates]


def assert_equal(one: Dataset, other: Dataset) -> None:
    for left, right in zip(content(one), content(other), strict=True):
        assert left is not None
        assert left.equals(right)


@pytest.mark.parametrize(
    ("changes", "id"),
    [
        ({}, "test/stacking-v0"),
        ({"imbalance": 0.1}, "test/stacking-accept10-v0"),
        ({"imbalance": 0.0}, "test/stacking-accept0-v0"),
        ({"imbalance": 1.0}, "test/stacking-accept100-v0"),
        ({"imbalance": 0.1, "balance": "labels"}, "test/stacking-accept10-v0"),
        ({"imbalance": 0.1, "balance": "rows"}, "test/stacking-accept10rows-v0"),
        ({"label": "advantage"}, "test/stacking-advantage-v0"),
        ({"label": "advantage:sign"}, "test/stacking-advantage-v0"),
        ({"label": "return_to_go"}, "test/stacking-return-to-go-v0"),
        ({"noise": 0.1}, "test/stacking-noise10-v0"),
        ({"episodes": 7}, "test/stacking-episodes7-v0"),
        ({"seed": 3}, "test/stacking-seed3-v0"),
        # What is as declared is no change.
        ({"label": "success", "noise": 0.0, "seed": 0, "episodes": 20}, "test/stacking-v0"),
        ({"label": "success:0.5"}, "test/stacking-v0"),
        ({"label": "success", "imbalance": 0.1}, "test/stacking-accept10-v0"),
    ],
    ids=str,
)
def test_ids_one_can_read(recipe: Path, changes: dict, id: str) -> None:
    assert changed(recipe, **changes).id == id


def test_ids_of_what_cannot_be_said_in_a_word(recipe: Path) -> None:
    changes = [
        {"imbalance": 0.1, "noise": 0.1},
        {"imbalance": 0.1, "noise": 0.1, "balance": "rows"},
        {"imbalance": 0.125, "balance": "rows"},
        {"imbalance": 0.1, "noise": 0.2},
        {"imbalance": 0.125},
        {"label": "return:q0.7"},
        {"label": "advantage:sign:0.1"},
    ]
    ids = [changed(recipe, **each).id for each in changes]
    assert len(set(ids)) == len(ids)
    for each, id in zip(changes, ids, strict=True):
        assert id.startswith("test/stacking-")
        assert id.endswith("-v0")
        assert len(id) == len("test/stacking-12345678-v0")
        assert changed(recipe, **each).id == id
        data.dataset_path(id)  # a legal id


def test_a_standing_dataset_is_opened(stacking: Dataset, recipe: Path, stacking_home: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in stacking.path.rglob("*")}
    told: list[str] = []
    with on_progress(lambda *each: told.append(each[0])):
        again = build_dataset(str(recipe), home=stacking_home, label="success")
    assert again.path == stacking.path
    assert {path: path.stat().st_mtime_ns for path in stacking.path.rglob("*")} == before
    assert not told
    assert data.verify(stacking.path) == []


def test_labellings_share_one_experience(stacking: Dataset, recipe: Path, stacking_home: Path) -> None:
    before = raw_files(stacking_home)
    assert sorted(Path(name).name.split("-")[0] for name in before) == ["chunk", "clone", "clone", "judged"]
    for changes in ({"imbalance": 0.1}, {"label": "return:q0.7"}, {"noise": 0.2}, {"label": "advantage"}):
        build_dataset(str(recipe), home=stacking_home, workers=1, **changes)
    assert raw_files(stacking_home) == before, "nothing was collected or judged again"


@pytest.mark.parametrize(
    "changes",
    [
        {"imbalance": 0.1},
        {"imbalance": 0.0},
        {"imbalance": 1.0},
        {"imbalance": 0.5, "noise": 0.2},
        {"label": "return:q0.7"},
        {"label": "return_to_go:q0.5", "imbalance": 0.25},
    ],
    ids=str,
)
def test_relabelled_in_memory_equals_built(stacking: Dataset, recipe: Path, stacking_home: Path, changes: dict) -> None:
    built = build_dataset(str(recipe), home=stacking_home, workers=1, **changes)
    relabelled = stacking.relabelled(**changes)
    assert_equal(built, relabelled)
    for name in (
        "unit",
        "label",
        "threshold",
        "imbalance",
        "counts",
        "reject_mass",
        "labelled_reject_mass",
        "reject_share",
        "candidates",
    ):
        assert getattr(built.metadata, name) == getattr(relabelled.metadata, name), name
    assert data.verify(built.path) == []


def test_shares_of_zero_and_one_have_one_class(stacking: Dataset, recipe: Path, stacking_home: Path) -> None:
    counted = stacking.metadata.counts
    rejects = build_dataset(str(recipe), home=stacking_home, imbalance=0.0, workers=1).metadata
    assert (rejects.counts.accepted, rejects.counts.rejected) == (0, counted.rejected)
    assert rejects.imbalance.achieved == 0
    accepts = build_dataset(str(recipe), home=stacking_home, imbalance=1.0, workers=1).metadata
    assert (accepts.counts.accepted, accepts.counts.rejected) == (counted.accepted, 0)
    assert accepts.imbalance.achieved == 1


def test_advantages_are_stored_and_label_steps(stacking: Dataset, advantage: Dataset) -> None:
    built = advantage
    metadata = built.metadata
    assert (metadata.score.name, metadata.unit, metadata.threshold) == ("advantage", "step", 0.0)
    assert metadata.score.settings["critic"]["folds"] == 2
    assert metadata.score.settings["explained"] <= 1
    scores, labels = columns.vector(built.table, "score"), columns.labels(built.table)
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(labels, np.sign(scores).astype(labels.dtype))
    assert metadata.counts.accepted + metadata.counts.rejected == len(built)
    # The same experience as under any other label, and labels that need no other build.
    assert built.table.drop(["score", "label"]).equals(stacking.table.drop(["score", "label"]))
    sparse = built.relabelled("advantage:sign:0.05").metadata.counts
    assert sparse.unlabelled == int((np.abs(scores) <= 0.05).sum())
    with pytest.raises(UserError, match="stores the score success, not advantage: build one that does"):
        stacking.relabelled("advantage")


def test_candidates_are_scored_actions_of_recorded_states(stacking: Dataset) -> None:
    table = stacking.candidates
    assert table is not None
    assert table.num_rows == 300 * 4
    rows = columns.vector(table, "row")
    assert (rows.reshape(-1, 4) == rows[::4, None]).all()
    assert (np.diff(rows[::4]) > 0).all(), "sorted states, none twice"
    assert rows.max() < len(stacking)
    actions = columns.matrix(table, "action")
    assert np.abs(actions).max() <= 1
    assert len(np.unique(actions, axis=0)) > 1000, "drawn, not repeated"
    scores, labels = columns.vector(table, "score").reshape(-1, 4), columns.labels(table).reshape(-1, 4)
    best = np.sort(scores, axis=1)[:, 2:].min(axis=1, keepdims=True)
    np.testing.assert_array_equal(labels, np.where(scores >= best, 1, -1))


def test_what_a_dataset_says_of_itself(stacking: Dataset) -> None:
    metadata, episodes = stacking.metadata, stacking.episodes
    assert episodes is not None
    assert metadata.task == "rgb-stacking/proxy"
    assert metadata.counts.episodes == episodes.num_rows == 20
    assert metadata.counts.rows == len(stacking) == pc.sum(episodes.column("length")).as_py()
    assert metadata.counts.accepted == pc.sum(episodes.column("success")).as_py()
    rejected = np.repeat(~episodes.column("success").to_numpy(zero_copy_only=False), episodes.column("length"))
    assert metadata.reject_mass == pytest.approx(rejected.mean())
    assert metadata.references is not None
    assert metadata.references.min < metadata.references.max
    assert set(metadata.provenance.packages) >= {"pmpo-offline", "mujoco", "torch"}


@pytest.mark.usefixtures("forkserver")
def test_same_recipe_elsewhere_is_the_same_dataset(stacking: Dataset, recipe: Path, tmp_path: Path) -> None:
    again = build_dataset(str(recipe), home=tmp_path, workers=2)
    assert_equal(again, stacking)
    assert again.metadata.files == stacking.metadata.files, "byte for byte"


def test_other_form_of_a_standing_dataset(stacking: Dataset, recipe: Path, stacking_home: Path) -> None:
    with pytest.raises(UserError, match=r"exists as arrow in .*: add overwrite=True to store it as hdf5") as caught:
        build_dataset(str(recipe), home=stacking_home, format="hdf5")
    assert "\n" not in str(caught.value)
    assert (stacking.path / "transitions.arrow").is_file()


def test_hdf5_has_equal_content_and_overwrite_changes_the_form(
    stacking: Dataset, recipe: Path, stacking_home: Path
) -> None:
    settings = {"label": "return", "home": stacking_home, "workers": 1}
    arrow = build_dataset(str(recipe), **settings)
    kept = [None if table is None else pa.table(table.to_pydict(), table.schema) for table in content(arrow)]
    hdf5 = build_dataset(str(recipe), format="hdf5", overwrite=True, **settings)
    assert not list(hdf5.path.glob("*.arrow"))
    for left, right in zip(kept, content(hdf5), strict=True):
        assert left is not None
        assert left.equals(right)
    assert build_dataset(str(recipe), **settings).metadata == hdf5.metadata  # opened as it is stored
    with pytest.raises(UserError, match="exists as hdf5"):
        build_dataset(str(recipe), format="arrow", **settings)


def test_a_share_reached_by_dropping_rows(recipe: Path, stacking: Dataset, stacking_home: Path) -> None:
    built = build_dataset(str(recipe), imbalance=0.5, balance="rows", home=stacking_home)
    assert built.metadata.id == "test/stacking-accept50rows-v0"
    assert data.verify(built.metadata.id, stacking_home) == []
    assert_equal(built, stacking.relabelled(imbalance=0.5, balance="rows"))
    assert built.episodes is not None
    assert built.episodes.num_rows == built.metadata.counts.accepted + built.metadata.counts.rejected < 20
    kept = changed(recipe, imbalance=0.5)
    assert kept.digest != changed(recipe, imbalance=0.5, balance="rows").digest
    assert kept.raw == changed(recipe, imbalance=0.5, balance="rows").raw, "the same experience"


def test_build_warns_of_an_empty_class(recipe: Path, stacking: Dataset, stacking_home: Path) -> None:
    with pytest.warns(UserWarning, match=r"dataset test/.*: label 'return:99': nothing is accepted.*another threshold"):
        build_dataset(str(recipe), label="return:99", home=stacking_home)


def test_impossible_share_leaves_nothing(recipe: Path, stacking: Dataset, stacking_home: Path) -> None:
    before = data.stored_ids(stacking_home)
    with pytest.raises(UserError, match=r"imbalance 0\.5 is impossible with 0 accepted and 20 rejected") as caught:
        build_dataset(str(recipe), home=stacking_home, label="return:1e9", imbalance=0.5)
    assert "\n" not in str(caught.value)
    assert data.stored_ids(stacking_home) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"imbalance": 1.5}, "build-dataset: imbalance: "),
        ({"label": "succes"}, "succes"),
        ({"noise": -0.1}, "build-dataset: noise: "),
        ({"imbalance": 0.1, "balance": "row"}, "expected 'labels' or 'rows' or None for balance"),
        ({"balance": "rows"}, "balance rows: no accepted share"),
        ({"episodes": 0}, "build-dataset: episodes: "),
    ],
    ids=str,
)
def test_malformed_settings_are_the_users(recipe: Path, tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build_dataset(str(recipe), home=tmp_path / "home", **changes)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("folds = 2", "foldz = 2", "dataset test/stacking-v0: unknown key 'foldz': did you mean folds"),
        ("folds = 2", "folds = 1", "dataset test/stacking-v0: folds"),
        ("states = 300", "states = 0", "dataset test/stacking-v0: states"),
        ('task = "rgb-stacking/proxy"', 'task = "rgb-stacking/prosy"', "did you mean rgb-stacking/proxy"),
        ('target = "green"', 'target = "gren"', "behavior: target"),
        ("episodes = 20", "episodes = 1", "learns from other episodes, and there is one"),
        ('kind = "transitions"', 'kind = "candidates"', "declares kind candidates, and its labels make it transitions"),
    ],
)
def test_malformed_recipe_is_one_line(recipe: Path, tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "own.toml"
    assert old in recipe.read_text()
    path.write_text(recipe.read_text().replace(old, new))
    with pytest.raises(UserError, match=message) as caught:
        build_dataset(str(path), home=tmp_path / "home", workers=1)
    assert "\n" not in str(caught.value)
    assert not data.stored_ids(tmp_path / "home")


def test_unknown_dataset_names_the_near_miss() -> None:
    with pytest.raises(UserError, match="unknown dataset 'rgb-stacking/proxi-v0': did you mean rgb-stacking/proxy-v0"):
        build_dataset("rgb-stacking/proxi-v0")


def test_critics_need_no_successes(recipe: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """A share that the declared labels could not have does not stop a build with other labels."""
    text = recipe.read_text().replace("episodes = 20", "episodes = 3").replace("seed = 0", "seed = 0\nimbalance = 0.5")
    path = tmp_path / "own.toml"
    path.write_text(text[: text.index("[[behavior]]")] + '[[behavior]]\nname = "no"\nweight = 1\nclings = true\n')
    built = build_dataset(str(path), home=tmp_path / "home", label="advantage", workers=1)
    assert built.metadata.imbalance.achieved == pytest.approx(0.5, abs=0.01)
    assert not any(built.episodes.column("success").to_pylist())  # type: ignore[union-attr]
    assert not [str(each.message) for each in recwarn if "nothing is" in str(each.message)], "labels of no interest"


@pytest.mark.filterwarnings("ignore:.*nothing is accepted")
def test_damaged_scores_of_the_critics_are_said(recipe: Path, tmp_path: Path) -> None:
    build_dataset(str(recipe), home=tmp_path, episodes=2, workers=1)
    [judged] = (tmp_path / ".raw").rglob("judged-*")
    os.truncate(judged, judged.stat().st_size // 2)
    with pytest.raises(PmpoOfflineError, match=r"judged-\w+\.npz is damaged .*: delete it and run the same command"):
        build_dataset(str(recipe), home=tmp_path, episodes=2, overwrite=True, workers=1)
    judged.unlink()
    assert build_dataset(str(recipe), home=tmp_path, episodes=2, overwrite=True, workers=1)


def test_home_that_cannot_be_written_is_one_line(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "file").write_text("not a folder")
    home = tmp_path / "file" / "home"
    assert run(["build-dataset", str(recipe), "--home", str(home)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"error: cannot write {home}: Not a directory; check the permissions or choose another --home\n"
