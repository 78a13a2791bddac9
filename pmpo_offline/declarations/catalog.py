"""Find and validate declarations: recipes of datasets, suites, algorithms, reference scores.

```
datasets/<namespace>/<name>.toml     a recipe for a dataset, found by the id it holds
benchmarks/suites/<suite>.toml       a suite, named by its file
baselines/<family>/<algorithm>.toml  an algorithm's hyperparameters for a family of tasks, named by its file
```
They are in the repository's root in a checkout and in `pmpo_offline/_declarations/` in an installed wheel.
Wherever a name is expected, the path of a `.toml` file does too. Other packages add recipes and algorithms by entry
points of the groups `pmpo_offline.datasets` and `pmpo_offline.algorithms`, each the name of a package whose folder
holds such files: `my_package.algorithms` with `<family>/<algorithm>.toml`.
"""

from __future__ import annotations

import importlib.metadata
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag

from pmpo_offline.runtime.arguments import validated
from pmpo_offline.runtime.errors import UserError, unknown
from pmpo_offline.runtime.files import read_toml
from pmpo_offline.runtime.hashing import version
from pmpo_offline.runtime.registry import Registry

Rate = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[
    # Discriminated, so that the error for a number out of range does not mention the word.
    Annotated[Rate | None, Tag("")] | Annotated[Literal["collected"], Tag("word")],
    Discriminator(lambda value: "word" if value == "collected" else ""),
]
"""An accepted share; "collected": the share before balancing; None: the dataset's own."""
Balance = Literal["labels", "rows"]
"""What is dropped to reach an accepted share: labels (the rows stay, unlabelled), or labelled units with their rows."""


def _on_one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError(f"{text[:40]!r} holds characters that a table cannot show")
    return text


Line = Annotated[str, AfterValidator(_on_one_line)]
"""Text without control characters, as names and titles in tables and on terminals."""
Count = Annotated[int, Field(ge=1, lt=2**31)]


class Declaration(BaseModel):
    """Base of all declarations: frozen, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DatasetDeclaration(Declaration):
    """A recipe for a dataset; its task validates `behavior`, `critic`, `candidates` and `sampling`."""

    id: str
    kind: Literal["transitions", "candidates", "responses"]
    task: str
    title: Line
    description: str = ""
    licence: str
    episodes: Count
    """Episodes to collect; of kind "responses": prompts."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    label: str
    imbalance: Rate | None = None
    """Accepted share of the labelled units; None: as collected."""
    balance: Balance = "labels"
    noise: Rate = 0.0
    critic: dict[str, Any] = {}
    candidates: dict[str, Any] = {}
    behavior: list[dict[str, Any]] = []
    sampling: dict[str, Any] = {}
    """Of kind "responses": the model that answers, completions a prompt, and the share of test prompts."""


class SuiteDeclaration(Declaration):
    """A grid of training runs that makes one table: datasets × imbalance × balance × noise × algorithms × seeds."""

    name: Line
    title: Line
    description: str = ""
    datasets: Annotated[list[str], Field(min_length=1)]
    """Of one family of tasks or of several: every algorithm is declared for each of them."""
    imbalance: Annotated[list[Share], Field(min_length=1)] = [None]
    balance: Annotated[list[Balance], Field(min_length=1)] = ["labels"]
    noise: Annotated[list[Rate | None], Field(min_length=1)] = [None]
    """Rates of flipped labels; None: the dataset's own."""
    algorithms: Annotated[list[str], Field(min_length=1)]
    reference: str | None = None
    """The algorithm that learns without feedback: part of every run, and compared with all others."""
    filtered: list[str] = []
    """Clones of filtered data: part of every run, because a method is worth something where it beats them."""
    shuffled: list[str] = []
    """Algorithms that also run on shuffled labels, as a control: equal scores there mean feedback taught nothing."""
    seeds: Count = 5
    first_seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """The seeds of the training runs are this one and those that follow it."""
    episodes: Count = 100
    """Evaluation episodes a training run; of a language model, sampled responses."""
    first_episode: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """How many of the held-out episodes are left out before these; language models have no such order of prompts."""
    updates: Count | None = None
    """Gradient steps, where the suite overrides what the algorithms declare."""
    pretraining: Annotated[float, Field(gt=0, lt=1)] | None = None
    """In control: the share of `updates` that the clone has from which a learner starts, which then has the rest, so
    that all learners have as many. None: both have as many as declared."""
    training: dict[str, Any] = {}
    """More of the trainer's hyperparameters, where the suite overrides what the algorithms declare."""


class TuningRange(Declaration):
    """The settings of one learner among which it is tuned."""

    source: str
    """Where the range is from."""
    settings: list[dict[str, bool | int | float | str]]
    """Of the objective, or of the trainer if the objective has none of the name."""


