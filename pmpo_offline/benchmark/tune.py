"""Choose hyperparameters by one rule for every learner: as many settings, on data that no table uses.

```
suite ── its datasets, drawn again with another seed ── learners × their settings (baselines/tuning.toml) ── raw scores
                                                                                                                │
     <output>/chosen/<family>/<algorithm>.toml ◀── the setting of the highest mean score over all conditions ◀──┘
```
Training seeds are others than those of tables, and so are the held-out episodes, or the prompts of a language model.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pmpo_offline.benchmark.plan import Plan
from pmpo_offline.benchmark.results import Results
from pmpo_offline.benchmark.runner import execute, family_of
from pmpo_offline.benchmark.suite import Cell, expand
from pmpo_offline.benchmark.table import Row, table
from pmpo_offline.build import build_dataset
from pmpo_offline.data import check_outside
from pmpo_offline.declarations import OBJECTIVES, catalog
from pmpo_offline.declarations.catalog import AlgorithmDeclaration, TuningDeclaration
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.runtime.files import write_text
from pmpo_offline.training.config import complete, multiple
from pmpo_offline.training.control.config import TrainingSettings

TRIAL = " #"
"""Between the name of an algorithm and the number of its setting, from 1."""


@dataclass(frozen=True)
class Tuned:
    """The settings of one learner with their scores."""

    algorithm: AlgorithmDeclaration
    settings: list[dict[str, Any]]
    scores: list[float]
    """Mean over conditions and runs; −inf where a setting has no scores in one of the conditions: it diverged."""

    @property
    def best(self) -> int:
        """The place of the chosen setting: the highest score, the earlier of equal ones."""
        return self.scores.index(max(self.scores))

    @property
    def chosen(self) -> AlgorithmDeclaration:
        """The learner with the chosen setting."""
        return varied(self.algorithm, self.settings[self.best])

    @property
    def budget(self) -> list[float]:
        """The expected score of the best of k settings that are drawn without replacement, for every k from 1.

        Of n ascending scores the i-th is the best of k in C(i − 1, k − 1) of C(n, k) draws. Settings that diverged
        count as the worst of the others.
        """
        return best_of(self.scores)


def best_of(scores: Sequence[float]) -> list[float]:
    """Return the expected score of the best of k settings, see `Tuned.budget`; −inf is one that diverged."""
    known = [score for score in scores if score > -math.inf]
    ascending = sorted(max(score, min(known, default=score)) for score in scores)
    n = len(ascending)
    return [
        sum(math.comb(i, k - 1) * score for i, score in enumerate(ascending)) / math.comb(n, k) for k in range(1, n + 1)
    ]


def tune(
    suite: str,
    *,
    output: str | Path | None = None,
    executor: str = "local",
    workers: int | None = None,
    home: str | Path | None = None,
) -> list[Tuned]:
    """Try every learner's settings on the suite's conditions; what is already in `output` is not run again.

    Args:
        suite: its name, or the path of a suite's `.toml`.
        output: the directory of the raw scores, tune.md and the chosen settings; default `results/tune-<suite>`.
        executor: what runs the cells, one of `EXECUTORS`.
        workers: as in `bench`.
        home: where datasets are.

    Raises:
        UserError: a learner without a declared range, a dataset that is no recipe, or an unknown name.
        PmpoOfflineError: nothing could be trained, or a learner diverged with every setting.
    """
    declared, rule = catalog.suite(suite), catalog.tuning()
    folder = Path("results") / f"tune-{declared.name}" if output is None else Path(output)
    check_outside(folder)
    for place in (folder, folder / "chosen"):
        if place.exists() and not place.is_dir():
            raise UserError(f"{place} is a file, and tune writes a folder there: choose another --output")
    changes: dict[str, Any] = {"shuffled": [], "seeds": rule.seeds, "first_seed": rule.first_seed}
    changes |= {"first_episode": declared.episodes}
    here = catalog.revise(declared, "tune", changes)
    with catalog.located(suite):
        families = {recipe: family_of(recipe) for recipe in declared.datasets}
        arms = expand(here, families)
    ranges = {(cell.algorithm.family, cell.algorithm.name): rule.of(cell.algorithm) for cell in arms}
    drawn = {
        name: build_dataset(name, seed=rule.data_seed, workers=workers, home=home).metadata.id for name in families
    }
    cells = [
        Cell(
            replace(cell.condition, dataset=drawn[cell.condition.dataset]),
            named,
            (complete(named, {}),),
            shuffled=False,
            reference=False,
        )
        for cell in arms
        for number, setting in enumerate(ranges[cell.algorithm.family, cell.algorithm.name].settings, 1)
        for named in [varied(cell.algorithm, setting, f"{cell.algorithm.name}{TRIAL}{number}")]
    ]
    results = Results(folder)
    keys, failures = execute(Plan(here, cells, results, retry_failed=True, workers=workers, home=home), executor)
    by_family = {drawn[recipe]: family for recipe, family in families.items()}
    found = _scored(table(results.read(keys)), by_family, arms, rule)
    lost = [each.algorithm.name for each in found if max(each.scores) == -math.inf]
    found = [each for each in found if each.algorithm.name not in lost]
    for each in found:
        _write_algorithm(folder / "chosen" / each.algorithm.family / f"{each.algorithm.name}.toml", each.chosen)
    write_text(folder / "tune.md", page(declared.title, found, rule))
    if lost:  # what the others cost is kept
        raise PmpoOfflineError(f"{', '.join(lost)}: no setting has all scores: {'; '.join(failures)}")
    return found


def varied(
    algorithm: AlgorithmDeclaration, setting: Mapping[str, Any], name: str | None = None
) -> AlgorithmDeclaration:
    """Return the algorithm with a setting: of its objective, or of its trainer if that has none of the name.

    One of the trainer may be a multiple, "2x", of what the algorithm declares.
    """
    known = OBJECTIVES[algorithm.objective].settings
    ours = {key: value for key, value in setting.items() if key in known}
    defaults = TrainingSettings().model_dump() | algorithm.training
    training: dict[str, Any] = {
        key: float(f"{multiple(value) * defaults[key]:.6g}") if multiple(value) is not None else value
        for key, value in setting.items()
        if key not in known
    }
    changes = {"settings": {**algorithm.settings, **ours}, "training": {**algorithm.training, **training}}
    return algorithm.model_copy(update=changes | ({} if name is None else {"name": name}))


def page(title: str, found: Sequence[Tuned], rule: TuningDeclaration) -> str:
    """Return tune.md: the chosen settings, and the expected score against the number of settings tried."""
    budgets = [*range(1, rule.settings + 1)]
    header = ["family", "learner", "chosen", *(f"best of {k}" for k in budgets), "diverged"]
    lines = [
        [
            each.algorithm.family,
            each.algorithm.name,
            " ".join(f"{key}={value}" for key, value in each.settings[each.best].items()),
            *(f"{score:.1f}" for score in each.budget),
            str(sum(score == -math.inf for score in each.scores)),
        ]
        for each in found
    ]
    rows = [header, ["---"] * 3 + ["---:"] * (rule.settings + 1), *lines]
    text = (
        f"{rule.settings} settings of every learner (baselines/tuning.toml), {rule.seeds} training runs each, on "
        f"datasets of seed {rule.data_seed}, training seeds from {rule.first_seed}, and held-out episodes that no "
        "table uses. Chosen: the highest mean score over all conditions. *Best of k*: the expected score of the best "
        "of k of these settings, which tells what tuning was worth. `chosen/` holds the learners as files for "
        "`bench --algos`."
    )
    return "\n".join([f"# {title}, tuned", "", text, "", *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def _scored(
    rows: Sequence[Row], families: Mapping[str, str], arms: Sequence[Cell], rule: TuningDeclaration
) -> list[Tuned]:
    """Return each learner's settings with their mean scores over the conditions of its family."""
    scores: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        scores.setdefault((families[row["dataset"]], row["algo"]), []).append(row["mean"])
    learners = {(cell.algorithm.family, cell.algorithm.name): cell.algorithm for cell in arms}
    conditions = Counter(family for family, _ in {(cell.algorithm.family, cell.condition) for cell in arms})
    found = []
    for (family, name), algorithm in learners.items():
        settings = rule.of(algorithm).settings
        each = [scores.get((family, f"{name}{TRIAL}{number}"), []) for number in range(1, len(settings) + 1)]
        means = [sum(mine) / len(mine) if len(mine) == conditions[family] else -math.inf for mine in each]
        found.append(Tuned(algorithm, [dict(setting) for setting in settings], means))
    return found


def _write_algorithm(path: Path, algorithm: AlgorithmDeclaration) -> None:
    """Write an algorithm as a file that `catalog` reads; in TOML as in JSON are strings, numbers and Booleans."""
    content = algorithm.model_dump(exclude={"name", "family"}, exclude_defaults=True)
    tables = {key: value for key, value in content.items() if isinstance(value, dict)}
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in content.items() if key not in tables]
    for title, values in tables.items():
        lines += [f"[{title}]", *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items())]
    write_text(path, "\n".join(lines) + "\n")
