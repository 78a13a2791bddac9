"""The command `export`: what it prints, and that mistakes end with one line and code 2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pmpo_offline.cli.main import run
from pmpo_offline.data import Dataset
from pmpo_offline.data.exchange.writers import WRITERS


def test_export_prints_the_folder_and_its_files(
    stacking: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(["export", str(stacking.path), "--to", "d4rl", str(out)]) == 0
    assert str(out) in capsys.readouterr().out
    assert run(["export", str(stacking.path), "--to", "parquet", str(out), "--overwrite", "--json"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert (written["to"], written["path"], written["left_out"]) == ("parquet", str(out), [])
    assert written["rows"] == len(stacking)
    assert written["files"] == {
        path.relative_to(out).as_posix(): path.stat().st_size for path in out.rglob("*") if path.is_file()
    }


def test_the_help_lists_every_format(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in WRITERS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "hugingface"], "error: unknown format 'hugingface': did you mean huggingface?"),
        (["--to", "d4rl", "--fps", "20"], "only lerobot has frames"),
        ([], "error: Missing option '--to'"),
    ],
)
def test_mistakes_end_with_one_line(
    stacking: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run(["export", str(stacking.path), str(tmp_path / "out"), *arguments]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_dataset_that_is_not_built_is_not_exported(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["export", "bandit/sphere-v0", "--to", "d4rl", str(tmp_path / "out"), "--home", str(home)]) == 2
    assert "declared but not built: run pmpo-offline build-dataset bandit/sphere-v0" in capsys.readouterr().err


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"
