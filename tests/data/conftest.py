"""Fixtures that label the encoded tables, and store them in a home of the test's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.encoded import Make, Store, Tables, raw_tables
from hypothesis import settings

from pmpo_offline import data

# No time limit an example (machines are shared), and the same examples in every run.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def make() -> Make:
    """Return (metadata, labelled tables) of synthetic episodes, ready for `data.write`."""

    def build(
        lengths: Sequence[int] = (3, 1, 4, 2, 5, 2),
        label: str = "return",
        *,
        candidates: int = 0,
        noise: float = 0.0,
        imbalance: float | None = None,
        seed: int = 0,
        id: str = "test/small-v0",
        references: data.References | None = None,
    ) -> tuple[data.Metadata, Tables]:
        tables = raw_tables(lengths, candidates)
        rule = data.LabelRule.parse(label)
        done = data.label_tables(
            tables["transitions"],
            tables["episodes"],
            rule,
            candidates=tables.get("candidates"),
            noise=noise,
            imbalance=imbalance,
            seed=seed,
        )
        metadata = data.Metadata(
            id=id,
            kind="candidates" if rule.score == "q_rank" else "transitions",
            task="test",
            score=data.ScoreRule(name=rule.score),
            label=rule,
            noise=noise,
            seed=seed,
            references=references,
            **done.described,
        )
        labelled = {"transitions": done.table, "episodes": done.episodes}
        return metadata, labelled | ({"candidates": done.candidates} if candidates else {})

    return build


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
        data.write(data.dataset_path(metadata.id), metadata, tables, format=format, overwrite=overwrite)
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
