"""Builds of one dataset at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pmpo_offline.build import build_dataset
from pmpo_offline.runtime.errors import UserError


def test_two_builds_of_one_dataset_at_once_both_return_it(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        builds = [
            pool.submit(build_dataset, "bandit/sphere-v0", episodes=200, workers=1, home=tmp_path) for _ in range(2)
        ]
        first, second = (build.result() for build in builds)
    assert first.content_hash == second.content_hash


def test_a_number_of_episodes_that_no_machine_counts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="episodes"):
        build_dataset("bandit/sphere-v0", episodes=10**20, home=tmp_path)