class TuningDeclaration(Declaration):
    """The rule by which every learner gets its hyperparameters: the same number of settings, on data of their own."""

    model_config = ConfigDict(frozen=True, extra="allow")

    settings: Count
    """Settings a learner, equal for all."""
    seeds: Count
    """Training runs a setting."""
    first_seed: Count
    data_seed: Count
    """Seed of the datasets that are tuned on, in place of the recipes' own."""

    def of(self, algorithm: AlgorithmDeclaration) -> TuningRange:
        """Return a learner's range, its family's own or that of any family.

        Raises `UserError` where none is declared or it has another number of settings.
        """
        declared = self.model_extra or {}
        ranges = {**declared.get("any", {}), **declared.get(algorithm.family, {})}
        where = f"baselines/tuning.toml [{algorithm.family}.{algorithm.name}]"
        if algorithm.name not in ranges:
            raise UserError(f"{where}: no range is declared: add {self.settings} settings with their source")
        found = validated(TuningRange, ranges[algorithm.name], where)
        if len(found.settings) != self.settings:
            raise UserError(f"{where}: {len(found.settings)} settings where every learner has {self.settings}")
        return found


class AlgorithmDeclaration(Declaration):
    """An objective with the hyperparameters that suit one family of tasks."""

    name: Line
    family: str
    title: Line
    description: str = ""
    objective: str
    rows: Literal["all", "accepted", "unrejected", "balanced", "top", "candidates", "pairs", "label_pairs"]
    """Rows of a minibatch: all recorded steps, the accepted ones, all but the rejected ones, as many accepted as
    rejected ones, those of the episodes of the highest returns, states with their candidate actions, pairs of an
    accepted and a rejected candidate, or pairs of an accepted and a rejected step where all steps have one context."""
    top: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of the episodes that `rows = "top"` draws from."""
    start: Literal["scratch", "reference"]
    settings: dict[str, bool | int | float | str] = {}
    """The objective's hyperparameters."""
    critic: dict[str, Any] = {}
    """Settings of the critic that learns beside the policy, for algorithms that learn from rewards."""
    training: dict[str, Any] = {}
    """The trainer's hyperparameters (updates, batch, learning_rate, …), validated there."""


D = TypeVar("D", bound=Declaration)
EPISODES = "episodes"
"""The family of control tasks whose labels are of whole episodes, or given by people."""


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
    known = families()
    if family not in known:
        raise unknown("family of algorithms", family, known)
    files = _algorithm_files(family)
    if name not in files and (elsewhere := [other for other in known if name in _algorithm_files(other)]):
        raise UserError(
            f"algorithm {name} is declared for {', '.join(elsewhere)} and not for {family}: leave it out there, or "
            f"take one of {', '.join(sorted(files))}"
        )
    return _find("algorithm", name, files, AlgorithmDeclaration, family)


def check_algorithm(name: str) -> None:
    """Raise `UserError` if no family of tasks has an algorithm of this name; a `.toml` is read later."""
    if not name.endswith(".toml") and name not in (known := algorithm_names()):
        raise unknown("algorithm", name, known)


def algorithm_names() -> list[str]:
    """Return the name of every algorithm of any family, sorted."""
    return sorted({name for family in families() for name in _algorithm_files(family)})


def families() -> list[str]:
    """Return the families of tasks that algorithms are declared for, sorted."""
    return sorted({path.parent.name for folder in _folders("algorithms") for path in folder.glob("*/*.toml")})


def family(task: str, *, by_step: bool = True) -> str:
    """Return the family of a dataset's hyperparameters: its task's namespace, where algorithms are declared for that.

    Of any other task "control" if labels were computed for every step (`by_step`, as from advantages), else "episodes":
    a label of a whole episode, or that a person gave, makes long stretches of rejects with no accept near them, from
    which a policy runs away unless β is above its bound. What is not declared for "episodes" is as for "control".
    """
    namespace = task.partition("/")[0]
    return namespace if namespace in families() else "control" if by_step else EPISODES


def datasets() -> list[DatasetDeclaration]:
    """Return every recipe, sorted by id."""
    return [_read(path, DatasetDeclaration) for _, path in sorted(_dataset_files().items())]


def suites() -> list[SuiteDeclaration]:
    """Return every suite, sorted by name."""
    return [_read(path, SuiteDeclaration) for _, path in sorted(_suite_files().items())]


def algorithms(family: str = "control") -> list[AlgorithmDeclaration]:
    """Return every algorithm declared for a family of tasks, sorted by name."""
    return [_read(path, AlgorithmDeclaration) for _, path in sorted(_algorithm_files(family).items())]


def tuning() -> TuningDeclaration:
    """Return the rule of `tune` with the range of every learner; `UserError` if it is malformed."""
    path = root("baselines") / "tuning.toml"
    return validated(TuningDeclaration, read_toml(path), str(path))


def is_declared(name: str) -> bool:
    """Return whether there is a recipe with this id or at this path."""
    return name in _dataset_files() or (name.endswith(".toml") and Path(name).is_file())


