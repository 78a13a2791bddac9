"""Shared test setup: one torch thread, because two threads on a busy two-core machine are slower than one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from pmpo_offline.data import Dataset
    from pmpo_offline.policies.language import LanguageModel

pytest_plugins = ["helpers.fixtures"]

torch.set_num_threads(1)
os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub: no test asks the hub

# Property tests without a time limit an example (machines are shared), and with the same examples in every run.
settings.register_profile("repeatable", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("repeatable")

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


@pytest.fixture(scope="session")
def stacking_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home that `stacking` is built in; tests may add to it, not change what stands."""
    return tmp_path_factory.mktemp("stacking-home")


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
def language_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home that the tiny language model and its dataset are made in; tests may add to it."""
    return tmp_path_factory.mktemp("language-home")


@pytest.fixture(scope="session")
def tiny(language_home: Path) -> LanguageModel:
    """The tiny language model, trained from scratch once a session (half a minute); do not change its weights."""
    from pmpo_offline.policies.language import open_model
    from pmpo_offline.tasks.language import model_directory

    return open_model(model_directory("tiny", language_home), name="tiny", device="cpu")


@pytest.fixture(scope="session")
def tiny_dataset(tiny: LanguageModel, language_home: Path) -> Dataset:
    """`language/tiny-v0`: 500 prompts with 4 responses each of the tiny model."""
    from pmpo_offline.build import build_dataset

    return build_dataset("language/tiny-v0", home=language_home)
