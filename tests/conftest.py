"""Shared test setup: one thread of torch and of NumPy, because two workers have a core each: others wait and spin."""

from __future__ import annotations

import gc
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when NumPy and torch are imported, by child processes too

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from pmpo_offline.data import Dataset
    from pmpo_offline.policies.language import LanguageModel

gc.disable()  # until all is collected: what is imported stays, and looking for garbage in it is a sixth of the time

pytest_plugins = ["helpers.fixtures"]

Once = Callable[[str, Callable[[Path], object]], Path]
"""From a name and a function that fills a folder, a copy of that folder."""

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # in a job that a shell put into the background; children inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub: no test asks the hub

# Property tests without a time limit an example (machines are shared), and with the same examples in every run.
settings.register_profile("repeatable", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("repeatable")


def pytest_collection_finish() -> None:
    gc.enable()


SMALL = """
id = "test/stacking-v0"
kind = "transitions"
task = "rgb-stacking/proxy"
title = "Twenty episodes of the declared behaviours"
licence = "CC-BY-4.0"
episodes = 20
seed = 0
label = "success"
[critic]
hidden = [16]
folds = 2
updates = 20
sweeps = 2
batch = 64
[candidates]
actions = 4
states = 300
updates = 20
"""


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe with the declared behaviours, but few episodes and short trainings."""
    from pmpo_offline.declarations import catalog

    declared = (catalog.root("datasets") / "rgb-stacking" / "proxy-v0.toml").read_text()
    path = tmp_path_factory.mktemp("recipe") / "small.toml"
    path.write_text(SMALL + declared[declared.index("[[behavior]]") :])
    return path


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Undo what an earlier test's benchmark has set (`workers` is torch's number of threads)."""
    import torch  # here, because the process that hands tests to workers has no use for it

    torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def fast_garbage_collection() -> None:
    """Exempt what is imported and collected so far: each Trainer calls `gc.collect`, which takes .4 s over all."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Return `once(name, make)`: a folder that `make` fills in one process of the session; each other one copies it."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "once"
    shared.mkdir(exist_ok=True)

    def folder(name: str, make: Callable[[Path], object]) -> Path:
        from pmpo_offline.runtime.files import file_lock

        original, partial, lock = shared / name, shared / f"{name}.partial", shared / f"{name}.lock"
        lock.mkdir(exist_ok=True)
        with file_lock(lock):
            if not original.exists():
                shutil.rmtree(partial, ignore_errors=True)
                make(partial)
                partial.rename(original)
        return shutil.copytree(original, tmp_path_factory.mktemp(name) / "home")

    return folder


@pytest.fixture(scope="session")
def stacking_home(once: Once, recipe: Path) -> Path:
    """The home of `stacking`; tests may add datasets to it, but not change those it has."""
    from pmpo_offline.build import build_dataset

    return once("stacking", lambda home: build_dataset(str(recipe), home=home, workers=1))


@pytest.fixture(scope="session")
def stacking(recipe: Path, stacking_home: Path) -> Dataset:
    """A small dataset of the real task."""
    from pmpo_offline.build import build_dataset

    return build_dataset(str(recipe), home=stacking_home, workers=1)


@pytest.fixture(scope="session")
def advantage(recipe: Path, stacking: Dataset, stacking_home: Path) -> Dataset:
    """The same episodes, every step labelled by the sign of its advantage."""
    from pmpo_offline.build import build_dataset

    return build_dataset(str(recipe), home=stacking_home, label="advantage", workers=1)


@pytest.fixture(scope="session")
def language_home(once: Once) -> Path:
    """The home of the tiny language model, trained for 150 updates of its 600, and its dataset; tests may add to it.

    It answers as often right as the declared one; test_tiny.py pins what that is made from.
    """
    from pmpo_offline.build import build_dataset
    from pmpo_offline.tasks.language import models, tiny

    def make(home: Path) -> None:
        build_dataset("language/tiny-v0", home=home)
        tiny.make(models.own_directory("tiny", home), steps=150)

    return once("language", make)


@pytest.fixture(scope="session")
def tiny(language_home: Path) -> LanguageModel:
    """The tiny language model; do not change its weights."""
    from pmpo_offline.policies.language import open_model
    from pmpo_offline.tasks.language import model_directory

    return open_model(model_directory("tiny", language_home), name="tiny", device="cpu")


@pytest.fixture(scope="session")
def tiny_dataset(language_home: Path) -> Dataset:
    """`language/tiny-v0`: 500 prompts with 4 responses each of the tiny model."""
    from pmpo_offline.data import load_dataset

    return load_dataset("language/tiny-v0", home=language_home)
