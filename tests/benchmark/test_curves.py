"""Learning curves of a benchmark: every row has those of its runs, also of a clone that several rows share."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from pmpo_offline.benchmark import bench, curves
from pmpo_offline.benchmark.html import learning
from pmpo_offline.benchmark.results import Results
from pmpo_offline.build import build_dataset
from pmpo_offline.training import train


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Path:
    output = tmp_path_factory.mktemp("results")
    changed = {"datasets": "bandit/sphere-v0", "imbalance": [0.5], "seeds": 2, "episodes": 2, "updates": 60}
    settings = {"pmpo": {"beta": [1.0, 2.0]}}
    bench("bandit", algos="pmpo", settings=settings, output=output, home=home, workers=1, **changed)
    return output


def test_every_row_has_the_curves_of_its_runs(output: Path, home: Path) -> None:
    results = Results(output)
    raw = results.read()
    last = raw.group_by("key", "seed").agg(pl.col("loss").first(), pl.col("algo").first()).sort("key", "seed")
    recorded = curves.load(results, last["key"].unique().to_list())
    assert {*recorded} == {*last["key"]}  # `bc` too, whose clone the others share
    for key, seed, loss, _ in last.iter_rows():
        own = recorded[key].filter(pl.col("seed") == seed)
        assert own["step"].to_list() == [25, 50, 60]
        assert own["loss"][-1] == pytest.approx(loss, rel=1e-5)
    assert not (output / "checkpoints").exists()
    # One of the stack, trained alone, has the same curve.
    (key,) = raw.filter((pl.col("beta") == 2.0) & ~pl.col("shuffled"))["key"].unique()
    got: list[float] = []
    data = build_dataset("bandit/sphere-v0", home=home).relabelled(imbalance=0.5)
    train(
        data,
        "pmpo",
        seeds=1,
        settings={"beta": 2.0},
        overrides={"updates": 60},
        loggers=[lambda metrics, step: got.append(metrics["loss"])],
    )
    assert recorded[key].filter(pl.col("seed") == 1)["loss"].to_list() == pytest.approx(got, rel=1e-4)


def test_the_chart_has_the_mean_and_the_extremes_of_the_runs() -> None:
    table = pl.DataFrame({"seed": [0, 0, 1, 1], "step": [25, 50, 25, 50], "loss": [1.0, float("nan"), 3.0, 4.0]})
    many = pl.DataFrame({"seed": 0, "step": range(25, 5_025, 25), "loss": 0.5, "kl": 1.0})
    found = learning._thinned({"few": table, "many": many}, "loss", 10)
    assert found["few"] == [
        {"metric": "loss", "step": 25, "mean": 2.0, "low": 1.0, "high": 3.0},
        {"metric": "loss", "step": 50, "mean": 4.0, "low": 4.0, "high": 4.0},
    ]
    steps = [each["step"] for each in found["many"]]
    assert len(steps) <= 10
    assert steps[-1] == 5_000
    assert learning._thinned({"few": table, "many": many}, "kl", 10).keys() == {"many"}
    assert learning._thinned({"few": table}, "kl", 10) == {}


def test_damaged_curves_are_left_out(output: Path) -> None:
    results = Results(output)
    key, *_ = (path.stem for path in sorted((output / "curves").iterdir()))
    results.beside("curves", key).write_bytes(b"PAR1")
    assert key not in curves.load(results, [key])
    for loss in ("much", [1.0, 2.0]):
        pl.DataFrame({"seed": [0], "step": [25], "loss": [loss]}).write_parquet(results.beside("curves", key))
        assert key not in curves.load(results, [key])
    assert curves.load(results, ["none"]) == {}
