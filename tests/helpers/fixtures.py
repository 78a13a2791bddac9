"""Fixtures that label the encoded tables, and store them in a home of the test's own."""

from __future__ import annotations

import multiprocessing
import pickle
import shutil
from collections.abc import Callable, Iterator
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import pytest

from helpers import encoded, fork_server
from helpers.encoded import Make, Store
from helpers.small_process import examined_from_a_small_process
from pmpo_offline import data


@pytest.fixture(scope="session")
def make() -> Make:
    """Return (metadata, labelled tables) of synthetic episodes, ready for `data.write`."""
    return encoded.make


@pytest.fixture(scope="session", autouse=True)
def small_process() -> Iterator[None]:
    """Fork the children that look at HDF5 files from a small process."""
    with examined_from_a_small_process():
        yield


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home that the environment points to."""
    path = tmp_path / "home"
    monkeypatch.setenv("PMPO_OFFLINE_DATASETS", str(path))
    return path


@pytest.fixture(scope="session")
def written(make: Make, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, str]]:
    """Return the folder and the id of `make`'s dataset in a form, which is written once; tests open a copy."""
    found: dict[bytes, tuple[Path, str]] = {}

    def folder(form: data.Format, *args: Any, **kwargs: Any) -> tuple[Path, str]:
        key = pickle.dumps((form, args, sorted(kwargs.items())))
        if key not in found:
            metadata, tables = make(*args, **kwargs)
            path = data.dataset_path(metadata.id, tmp_path_factory.mktemp("written"))
            data.write(path, metadata, tables, form=form)
            found[key] = path, metadata.id
        return found[key]

    return folder


@pytest.fixture
def write_anew(make: Make, home: Path) -> Store:
    """Return `make`'s dataset written into the home and opened again."""

    def build(*args: Any, format: data.Format = "arrow", overwrite: bool = False, **kwargs: Any) -> data.Dataset:
        metadata, tables = make(*args, **kwargs)
        data.write(data.dataset_path(metadata.id), metadata, tables, form=format, overwrite=overwrite)
        return data.load_dataset(metadata.id)

    return build


@pytest.fixture
def store(written: Callable[..., tuple[Path, str]], write_anew: Store) -> Store:
    """Do as `write_anew`, with a copy of what was written before.

    Tests of the writer, or that change how it writes, take `write_anew`.
    """

    def build(*args: Any, format: data.Format = "arrow", overwrite: bool = False, **kwargs: Any) -> data.Dataset:
        original, name = written(format, *args, **kwargs)
        if overwrite or data.is_stored(name):
            return write_anew(*args, format=format, overwrite=overwrite, **kwargs)
        shutil.copytree(original, data.dataset_path(name))
        return data.load_dataset(name)

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
    """Worker processes are forked from one that has imported everything; in all else they are those of a user.

    That each starts as a fresh interpreter, which takes seconds, is tested in tests/build/test_processes.py.
    """
    context = multiprocessing.get_context("forkserver")
    monkeypatch.setattr(multiprocessing, "get_context", lambda method=None: context)
    return context


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Start the fork server if a test uses it."""
    used = any("forkserver" in item.fixturenames for item in session.items if isinstance(item, pytest.Function))
    if used and not session.config.option.collectonly:
        capture: Any = session.config.pluginmanager.getplugin("capturemanager")
        capture.resume_global_capture()  # its processes write where the tests write
        fork_server.start()
        capture.suspend_global_capture()
