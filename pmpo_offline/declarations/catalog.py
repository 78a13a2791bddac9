"""Find and validate the declarations: what can be built, run and learned with.

```
datasets/<namespace>/<name>.toml     a recipe for a dataset, found by the id it holds
benchmarks/suites/<suite>.toml              a suite, named by its file
baselines/<family>/<algorithm>.toml  an algorithm's hyperparameters for a family of tasks, named by its file
```
They stand in the repository's root in a checkout and in `pmpo_offline/_declarations/` in an installed wheel.
Wherever a name is asked for, the path of a `.toml` file of one's own serves too.
"""

from __future__ import annotations

import importlib.metadata
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError

from pmpo_offline.runtime.errors import UserError, unknown

Rate = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[
    # Told apart by hand, so that an error speaks of the number and not of the word that it is not.
    Annotated[Rate | None, Tag("share")] | Annotated[Literal["collected"], Tag("word")],
    Discriminator(lambda value: "word" if value == "collected" else "share"),
]
"""An accepted share; "collected", the one that the labels had when they were collected; None, as the dataset has it."""
Count = Annotated[int, Field(ge=1)]


class Declaration(BaseModel):
    """What all declarations have in common: they are frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DatasetDeclaration(Declaration):
    """A recipe for a dataset; its task validates `behavior`, `critic`, `candidates` and `sampling`."""

    id: str
    kind: Literal["transitions", "candidates", "responses"]
    task: str
    title: str
    description: str = ""
    licence: str
    episodes: Count
    """How many to collect; of kind "responses": how many prompts."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    label: str
    imbalance: Rate | None = None
    """Accepted share of the labelled units; None: as collected."""
    noise: Rate = 0.0
    critic: dict[str, Any] = {}
    candidates: dict[str, Any] = {}
    behavior: list[dict[str, Any]] = []
    sampling: dict[str, Any] = {}
    """Of kind "responses": who answers, how often, and which prompts are for tests."""


class SuiteDeclaration(Declaration):
    """A grid of training runs that makes one table: datasets × imbalance × noise × algorithms × seeds."""

    name: str
    title: str
    description: str = ""
    datasets: Annotated[list[str], Field(min_length=1)]
    """Of one family of tasks or of several: every algorithm is declared for each of them."""
    imbalance: Annotated[list[Share], Field(min_length=1)] = [None]
    noise: Annotated[list[Rate | None], Field(min_length=1)] = [None]
    """Rates of flipped labels; None: as the dataset has it."""
    algorithms: Annotated[list[str], Field(min_length=1)]
    reference: str | None = None
    """The algorithm that learns without feedback: it is part of every run, and the others are compared with it."""
    shuffled: list[str] = []
    """Algorithms that run again on shuffled labels: one that does as well there has learned nothing from feedback."""
    seeds: Count = 5
    episodes: Count = 100
    """Evaluation episodes a training run; of a language model, sampled responses."""
    updates: Count | None = None
    """Gradient steps, where the suite overrides what the algorithms declare."""
    training: dict[str, Any] = {}
    """More of the trainer's hyperparameters, where the suite overrides what the algorithms declare."""


class AlgorithmDeclaration(Declaration):
    """An objective with the hyperparameters that suit one family of tasks."""

    name: str
    family: str
    title: str
    description: str = ""
    objective: str
    rows: Literal["all", "accepted", "balanced", "top", "candidates", "pairs"]
    """What a minibatch is made of: all recorded steps, the accepted ones, as many accepted as rejected ones, or those
    of the episodes of the highest returns; states with their candidate actions; or pairs of an accepted and a rejected
    candidate."""
    top: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of the episodes that `rows = "top"` is made of."""
    start: Literal["scratch", "reference"]
    settings: dict[str, bool | int | float | str] = {}
    """The objective's hyperparameters."""
    critic: dict[str, Any] = {}
    """For a learner from rewards: the critic that learns beside the policy; `training.learned` validates it."""
    training: dict[str, Any] = {}
    """The trainer's: updates, batch, learning_rate, …; the trainer validates them."""


def root(kind: Literal["datasets", "benchmarks", "baselines"]) -> Path:
    """Return the directory that holds one kind of declarations."""
    package = Path(__file__).parents[1]
    installed = package / "_declarations"
    return (installed if installed.is_dir() else package.parent) / kind


def dataset(name: str) -> DatasetDeclaration:
    """Return the recipe with this id; `UserError` if there is none or it is malformed."""
    return _find("dataset", name, _dataset_files(), DatasetDeclaration)


def suite(name: str) -> SuiteDeclaration:
    """Return the suite of this name; `UserError` if there is none or it is malformed."""
    return _find("suite", name, _suite_files(), SuiteDeclaration)


