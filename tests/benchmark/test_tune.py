"""One rule for hyperparameters: equal budgets, on data that no table uses."""

from __future__ import annotations

import json
import math
from pathlib import Path

import polars as pl
import pytest

from pmpo_offline.benchmark.tune import Tuned, tune, varied
from pmpo_offline.cli.main import run
from pmpo_offline.declarations import catalog
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.training.config import complete, hyperparameters
from pmpo_offline.training.control.config import TrainingSettings

SUITE = """
title = "Small"
datasets = ["bandit/sphere-v0"]
imbalance = [0.5]
algorithms = ["pmpo"]
filtered = ["bc-accepted"]
updates = 20
episodes = 20
"""


def tuned(scores: list[float]) -> Tuned:
    return Tuned(catalog.algorithm("pmpo", "bandit"), [{"beta": float(i)} for i in range(len(scores))], scores)


def test_the_expected_best_of_k_by_hand() -> None:
    # Of 1, 2, 4: one is 7/3 on average; of two, 2 is the best once and 4 twice.
    assert tuned([4.0, 1.0, 2.0]).budget == pytest.approx([7 / 3, 10 / 3, 4.0])
    assert tuned([4.0, -math.inf, 2.0]).budget == pytest.approx([8 / 3, 10 / 3, 4.0]), "as bad as the worst"


def test_the_best_setting_is_chosen_and_the_first_of_equals() -> None:
    assert tuned([1.0, 3.0, 3.0]).chosen.settings["beta"] == 1.0


def test_every_learner_of_every_family_has_as_many_settings_that_it_takes() -> None:
    rule = catalog.tuning()
    for family in catalog.families():
        for algorithm in catalog.algorithms(family):
            found = rule.of(algorithm).settings
            assert len({json.dumps(setting) for setting in found}) == rule.settings, algorithm
            for setting in found:
                changed = varied(algorithm, setting)
                complete(changed, {})
                assert algorithm.family == "language" or hyperparameters(changed, {}, TrainingSettings)
    with pytest.raises(UserError, match=r"\[bandit.unheard-of\]: no range is declared: add 6 settings"):
        rule.of(catalog.algorithm("bc", "bandit").model_copy(update={"name": "unheard-of"}))


def test_a_range_of_the_family_replaces_that_of_any() -> None:
    rule = catalog.tuning()
    assert rule.of(catalog.algorithm("pmpo", "control")) != rule.of(catalog.algorithm("pmpo", "bandit"))
    assert rule.of(catalog.algorithm("pmpo", "rgb-stacking")) == rule.of(catalog.algorithm("pmpo", "bandit"))


def test_a_rate_is_a_multiple_of_the_declared_one_or_of_the_trainers() -> None:
    kto, bc = catalog.algorithm("kto", "rgb-stacking"), catalog.algorithm("bc", "rgb-stacking")
    assert kto.training["learning_rate"] == 1e-4
    assert "learning_rate" not in bc.training
    changed = varied(kto, {"beta": 0.5, "learning_rate": "0.5x"})
    assert (changed.settings["beta"], changed.training["learning_rate"]) == (0.5, 5e-5)
    assert varied(bc, {"learning_rate": "3x"}).training["learning_rate"] == 6e-3


def test_tuning_uses_other_data_seeds_and_episodes_and_is_not_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "small.toml").write_text(SUITE)
    request = {"output": tmp_path / "out", "home": tmp_path / "home", "workers": 1}
    found = tune(str(tmp_path / "small.toml"), **request)
    raw = pl.concat([pl.read_parquet(path) for path in (tmp_path / "out" / "raw").iterdir()])
    assert set(raw["dataset"]) == {"bandit/sphere-seed7919-v0"}
    assert set(raw["seed"]) == {1000, 1001, 1002}
    assert set(raw["episode"]) == {*range(20, 40)}
    assert {each.algorithm.name for each in found} == {"pmpo", "bc-accepted"}
    assert all(len(each.scores) == 6 and max(each.scores) > -math.inf for each in found)
    assert "best of 6" in (tmp_path / "out" / "tune.md").read_text()
    for each in found:
        written = catalog.algorithm(
            str(tmp_path / "out" / "chosen" / "bandit" / f"{each.algorithm.name}.toml"), "bandit"
        )
        assert written == each.chosen

    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "raw").iterdir()}
    arguments = ["tune", str(tmp_path / "small.toml"), "--output", str(tmp_path / "out"), "--workers", "1", "--json"]
    assert run([*arguments, "--home", str(tmp_path / "home")]) == 0
    shown = json.loads(capsys.readouterr().out)["learners"]
    assert [(each["learner"], each["score"]) for each in shown] == [
        (each.algorithm.name, pytest.approx(max(each.scores))) for each in found
    ]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "raw").iterdir()} == files


@pytest.mark.parametrize("file", ["out", "out/chosen"])
def test_a_file_in_the_way_is_refused_before_anything_is_built(tmp_path: Path, file: str) -> None:
    (tmp_path / "small.toml").write_text(SUITE)
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    with pytest.raises(UserError, match=f"{file} is a file, and tune writes a folder there"):
        tune(str(tmp_path / "small.toml"), output=tmp_path / "out", home=tmp_path / "home", workers=1)
    assert not (tmp_path / "home").exists()


def test_a_learner_without_scores_does_not_lose_those_of_the_others(tmp_path: Path) -> None:
    """Nothing is accepted, so that KTO has nothing to learn from."""
    rejects = SUITE.replace("[0.5]", "[0.0]").replace('"pmpo"', '"kto"').replace("bc-accepted", "bc-unrejected")
    (tmp_path / "small.toml").write_text(rejects.replace("updates = 20", "updates = 1").replace("= 20", "= 2"))
    with pytest.raises(
        PmpoOfflineError, match=r"kto: no setting has all scores: kto #1, .*leave this algorithm nothing"
    ):
        tune(str(tmp_path / "small.toml"), output=tmp_path / "out", home=tmp_path / "home", workers=1)
    assert [path.name for path in (tmp_path / "out" / "chosen" / "bandit").iterdir()] == ["bc-unrejected.toml"]
    assert "| bandit | bc-unrejected |" in (tmp_path / "out" / "tune.md").read_text()
