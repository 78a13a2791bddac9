from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
from helpers.small_language import random_model, train_dataset

from pmpo_offline.policies.language import LanguageModel, add_lora, quiet
from pmpo_offline.policies.language.model import weights_hash
from pmpo_offline.tasks.language.tiny import tokenizer
from pmpo_offline.training.language.reference import Reference
from pmpo_offline.training.language.responses import TokenizedResponses, tokenize_responses


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


@pytest.fixture(scope="module")
def policy() -> Any:
    """An adapter that has moved away from its reference."""
    model = add_lora(random_model(), 4, 8, ["q_proj", "v_proj", "o_proj"])
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data = 0.2 * torch.randn_like(weight)
    return model


@pytest.fixture(scope="module")
def base() -> Any:
    """The reference's model."""
    return random_model()


@pytest.fixture(scope="module")
def responses() -> TokenizedResponses:
    """The training rows of `labelled_rows`."""
    return tokenize_responses(train_dataset(), tokenizer(), 32)


@pytest.fixture
def reference(base: Any, tmp_path: Path) -> Reference:
    """The values of `base`."""
    return Reference(LanguageModel(base, tokenizer(), "base", weights_hash(base)), tmp_path)
