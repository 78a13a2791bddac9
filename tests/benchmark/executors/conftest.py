"""A small bandit suite: five cells of a tenth of a second, on a dataset of 400 actions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pmpo_offline.benchmark import Benchmark, bench
from pmpo_offline.declarations import catalog

SUITE = """
title = "Small bandits"
datasets = ["{dataset}"]
imbalance = [0.5]
algorithms = ["bc", "accept", "pmpo"]
reference = "bc"
filtered = ["bc-accepted"]
shuffled = ["pmpo"]
seeds = 2
episodes = 10
updates = 6
"""


@dataclass(frozen=True)
class Small:
    """The suite's file, the home of its dataset (a recipe), and its table when it is run in this process alone."""

    path: Path
    home: Path
    whole: Benchmark

    def bench(self, output: Path, **options: Any) -> Benchmark:
        return bench(str(self.path), output=output, home=self.home, **options)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    folder = tmp_path_factory.mktemp("small")
    home = folder / "home"
    declared = (catalog.root("datasets") / "bandit" / "sphere-v0.toml").read_text()
    recipe, path = folder / "sphere.toml", folder / "small-bandits.toml"
    recipe.write_text(declared.replace("bandit/sphere-v0", "test/sphere-v0").replace("20000", "400"))
    path.write_text(SUITE.format(dataset=recipe))
    return Small(path, home, bench(str(path), output=folder / "whole", home=home, workers=1))
