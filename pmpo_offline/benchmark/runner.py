"""From a request to a table: revise the suite, expand it, execute the cells whose scores are missing, report.

What is stored is not run again, so that a later run continues where one was stopped.
"""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from pmpo_offline import data
from pmpo_offline.benchmark.executors import Outcome
from pmpo_offline.benchmark.plan import Agenda, Plan, prepare
from pmpo_offline.benchmark.registries import EXECUTORS
from pmpo_offline.benchmark.report import Benchmark, publish
from pmpo_offline.benchmark.results import Results
from pmpo_offline.benchmark.suite import Cell, Sweep, expand
from pmpo_offline.build.known import check_declared
from pmpo_offline.data import Dataset, check_outside
from pmpo_offline.data.storage import stored_at
from pmpo_offline.declarations import catalog
from pmpo_offline.declarations.catalog import Balance, Share
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.arguments import checked
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.runtime.files import atomic_file

ROUNDS = 4
"""How often a unit is started whose process dies, before that is recorded as its failure."""


@checked()
def bench(
    suite: str = "quick",
    *,
    algos: Sequence[str] | str | None = None,
    datasets: Sequence[str | Dataset] | str | Dataset | None = None,
    imbalance: Sequence[Share] | None = None,
    balance: Sequence[Balance] | None = None,
    noise: Sequence[float] | None = None,
    seeds: int | None = None,
    episodes: int | None = None,
    updates: int | None = None,
    settings: Sweep | None = None,
    output: str | Path | None = None,
    fresh: bool = False,
    retry_failed: bool = False,
    shard: tuple[int, int] | None = None,
    executor: str = "local",
    workers: int | None = None,
    home: str | Path | None = None,
) -> Benchmark:
    """Run a suite and return its table; what is already in `output` is not run again.

    Args:
        suite: its name, or the path of a suite's `.toml`.
        algos: run only these (or this; and the suite's reference, and the shuffled controls among these).
        datasets: ids or paths of datasets, or datasets, in place of the suite's. One that was changed in memory is
            stored in `output`, under datasets/.
        imbalance: accepted shares, "collected" for labels without a balance, None for those that the dataset has; in
            place of the suite's.
        balance: what is dropped for a share, "labels" or "rows", in place of the suite's.
        noise: rates of flipped labels, in place of the suite's.
        seeds: training runs a row; their seeds are 0, 1, ….
        episodes: evaluation episodes a run, or responses that a language model samples.
        updates: gradient steps a run, in place of what the algorithms declare.
        settings: values to try, `{"pmpo": {"beta": [0.5, 1, 2]}}`; every combination becomes a row.
        output: the directory of the results; default `results/<suite>`.
        fresh: remove the scores of this benchmark in `output` and run it all again.
        retry_failed: run the cells again whose failure is recorded in `output`.
        shard: (i, n), run the i-th of n parts of the suite, i from 1: parts that several machines run make one table
            when their `raw` folders are merged (`report_on`).
        executor: what runs the cells, one of `EXECUTORS`.
        workers: processes at once, also where a dataset is collected; default, one per core (of language models four
            at most, each holds the model). One is this process itself.
        home: where datasets are; default `$PMPO_OFFLINE_DATASETS`, else the user's cache.

    Raises:
        UserError: something in the request is unknown, malformed or impossible.
        PmpoOfflineError: no cell could be trained.
    """
    algos = [algos] if isinstance(algos, str) else algos
    datasets = [datasets] if isinstance(datasets, str | Dataset) else datasets
    declared = catalog.suite(suite)
    results = Results(Path("results") / declared.name if output is None else Path(output))
    check_outside(results.output)
    if datasets is not None:
        datasets = [_on_disk(given, results.output / "datasets", home) for given in datasets]
    replaced: dict[str, Any] = {"datasets": datasets, "imbalance": imbalance, "balance": balance, "noise": noise}
    replaced |= {"seeds": seeds, "episodes": episodes, "updates": updates}
    changes = {name: value for name, value in replaced.items() if value is not None}
    declared = catalog.revise(declared, "bench", changes)
    with catalog.located(suite):
        families = {name: _family(name, home) for name in declared.datasets}
        cells = expand(declared, families, algos=algos, sweep=settings)
    if shard is not None:
        cells = part(cells, *shard)
    keys, failures = execute(Plan(declared, cells, results, fresh, retry_failed, workers, home), executor)
    chosen = {} if algos is None else {"algos": algos}
    results.record(_command(suite, chosen | changes, settings))
    return publish(results, declared.title, keys, failures)


