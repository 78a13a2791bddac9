"""The commands on texts: what `import` prints, what it says of mistakes, and the way out to TRL."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pmpo_offline.cli.main import run

HH = "\n\nHuman: question {i}\n\nAssistant:"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PMPO_OFFLINE_DATASETS", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def transcripts(tmp_path: Path) -> Path:
    """Twenty pairs, one of them of equal responses."""
    rows = [
        {"chosen": HH.format(i=i) + " good", "rejected": HH.format(i=i) + " bad" * (i > 0) + " good" * (i == 0)}
        for i in range(20)
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_import_tells_what_became_of_every_row(
    home: Path, transcripts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["import", str(transcripts), "--test-share", "0.5", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["kind"], summary["unit"], summary["rows"]) == ("responses", "response", 38)
    assert (summary["accepted"], summary["rejected"], summary["unlabelled"]) == (19, 19, 0)
    assert summary["dropped"] == {"chosen and rejected are equal": 2}
    assert summary["report"]["form"] == "HH-RLHF transcripts"
    assert summary["report"]["train"] + summary["report"]["test"] == summary["report"]["kept"] == 38
    assert summary["report"]["labels"] == {"chosen": "accept", "rejected": "reject"}
    assert run(["import", str(transcripts), "--test-share", "0.5"]) == 0  # not imported again
    shown = capsys.readouterr().out
    assert "dropped  2 of 40 responses: chosen and rejected are equal, first at pairs.jsonl, line 1\n" in shown
    assert "HH-RLHF transcripts" in shown
    assert run(["verify", summary["id"]]) == 0


def test_every_option_reaches_the_import(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    languages = ("English", "German", "French")
    rows: list[dict[str, Any]] = [
        {
            "conversation": [
                {"role": "user", "content": f"q{i}"},
                {"role": "assistant", "content": "a" * (1 + i % 12)},
            ],
            "language": languages[i % 3],
            "redacted": i % 5 == 0,
            "stars": i % 7,
        }
        for i in range(200)
    ]
    path = tmp_path / "chat.json"
    path.write_text(json.dumps(rows))
    arguments = "--score stars --threshold 3 --margin 0.5 --languages English,german --redacted drop --deduplicate "
    arguments += (
        "--min-characters 3 --max-characters 10 --max-prompt-characters 25 --imbalance 0.5 --seed 2 --test-share 0"
    )
    assert run(["import", str(path), *arguments.split(), "--format", "hdf5", "--json", "--id", "chat/some-v1"]) == 0
    summary = json.loads(capsys.readouterr().out)
    labels = {name: summary[name] for name in ("id", "label", "share", "seed")}
    assert labels == {"id": "chat/some-v1", "label": "column:3:0.5", "share": 0.5, "seed": 2}
    assert set(summary["dropped"]) == {
        "of another language",
        "redacted",
        "completion shorter than asked for",
        "completion longer than asked for",
    }
    assert set(summary["report"]["languages"]) == {"English", "German"}
    assert summary["report"]["test"] == 0
    assert "responses.hdf5" in summary["files"]


def test_the_way_out_to_trl(home: Path, transcripts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["import", str(transcripts), "--test-share", "0"]) == 0
    capsys.readouterr()
    assert run(["export", "hh-rlhf/pairs-v0", "--to", "trl", str(tmp_path / "out"), "--json"]) == 2  # of another id
    assert "unknown dataset" in capsys.readouterr().err
    assert run(["import", str(transcripts), "--test-share", "0", "--id", "hh/pairs-v0"]) == 0
    capsys.readouterr()
    assert run(["export", "hh/pairs-v0", "--to", "trl", str(tmp_path / "out"), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert set(summary["files"]) == {"README.md", "pmpo_offline.json", "kto/train.parquet", "dpo/train.parquet"}
    assert summary["left_out"] == []
    assert run(["export", "hh/pairs-v0", "--to", "minari", str(tmp_path / "no")]) == 2
    assert "hh/pairs-v0 holds responses: choose huggingface, parquet, trl, not minari" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ('{"a": 1}\n', [], "rows.jsonl, line 1: not recognised by the columns a: say what they mean"),
        (
            '{"prompt": "p", "completion": "c", "label": 3}\n',
            [],
            "line 1: expected true, false, 1, 0, -1, up, down or null in",
        ),
        ('{"prompt": "p", "completion": null, "label": 1}\n', [], "nothing is left to import: 1 responses dropped"),
        ("{oops\n", [], "rows.jsonl, line 1, character 1: not valid JSON"),
        ("{}\n", ["--redacted", "hide"], "Invalid value for '--redacted'"),
        ("{}\n", ["--id", "../x-v0"], "is no dataset id"),
        ("{}\n", ["--template", "/nowhere"], "is no folder of a model"),
    ],
)
def test_mistakes_end_with_one_line_and_write_nothing(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, arguments: list[str], message: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    assert run(["import", str(path), *arguments]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("read MB")]
    assert len(errors) == 1
    assert message in errors[0]
    assert not list(tmp_path.rglob("dataset.json"))


def test_options_of_texts_are_not_for_trajectories(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "set.npz").write_bytes(b"")
    assert run(["import", str(tmp_path / "set.npz"), "--threshold", "1"]) == 2
    assert "holds trajectories, and --threshold is for texts" in capsys.readouterr().err


def test_importing_texts_needs_no_torch_no_simulator_and_no_transformers(home: Path, transcripts: Path) -> None:
    script = f"""
import sys
from pmpo_offline.cli.main import run
assert run(["import", {str(transcripts)!r}]) == 0
print(*(name for name in ("torch", "datasets", "transformers", "mujoco") if name in sys.modules), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == ""


def test_an_empty_source_is_not_the_current_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["import", ""]) == 2
    assert capsys.readouterr().err == "error: import_dataset: expected a text or a path for source, not ''\n"
