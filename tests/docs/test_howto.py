"""Every how-to runs as a reader runs it: from its files to its result."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from helpers.pages import blocks, run_page

ROOT = Path(__file__).parents[2]
HOWTO = ROOT / "docs" / "howto"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run a page in, with a home of its own."""
    monkeypatch.setenv("PMPO_OFFLINE_DATASETS", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def test_robot_episodes_with_thumbs(here: Path) -> None:
    names = run_page(HOWTO / "robots.md", here)
    assert names["scores"]["success"].mean() > 0.7, "the page says 0.9, and 0.24 of imitation"


def test_a_thumbs_log_becomes_an_adapter(here: Path, language_home: Path) -> None:
    shutil.copytree(language_home / ".models", here.parent / "home" / ".models")
    names = run_page(HOWTO / "thumbs.md", here)
    assert names["answer"].strip()
    adapter = here / "runs/thumbs/adapter"
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny"
    card = (adapter / "README.md").read_text()
    assert "`mine/thumbs-v0`: " in card
    assert "pmpo (alpha 0.5" in card
    assert str(here.parent) not in card + json.dumps(config), "no path of this machine"


def test_an_algorithm_beside_theirs(here: Path) -> None:
    run_page(HOWTO / "algorithm.md", here)
    table = (here / "results" / "mine" / "report.md").read_text()
    assert " squared " in table
    assert " patient " in table


def test_a_task_and_a_reward(here: Path) -> None:
    run_page(HOWTO / "task.md", here)
    assert "bc" in (here / "results" / "reach" / "report.md").read_text()


def test_sharing(here: Path) -> None:
    names = run_page(HOWTO / "sharing.md", here)
    assert names["theirs"].fingerprint == names["ours"].fingerprint


def test_the_page_of_the_format(here: Path) -> None:
    run_page(ROOT / "docs" / "format.md", here)
    assert (here / "home/bandit/sphere-accept10-v0/transitions.arrow").is_file()


def test_blocks_are_told_apart() -> None:
    page = "`a/b.py`:\n\n```python\nx = 1\n```\n\n<!-- not run: minutes -->\n```console\n$ sleep 9\n```\n"
    file, skipped = blocks(page)
    assert (file.file, file.text, file.run) == ("a/b.py", "x = 1\n", True)
    assert (skipped.kind, skipped.run) == ("console", False)
