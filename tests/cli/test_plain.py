"""Output where not every character can be shown."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import foreign
from helpers.aligned import experience

from pmpo_offline.cli import plain
from pmpo_offline.cli.main import run


def test_what_cannot_be_encoded_is_written_out() -> None:
    assert "β ≥ 0.5 ─ é \udcff".encode("ascii", plain.HANDLER) == b"beta >= 0.5 - \\xe9 \\udcff"
    assert "é β".encode("latin-1", plain.HANDLER) == b"\xe9 beta"


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_a_name_that_is_no_utf_8_is_imported_on_any_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    path = foreign.npz(tmp_path / "hop.npz", foreign.as_d4rl(experience([3, 4, 2])))
    odd = os.fsencode(tmp_path) + b"/hop\xff.npz"
    path.rename(os.fsdecode(odd))
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert run(["import", os.fsdecode(odd), "--home", str(tmp_path / "home")]) == 0
    assert run(["show", "d4rl/hop-v0", "--full", "--home", str(tmp_path / "home")]) == 0
    shown = [stream.buffer.getvalue() for stream in (out, err) if stream.flush() is None]
    assert b"Traceback" not in shown[1]
    assert (b"beta" if encoding == "ascii" else "β".encode()) in shown[0]


LEGEND = """
import sys
from pmpo_offline.cli.console import print_lines
from pmpo_offline.cli.main import app, main
from pmpo_offline.cli.summary import LEGEND
@app.command("legend")
def legend(): print_lines(LEGEND)
sys.argv = ["pmpo-offline", "legend"]
main()
"""


def test_a_terminal_of_ascii_gets_no_byte_of_another_encoding() -> None:
    """In a process of its own: click takes a stream that says ASCII for a mistake, and would write UTF-8."""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", LEGEND], env=environment, capture_output=True, check=True)
    assert done.stdout.isascii()
    assert b" beta with a minimum " in done.stdout
