"""Ids stay in their home; unknown ones are met with the near misses."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.encoded import Store

from pmpo_offline import data
from pmpo_offline.runtime.errors import UserError


@pytest.mark.parametrize("name", ["rgb-stacking/proxy-v0", "dm_control/cheetah-run-medium-v12", "a1/deep/er/x-v0"])
def test_ids_lie_in_the_home(home: Path, name: str) -> None:
    assert data.dataset_path(name) == home / name


@pytest.mark.parametrize(
    "name",
    [
        "../x-v0", "ns/../x-v0", "ns/../../x-v0", "/etc/x-v0", "ns//x-v0", "./ns/x-v0", ".hidden/x-v0", "ns/.x-v0",
        "ns/x", "x-v0", "n/x-v0", "ns/x-v", "ns/x-v0\n", "ns/x-v0/", "ns/x y-v0", "ns\\x-v0", "~/x-v0", "", "ns/x-v0\0",
        "nß/x-v0", "ns/x-v٣",
    ],
)  # fmt: skip
def test_what_is_no_id_is_refused(home: Path, name: str) -> None:
    with pytest.raises(UserError, match="is no dataset id: write namespace/name-vN"):
        data.dataset_path(name)


def test_a_dataset_beside_the_home_cannot_be_reached_by_id(store: Store, home: Path) -> None:
    outside = store().path.rename(home.parent / "x-v0")
    with pytest.raises(UserError, match="unknown dataset"):
        data.load_dataset("../x-v0")
    assert data.load_dataset(outside).path == outside  # as a path it can
    assert data.load_dataset(str(outside)).path == outside


def test_links_out_of_the_home_are_refused(store: Store, home: Path) -> None:
    outside = store().path.rename(home.parent / "x-v0")
    (home / "test/linked-v0").symlink_to(outside)
    (home / "other").symlink_to(home.parent)
    for name in ("test/linked-v0", "other/x-v0"):
        with pytest.raises(UserError, match="is a link that leads out of"):
            data.load_dataset(name)
        with pytest.raises(UserError, match="is a link that leads out of"):
            data.dataset_path(name)


def test_a_home_may_itself_be_a_link(store: Store, home: Path) -> None:
    store()
    link = home.parent / "link"
    link.symlink_to(home)
    assert data.load_dataset("test/small-v0", home=link).metadata.id == "test/small-v0"


def test_stored_datasets_are_listed_and_near_misses_named(store: Store, home: Path) -> None:
    assert data.stored_ids() == []
    store(id="test/b-v0")
    store(id="test/a-v1")
    (home / "test/.c-v0.partial").mkdir()
    (home / "test/.c-v0.partial/dataset.json").touch()
    (home / "test/empty-v0").mkdir()
    assert data.stored_ids() == ["test/a-v1", "test/b-v0"]
    assert data.is_stored("test/a-v1")
    assert not data.is_stored("test/empty-v0")
    with pytest.raises(UserError) as error:
        data.load_dataset("test/b-v1")
    assert str(error.value).startswith("unknown dataset 'test/b-v1': did you mean test/")
    with pytest.raises(UserError, match=r"holds no dataset\.json"):
        data.load_dataset(home)


def test_the_home_is_that_of_the_environment_or_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMPO_OFFLINE_DATASETS", "~/elsewhere")
    assert data.home() == Path.home() / "elsewhere"
    monkeypatch.delenv("PMPO_OFFLINE_DATASETS")
    assert data.home() == Path.home() / ".cache/pmpo_offline/datasets"
