"""What was measured, in short: on the tiny grammar PMPO learns, and rejects alone learn above the bound and not below.

The base model is right about 6 times in 10. Rejects alone below the bound unlearn the task, as they do on the real
model (benchmarks/results/language).
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
from helpers.small_language import declared

from pmpo_offline.data import Dataset
from pmpo_offline.policies.language import LanguageModel, open_model
from pmpo_offline.tasks.language import SamplingSpec, draw, get, model_directory
from pmpo_offline.training.language import train_language

TRAINING = {"steps": 40, "batch": 48, "learning_rate": 3e-3, "checkpoint_every": 60}
SHORTER, LONGER = {**TRAINING, "steps": 20}, {**TRAINING, "steps": 45, "batch": 64}


def right(model: LanguageModel, dataset: Dataset) -> float:
    """Return the share of right answers to the held-out prompts."""
    held_out = dataset.table.filter(pc.equal(dataset.table.column("split"), "test")).column("prompt")
    prompts = sorted(set(held_out.to_pylist()))
    answers = draw(model, prompts, SamplingSpec(2, 6, ends=True)).text
    task = get("language/tiny")
    return float(np.mean([task.reward(prompts, given) for given in zip(*answers, strict=True)]))


@pytest.fixture(scope="module")
def base(tiny: LanguageModel, tiny_dataset: Dataset) -> float:
    return right(tiny, tiny_dataset)


@pytest.mark.parametrize(
    ("settings", "training", "learns"),
    [
        ({"alpha": 0.5, "beta": 0.5}, SHORTER, True),
        ({"alpha": 0.0, "beta": "0.3x"}, TRAINING, False),
        ({"alpha": 0.0, "beta": "2x"}, LONGER, True),
    ],
    ids=["both", "rejects-below", "rejects-above"],
)
def test_the_bound_decides_whether_rejects_alone_teach(
    tiny_dataset: Dataset,
    language_home: Path,
    base: float,
    tmp_path: Path,
    settings: dict[str, Any],
    training: dict[str, Any],
    learns: bool,
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # β is below its bound where that is the point
        done = train_language(
            tiny_dataset,
            declared("pmpo", training=training, divergence="forward", **settings),
            output=tmp_path / "run",
            home=language_home,
        )
    found = right(done.policy(open_model(model_directory("tiny", language_home), device="cpu")), tiny_dataset)
    if learns:
        assert found > base + 0.05
        assert done.metrics["kl"] < 1
    else:
        assert found < 0.1
        assert done.metrics["kl"] > 5