def source(kind: Literal["datasets", "algorithms"], name: str, family: str = "control") -> str:
    """Return the package that declares a recipe or an algorithm; `KeyError` if there is none of this name."""
    path = (_dataset_files() if kind == "datasets" else _algorithm_files(family))[name]
    return next(package for folder, package in _folders(kind).items() if path.is_relative_to(folder))


def references(task: str) -> dict[str, Any] | None:
    """Return a task's reference scores (min, max, how, versions), None where none were measured.

    They are measured once for every set of the simulators' versions; scores of other versions than the installed ones
    do not apply to what is simulated here.
    """
    for found in read_toml(root("baselines") / "references.toml").get(task, []):
        if all(_installed(name) == wanted for name, wanted in found.get("versions", {}).items()):
            return dict(found)
    return None


def critic(dataset: str) -> dict[str, Any] | None:
    """Return how well a critic ranks a dataset's candidates (right, low, high, how), None where it was not measured."""
    found = read_toml(root("baselines") / "critics.toml").get(dataset)
    return None if found is None else dict(found)


def revise(declaration: D, source: str, changes: Mapping[str, Any]) -> D:
    """Return the declaration with some fields replaced, validated again; a `UserError` begins with `source`."""
    return validated(type(declaration), {**declaration.model_dump(), **changes}, source)


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@cache
def _registry(kind: Literal["datasets", "algorithms"]) -> Registry[Path | ModuleType]:
    own = root("baselines" if kind == "algorithms" else "datasets")
    return Registry(f"package of {kind}", f"pmpo_offline.{kind}", {"pmpo-offline": own})


def _folders(kind: Literal["datasets", "algorithms"]) -> dict[Path, str]:
    """Return the folders that hold recipes or algorithms, ours and those of other packages, each with its package."""
    registry = _registry(kind)
    return {
        path: registry.source(name)
        for name, found in registry.items()
        for path in ([found] if isinstance(found, Path) else map(Path, found.__path__))
    }


def _dataset_files() -> dict[str, Path]:
    # By the ids that they hold: a recipe may be anywhere below its folder, next to the data that it ships.
    paths = [path for folder in _folders("datasets") for path in folder.rglob("*.toml")]
    return _by_name("dataset", [(str(read_toml(path).get("id", path.stem)), path) for path in paths])


def _suite_files() -> dict[str, Path]:
    return {path.stem: path for path in (root("benchmarks") / "suites").glob("*.toml")}


def _algorithm_files(family: str) -> dict[str, Path]:
    paths = [path for folder in _folders("algorithms") for path in (folder / family).glob("*.toml")]
    own = _by_name("algorithm", [(path.stem, path) for path in paths])
    return {**_algorithm_files("control"), **own} if family == EPISODES else own


def _by_name(kind: str, found: list[tuple[str, Path]]) -> dict[str, Path]:
    """Return the files by name, of two files of one name the first, with a warning."""
    files: dict[str, Path] = {}
    for name, path in found:
        if files.setdefault(name, path) != path:
            warnings.warn(
                f"{path}: the {kind} {name} exists already, in {files[name]}: this one is left out, rename it",
                stacklevel=2,
            )
    return files


def _find(kind: str, name: str, files: dict[str, Path], model: type[D], family: str | None = None) -> D:
    if name in files:
        return _read(files[name], model)
    if name.endswith(".toml"):
        if not Path(name).is_file():
            raise UserError(f"{kind} {name}: there is no such file")
        return _read(Path(name), model, family)
    raise unknown(kind, name, files)


def _read(path: Path, model: type[D], family: str | None = None) -> D:
    """Read a declaration; an algorithm's family is that of its folder, of a user's own file the one asked for."""
    content = read_toml(path)
    # A name repeated inside the file could contradict the file's own, so it is not a key there.
    implied = {"name": path.stem} if "name" in model.model_fields else {}
    if model is AlgorithmDeclaration:
        implied["family"] = family or path.parent.name
    if repeated := sorted(implied.keys() & content.keys()):
        raise UserError(f"{path}: {repeated[0]}: comes from the file's place and cannot be set; remove it")
    with located(path):
        return validated(model, {**content, **implied}, str(path))


@contextmanager
def located(declaration: str | Path) -> Iterator[None]:
    """Add the line of a .toml to errors about a name or a key that is in it; other names change no error."""
    try:
        yield
    except UserError as error:
        path = Path(declaration)
        line = _line_of(path, error.about) if path.suffix == ".toml" and path.is_file() else None
        if line is None:
            raise
        raise UserError(f"{path}, line {line}: {str(error).removeprefix(f'{path}: ')}") from None


def _line_of(path: Path, about: Sequence[str]) -> int | None:
    """Return the first line with the first of these words that is a key, a table or a text in a TOML file."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for word in map(re.escape, about):
        found = re.compile(rf"""\s*(\[\s*)?["']?{word}["']?\s*[=.\]]|[^#]*["']{word}["']""")
        if number := next((number for number, line in enumerate(lines, 1) if found.match(line)), None):
            return number
    return None
