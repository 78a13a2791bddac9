"""Datasets to the hub and back, against its HTTP interface on this machine; what fails leaves nothing behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
import yaml
from helpers.encoded import Store
from helpers.hub import TOKEN, Hub, running

from pmpo_offline import data
from pmpo_offline.cli.main import run
from pmpo_offline.data.exchange import pull_dataset, push_dataset
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with running() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        yield hub


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("form", ["arrow", "hdf5"])
def test_a_dataset_comes_back_byte_for_byte(hub: Hub, store: Store, tmp_path: Path, form: data.Format) -> None:
    pushed = store(candidates=4, format=form)
    assert push_dataset("test/small-v0", "me/small") == f"{hub.address}/datasets/me/small"
    elsewhere = tmp_path / "elsewhere"
    pulled = pull_dataset("hf:me/small", home=elsewhere)
    assert pulled.metadata == pushed.metadata
    assert content(pulled.path) == content(pushed.path)
    assert data.verify("test/small-v0", elsewhere) == []
    # Nothing is left, or written elsewhere.
    assert {path.name for path in elsewhere.iterdir()} == {"test", ".hub"}
    assert not list((elsewhere / ".hub").iterdir())
    assert {path.name for path in tmp_path.iterdir()} == {"home", "elsewhere"}
    again = pull_dataset("hf:me/small", home=elsewhere)
    assert again.metadata == pushed.metadata
    assert not list((elsewhere / ".hub").iterdir())


def test_the_card_names_the_tables_the_rule_and_the_licence(hub: Hub, store: Store) -> None:
    store(label="return:q0.7", candidates=4, noise=0.25)
    push_dataset("test/small-v0", "me/small")
    page = hub.repositories["me/small"][-1]["README.md"].decode()
    front = yaml.safe_load(page.split("---")[1])
    files = {each["config_name"]: each["data_files"] for each in front["configs"]}
    names = ("transitions", "episodes", "candidates")
    assert files == {name: f"dataset/{name}.arrow" for name in names}
    assert all(path in hub.repositories["me/small"][-1] for path in files.values())
    assert front["license"] == "apache-2.0"
    for part in ("`return:q0.7`", "0.25 of the labels were flipped", "## Intended use", "pull hf:me/small"):
        assert part in page


def test_a_later_push_replaces_an_earlier_one_and_revisions_stay(hub: Hub, store: Store, tmp_path: Path) -> None:
    first = store(candidates=4)
    push_dataset("test/small-v0", "me/small")
    sha = hub.files("me/small", "main")
    assert sha
    second = store(lengths=[4, 4], overwrite=True)
    push_dataset("test/small-v0", "me/small")
    assert "dataset/candidates.arrow" not in hub.repositories["me/small"][-1]
    new, old = tmp_path / "new", tmp_path / "old"
    assert pull_dataset("hf:me/small", home=new).fingerprint == second.fingerprint
    assert pull_dataset("hf:me/small", revision=sha[0], home=old).fingerprint == first.fingerprint
    with pytest.raises(UserError, match="is not that of hf:me/small"):
        pull_dataset("hf:me/small", home=old)
    assert pull_dataset("hf:me/small", home=old, overwrite=True).fingerprint == second.fingerprint


def flip(files: dict[str, bytes]) -> None:
    table = bytearray(files["dataset/transitions.arrow"])
    table[len(table) // 2] ^= 1
    files["dataset/transitions.arrow"] = bytes(table)


def rename(files: dict[str, bytes]) -> None:
    about = json.loads(files["dataset/dataset.json"]) | {"id": "test/../../outside-v0"}
    files["dataset/dataset.json"] = json.dumps(about).encode()
    del files["dataset/dataset.json.sha256"]


def reach_outside(files: dict[str, bytes]) -> None:
    about = json.loads(files["dataset/dataset.json"])
    about["files"]["../outside"] = about["files"].pop("episodes.arrow")
    files["dataset/dataset.json"] = json.dumps(about).encode()


def lose(files: dict[str, bytes]) -> None:
    del files["dataset/episodes.arrow"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip, "edited after it was written"),
        (rename, "is no dataset id"),
        (reach_outside, "no file of the dataset's own folder"),
        (lose, "lacks files that its dataset.json lists"),
    ],
)
def test_what_is_damaged_on_the_hub_never_becomes_visible(
    hub: Hub, store: Store, tmp_path: Path, damage: object, message: str
) -> None:
    store()
    push_dataset("test/small-v0", "me/small")
    damage(hub.repositories["me/small"][-1])  # type: ignore[operator]
    elsewhere = tmp_path / "elsewhere"
    with pytest.raises(PmpoOfflineError, match=message):
        pull_dataset("hf:me/small", home=elsewhere)
    assert data.stored_ids(elsewhere) == []
    assert [path for path in elsewhere.rglob("*") if path.is_file()] == []
    assert {path.name for path in tmp_path.iterdir()} == {"home", "elsewhere"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pull", "hf:me/nothing"], "there is no dataset me/nothing on the hub, or it is private: give a token"),
        (["pull", "hf:me/small", "--revision", "v9"], "me/small has no such revision"),
        (["pull", "hf:me/gated"], "me/gated is gated"),
        (["pull", "hf:me/texts"], "holds no dataset that pmpo-offline pushed"),
        (["pull", "me/small"], "write hf:user/name"),
        (["pull", "hf:a/b/c"], "is no name of a repository"),
        (["push", "test/small-v0", "me/texts"], "no push of pmpo-offline: choose another repository"),
        (["push", "test/small-v0", "small"], "push to small: write user/name"),
        (["push", "test/small-v0", "others/small"], "others/small"),
        (["push", "test/smal-v0", "me/small"], "did you mean test/small-v0"),
    ],
)
def test_mistakes_end_with_one_line(
    hub: Hub, store: Store, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    store()
    push_dataset("test/small-v0", "me/small")
    hub.commit("me/texts", {"train.jsonl": b"{}"})
    assert run(arguments) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert set(hub.repositories["me/texts"][-1]) == {"train.jsonl"}


def test_a_push_without_a_token_and_a_hub_that_is_away(
    hub: Hub, store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store()
    monkeypatch.setenv("HF_TOKEN", "wrong")
    with pytest.raises(UserError, match="give a token"):
        push_dataset("test/small-v0", "me/small")
    assert hub.repositories == {}
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        pull_dataset("hf:me/small", home=tmp_path / "elsewhere")
