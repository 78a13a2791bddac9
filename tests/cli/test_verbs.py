"""The commands filter, split, combine, relabel, rename and delete: what they print, and mistakes in one line."""

from __future__ import annotations

import io
import json

import pytest
from helpers.encoded import Store

from pmpo_offline import data
from pmpo_offline.cli.main import run

pytestmark = pytest.mark.usefixtures("home")


def made(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert run([*arguments, "--json"]) == 0
    return [found["id"] for found in json.loads(capsys.readouterr().out)["datasets"]]


def test_the_commands(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    store([1 + i % 4 for i in range(40)])
    assert made(capsys, "filter", "test/small-v0", "test/a-v0", "--where", "return > 0 and length > 1") == ["test/a-v0"]
    parts = made(capsys, "split", "test/small-v0", "--shares", "train=0.9, test=0.1")
    assert parts == ["test/small-train-v0", "test/small-test-v0"]
    assert made(capsys, "combine", "test/both-v0", *parts) == ["test/both-v0"]
    assert made(capsys, "relabel", "test/small-v0", "--label", "success") == ["test/small-success-v0"]
    assert made(capsys, "rename", "test/both-v0", "test/all-v0") == ["test/all-v0"]
    assert run(["delete", "test/all-v0", "--yes"]) == 0
    assert "deleted" in capsys.readouterr().out
    assert data.stored_ids() == ["test/a-v0", "test/small-success-v0", *sorted(parts), "test/small-v0"]
    assert run(["filter", "test/small-v0", "test/a-v0", "--where", "return > 0 and length > 1"]) == 0
    assert "filter of test/small-v0 (where return > 0" in capsys.readouterr().out


def test_rename_takes_the_overwrite_that_its_error_names(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    store()
    made(capsys, "filter", "test/small-v0", "test/a-v0", "--where", "length > 1")
    renaming = ["rename", "test/small-v0", "test/a-v0"]
    assert run(renaming) == 2
    assert "was made otherwise: choose another id, or add --overwrite" in capsys.readouterr().err
    assert made(capsys, *renaming, "--overwrite") == ["test/a-v0"]
    assert data.stored_ids() == ["test/a-v0"]


def test_delete_without_an_answer_keeps_the_dataset(
    store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store()
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert run(["delete", "test/small-v0"]) == 2
    assert "small-v0 is kept: answer y, or add --yes" in capsys.readouterr().err.splitlines()[-1]
    assert data.stored_ids() == ["test/small-v0"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["filter", "test/small-v0", "test/a-v0", "--where", "retrun > 0"],
            "unknown column in where 'retrun > 0': 'retrun': did you mean return?",
        ),
        (["filter", "test/smal-v0", "test/a-v0", "--where", "length > 0"], "did you mean test/small-v0?"),
        (["filter", "test/small-v0", "a", "--where", "length > 0"], "'a' is no dataset id"),
        (["split", "test/small-v0", "--shares", "0.9,0.1"], "write PART=SHARE"),
        (["split", "test/small-v0", "--shares", "a=0.1,a=0.1"], "a is given twice"),
        (["split", "test/small-v0", "--shares", "../x=0.5"], "no dataset id"),
        (["combine", "test/b-v0", "test/small-v0"], "two or more"),
        (["relabel", "test/small-v0"], "say what changes"),
        (["relabel", "test/small-v0", "--label", "column"], "stores the score return, not column"),
        (
            ["relabel", "test/small-v0", "--imbalance", "half"],
            "--imbalance half: write a number from 0 to 1, or collected",
        ),
        (["rename", "test/small-v0", "test/small-v0"], "is the dataset itself"),
        (["delete", "nope/x-v0", "--yes"], "unknown dataset"),
    ],
)
def test_mistakes_end_with_one_line(
    store: Store, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    store()
    assert run(arguments) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert data.stored_ids() == ["test/small-v0"]
