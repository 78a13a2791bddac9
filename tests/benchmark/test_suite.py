import re
from pathlib import Path

import pytest

from pmpo_offline.benchmark import bench
from pmpo_offline.benchmark.suite import expand
from pmpo_offline.declarations import catalog
from pmpo_offline.declarations.catalog import SuiteDeclaration
from pmpo_offline.objectives import OBJECTIVES
from pmpo_offline.runtime.errors import UserError

FAMILIES = {"test/line-v0": "control"}


@pytest.fixture
def suite(declare) -> SuiteDeclaration:
    clone, learner = declare("clone", "bc"), declare("learner", "pmpo", "beta = 2")
    declare("pairs", "dpo")
    return SuiteDeclaration(
        name="s",
        title="S",
        datasets=["test/line-v0"],
        imbalance=[0.1, "collected"],
        algorithms=[clone, learner],
        reference=clone,
        shuffled=[learner],
    )


def names(cells):
    return [(cell.algorithm.name, cell.shuffled, cell.reference) for cell in cells]


ONE_CONDITION = [("clone", False, True), ("learner", False, False), ("learner", True, False)]


def test_cells_on_equal_data_are_neighbours(suite):
    cells = expand(suite, FAMILIES)
    assert [cell.condition.imbalance for cell in cells] == [0.1] * 3 + ["collected"] * 3
    assert names(cells) == ONE_CONDITION * 2


def test_a_share_is_reached_in_both_ways_where_there_is_one(suite):
    both = suite.model_copy(update={"balance": ["labels", "rows"], "imbalance": [0.1, "collected", None]})
    conditions = dict.fromkeys(cell.condition for cell in expand(both, FAMILIES))
    assert [(each.imbalance, each.balance) for each in conditions] == [
        (0.1, "labels"),
        (0.1, "rows"),
        ("collected", "labels"),
        (None, "labels"),
    ]
    assert "test/line-v0 at 0.1 by rows" in [each.title for each in conditions]


def test_chosen_algorithms_keep_the_reference_and_their_control(suite, declare):
    assert names(expand(suite, FAMILIES, algos=suite.shuffled)) == ONE_CONDITION * 2
    assert names(expand(suite, FAMILIES, algos=[declare("pairs", "dpo")]))[:2] == [
        ("clone", False, True),
        ("pairs", False, False),
    ]


def test_a_file_replaces_the_suites_own_algorithm_of_its_name(tmp_path):
    own = tmp_path / "bc-accepted.toml"
    declared = catalog.algorithm("bc-accepted", "bandit")
    own.write_text(f'title = "Tuned"\nobjective = "bc"\nrows = "{declared.rows}"\nstart = "{declared.start}"\n')
    suite = catalog.suite("bandit")
    cells = expand(suite, dict.fromkeys(suite.datasets, "bandit"), algos=[str(own), "kto"])
    titles = {cell.algorithm.name: cell.algorithm.title for cell in cells}
    assert titles["bc-accepted"] == "Tuned"
    assert {*titles} == {"bc", "bc-accepted", "bc-unrejected", "kto"}


def test_settings_are_complete_and_declared_ones_win_over_defaults(suite):
    (settings,) = expand(suite, FAMILIES)[1].settings
    assert settings == {**OBJECTIVES["pmpo"].settings, "alpha": 0.5, "beta": 2.0, "normalize": "joint"}


def test_numbers_stack_in_one_cell_and_names_do_not(suite):
    sweep = {"learner": {"beta": [1, 2], "alpha": [0.0, 0.5], "normalize": ["joint", "set"]}}
    joint, by_set = [
        cell for cell in expand(suite, FAMILIES, sweep=sweep) if not cell.shuffled and cell.condition.imbalance == 0.1
    ][1:]
    assert [(s["beta"], s["alpha"]) for s in joint.settings] == [(1.0, 0.0), (1.0, 0.5), (2.0, 0.0), (2.0, 0.5)]
    assert {s["normalize"] for s in joint.settings} == {"joint"}
    assert {s["normalize"] for s in by_set.settings} == {"set"}


