"""Shell completion offers the names that there are, and a mistyped one is answered before torch is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from pmpo_offline.cli.main import app, run

MISTYPED = [
    ["build-dataset", "bandit/sfere-v0"],
    ["bench", "quik"],
    ["bench", "bandit", "--algos", "pmpoo"],
    ["bench", "bandit", "--datasets", "bandit/sfere-v0"],
    ["tune", "quik"],
    ["show", "bandit/sfere-v0"],
    ["verify", "bandit/sfere-v0"],
    ["report", "nowhere"],
    ["doctor", "bandit/sfere-v0"],
    ["import", "nowhere.npz"],
    ["export", "bandit/sfere-v0", "out", "--to", "minari"],
    ["train", "--dataset", "bandit/sfere-v0"],
    ["train", "--dataset", "bandit/sphere-v0", "--algo", "pmpoo"],
    ["evaluate", "nowhere"],
    ["train-behavior", "chetah-run"],
    ["trian"],
]
CODE = """
import json, sys
from pmpo_offline.cli.main import run
for arguments in json.loads(sys.argv[1]):
    code = run(arguments)
    assert code == 2, (arguments, code)
    assert "torch" not in sys.modules, arguments
"""


def test_a_mistyped_name_is_answered_before_torch_is_imported(tmp_path: Path) -> None:
    environment = {**os.environ, "PMPO_OFFLINE_DATASETS": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(MISTYPED)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == len(MISTYPED)
    assert all(line.startswith("error: ") for line in lines)
    assert sum("did you mean" in line.lower() for line in lines) >= 11


HELP = """
import sys
from pmpo_offline.cli import main
sys.argv = ["pmpo-offline", "--help"]
try:
    main()
finally:
    heavy = {"logging", "markdown_it", "multiprocessing", "numpy", "pydantic", "pygments", "torch"}
    print(sorted(heavy & sys.modules.keys()), file=sys.stderr)
"""


def test_help_imports_nothing_that_it_does_not_show() -> None:
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True)
    assert "build-dataset" in done.stdout
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("columns", [80, 50])
def test_help_cuts_no_name_and_no_sentence(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        assert run([name, "--help"]) == 0
        shown = capsys.readouterr().out
        assert max(map(len, shown.splitlines())) <= columns
        assert {option for parameter in command.params for option in parameter.opts if option[:2] == "--"} <= {
            word.rstrip(",") for word in shown.split()
        }
    assert run(["--help"]) == 0
    listed = capsys.readouterr().out.partition("Commands:")[2]
    assert "..." not in listed
    assert "dataset of their own." in " ".join(listed.split())


COMPLETED = {
    "pmpo-offline show bandit/s": {"bandit/sphere-v0", "bandit/schwefel-v0"},
    "pmpo-offline train --dataset bandit/g": {"bandit/gmm-v0"},
    "pmpo-offline train --algo apo": {"apo-down", "apo-zero"},
    "pmpo-offline bench qui": {"quick"},
    "pmpo-offline train-behavior chee": {"cheetah-run"},
}
COMPLETE = """
import os, sys
from pmpo_offline.cli import main
sys.argv = ["pmpo-offline"]
for words in sys.stdin.read().splitlines():
    os.environ |= {"_PMPO_OFFLINE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    try:
        main()
    except SystemExit:
        print("end")
"""


def test_shells_complete_names(tmp_path: Path) -> None:
    environment = {**os.environ, "PMPO_OFFLINE_DATASETS": str(tmp_path)}
    command = [sys.executable, "-c", COMPLETE]
    done = subprocess.run(
        command, input="\n".join(COMPLETED), env=environment, capture_output=True, text=True, check=True
    )
    *found, rest = done.stdout.split("end\n")
    assert rest == ""
    assert [set(names.split()) for names in found] == [*COMPLETED.values()]
