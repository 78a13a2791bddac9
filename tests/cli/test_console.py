"""Names and values on a terminal and in a file."""

from __future__ import annotations

import pytest

from pmpo_offline.cli.console import print_lines

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