def algorithm(name: str, family: str = "control") -> AlgorithmDeclaration:
    """Return the algorithm of this name as declared for a family of tasks; `UserError` if there is none."""
    if family not in families():
        raise unknown("family of algorithms", family, families())
    files = _algorithm_files(family)
    elsewhere = [other for other in families() if name in _algorithm_files(other)]
    if elsewhere and name not in files:
        raise UserError(
            f"algorithm {name} is declared for {', '.join(elsewhere)} and not for {family}: leave it out there, or "
            f"take one of {', '.join(sorted(files))}"
        )
    return _find("algorithm", name, files, AlgorithmDeclaration)


def families() -> list[str]:
    """Return the families of tasks that algorithms are declared for."""
    return sorted(path.name for path in root("baselines").iterdir() if next(path.glob("*.toml"), None))


def family(task: str) -> str:
    """Return the family of a task: its namespace where algorithms are declared for that, else "control"."""
    namespace = task.partition("/")[0]
    return namespace if namespace in families() else "control"


def datasets() -> list[DatasetDeclaration]:
    """Return every recipe, sorted by id."""
    return [_read(path, DatasetDeclaration) for _, path in sorted(_dataset_files().items())]


def suites() -> list[SuiteDeclaration]:
    """Return every suite, sorted by name."""
    return [_read(path, SuiteDeclaration) for _, path in sorted(_suite_files().items())]


def algorithms(family: str = "control") -> list[AlgorithmDeclaration]:
    """Return every algorithm declared for a family of tasks, sorted by name."""
    return [_read(path, AlgorithmDeclaration) for _, path in sorted(_algorithm_files(family).items())]


def references(task: str) -> dict[str, Any] | None:
    """Return a task's reference scores (min, max, how, versions), None if nobody measured them.

    They are written by `benchmarks/measure_references.py`, once for every set of the simulators' versions; returns of
    other versions than the installed ones say nothing of what is simulated here.
    """
    for each in _toml(root("baselines") / "references.toml").get(task, []):
        if all(_installed(name) == version for name, version in each.get("versions", {}).items()):
            found: dict[str, Any] = each
            return found
    return None


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def dataset_ids() -> list[str]:
    """Return the ids of all recipes."""
    return list(_dataset_files())


def is_declared(name: str) -> bool:
    """Return whether there is a recipe with this id or at this path."""
    return name in _dataset_files() or (name.endswith(".toml") and Path(name).is_file())


def _dataset_files() -> dict[str, Path]:
    # Recipes are found by the id they hold: a file may stand anywhere below datasets/, next to the data that it ships.
    return {str(_toml(path).get("id", path.stem)): path for path in root("datasets").rglob("*.toml")}


def _suite_files() -> dict[str, Path]:
    return {path.stem: path for path in (root("benchmarks") / "suites").glob("*.toml")}


def _algorithm_files(family: str) -> dict[str, Path]:
    return {path.stem: path for path in (root("baselines") / family).glob("*.toml")}


D = TypeVar("D", bound=Declaration)


def revise(declaration: D, source: str, changes: Mapping[str, Any]) -> D:
    """Return the declaration with some fields replaced and everything validated again.

    `UserError` names `source`, whoever asked for the changes.
    """
    return _validate(type(declaration), {**declaration.model_dump(), **changes}, source)


def _find(kind: str, name: str, files: dict[str, Path], model: type[D]) -> D:
    if name in files:
        return _read(files[name], model)
    if name.endswith(".toml"):
        if not Path(name).is_file():
            raise UserError(f"{kind} {name}: there is no such file")
        return _read(Path(name), model)
    raise unknown(kind, name, files)


def _read(path: Path, model: type[D]) -> D:
    content = _toml(path)
    # A name repeated inside the file could contradict the file's own, so it is not a key there.
    implied = {"name": path.stem} if "name" in model.model_fields else {}
    if model is AlgorithmDeclaration:
        implied["family"] = path.parent.name
    if repeated := sorted(implied.keys() & content.keys()):
        raise UserError(f"{path}: {repeated[0]}: comes from the file's place and cannot be set; remove it")
    return _validate(model, {**content, **implied}, str(path))


def _validate(model: type[D], content: Mapping[str, Any], source: str) -> D:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first, *others = error.errors()
        more = f" (and {len(others)} more)" if others else ""
        if first["type"] == "extra_forbidden":
            raise UserError(f"{source}: {unknown('key', str(first['loc'][-1]), model.model_fields)}{more}") from None
        where = ".".join(str(part) for part in first["loc"])
        value = "" if first["type"] == "missing" else f", not {first['input']!r}"
        raise UserError(f"{source}: {where}: {first['msg'].lower()}{value}{more}") from None


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid TOML: {error}") from None
