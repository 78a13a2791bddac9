"""Declarations: found by name, by path and in other packages; refused in one line."""

import importlib.metadata
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from pmpo_offline.declarations import catalog
from pmpo_offline.runtime.errors import UserError

SUITE = """
title = "Mine"
datasets = ["rgb-stacking/proxy-v0"]
imbalance = ["collected", 0.1]
algorithms = ["bc"]
"""

ALGORITHM = """
title = "PMPO"
objective = "pmpo"
rows = "all"
start = "reference"
[settings]
alpha = 0.5
normalize = "joint"
[training]
updates = 10
anything = ["the", "trainer", "knows"]
"""


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def test_shipped_suites_are_valid_and_name_what_exists():
    suites = {suite.name: suite for suite in catalog.suites()}
    assert {"quick", "stacking"} <= suites.keys()
    assert suites["quick"].imbalance == [0.1]
    assert suites["quick"].shuffled == ["pmpo"]
    for suite in suites.values():
        assert set(suite.shuffled) <= set(suite.algorithms)
        assert suite.seeds >= (3 if suite.name == "language" else 5)  # a run of SmolLM2 takes a minute and a half


def test_suite_of_ones_own_is_read_from_a_path(tmp_path):
    suite = catalog.suite(write(tmp_path / "mine.toml", SUITE))
    assert (suite.name, suite.imbalance, suite.noise, suite.seeds) == ("mine", ["collected", 0.1], [None], 5)


def test_algorithm_takes_name_and_family_from_its_place_and_any_training_key(tmp_path):
    declaration = catalog.algorithm(write(tmp_path / "control" / "mine.toml", ALGORITHM))
    assert (declaration.name, declaration.family) == ("mine", "control")
    assert declaration.settings == {"alpha": 0.5, "normalize": "joint"}
    assert declaration.training["anything"] == ["the", "trainer", "knows"]


def test_unknown_names_come_with_near_misses():
    with pytest.raises(UserError, match=r"^unknown suite 'quik': did you mean quick\?$"):
        catalog.suite("quik")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SUITE + "algoritms = []", r"mine\.toml, line 6: unknown key 'algoritms': did you mean algorithms\?"),
        (
            SUITE.replace("0.1", "1.5"),
            r"mine\.toml, line 4: imbalance\.1.*: input should be less than or equal to 1, not 1\.5$",
        ),
        (SUITE + "name = 'other'", r"mine\.toml: name: comes from the file's place"),
        (SUITE + "seeds = 0", r"mine\.toml, line 6: seeds: input should be greater than or equal to 1"),
        (SUITE + "seeds = [", r"mine\.toml: not valid TOML"),
        ("title = 'x'", r"mine\.toml: datasets: field required \(and 1 more\)"),
    ],
)
def test_malformed_declarations_are_refused_in_one_line_with_file_and_field(tmp_path, text, message):
    with pytest.raises(UserError, match=message) as error:
        catalog.suite(write(tmp_path / "mine.toml", text))
    assert "\n" not in str(error.value)


def test_declarations_stand_where_the_package_looks():
    for kind in ("datasets", "benchmarks", "baselines"):
        assert catalog.root(kind).is_dir()


def test_wheel_carries_every_suite_and_no_results():
    checkout = Path(catalog.__file__).parents[2]
    project = tomllib.loads((checkout / "pyproject.toml").read_text())
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert [source for source in included if source.startswith("benchmarks")] == ["benchmarks/suites"]
    assert {path.suffix for path in (checkout / "benchmarks/suites").iterdir()} == {".toml"}


RECIPE = """
id = "theirs/some-v0"
kind = "transitions"
task = "rgb-stacking/proxy"
title = "Theirs"
licence = "MIT"
episodes = 1
label = "success"
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that declares an algorithm for two families, and a recipe."""
    for family in ("control", "robots"):
        write(tmp_path / "their_package" / "algorithms" / family / "theirs.toml", ALGORITHM)
    write(tmp_path / "their_package" / "datasets" / "some.toml", RECIPE)
    monkeypatch.syspath_prepend(tmp_path)
    groups = {f"pmpo_offline.{kind}": f"their_package.{kind}" for kind in ("algorithms", "datasets")}

    def entry_points(group):
        return [EntryPoint("theirs", groups[group], group)] if group in groups else []

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    catalog._registry.cache_clear()
    yield tmp_path / "their_package"
    catalog._registry.cache_clear()


def test_other_packages_declare_algorithms_and_datasets(package):
    assert catalog.algorithm("theirs", "control").settings["alpha"] == 0.5
    assert {"pmpo", "theirs"} <= {each.name for each in catalog.algorithms("control")}
    assert "robots" in catalog.families()
    assert catalog.family("robots/arm") == "robots"
    assert [each.name for each in catalog.algorithms("robots")] == ["theirs"]
    assert catalog.source("algorithms", "theirs", "robots") == "their_package.algorithms"
    assert catalog.source("algorithms", "pmpo") == catalog.source("datasets", "rgb-stacking/proxy-v0") == "pmpo-offline"
    assert catalog.dataset("theirs/some-v0").title == "Theirs"
    assert catalog.is_declared("theirs/some-v0")


def test_of_a_name_that_two_packages_declare_ours_is_taken_with_a_warning(package):
    ours = catalog.algorithm("pmpo", "control")
    write(package / "algorithms" / "control" / "pmpo.toml", ALGORITHM)
    with pytest.warns(UserWarning, match=r"the algorithm pmpo exists already, in .*pmpo\.toml: this one is left out"):
        assert catalog.algorithm("pmpo", "control") == ours
    write(package / "datasets" / "proxy.toml", RECIPE.replace("theirs/some-v0", "rgb-stacking/proxy-v0"))
    with pytest.warns(UserWarning, match="the dataset rgb-stacking/proxy-v0 exists already"):
        titles = {declaration.id: declaration.title for declaration in catalog.datasets()}
    assert titles["rgb-stacking/proxy-v0"] != "Theirs"
