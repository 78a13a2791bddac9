import errno
import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from helpers.labelled import saved

from pmpo_offline import data
from pmpo_offline.cli import console
from pmpo_offline.cli.main import app, commands, run
from pmpo_offline.data import columns
from pmpo_offline.runtime import progress

HEAVY = ("torch", "pyarrow", "mujoco", "polars", "h5py", "matplotlib", "scipy", "numpy", "rich.progress")


def python(code: str, **kwargs) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, **kwargs)


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PMPO_OFFLINE_DATASETS", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def built(home) -> Path:
    """Four episodes of two steps, one of them accepted."""
    rows, episodes = np.arange(8), np.arange(4)
    wide = columns.list_array(np.ones((8, 3), np.float32))
    success = episodes == 0
    transitions = pa.table(
        {
            "observation": wide,
            "action": wide,
            "reward": rows.astype(np.float32),
            "terminated": rows % 2 == 1,
            "truncated": np.zeros(8, bool),
            "episode": (rows // 2).astype(np.int32),
            "step": (rows % 2).astype(np.int32),
            "score": pa.nulls(8, pa.float32()),
            "label": pa.nulls(8, pa.bool_()),
        },
        data.transitions_schema(3, 3),
    )
    table = pa.table(
        {
            "start": episodes * 2,
            "length": np.full(4, 2, np.int32),
            "return": np.array([1.0, 5.0, 9.0, 13.0]),
            "success": success,
            "terminated": np.ones(4, bool),
            "final_observation": columns.list_array(np.ones((4, 3), np.float32)),
            "behavior": ["clumsy"] * 4,
            "seed": episodes,
            "score": pa.nulls(4, pa.float64()),
            "label": pa.nulls(4, pa.bool_()),
            "split": ["train"] * 4,
        },
        data.episodes_schema(3),
    )
    return saved(home / "test" / "small-v0", transitions, table, "success").path


@pytest.mark.parametrize("arguments", [["--help"], ["bench", "--help"], ["--version"], ["bnch"], []])
def test_help_starts_without_anything_heavy(arguments):
    done = python(
        f"import sys; from pmpo_offline.cli.main import run; run({arguments!r})\n"
        f"heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_all_names_are_listed_without_torch():
    done = python("import sys; from pmpo_offline.cli.main import run; run(['list'])\nsys.exit('torch' in sys.modules)")
    assert done.returncode == 0, done.stderr
    assert re.search(r"objectives \(\d+\): pmpo, ", done.stdout)


def test_help_breaks_no_line_within_an_id(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    run(["build-dataset", "--help"])
    assert "rgb-stacking/proxy-v0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bnch"], "No such command 'bnch'. Did you mean 'bench'?"),
        (["bench", "--algoz", "x"], "No such option: --algoz (Possible options: --algos)"),
        (
            ["build-dataset", "--imbalanc", "0.1"],
            "No such option: --imbalanc (Possible options: --balance, --imbalance",
        ),
        (["bench", "quik"], "unknown suite 'quik': did you mean quick?"),
        (["bench", "--seeds", "five"], "--seeds five: write an integer (see pmpo-offline bench --help)"),
        (["bench", "--seeds"], "Option '--seeds' requires an argument (see pmpo-offline bench --help)"),
        (["bench", "--seeds", "0"], "--seeds 0: write a number greater than or equal to 1"),
        (["bench", "--workers=0"], "--workers 0: write a number greater than or equal to 1"),
        (["build-dataset", "--imbalance", "1.5"], "--imbalance 1.5: write a number less than or equal to 1"),
        (
            ["build-dataset", "--imbalance", "abc"],
            "--imbalance abc: write a number from 0 to 1 (see pmpo-offline",
        ),
        (["show", ""], "not ''"),
        (["list", "--home", ""], "--home: the name or value that follows is empty"),
        (["list", "--home="], "--home=: the name or value that follows is empty"),
        (["show", "nothere"], "unknown dataset 'nothere': known: "),
        (["build-dataset", "--imbalance", "nan"], "--imbalance nan: write a number less than or equal to 1"),
        (["bench", "--imbalance", "1.5"], "--imbalance 1.5: write numbers from 0 to 1, or collected, separated by"),
        (["bench", "--noise=-1"], "--noise -1: write numbers from 0 to 1, separated by commas"),
        (["bench", "--balance", "labels,row"], "--balance labels,row: write labels or rows, separated by commas"),
        (["bench", "--algos", "pmpo,,bc"], "--algos pmpo,,bc: write names, separated by commas"),
        (
            ["bench", "--imbalance", "half"],
            "--imbalance half: write numbers from 0 to 1, or collected, separated by commas",
        ),
        (["bench", "--set", "pmpo.beta"], "--set pmpo.beta: write ALGO.SETTING=VALUES"),
        (["bench", "--algos", "pmop"], "unknown algorithm"),
        (["build-dataset", "--format", "hdf"], "'hdf' is not one of 'arrow', 'hdf5'"),
        (["show"], "Missing argument 'ID'"),
        (["show", "test/smal-v0"], "unknown dataset 'test/smal-v0': did you mean test/small-v0?"),
        (["verify", "test/smal-v0"], "unknown dataset 'test/smal-v0': did you mean test/small-v0?"),
        (
            ["bench", "control", "--datasets", "bandit/sphere-v0"],
            "rgb-stacking and not for bandit: leave it",
        ),
        (["bench", "--datasets", "test/smal-v0"], "unknown dataset 'test/smal-v0': did you mean test/small-v0?"),
        (["show", "/"], "holds no dataset.json"),
        (["doctor", __file__], "is a file: give the folder of a dataset or an id, which `import` makes of a file"),
        (["report", "/nowhere"], "no such folder; name the output directory"),
    ],
)
def test_mistakes_take_one_line_and_exit_code_2(built, capsys, arguments, message):
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_version(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("pmpo-offline 0.")


def test_list_knows_what_is_built(built, capsys):
    assert run(["list", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert {"id": "test/small-v0", "built": True, "title": "success:0.5, 0.25 accepted"} in content["datasets"]
    assert {"quick", "stacking"} <= {suite["name"] for suite in content["suites"]}
    assert {"name": "rgb-stacking/proxy", "package": "pmpo-offline"} in content["tasks"]
    assert {"name": "pmpo", "package": "pmpo-offline"} in content["objectives"]
    assert {"d4rl", "minari"} <= {each["name"] for each in content["readers"]} & {x["name"] for x in content["writers"]}
    assert "trl-paired" in {form["name"] for form in content["forms"]}
    assert {each["package"] for each in content["algorithms"]} == {"pmpo-offline"}
    assert run(["list", "datasets"]) == 0
    shown = capsys.readouterr().out
    assert "  test/small-v0  success:0.5, 0.25 accepted\n" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert run(["list", "objectives"]) == 0
    assert capsys.readouterr().out.startswith("objectives:\n  pmpo\n")
    assert run(["list", "algorithms"]) == 0
    assert "algorithms, control:\n" in capsys.readouterr().out


def test_list_without_a_kind_is_a_summary(built, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    assert run(["list"]) == 0
    shown = capsys.readouterr().out
    assert "built: test/small-v0" in " ".join(shown.split())
    assert re.search(r"^algorithms \(\d+\): ", shown, re.MULTILINE)
    assert "dm_control/… 30" in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 50
    assert len(shown.splitlines()) < 60
    assert run(["list", "dataset"]) == 2
    assert "unknown kind 'dataset': did you mean datasets" in capsys.readouterr().err


@pytest.mark.parametrize("by_path", [False, True])
def test_show_states_counts_shares_and_bounds(built, capsys, by_path):
    assert run(["show", str(built) if by_path else "test/small-v0", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    expected = {"id": "test/small-v0", "path": str(built), "kind": "transitions", "unit": "episode"}
    expected |= {
        "accepted": 1,
        "rejected": 3,
        "unlabelled": 0,
        "share": 0.25,
        "reject_mass": 0.75,
        "reject_share": 0.75,
    }
    assert {name: shown[name] for name in expected} == expected
    # (1 - alpha) w_r / P_r with w_r = P_r for "joint", 1 for "set".
    assert shown["beta_min"]["accept_reject"] == pytest.approx({"joint": 0.5, "set": 0.5 / 0.75})
    assert shown["beta_min"]["reject"] == pytest.approx({"joint": 1.0, "set": 1 / 0.75})
    assert shown["files"].keys() == {path.name for path in built.iterdir()} - {"dataset.json", "dataset.json.sha256"}


def test_show_everything_for_people(built, capsys):
    assert run(["show", "test/small-v0", "--full"]) == 0
    out = capsys.readouterr().out
    size = (built / "transitions.arrow").stat().st_size
    assert re.search(r"^accepted +1$", out, re.MULTILINE)
    assert re.search(r"^beta_min\n  accept_reject +joint 0.5, set 0.666667\n  reject +joint 1, ", out, re.MULTILINE)
    assert re.search(rf"^files\n(  .* bytes\n)*  transitions\.arrow +{size:,} bytes$", out, re.MULTILINE)
    assert "sha256" not in out


def test_verify_finds_an_edited_file(built, capsys):
    assert run(["verify", "test/small-v0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"ok": True, "problems": [], "sealed": True}
    path = built / "transitions.arrow"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert run(["verify", "test/small-v0", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert not found["ok"]
    assert "transitions.arrow" in found["problems"][0]


def test_truncated_dataset_is_one_line_and_exit_code_1(built, capsys):
    os.truncate(built / "transitions.arrow", 100)
    assert run(["show", "test/small-v0"]) == 1
    err = capsys.readouterr().err
    assert "100 bytes instead of" in err
    assert err.count("\n") == 1


@pytest.fixture
def command(monkeypatch):
    """Add a command for one test, to see how it ends."""
    monkeypatch.setattr(app, "registered_commands", list(app.registered_commands))

    def add(function):
        app.command("try")(function)
        return ["try"]

    commands.cache_clear()
    yield add
    commands.cache_clear()


@pytest.mark.parametrize("lines", [3, 100_000])
def test_reader_that_has_seen_enough_is_no_error(lines):
    code = f"""
import sys
from pmpo_offline.cli.main import app, main
@app.command("talk")
def talk():
    for line in range({lines}): print(line)
sys.argv = ["pmpo-offline", "talk"]
input()
main()
"""
    command = [sys.executable, "-c", code]
    talk = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    talk.stdout.close()
    talk.stdin.write("go\n")
    talk.stdin.close()
    assert talk.stderr.read() == ""
    assert talk.wait() == 0


@pytest.mark.parametrize(
    ("closed", "arguments", "code"),
    [
        (">&-", "list datasets", 0),
        ("2>&-", "list datasets", 0),
        ("<&-", "delete test/small-v0", 2),
        ("<&- >&- 2>&-", "lst", 2),
    ],
)
def test_closed_streams_are_no_traceback(built, closed, arguments, code):
    words = [sys.executable, "-m", "pmpo_offline", *arguments.split()]
    done = subprocess.run(f"{shlex.join(words)} {closed}", shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert (built / "dataset.json").exists()


def test_operating_system_errors_are_one_line(command, capsys):
    def full():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/x")

    assert run(command(full)) == 1
    told = "cannot write /data/x: No space left on device; free some space or run the same command elsewhere"
    assert capsys.readouterr().err == f"error: {told}\n"


def test_stdout_is_for_the_result_alone(command, capsys):
    def noisy():
        with console.working():
            print("a library says hello")
            warnings.warn("be\n careful", stacklevel=1)
            for done in range(1000):
                progress.report("training", done, 1000)
        console.show(console.Result({"share": math.inf, "rows": [{"low": math.nan, "high": 1.5}]}, print), as_json=True)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert run(command(noisy)) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"share": None, "rows": [{"low": None, "high": 1.5}]}
    assert err == "a library says hello\nwarning: be careful\ntraining: 0/1000\n"


def test_interruption_is_one_line_and_exit_code_130():
    code = """
import os, signal, sys
from pmpo_offline.cli.main import app, main
@app.command("wait")
def wait(): os.kill(os.getpid(), signal.SIGINT)
sys.argv = ["pmpo-offline", "wait"]
main()
"""
    done = python(code)
    assert done.returncode == 128 + signal.SIGINT
    assert done.stderr.startswith("error: interrupted: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("start", ["'pmpo-offline'", "'-m'"])
def test_interruption_while_commands_are_imported_ends_at_once(start: str) -> None:
    code = f"""
import os, signal, sys
class Interrupting:
    def find_spec(self, name, *_):
        if name in ("lazy_loader", "typer"):
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
sys.argv, sys.orig_argv = [{start}], ["python", "-m", "pmpo_offline"]
from pmpo_offline.cli import main
"""
    done = python(code)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_modules_of_the_working_directory_are_found_from_an_installed_command(tmp_path):
    (tmp_path / "robot.py").write_text("print('found')")
    code = """
import sys
sys.path.remove("")
sys.argv = ["pmpo-offline", "--version"]
from pmpo_offline.cli.main import main
try:
    main()
except SystemExit:
    import robot
"""
    assert python(code, cwd=tmp_path).stdout.splitlines()[-1:] == ["found"]
