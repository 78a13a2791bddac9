from __future__ import annotations

import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
from helpers.small_language import random_model

from pmpo_offline.policies.language import quiet
from pmpo_offline.tasks.language.tiny import tokenizer


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformers directory of `random_model`."""
    folder = tmp_path_factory.mktemp("random") / "model"
    with quiet():
        random_model().save_pretrained(folder)
        tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reference cache that the tests share."""
    return tmp_path_factory.mktemp("reference")