def test_a_value_given_twice_runs_once(suite):
    assert len(expand(suite, FAMILIES, sweep={"learner": {"beta": [1, 1.0]}})[1].settings) == 1


def test_a_condition_given_twice_runs_once(suite):
    twice = {"datasets": suite.datasets * 2, "imbalance": [*suite.imbalance, 0.1], "noise": [0.0, 0]}
    assert names(expand(suite.model_copy(update=twice), FAMILIES)) == ONE_CONDITION * 2


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ({"lerner": {"beta": [1]}}, r"unknown algorithm in a setting 'lerner': did you mean learner"),
        ({"learner": {"bta": [1]}}, r"unknown setting of learner 'bta': did you mean beta\?"),
        ({"learner": {"beta": ["high"]}}, r"learner\.beta is a number of 0 or more, or a multiple .*, not 'high'"),
        ({"learner": {"beta": [1, -1]}}, r"learner\.beta is a number of 0 or more, .*, not -1"),
        ({"learner": {"alpha": ["0.5x"]}}, r"learner\.alpha is a number from 0 to 1, not '0\.5x'"),
        ({"learner": {"normalize": [1]}}, r"learner\.normalize is joint or set, not 1"),
    ],
)
def test_mistyped_sweeps_are_refused(suite, sweep, message):
    with pytest.raises(UserError, match=message):
        expand(suite, FAMILIES, sweep=sweep)


@pytest.mark.parametrize("name", ["bc", "mpo"])
def test_control_of_an_algorithm_without_labels_is_refused(suite, name):
    with pytest.raises(UserError, match=rf"shuffled: {name} uses no labels"):
        expand(suite.model_copy(update={"shuffled": [name]}), FAMILIES)


def test_control_of_scores_is_one_on_responses(suite):
    asked = suite.model_copy(update={"shuffled": ["mpo"], "algorithms": ["mpo"], "reference": "bc"})
    cells = expand(asked, {"test/line-v0": "language"})
    assert [cell.algorithm.name for cell in cells if cell.shuffled][:1] == ["mpo"]


def test_control_of_every_algorithm_with_labels_is_accepted(suite):
    names = ["pmpo", "dpo", "kto", "accept"]
    cells = expand(suite.model_copy(update={"shuffled": names, "algorithms": names}), FAMILIES)
    assert {cell.algorithm.name for cell in cells if cell.shuffled} == set(names)


def test_unknown_algorithm_objective_and_declared_setting(suite, declare):
    with pytest.raises(UserError, match="unknown algorithm 'nothing-like-it'"):
        expand(suite, FAMILIES, algos=["nothing-like-it"])
    with pytest.raises(UserError, match=r"unknown objective .*'pmp': did you mean pmpo"):
        expand(suite, FAMILIES, algos=[declare("wrong", "pmp")])
    with pytest.raises(UserError, match=r"unknown setting of odd 'gamma'"):
        expand(suite, FAMILIES, algos=[declare("odd", "pmpo", "gamma = 1")])


def test_a_setting_of_the_training_is_unknown_before_anything_is_built(suite):
    with pytest.raises(UserError, match="unknown setting 'learning_rat': did you mean learning_rate"):
        expand(suite.model_copy(update={"training": {"learning_rat": 1}}), FAMILIES)


def test_two_algorithms_of_one_name_are_refused(suite, tmp_path):
    path = tmp_path / "elsewhere" / "learner.toml"
    path.parent.mkdir()
    path.write_text('title = "Another"\nobjective = "bc"\nrows = "all"\nstart = "scratch"\n')
    with pytest.raises(UserError, match=r"two algorithms are called learner: rename your \.toml"):
        expand(suite, FAMILIES, algos=[*suite.algorithms, str(path)])


