"""Normalized scores: the formula, Minari's own function on our files, and no mixing of simulators' versions."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from pmpo_offline.build import build_dataset
from pmpo_offline.data import References
from pmpo_offline.declarations import catalog
from pmpo_offline.evaluation.rollouts import check_scorable
from pmpo_offline.evaluation.statistics import normalized
from pmpo_offline.runtime.errors import UserError

MUJOCO = importlib.metadata.version("mujoco")


def test_zero_is_the_lower_reference_and_a_hundred_the_upper() -> None:
    # D4RL's hopper: a return of 3000 is 92.8009.
    assert normalized(3000.0, -20.272305, 3234.3) == pytest.approx(92.8009, abs=5e-5)
    np.testing.assert_allclose(normalized(np.array([1.0, 3.0, 7.0]), 1.0, 5.0), [0, 50, 150])
    frame = pl.DataFrame({"x": [1.0, 2.0], "low": [0.0, None], "high": [4.0, 5.0]})
    assert frame.select(score=normalized(pl.col("x"), pl.col("low"), pl.col("high")))["score"].to_list() == [25.0, None]


def test_minari_computes_the_same_from_our_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import minari

    dataset = build_dataset("bandit/sphere-v0", episodes=30, format="hdf5", home=tmp_path, workers=1)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    theirs = minari.load_dataset(dataset.metadata.id)
    references = dataset.metadata.references
    assert references is not None
    returns = np.array([-1.0, -0.25, 0.0])
    np.testing.assert_allclose(
        100 * minari.get_normalized_score(theirs, returns), normalized(returns, references.min, references.max)
    )


def test_other_versions_are_refused_with_what_to_do() -> None:
    def check(versions: dict[str, str] | None) -> None:
        references = None if versions is None else References(min=0, max=1, how="", versions=versions)
        check_scorable(SimpleNamespace(id="x", kind="transitions", task="rgb-stacking/proxy", references=references))

    check(None)
    check({"mujoco": MUJOCO, "d4rl-no-package": "v2"})
    with pytest.raises(UserError, match=rf"^x: .* mujoco 3\.0\.0, .*installed {MUJOCO} .*mujoco==3\.0\.0"):
        check({"mujoco": "3.0.0"})


def test_a_task_has_the_references_of_the_installed_simulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "root", lambda kind: tmp_path)
    (tmp_path / "references.toml").write_text(
        '[["a/b"]]\nmin = 0\nmax = 1\nhow = "old"\nversions = { mujoco = "3.0.0" }\n'
        f'[["a/b"]]\nmin = 0\nmax = 2\nhow = "new"\nversions = {{ mujoco = "{MUJOCO}" }}\n'
        '[["a/c"]]\nmin = 0\nmax = 1\nhow = "old"\nversions = { mujoco = "3.0.0" }\n'
        '[["a/d"]]\nmin = 0\nmax = 1\nhow = "gone"\nversions = { no-such-simulator = "1" }\n'
    )
    found = catalog.references("a/b")
    assert found is not None
    assert found["max"] == 2
    assert catalog.references("a/c") is None
    assert catalog.references("a/d") is None
    assert catalog.references("a/e") is None
