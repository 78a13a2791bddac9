"""The documentation: links lead somewhere, code compiles, commands exist; the notebook is the tutorial and runs."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
from helpers.pages import blocks, commands

import pmpo_offline

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    path for folder in (ROOT, DOCS, DOCS / "howto") for path in folder.glob("*.md") if path.name != "CHANGELOG.md"
)


def anchors(page: Path) -> set[str]:
    """Return what links may name behind the # of a page: its headings, as GitHub and MyST write them."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere_and_code_compiles(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)[^)]*\)", re.sub(r"`[^`]*`", "", prose)):
        target, _, anchor = link.partition("#")
        if not target.startswith(("http", "mailto")):
            assert (page.parent / target).exists(), link
            assert not anchor or anchor in anchors(page.parent / target if target else page), link
    for block in blocks(text):
        if block.kind == "python":
            compile(block.text, str(page), "exec")
        elif block.kind == "toml":
            tomllib.loads(block.text)
        elif block.kind == "json":
            for line in block.text.splitlines():  # an object a line
                json.loads(line)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_have_the_options_that_are_shown(page: Path) -> None:
    import shlex

    import typer.main

    from pmpo_offline.cli.main import app

    group = typer.main.get_command(app)
    for block in blocks(page.read_text(encoding="utf-8")):
        for command in commands(block.text) if block.kind == "console" else ():
            words = shlex.split(command, comments=True)
            if words[:1] != ["pmpo-offline"] or words[1].startswith("--"):
                continue
            assert words[1] in group.commands, command
            known = {
                name for option in group.commands[words[1]].params for name in (*option.opts, *option.secondary_opts)
            }
            assert {word for word in words if word.startswith("--")} <= known, command


def test_llms_txt_and_the_site_name_every_page() -> None:
    listed = (ROOT / "llms.txt").read_text(encoding="utf-8")
    index = (DOCS / "index.md").read_text(encoding="utf-8") + (DOCS / "howto/index.md").read_text(encoding="utf-8")
    for page in [*DOCS.glob("*.md"), *(DOCS / "howto").glob("*.md")]:
        if page.stem != "index":
            assert re.search(rf"^{page.stem}$", index, re.MULTILINE), page
            assert page.relative_to(ROOT).as_posix() in listed, page
    for target in re.findall(r"\]\((.+?)\)", listed):
        assert (ROOT / target).is_file(), target


def test_one_version_everywhere() -> None:
    version = pmpo_offline.__version__
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {version}, " in (ROOT / "CHANGELOG.md").read_text()


def test_the_notebook_is_the_tutorial_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("make_notebook", DOCS / "make_notebook.py")
    assert spec is not None
    assert spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    stored = nbformat.read(DOCS / "tutorial.ipynb", as_version=4)
    assert stored == maker.notebook(), "python docs/make_notebook.py writes it again"

    monkeypatch.setenv("PMPO_OFFLINE_DATASETS", str(tmp_path / "home"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])  # a kernel puts its own there
    results = _results([cell["source"] for cell in stored.cells if cell.cell_type == "code"])
    verdicts = [data["text/plain"] for data in results if data["text/plain"].startswith("Diagnosis")]
    assert [verdict.partition(": ")[2].partition(",")[0] for verdict in verdicts] == ["collapse", "bounded"]
    (scores,) = (eval(data["text/plain"]) for data in results if data["text/plain"].startswith("{'pmpo'"))
    assert scores["pmpo"] > scores["bc"] + 0.1
    assert sum("text/html" in data for data in results) >= 4


def _results(cells: list[str]) -> list[dict[str, str]]:
    """Run cells in a notebook's kernel, within this process; return what they show, by MIME type."""
    from ipykernel.inprocess.manager import InProcessKernelManager

    before = dict(os.environ)
    manager = InProcessKernelManager()
    manager.start_kernel()
    client, shell = manager.client(), manager.kernel.shell
    client.start_channels()
    results = []
    try:
        for cell in cells:
            client.execute(cell)
            reply = client.get_shell_msg()["content"]
            assert reply["status"] == "ok", "\n".join(reply["traceback"])
            while client.iopub_channel.msg_ready():
                message = client.get_iopub_msg()
                if message["msg_type"] == "execute_result":
                    results.append(message["content"]["data"])
        return results
    finally:
        client.stop_channels()
        manager.kernel.iopub_thread.stop()
        shell.restore_sys_module_state()
        type(shell).clear_instance()
        type(manager.kernel).clear_instance()
        os.environ.clear()  # a kernel asks every library for colours
        os.environ.update(before)
