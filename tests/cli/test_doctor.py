"""`pmpo-offline doctor`: one object or a few lines, and mistakes in one line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pmpo_offline.build import build_dataset
from pmpo_offline.cli.main import run


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds a hundred actions, a quarter of them accepted."""
    home = tmp_path_factory.mktemp("home")
    build_dataset("bandit/sphere-v0", episodes=100, imbalance=0.25, home=home, workers=1)
    return home


@pytest.fixture
def name(home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PMPO_OFFLINE_DATASETS", str(home))
    (directory,) = (home / "bandit").iterdir()
    return f"bandit/{directory.name}"


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert run(["doctor", *arguments, "--json"]) == 0
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


def test_one_object(name: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, name, "--algo", "pmpo", "--alpha", "0.5", "--beta", "1")
    # Balanced to a quarter: 17 accepts and 50 rejects of 100; (1 - alpha) w_r / P_r = 0.5 (50 / 67) / (50 / 100).
    assert (found["accepted"], found["rejected"], found["unlabelled"]) == (17, 50, 33)
    assert found["accepted_share"] == pytest.approx(17 / 67)
    assert found["reject_mass"] == found["labelled_reject_mass"] == 0.5
    assert found["bounds"] == pytest.approx({"joint": 0.5 * 100 / 67, "set": 1.0})
    assert found["verdict"] == "bounded"
    assert found["factor"] == pytest.approx(1.34)
    assert found["suggested_beta"] == pytest.approx(1.05 * 0.5 * 100 / 67)
    assert found["gaussian_bound"] > 0

    by_path = answer(capsys, str(next((home / "bandit").iterdir())), "--alpha", "0.5", "--beta", "1")
    assert by_path == found
    elsewhere = answer(capsys, name, "--alpha", "0.5", "--beta", "1", "--home", str(home), "--normalize", "set")
    assert (elsewhere["bound"], elsewhere["verdict"]) == (pytest.approx(1.0), "at the edge")


def test_without_settings_the_declared_ones_count(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, name)
    assert (found["algorithm"], found["verdict"]) == ("pmpo", "bounded")
    assert found["factor"] == pytest.approx(1.05)
    assert answer(capsys, name, "--beta", "0.5x")["verdict"] == "no minimum"
    assert answer(capsys, name, "--beta", ".5")["settings"]["beta"] == 0.5
    found = answer(capsys, name, "--set", "divergence=reverse", "--set", "beta=2")
    assert (found["settings"]["divergence"], found["settings"]["beta"]) == ("reverse", 2.0)
    assert (found["verdict"], found["bound"]) == ("unbounded", None)


def test_a_bound_that_no_number_meets_is_null(name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    reverse = tmp_path / "reverse.toml"
    reverse.write_text(
        'title = "Reverse"\nobjective = "pmpo"\nrows = "all"\nstart = "reference"\n[settings]\ndivergence = "reverse"\n'
    )
    found = answer(capsys, name, "--algo", str(reverse))
    assert (found["bound"], found["suggested_beta"], found["verdict"]) == (None, None, "unbounded")


def test_for_people(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", name, "--alpha", "0", "--beta", "0.1"]) == 0
    out = capsys.readouterr().out
    assert "verdict" in out
    assert re.search(r"^trains on +all: 17 accepted, 50 rejected, 33 unlabelled$", out, re.MULTILINE)
    assert "collapse: β is 0.067 times its bound" in out
    assert "suggested β" in out
    assert run(["doctor", name, "--algo", "dpo"]) == 0
    assert "pairs" in capsys.readouterr().out
    assert run(["doctor", name, "--algo", "kto"]) == 0
    assert "advised 1 to 1.333" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bandit/spere-v0"], "unknown dataset 'bandit/spere-v0': did you mean"),
        (
            ["bandit/schwefel-accept10-v0"],
            "not built: pmpo-offline build-dataset bandit/schwefel-v0 with the --imbalance",
        ),
        (["bandit/schwefel-v0"], "is declared but not built: run pmpo-offline build-dataset bandit/schwefel-v0"),
        (["NAME", "--algo", "pmop"], "unknown algorithm 'pmop': did you mean pmpo"),
        (["NAME", "--alpha", "2"], "pmpo.alpha is a number from 0 to 1, not 2.0"),
        (["NAME", "--alpha", "nan"], "pmpo.alpha is a number from 0 to 1"),
        (["NAME", "--alpha", "half"], "--alpha half: write a number"),
        (["NAME", "--beta", "much"], "pmpo.beta is a number of 0 or more, or a multiple of its bound"),
        (["NAME", "--beta", "-1"], "pmpo.beta is a number of 0 or more"),
        (["NAME", "--normalize", "sum"], "pmpo.normalize is joint or set, not 'sum'"),
        (["NAME", "--set", "floor"], "--set floor: write SETTING=VALUE"),
        (["NAME", "--set", "beta=1", "--beta", "2"], "beta is given by --beta and by --set: leave one of them out"),
        (["NAME", "--set", "floor=1", "--set", "floor=2"], "--set floor=2: floor is given twice"),
        (["NAME", "--set", "flor=1"], "unknown setting of pmpo 'flor': did you mean floor"),
        (["NAME", "--algo", "nowhere.toml"], "algorithm nowhere.toml: there is no such file"),
        (["NAME", "--algo", "mpo", "--beta", "1"], "unknown setting of mpo 'beta'"),
        ([], "Missing argument 'DATASET'"),
    ],
)
def test_mistakes_take_one_line_and_exit_code_2(
    name: str, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run(["doctor", *(name if part == "NAME" else part for part in arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


def test_a_legend_explains_the_lines_that_are_shown_and_no_others(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["doctor", name, "--alpha", "0.3"]) == 0
    table, legend = (
        [re.split("  +", line)[0] for line in part.splitlines() if line[0] != " "]
        for part in capsys.readouterr().out.split("\n\n")
    )
    assert {"β ≥", "suggested β", "suggested α, β", "β >, one Gaussian"} <= set(legend) <= set(table)
    assert "in a tenth of states" not in legend, "the observation never changes"
    assert run(["doctor", name, "--algo", "bc"]) == 0
    assert "\n\n" not in capsys.readouterr().out
