import tomllib
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
        (SUITE + "algoritms = []", r"mine\.toml: unknown key 'algoritms': did you mean algorithms\?"),
        (
            SUITE.replace("0.1", "1.5"),
            r"mine\.toml: imbalance\.1.*: input should be less than or equal to 1, not 1\.5$",
        ),
        (SUITE + "name = 'other'", r"mine\.toml: name: comes from the file's place"),
        (SUITE + "seeds = 0", r"mine\.toml: seeds: input should be greater than or equal to 1"),
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
    suites = {source for source in included if source.startswith("benchmarks")}
    assert suites == {f"benchmarks/{path.name}" for path in (checkout / "benchmarks").glob("*.toml")}