def test_algorithms_take_the_hyperparameters_of_each_datasets_family():
    families = {"bandit/sphere-v0": "bandit", "test/line-v0": "control"}
    both = SuiteDeclaration(name="s", title="S", datasets=[*families], algorithms=["bc", "kto"])
    cells = expand(both, families, sweep={"kto": {"beta": [0.1, 0.2]}})
    assert [(cell.condition.dataset, cell.algorithm.family) for cell in cells] == [
        ("bandit/sphere-v0", "bandit"),
        ("bandit/sphere-v0", "bandit"),
        ("test/line-v0", "control"),
        ("test/line-v0", "control"),
    ]
    assert [len(cell.settings) for cell in cells] == [1, 2, 1, 2]


def test_algorithm_that_one_familys_datasets_do_not_have_is_refused():
    families = {"bandit/sphere-v0": "bandit", "test/line-v0": "control"}
    both = SuiteDeclaration(name="s", title="S", datasets=[*families], algorithms=["bc", "iql"])
    with pytest.raises(UserError, match="algorithm iql is declared for control, episodes and not for bandit: leave it"):
        expand(both, families)


def test_an_empty_list_is_no_list_of_all() -> None:
    suite = catalog.suite("bandit")
    families = dict.fromkeys(suite.datasets, "bandit")
    with pytest.raises(UserError, match="algos is empty: name one or more"):
        expand(suite, families, algos=[])
    with pytest.raises(UserError, match=r"pmpo.beta has no values: give one or more"):
        expand(suite, families, sweep={"pmpo": {"alpha": [0.5], "beta": []}})


LINES = {
    'algoritms = ["bc"]': "mine.toml, line 3: unknown key 'algoritms': did you mean algorithms?",
    'algorithms = ["bc", "pmop"]': "mine.toml, line 3: unknown algorithm 'pmop': did you mean pmpo",
    'algorithms = ["bc"]\nfiltered = ["nope"]': "mine.toml, line 4: unknown algorithm 'nope'",
    'algorithms = ["bc"]\nshuffled = ["bc"]': "mine.toml, line 4: shuffled: bc uses no labels",
    'algorithms = ["bc"]\nimbalance = [1.5]': "mine.toml, line 4: imbalance.0: input should be less than",
    'algorithms = ["bc"]\n\n[training]\nlr = 1': "mine.toml, line 6: training of bc: unknown setting 'lr': did you",
    'algorithms = ["bc"]\n[training]\nbatch = "x"': "mine.toml, line 5: training of bc: batch: input should be a valid",
    'datasets = ["bandit/spher-v0"]\nalgorithms = ["bc"]': "mine.toml, line 3: unknown dataset 'bandit/spher-v0'",
    'algorithms = ["own.toml"]': "own.toml, line 6: unknown setting of own 'alfa': did you mean alpha?",
}
"""What a mistake in a suite's own file is answered with; its title and its datasets are above."""


@pytest.mark.parametrize("text", LINES)
def test_a_mistake_in_a_file_is_named_with_its_line_before_any_work(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    datasets = "" if "datasets" in text else 'datasets = ["bandit/sphere-v0"]'
    Path("mine.toml").write_text(f'title = "Mine"\n{datasets}\n{text}\n')
    algorithm = 'title = "Own"\nobjective = "pmpo"\nrows = "all"\nstart = "scratch"\n[settings]\nalfa = 1\n'
    Path("own.toml").write_text(algorithm)
    with pytest.raises(UserError, match=re.escape(LINES[text])):
        bench("mine.toml", home=tmp_path / "home")
    assert not (tmp_path / "home").exists()


def test_a_name_of_the_command_line_has_no_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text('title = "Mine"\ndatasets = ["bandit/sphere-v0"]\nalgorithms = ["bc"]\n')
    with pytest.raises(UserError, match=r"^unknown algorithm 'nope'"):
        bench("mine.toml", algos=["nope"], home=tmp_path / "home")
