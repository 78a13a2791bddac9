"""A home that may only be read: what reads works, what writes ends in one line, in Python as on the command line."""

from __future__ import annotations

import json
import multiprocessing
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.aligned import experience
from helpers.foreign import as_d4rl, npz
from helpers.forked import Forked

from pmpo_offline.build import build_dataset, rename_dataset
from pmpo_offline.build.options import Place

NAME = "bandit/small-v0"
COMMANDS = {
    "show": (0, ["show", NAME]),
    "verify": (0, ["verify", NAME]),
    "doctor": (0, ["doctor", NAME]),
    "clean": (0, ["clean"]),
    "build": (1, ["build-dataset", "bandit/schwefel-v0", "--episodes", "20", "--workers", "1"]),
    "import": (1, ["import", "log.npz", "--id", "my/log-v0"]),
    "import text": (1, ["import", "rows.jsonl", "--id", "my/rows-v0"]),
    "filter": (1, ["filter", NAME, "my/part-v0", "--where", "return > -1"]),
    "split": (1, ["split", NAME, "--shares", "a=0.5,b=0.5"]),
    "relabel": (1, ["relabel", NAME, "my/other-v0", "--label", "return:q0.7"]),
    "rename": (1, ["rename", NAME, "my/name-v0"]),
    "delete": (1, ["delete", NAME, "--yes"]),
    "export": (1, ["export", NAME, "home/out", "--to", "d4rl"]),
    "train": (1, ["train", "--dataset", NAME, "--algo", "bc", "--updates", "2", "--output", "home/run"]),
    "page": (1, ["show", NAME, "--html", "home/page.html"]),
    "bench": (1, ["bench", "bandit", "--datasets", NAME, "--algos", "bc", "--seeds", "1", "--output", "home/out"]),
}
"""The exit code that each has."""
FUNCTIONS = {
    "filter": f"build.filter_dataset({NAME!r}, 'my/part-v0', 'return > -1')",
    "split": f"build.split_dataset({NAME!r}, {{'a': 0.5, 'b': 0.5}})",
    "relabel": f"build.relabel_dataset({NAME!r}, 'my/other-v0', {{'label': 'return:q0.7'}})",
    "rename": f"build.rename_dataset({NAME!r}, 'my/name-v0')",
    "delete": f"build.delete_dataset({NAME!r})",
    "build": "build.build_dataset('bandit/schwefel-v0', episodes=20, workers=1)",
    "import": "build.import_dataset('log.npz', id='my/log-v0')",
    "import_text": "build.import_text('rows.jsonl', id='my/rows-v0')",
    "export": f"export_dataset(load_dataset({NAME!r}), 'd4rl', Path('home/out'))",
    "train": f"train({NAME!r}, 'bc', updates=2, checkpoint='home/a.checkpoint')",
}
TRIED = """
import ctypes, json, os, sys
from pathlib import Path
from pmpo_offline import build, load_dataset, train
from pmpo_offline.cli.main import run
from pmpo_offline.data.exchange import export_dataset
from pmpo_offline.runtime.errors import PmpoOfflineError

# Let permissions hold for root as well: drop CAP_DAC_OVERRIDE from what is effective.
version, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
ctypes.CDLL(None).capget(version, sets)
sets[0] &= ~2
ctypes.CDLL(None).capset(version, sets)
assert not os.access("home", os.W_OK, effective_ids=True)
for name, (_, arguments) in json.loads(sys.argv[1]).items():
    print("command", name, run(arguments), flush=True)
for name, code in json.loads(sys.argv[2]).items():
    try:
        eval(code)
    except PmpoOfflineError as error:
        print("function", name, error, flush=True)
"""


@pytest.fixture(scope="module")
def outcome() -> Iterator[tuple[str, str]]:
    """What all of it prints, and says on stderr."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        made = build_dataset("bandit/sphere-v0", episodes=40, home=root / "home", workers=1)
        rename_dataset(made.metadata.id, NAME, Place(root / "home"))
        npz(root / "log.npz", as_d4rl(experience([3, 2])))
        rows = [{"prompt": f"p{i}", "completion": "c", "label": i % 2 == 0} for i in range(8)]
        (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for path in [*(root / "home").rglob("*"), root / "home"]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("PMPO_OFFLINE_DATASETS", "home")
            patched.setenv("HOME", folder)
            server = multiprocessing.get_context("forkserver")
            tried = Forked(server, TRIED, json.dumps(COMMANDS), json.dumps(FUNCTIONS), cwd=root)
        written = tried.communicate()
        assert tried.returncode == 0, written
        yield written
        for path in [root / "home", *(root / "home").rglob("*")]:
            path.chmod(0o755)


@pytest.mark.usefixtures("forkserver")
def test_every_command_reads_or_refuses_in_one_line(outcome: tuple[str, str]) -> None:
    printed, errors = outcome
    for name, (code, _) in COMMANDS.items():
        assert f"command {name} {code}\n" in printed, (name, errors)
    refused = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(refused) == sum(code for code, _ in COMMANDS.values())
    assert all("Permission denied; check the permissions" in line for line in refused), refused
    assert "Traceback" not in errors


@pytest.mark.usefixtures("forkserver")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_refuses_in_one_line(outcome: tuple[str, str], name: str) -> None:
    (line,) = [line for line in outcome[0].splitlines() if line.startswith(f"function {name} ")]
    assert "Permission denied; check the permissions" in line
