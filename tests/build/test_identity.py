"""Whatever a dataset is made of is part of its identity: with one ingredient changed, nothing stale is reused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.foreign import as_d4rl, hdf5
from helpers.texts import jsonl, unpaired

from pmpo_offline.build import TextOptions, collect, import_dataset, import_text, read, read_text, sample
from pmpo_offline.build.collect import Recipe, build_dataset
from pmpo_offline.build.options import Changes
from pmpo_offline.build.pipeline import Spec, load_notes, save_notes
from pmpo_offline.data import Experience
from pmpo_offline.declarations import catalog
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError

REMEDY = "add overwrite=True"


def spec(path: Path, **changes: Any) -> Spec:
    return Recipe.of(catalog.dataset(str(path)), Changes(**changes)).spec(path.parent)


def edited(path: Path, old: str, new: str) -> Path:
    text = path.read_text()
    assert old in text
    other = path.with_name("edited.toml")
    other.write_text(text.replace(old, new))
    return other


@pytest.mark.parametrize(
    "changes",
    [{"label": "return:q0.7"}, {"noise": 0.1}, {"imbalance": 0.5}, {"seed": 1}, {"episodes": 19}],
    ids=str,
)
def test_settings_of_a_build(recipe: Path, changes: dict[str, Any]) -> None:
    usual, other = spec(recipe), spec(recipe, **changes)
    assert other.digest != usual.digest
    assert other.id != usual.id
    assert (other.raw != usual.raw) == bool({"seed", "episodes"} & changes.keys()), "labellings share raw experience"


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("folds = 2", "folds = 3", "scores"),
        ("states = 300", "states = 200", "scores"),
        ('target = "green"', 'target = "red"', "experience"),
    ],
)
def test_ingredients_of_a_recipe(recipe: Path, old: str, new: str, what: str) -> None:
    usual, other = spec(recipe), spec(edited(recipe, old, new))
    assert usual.critic is not None
    assert other.critic is not None
    assert other.digest != usual.digest
    assert (other.critic.file != usual.critic.file) == (what == "scores")
    assert (other.raw != usual.raw) == (what == "experience")


def test_revisions_of_code_and_versions_of_simulators(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = spec(recipe)
    monkeypatch.setattr(collect, "_EXPERIENCE", 2)
    revised = spec(recipe)
    monkeypatch.undo()
    monkeypatch.setattr(collect, "versions", lambda *names: dict.fromkeys(names, "0.0"))
    simulated = spec(recipe)
    assert len({usual.raw, revised.raw, simulated.raw}) == 3
    assert len({each.hashes["experience"] for each in (usual, revised, simulated)}) == 3


def test_what_other_simulators_made_is_refused(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_dataset(str(recipe), episodes=2, home=tmp_path / "home", workers=1, label="return")
    monkeypatch.setattr(collect, "_EXPERIENCE", 2)
    with pytest.raises(UserError, match="or on other versions of the simulators: add overwrite=True"):
        build_dataset(str(recipe), episodes=2, home=tmp_path / "home", workers=1, label="return")


RESPONSES = """
id = "test/reversed-v0"
kind = "responses"
task = "language/tiny"
title = "Tiny"
licence = "Apache-2.0"
episodes = 8
label = "reward:0.5"
[sampling]
responses = 3
test = 0.2
"""


def test_ingredients_of_sampled_responses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tiny.toml"
    path.write_text(RESPONSES)
    usual = spec(path)
    labellings = [spec(path, label="reward:0.6"), spec(path, noise=0.1), spec(path, imbalance=0.5)]
    split = spec(edited(path, "test = 0.2", "test = 0.5"))
    fewer = spec(path, episodes=7)
    sampled = [spec(path, seed=1), spec(edited(path, "responses = 3", "responses = 2"))]
    monkeypatch.setattr(sample, "_SAMPLED", 2)
    sampled.append(spec(path))
    every = [usual, *labellings, split, fewer, *sampled]
    assert len({each.digest for each in every}) == len(every)
    assert len({each.hashes["responses"] for each in [usual, *sampled]}) == 1 + len(sampled)
    assert {each.hashes["responses"] for each in [*labellings, split, fewer]} == {usual.hashes["responses"]}


def episodes(lengths: list[int]) -> Experience:
    n, e = sum(lengths), len(lengths)
    rng = np.random.default_rng(0)
    return Experience(
        observation=rng.normal(size=(n, 3)).astype(np.float32),
        action=rng.uniform(-1, 1, (n, 2)).astype(np.float32),
        reward=rng.normal(size=n).astype(np.float32),
        length=np.array(lengths),
        success=np.zeros(e, np.bool_),
        terminated=np.ones(e, np.bool_),
        final_observation=rng.normal(size=(e, 3)).astype(np.float32),
        behavior=np.array(["x"] * e),
        seed=np.arange(e),
    )


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PMPO_OFFLINE_DATASETS", str(tmp_path / "home"))
    return tmp_path / "home"


def trajectories(path: Path, lengths: list[int]) -> None:
    path.unlink(missing_ok=True)
    hdf5(path, as_d4rl(episodes(lengths)))


def refused(again: Callable[[], object]) -> None:
    with pytest.raises(UserError, match=REMEDY) as caught:
        again()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("label", "return:q0.3"), ("noise", 0.5), ("imbalance", 0.5), ("seed", 1)),
        *(("task", "d4rl/own-v0"), ("content", [4, 2, 3]), ("readers", 0)),
    ],
)
def test_ingredients_of_imported_trajectories(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: Any
) -> None:
    changes = {name: value}
    path = tmp_path / "own.hdf5"
    trajectories(path, [3, 2, 4])
    first = import_dataset(path, id="test/own-v0")
    assert import_dataset(path, id="test/own-v0").metadata == first.metadata
    if "content" in changes:
        trajectories(path, changes.pop("content"))
    if "readers" in changes:
        monkeypatch.setattr(read, "_READERS", changes.pop("readers"))
    if changes.pop("task", None):
        path = path.rename(tmp_path / "hopper_medium-v2.hdf5")
    refused(lambda: import_dataset(path, id="test/own-v0", **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"label": "column:sign"},
        {"noise": 0.5},
        {"imbalance": 0.5},
        {"seed": 1},
        {"test_share": 0.5},
        {"min_characters": 2},
        {"deduplicate": True},
        {"task": "language/sentiment"},
        {"content": 5},
        {"readers": 0},
    ],
    ids=str,
)
def test_ingredients_of_imported_texts(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    def imported(task: str | None = None, **options: Any) -> Any:
        return import_text(path, id="test/own-v0", task=task, options=TextOptions(**options))

    path = jsonl(tmp_path / "own.jsonl", unpaired(12))
    first = imported(test_share=0.0)
    assert imported(test_share=0.0).metadata == first.metadata
    if "content" in changes:
        jsonl(path, unpaired(changes.pop("content")))
    if "readers" in changes:
        monkeypatch.setattr(read_text, "_READERS", changes.pop("readers"))
    refused(lambda: imported(**{"test_share": 0.0} | changes))


def test_any_flipped_bit_of_the_critics_scores_is_noticed(recipe: Path, tmp_path: Path) -> None:
    build_dataset(str(recipe), home=tmp_path, episodes=2, workers=1)
    for name in ("judged-*", "chunk-*"):
        [path] = (tmp_path / ".raw").rglob(name)
        good = path.read_bytes()
        damaged = bytearray(good)
        damaged[len(good) // 3] ^= 4
        path.write_bytes(damaged)
        with pytest.raises(PmpoOfflineError, match=rf"{path.name} is damaged"):
            build_dataset(str(recipe), home=tmp_path, episodes=2, overwrite=True, workers=1)
        path.write_bytes(good)


def test_notes_vouch_for_their_files(tmp_path: Path) -> None:
    file, notes = tmp_path / "experience.npz", tmp_path / "notes.json"
    file.write_bytes(b"rows")
    assert load_notes(notes, file) is None
    save_notes(notes, {"rewards": True, "dropped": 3}, file)
    assert load_notes(notes, file) == {"rewards": True, "dropped": 3}
    file.write_bytes(b"rowt")
    with pytest.raises(PmpoOfflineError, match=r"experience\.npz or notes\.json in .* is damaged"):
        load_notes(notes, file)
    file.write_bytes(b"rows")
    notes.write_text(notes.read_text().replace("3", "2", 1))
    with pytest.raises(PmpoOfflineError, match="is damaged"):
        load_notes(notes, file)
    notes.write_text(json.dumps({"rewards": True}))
    assert load_notes(notes, file) is None, "of a version without checksums: read again"
    file.unlink()
    assert load_notes(notes, file) is None


def test_half_a_pair_is_read_again(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "own.hdf5"
    trajectories(path, [3, 2, 4])

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(read, "save_notes", killed)
    with pytest.raises(KeyboardInterrupt):
        import_dataset(path)
    monkeypatch.undo()
    monkeypatch.setenv("PMPO_OFFLINE_DATASETS", str(home))
    [half] = (home / ".raw").rglob("experience.npz")
    half.write_bytes(b"of a write that was never vouched for")
    assert len(import_dataset(path)) == 9
