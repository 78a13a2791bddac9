"""Names and values on a terminal and in a file."""

from __future__ import annotations

import os

import pytest

from pmpo_offline.cli.console import print_columns, print_lines, working

LINES = {"verdict": "ready", "notes": "the observation never changes\nwords", "path": "/a/path/without/any/blank/in/it"}


def test_a_terminal_wraps_values_and_a_file_does_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    print_lines(LINES)
    assert "notes    the observation never changes\n         words\n" in capsys.readouterr().out
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "30")
    print_lines(LINES)
    assert capsys.readouterr().out.splitlines() == [
        "verdict  ready",
        "notes    the observation never",
        "         changes",
        "         words",
        "path     /a/path/without/any/blank/in/it",
    ]


def test_a_sentence_as_a_name_moves_its_own_value_alone(capsys: pytest.CaptureFixture[str]) -> None:
    reason = "the last row of an episode that ran out of time"
    print_lines({"rows": 1000, "report": {"dropped": {reason: 3}, "labels": {"up": "accept", "down": "reject"}}})
    assert capsys.readouterr().out.splitlines() == [
        "rows       1,000",
        "report",
        "  dropped",
        f"    {reason}  3",
        "  labels   up accept, down reject",
    ]


def test_a_list_is_read_as_words(capsys: pytest.CaptureFixture[str]) -> None:
    print_lines({"report": {"columns_not_used": ["stars", "user"]}})
    assert capsys.readouterr().out.splitlines() == ["report", "  columns_not_used  stars, user"]


def test_stdout_is_for_results_whatever_libraries_print(capfd: pytest.CaptureFixture[str]) -> None:
    with working():
        print("of Python")
        os.write(1, b"of Rust\n")
    print("the result", flush=True)
    out, err = capfd.readouterr()
    assert (out, err) == ("the result\n", "of Python\nof Rust\n")


def test_a_table_is_aligned_however_long_its_names_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_columns([("", "policy", "reference"), ("reference log-probability per token", "-0.36", "-0.3606")])
    first, second = capsys.readouterr().out.splitlines()
    assert (first.index("policy"), first.index("reference")) == (second.index("-0.36"), second.index("-0.3606"))
