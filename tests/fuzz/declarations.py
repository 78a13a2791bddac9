"""Declarations in TOML, and what is typed: sound ones of each kind, and the call that reads them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Literal
from unittest.mock import patch

from helpers.encoded import make

from fuzz.imports import LENGTHS, Target
from pmpo_offline import data
from pmpo_offline.declarations import catalog
from pmpo_offline.evaluation.language import questions

DATASETS = {"recipe": "bandit/sphere-v0", "recipe of control": "mujoco/hopper-medium-v0"}
DATASETS |= {"recipe of responses": "language/tiny-v0", "recipe of stacking": "rgb-stacking/proxy-v0"}
SUITES = {"suite": "suites/quick", "suite with all keys": "suites/map", "suite of language": "suites/language"}
ALGORITHMS = {
    "algorithm": "bandit/pmpo",
    "algorithm of control": "control/iql",
    "algorithm of language": "language/kto",
}


def _toml(source: Path, read: Callable[[str], object]) -> Target:
    """A declaration of the package, copied under its own name."""

    def reading(folder: Path) -> None:
        read(str(folder / source.name))

    return Target(lambda folder: shutil.copy(source, folder), reading)


def _shipped(kind: Literal["datasets", "benchmarks", "baselines"], name: str, read: Callable[[str], object]) -> Target:
    return _toml(catalog.root(kind) / f"{name}.toml", read)


def _recipe(path: str) -> None:
    from pmpo_offline.build.collect import Recipe

    Recipe.of(catalog.dataset(path)).spec(Path(path).parent / "home")


def _algorithm(family: str) -> Callable[[str], None]:
    def read(path: str) -> None:
        from pmpo_offline.training.config import complete, hyperparameters
        from pmpo_offline.training.control.config import TrainingSettings
        from pmpo_offline.training.language.config import LanguageSettings

        algorithm = catalog.algorithm(path, family)
        complete(algorithm, {})
        hyperparameters(algorithm, {}, LanguageSettings if family == "language" else TrainingSettings)

    return read


def _in_place(read: Callable[[], object]) -> Callable[[str], None]:
    """Read with the folder of the damaged file in place of the package's."""

    def reading(path: str) -> None:
        with patch.object(catalog, "root", lambda _: Path(path).parent):
            read()

    return reading


TYPED = {
    "where": "return > -0.5 and behavior = 'expert'",
    "label": "return:q0.5:0.1",
    "set": "0.5",
}


def _typed(folder: Path) -> None:
    for name, text in TYPED.items():
        (folder / name).write_text(text)


@cache
def _dataset() -> data.Dataset:
    path = Path(tempfile.mkdtemp()) / "test/small-v0"
    data.write(path, *make(LENGTHS))
    return data.load_dataset(path)


def _read_typed(folder: Path) -> None:
    """Use each text as the command line would."""
    from pmpo_offline.cli.console import parse_value
    from pmpo_offline.runtime.errors import PmpoOfflineError

    dataset = _dataset()
    uses: dict[str, Callable[[str], object]] = {
        "where": dataset.filter,
        "label": lambda text: dataset.relabelled(label=text),
        "set": parse_value,
    }
    refused = None
    for name, use in uses.items():
        try:
            use((folder / name).read_text(errors="replace"))
        except PmpoOfflineError as error:
            refused = error
    if refused:
        raise refused


DECLARATIONS: dict[str, Target] = {
    **{name: _shipped("datasets", path, _recipe) for name, path in DATASETS.items()},
    **{name: _shipped("benchmarks", path, catalog.suite) for name, path in SUITES.items()},
    **{name: _shipped("baselines", path, _algorithm(path.split("/")[0])) for name, path in ALGORITHMS.items()},
    "tuning": _shipped("baselines", "tuning", _in_place(catalog.tuning)),
    "references": _shipped("baselines", "references", _in_place(lambda: catalog.references("mujoco/hopper"))),
    "critics": _shipped("baselines", "critics", _in_place(lambda: catalog.critic("mujoco/hopper-medium-v0"))),
    "questions": _toml(questions.SHIPPED, lambda path: questions.templates(Path(path))),
    "what is typed": Target(_typed, _read_typed),
}
