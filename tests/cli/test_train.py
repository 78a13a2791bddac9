"""`pmpo-offline train`: one run of a language model or a control policy, and mistakes in one line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pmpo_offline.build import build_dataset
from pmpo_offline.cli.bench import _sweep
from pmpo_offline.cli.console import assignments
from pmpo_offline.cli.main import run
from pmpo_offline.data import Dataset, load_dataset
from pmpo_offline.policies import MixturePolicy
from pmpo_offline.training import train


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert run(["train", *arguments, "--json"]) == 0, capsys.readouterr().err
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    build_dataset("bandit/sphere-v0", episodes=100, home=home, workers=1)
    return home


def test_a_text_of_a_setting_keeps_its_spaces_and_numbers_may_have_some() -> None:
    given = ["accept_text=Good: ", "beta= 0.5 ", "normalize=set"]
    assert assignments(given, "beta=0.5") == {"accept_text": "Good: ", "beta": 0.5, "normalize": "set"}
    assert _sweep(["conditional.accept_text=Good: ", "pmpo.beta=0.5, 1x"]) == {
        "conditional": {"accept_text": ["Good: "]},
        "pmpo": {"beta": [0.5, "1x"]},
    }


def test_a_control_policy_is_trained_kept_and_not_trained_again(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (directory,) = (home / "bandit").iterdir()
    arguments = ["--dataset", str(directory), "--algo", "pmpo", "--updates", "30", "--set", "beta=0.9"]
    arguments += ["--set", "components=2", "--output", str(tmp_path / "run")]
    found = answer(capsys, *arguments)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"policy.safetensors", "run.json", "metrics.csv"}
    assert (found["settings"]["beta"], found["training"]["updates"], found["training"]["components"]) == (0.9, 30, 2)
    assert found["bound"] > 0
    policy = MixturePolicy.load(tmp_path / "run" / "policy.safetensors")
    same = train(
        load_dataset(directory), "pmpo", settings=[{"beta": 0.9}], overrides={"updates": 30, "components": 2}
    ).policy
    state = torch.zeros(1, 3, policy.observation_mean.numel())
    assert torch.equal(policy(state).mean, same(state).mean)
    before = (tmp_path / "run" / "policy.safetensors").stat().st_mtime_ns
    assert found["trained"]
    assert answer(capsys, *arguments) == found | {"trained": False}
    assert run(["train", *arguments]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"nothing was trained: {tmp_path / 'run'} holds this run")
    assert re.search(rf"^next +pmpo-offline evaluate {re.escape(str(tmp_path / 'run'))}$", shown, re.MULTILINE)
    assert (tmp_path / "run" / "policy.safetensors").stat().st_mtime_ns == before
    assert run(["train", *arguments, "--seed", "1"]) == 2
    assert "holds another run" in capsys.readouterr().err


def test_after_training_on_a_log_that_nothing_simulates_an_environment_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = {"observations": np.eye(6, 3, dtype=np.float32), "actions": np.eye(6, 2, dtype=np.float32)}
    np.savez(tmp_path / "log.npz", **steps, terminals=np.arange(6) % 3 == 2)
    home = ["--home", str(tmp_path / "home")]
    assert run(["import", str(tmp_path / "log.npz"), "--id", "mine/log-v0", *home]) == 0
    output = str(tmp_path / "run")
    assert run(["train", "--dataset", "mine/log-v0", "--algo", "bc", "--steps", "2", "--output", output, *home]) == 0
    shown = capsys.readouterr().out
    assert f"pmpo-offline evaluate {output} --environment MODULE:ID\n" in shown


def test_a_run_that_left_all_bounds_is_said_and_marked_when_it_is_evaluated(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (directory,) = (home / "bandit").iterdir()
    output = str(tmp_path / "run")
    arguments = ["--dataset", str(directory), "--algo", "kto", "--updates", "30", "--set", "learning_rate=1e3"]
    assert run(["train", *arguments, "--output", output]) == 0
    out, err = capsys.readouterr()
    assert "warning: kto diverged: 1 of 1 runs left all bounds" in err
    assert re.search(r"^diverged +mean actions up to .* this policy is unusable$", out, re.MULTILINE)
    assert not re.search("^next", out, re.MULTILINE)
    assert run(["evaluate", output, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["diverged"] is True
    assert "diverged in training: its scores mean little" in err
    # A loss or weights that are not finite are no run at all.
    assert run(["train", *arguments[:-1], "learning_rate=1e9", "--output", f"{output}-2"]) == 1
    assert "is not finite" in capsys.readouterr().err
    assert not (tmp_path / "run-2" / "run.json").exists()


def test_nobody_elses_policy_is_overwritten(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory,) = (home / "bandit").iterdir()
    mine = tmp_path / "policy.safetensors"
    mine.write_text("mine")
    assert run(["train", "--dataset", str(directory), "--updates", "2", "--output", str(tmp_path)]) == 2
    assert "exists and is no run: name another --output" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["policy.safetensors"]
    assert mine.read_text() == "mine"


@pytest.mark.parametrize(
    "command", ["train --dataset {}", "bench bandit --datasets {}", "tune bandit", "train-behavior reacher-easy"]
)
def test_nothing_is_written_into_a_dataset(home: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    (directory,) = (home / "bandit").iterdir()
    before = sorted(directory.rglob("*"))
    assert run([*command.format(directory).split(), "--output", str(directory / "runs" / "one")]) == 2
    assert f"lies in the dataset {directory}: choose another --output" in capsys.readouterr().err
    assert sorted(directory.rglob("*")) == before


def test_a_doctor_counts_what_is_held_out(tiny_dataset: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", str(tiny_dataset.path)]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("trains on")]
    assert line.endswith(" 400 held out")  # a fifth of 500 prompts, four responses each
    assert sum(int(count.replace(",", "")) for count in re.findall(r"[\d,]*\d", line)) == len(tiny_dataset)


def test_a_language_model_is_trained(
    tiny_dataset: Dataset, language_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--dataset", "language/tiny-v0", "--home", str(language_home), "--steps", "4", "--algo", "pmpo"]
    arguments += ["--set", "beta=0.5", "--set", "batch=8", "--output", str(tmp_path / "run")]
    found = answer(capsys, *arguments)
    assert found["model"] == "tiny"
    assert found["training"]["steps"] == 4
    assert (tmp_path / "run" / found["adapter"] / "adapter_model.safetensors").is_file()
    assert run(["train", *arguments]) == 0
    shown = capsys.readouterr().out
    assert "β ≥ bound" in shown
    assert str(tmp_path / "run" / "adapter") in shown
    assert re.search(rf"^made here +{language_home}/\.models/tiny-\w+$", shown, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "bandit/spher-v0"], "unknown dataset 'bandit/spher-v0': did you mean"),
        (["--algo", "pmop"], "unknown algorithm 'pmop': did you mean pmpo"),
        (["--set", "beta"], "write SETTING=VALUE"),
        (["--set", "betta=1"], "unknown setting of pmpo 'betta': did you mean beta?"),
        (["--set", "bta=1"], "unknown setting of pmpo 'bta': did you mean beta, "),
        (["--set", "learning_rat=1"], "unknown setting of pmpo 'learning_rat': did you mean learning_rate"),
        (["--model", "tiny"], "no language model is trained"),
    ],
)
def test_mistakes_are_one_line(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (directory,) = (home / "bandit").iterdir()
    given = ["--dataset", str(directory), "--output", str(tmp_path / "run"), "--home", str(home)]
    assert run(["train", *given, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_a_mistaken_setting_is_refused_before_the_dataset_is_built(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("bandit/sphere-v0", "language/tiny-v0"):
        assert run(["train", "--dataset", name, "--set", "bta=1", "--home", str(tmp_path)]) == 2
        assert "unknown setting of pmpo 'bta': did you mean beta" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
