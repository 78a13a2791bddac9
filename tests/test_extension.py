"""Another package adds one of everything by entry points, and every command takes it as one of ours."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.installed import importable, install

from pmpo_offline.cli.main import run

EXAMPLE = Path(__file__).parent / "example_plugin"
SUITE = """
title = "Ring"
datasets = ["example/ring-v0"]
algorithms = ["bc", "margin"]
reference = "bc"
seeds = 2
episodes = 40
updates = 60
"""
ANSWERS = [
    {"prompt": f"question {i}", "completion": " yes" if i % 2 else " well, that depends on many things"}
    for i in range(12)
]


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., dict[str, Any]]]:
    """Run a command with the example package installed, and return its JSON."""
    site, home = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("home")
    install(EXAMPLE, site)

    def command(*arguments: str | Path) -> dict[str, Any]:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run([*map(str, arguments), "--json"])
        assert code == 0, err.getvalue()
        found: dict[str, Any] = json.loads(out.getvalue())
        return found

    with importable(site), pytest.MonkeyPatch.context() as patched:
        patched.setenv("PMPO_OFFLINE_DATASETS", str(home))
        yield command


@pytest.mark.usefixtures("forkserver")
def test_task_recipe_objective_algorithm_executor_and_section(command, tmp_path: Path):
    assert command("build-dataset", "example/ring-v0")["accepted"] == 400
    (tmp_path / "ring.toml").write_text(SUITE)
    places = ["--output", tmp_path / "out", "--home", os.environ["PMPO_OFFLINE_DATASETS"]]  # forked: an older one
    rows = command("bench", tmp_path / "ring.toml", "--executor", "reversed", *places)["rows"]
    assert [row["algo"] for row in rows] == ["bc", "margin"]
    report = (tmp_path / "out" / "report.md").read_text()
    assert "\n- Best on example/ring-v0: " in report


def test_a_reward_of_another_package_labels_texts(command, tmp_path: Path):
    texts = tmp_path / "answers.jsonl"
    texts.write_text("".join(json.dumps({**row, "score": 0.0}) + "\n" for row in ANSWERS))
    done = command("import", texts, "--task", "example/brief", "--label", "reward:q0.5", "--id", "example/answers-v0")
    assert (done["accepted"], done["rejected"]) == (6, 6)


def test_a_form_of_another_package_is_recognised_by_its_columns(command, tmp_path: Path):
    rated = tmp_path / "rated.jsonl"
    rated.write_text(
        "".join(json.dumps({"ask": f"{i}?", "reply": f"{i}!", "stars": i % 5 + 1}) + "\n" for i in range(50))
    )
    done = command("import", rated, "--threshold", "3.5", "--id", "example/rated-v0")
    assert (done["accepted"], done["rejected"]) == (20, 30)


def test_a_reader_and_a_writer_of_another_package(command, tmp_path: Path):
    log = tmp_path / "log.steps.csv"
    log.write_text("o0,a0,reward,done\n0.5,0.1,1,0\n0.6,0.2,2,1\n0.7,0.3,0,1\n")
    done = command("import", log, "--id", "example/log-v0", "--label", "return:1.5")
    assert (done["episodes"], done["accepted"], done["rejected"]) == (2, 1, 1)
    command("export", "example/log-v0", tmp_path / "out", "--to", "csv")
    assert "episode,step" in (tmp_path / "out" / "steps.csv").read_text().splitlines()[0]


def test_a_logger_of_another_package(command, tmp_path: Path):
    options = ["--algo", "margin", "--updates", "30", "--output", tmp_path / "run"]
    done = command("train", "--dataset", "example/ring-v0", *options, "--track", "lines")
    about, *logged = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert about == {"dataset": "example/ring-v0", "algorithm": "margin", "seed": 0}
    assert [line["step"] for line in logged] == [25, 30]
    assert logged[-1]["loss"] == pytest.approx(done["metrics"]["loss"])


def test_list_names_the_package_of_every_extension(command):
    assert "pmpo-offline-example" in json.dumps(command("list"))