def _command(suite: str, changes: Mapping[str, Any], sweep: Sweep | None) -> str:
    """Return the command line of a benchmark: the suite, its changed options, and the values to try."""
    words = ["pmpo-offline", "bench", suite]
    for name, value in changes.items():
        values = [value] if isinstance(value, str | int | float) else value
        words += [f"--{name}", ",".join(map(str, values))]
    for algorithm, settings in (sweep or {}).items():
        for setting, values in settings.items():
            words += ["--set", f"{algorithm}.{setting}={','.join(map(str, values))}"]
    return shlex.join(words)


def execute(plan: Plan, executor: str) -> tuple[list[str], list[str]]:
    """Run what is missing of a plan; return the keys of all rows with scores, and a line for all else.

    Raises the last `PmpoOfflineError` if there are no scores at all, and `UserError` for an unknown executor or one
    whose packages are not installed.
    """
    chosen = EXECUTORS[executor](plan)
    with plan.results.claim("request", wait=False):
        pass  # refused here, before datasets are built, if nothing can be written
    agenda = prepare(plan)
    units, total = agenda.units, len(agenda.units)
    lost: dict[str, str] = {}
    for _ in range(ROUNDS):
        for outcome in chosen.run(units) if units else ():
            _accept(outcome, plan.results, lost)
            progress.report("benchmark", sum(unit.is_settled for unit in agenda.units), total)
        # What another benchmark had claimed, or what was lost: the next rounds wait for it, or run it.
        units = [replace(unit, wait=True) for unit in units if not unit.is_settled]
    for unit in units:
        for key in unit.rows:
            if not plan.results.is_settled(key):
                reason = lost.get(unit.name, "it was not run")
                plan.results.fail(key, unit.cell.title, PmpoOfflineError(f"{reason} ({ROUNDS} attempts)"))
    return _concluded(agenda, plan.results)


def _accept(outcome: Outcome, results: Results, lost: dict[str, str]) -> None:
    for message in outcome.warnings:
        warnings.warn(message, stacklevel=4)
    for name, content in outcome.files.items():
        path = results.output / name
        if not path.exists():
            with atomic_file(path) as scratch:
                scratch.write_bytes(content)
    if outcome.lost is not None:
        lost |= {unit.name: outcome.lost for unit in outcome.units}


def _concluded(agenda: Agenda, results: Results) -> tuple[list[str], list[str]]:
    keys = [key for key in agenda.keys if results.path(key).exists()]
    failures = [failure for key in agenda.keys if (failure := results.failure(key)) is not None]
    if not keys and (agenda.errors or failures):
        raise failures[-1].exception if failures else agenda.errors[-1][1]
    lines = [*(f"{title}: {error}" for title, error in agenda.errors), *map(str, failures)]
    return keys, list(dict.fromkeys(lines))


def part(cells: list[Cell], number: int, count: int) -> list[Cell]:
    """Return the cells of one of `count` shards, neighbours, so that most shards open few datasets.

    Raises `UserError` for a shard that does not exist or is empty.
    """
    if not 1 <= number <= count:
        raise UserError(f"shard {number}/{count}: write I/N, with I from 1 to N")
    if count > len(cells):
        raise UserError(f"shard {number}/{count}: the suite has {len(cells)} cells, make at most that many shards")
    return cells[len(cells) * (number - 1) // count : len(cells) * number // count]


def _on_disk(given: str | Dataset, folder: Path, home: str | Path | None) -> str:
    """Return the id or path of a dataset, which is stored in `folder` if it was changed in memory."""
    if isinstance(given, str):
        return given
    for name in (given.metadata.id, str(given.path)):
        with suppress(PmpoOfflineError):
            if data.load_dataset(name, home=home).content_hash == given.content_hash:
                return name
    metadata = given.metadata.model_copy(update={"files": {}})
    data.write(folder / metadata.id, metadata, given.tables, overwrite=True)
    return str(folder / metadata.id)


def _family(dataset: str, home: str | Path | None) -> str:
    """Return the family of a dataset; a mistyped name is refused here, before hours of training."""
    if stored := stored_at(dataset, home):
        built = data.read_metadata(stored)
        return catalog.family(built.task, by_step=built.label.by_step)
    check_declared(dataset, home)
    return family_of(dataset)


def family_of(recipe: str) -> str:
    """Return the family of the dataset that a recipe makes; `UserError` if there is no such recipe."""
    declared = catalog.dataset(recipe)
    return catalog.family(declared.task, by_step=data.LabelRule.parse(declared.label).by_step)
