import shlex

from pmpo_offline.benchmark import runner
from pmpo_offline.benchmark.results import Results
from pmpo_offline.cli import bench as cli


def test_command_lines_say_everything_that_was_changed():
    line = runner._command(
        "my suite.toml",
        {"algos": ["pmpo", "dpo"], "imbalance": [0.1, "collected"], "seeds": 3},
        {"pmpo": {"beta": [0.5, "1x"], "alpha": [0.5]}},
    )
    assert shlex.split(line) == [
        *("pmpo-offline", "bench", "my suite.toml", "--algos", "pmpo,dpo", "--imbalance", "0.1,collected"),
        *("--seeds", "3", "--set", "pmpo.beta=0.5,1x", "--set", "pmpo.alpha=0.5"),
    ]
    values = [word for option, word in zip(shlex.split(line), shlex.split(line)[1:], strict=False) if option == "--set"]
    assert cli._sweep(values) == {"pmpo": {"beta": [0.5, "1x"], "alpha": [0.5]}}


def test_commands_are_recorded_once_and_in_order(tmp_path):
    results = Results(tmp_path / "out")
    assert results.commands() == []
    for line in ("one", "two", "one"):
        results.record(line)
    assert results.commands() == ["one", "two"]
