"""Run what a page of the documentation shows: its files, commands and Python, in order, in an empty folder.

- A block after a line that is a file name in backquotes and a colon is written to that file.
- Of a `console` block the lines after `$ ` are run (`>` continues one): `pmpo-offline`, `python FILE`, `pip install .`,
  all else by bash. What a page prints below a command is not compared.
- Blocks of `python` share one namespace.
- `<!-- not run: reason -->` before a block leaves it out.
"""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from helpers.installed import forget_entries, importable, install

_BLOCK = re.compile(r"(?P<before>[^\n]*)\n*^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"`([\w./-]+)`:")
_SKIPPED = re.compile(r"<!-- not run: .+ -->")


class Block(NamedTuple):
    """A fenced block of a page."""

    kind: str
    text: str
    file: str | None
    """Where it is written to."""
    run: bool


def blocks(page: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    for found in _BLOCK.finditer(page):
        before = found["before"].strip()
        file = _FILE.fullmatch(before)
        yield Block(found["kind"], found["text"], file and file[1], not _SKIPPED.fullmatch(before))


def commands(text: str) -> Iterator[str]:
    """Yield the commands of a console block."""
    for found in re.finditer(r"^\$ (.*(?:\n> .*)*)", text, re.MULTILINE):
        yield re.sub(r"\s+#( .*)?$", "", found[1].replace("\n> ", "\n"))


def run_page(page: Path, folder: Path) -> dict[str, Any]:
    """Run a page in a folder, which becomes the working directory; return what its Python has defined."""
    os.chdir(folder)
    names: dict[str, Any] = {"__name__": "__page__"}
    with importable(folder), importable(folder / "site"):
        _run_blocks(page, names)
    return names


def _run_blocks(page: Path, names: dict[str, Any]) -> None:
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.file:
            Path(block.file).parent.mkdir(parents=True, exist_ok=True)
            Path(block.file).write_text(block.text, encoding="utf-8")
        elif block.run and block.kind == "python":
            exec(compile(block.text, str(page), "exec"), names)
        elif block.run and block.kind == "console":
            for command in commands(block.text):
                _run(command)


def _run(command: str) -> None:
    words = shlex.split(command)
    if words[0] == "pmpo-offline":
        from pmpo_offline.cli.main import run

        code = run(words[1:])
        assert code == 0, f"{command}: exit code {code}"
    elif words[0] == "python" and words[1].endswith(".py"):
        runpy.run_path(words[1], run_name="__main__")
    elif words[:2] == ["pip", "install"]:
        install(Path(words[2]), Path("site"))
        forget_entries()
    else:
        subprocess.run(["bash", "-euo", "pipefail", "-c", command], check=True, capture_output=True)
