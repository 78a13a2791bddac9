"""Fixtures that label the encoded tables, and store them in a home of the test's own."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import pytest

from helpers import encoded
from helpers.encoded import Make, Store
from pmpo_offline import data


@pytest.fixture(scope="session")
def make() -> Make:
    """Return (metadata, labelled tables) of synthetic episodes, ready for `data.write`."""
    return encoded.make


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home that the environment points to."""
    path = tmp_path / "home"
    monkeypatch.setenv("PMPO_OFFLINE_DATASETS", str(path))
    return path


@pytest.fixture
def store(make: Make, home: Path) -> Store:
    """Return `make`'s dataset written into the home and opened again."""

    def build(*args: Any, format: data.Format = "arrow", overwrite: bool = False, **kwargs: Any) -> data.Dataset:
        metadata, tables = make(*args, **kwargs)
        data.write(data.dataset_path(metadata.id), metadata, tables, form=format, overwrite=overwrite)
        return data.load_dataset(metadata.id)

    return build


@pytest.fixture
def hugging_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Hugging Face's package, offline, with a cache of the test's own."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    import datasets

    # The checkout has a folder datasets/ too: it is no package, and must not hide the real one.
    assert "site-packages" in str(datasets.__file__)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    return lambda *args: datasets.load_dataset(*map(str, args), cache_dir=str(tmp_path / "hf"))


@pytest.fixture
def forkserver(monkeypatch: pytest.MonkeyPatch) -> BaseContext:
    """Worker processes come from a server that has imported everything once; in all else they are those of a user.

    That each starts as a fresh interpreter, which takes seconds, is tested in tests/build/test_processes.py.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pmpo_offline.benchmark.work", "pmpo_offline.training.language.trainer"])
    monkeypatch.setattr(multiprocessing, "get_context", lambda method=None: context)
    return context
