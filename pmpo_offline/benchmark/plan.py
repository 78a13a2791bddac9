"""What of a benchmark is still to be run: its cells on their datasets → rows with keys → units without scores."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from itertools import groupby
from pathlib import Path

from pmpo_offline import data
from pmpo_offline.benchmark.results import Results
from pmpo_offline.benchmark.suite import Cell, Condition, Job, Settings
from pmpo_offline.build import build_dataset
from pmpo_offline.data import Dataset
from pmpo_offline.data.storage import stored_at
from pmpo_offline.declarations.catalog import SuiteDeclaration
from pmpo_offline.evaluation.rollouts import check_scorable
from pmpo_offline.runtime.errors import PmpoOfflineError
from pmpo_offline.runtime.hashing import hash_json
from pmpo_offline.training.control.config import TrainingSettings

Missing = dict[str, Settings]
"""The settings of the rows that are to be run, by key."""


@dataclass(frozen=True)
class Plan:
    """A suite's cells, and where and how to run them."""

    suite: SuiteDeclaration
    cells: Sequence[Cell]
    """Those on equal data are neighbours."""
    results: Results
    fresh: bool = False
    """Remove the scores of these cells first."""
    retry_failed: bool = False
    """Run the rows again whose failure is recorded."""
    workers: int | None = None
    """Processes at once; default one per core."""
    home: str | Path | None = None


@dataclass(frozen=True)
class Unit:
    """What one process trains and evaluates: all missing rows of a control cell, or one row of a language cell.

    It is sent to other processes and machines, where its dataset is opened or built again and compared by hash.
    """

    suite: SuiteDeclaration
    cell: Cell
    rows: Missing
    dataset_sha: str
    model: str | None
    """Content hash of the language model that training starts from."""
    is_language: bool
    output: Path
    """The folder of the results."""
    home: Path | None
    wait: bool = False
    """Whether to wait where another benchmark is running these rows, or to leave them to it."""

    @property
    def name(self) -> str:
        """A short hash of its rows."""
        return stack_name(self.rows)

    @property
    def updates(self) -> int:
        """Gradient steps of all its runs together."""
        training = {**self.cell.algorithm.training, **self.suite.training}
        steps = self.suite.updates or training.get("updates") or TrainingSettings().updates
        return int(steps) * self.suite.seeds * len(self.rows)

    @cached_property
    def results(self) -> Results:
        """The store of the scores."""
        return Results(self.output)

    @property
    def is_settled(self) -> bool:
        """Whether all rows have scores or have failed."""
        return all(self.results.is_settled(key) for key in self.rows)


@dataclass
class Agenda:
    """The rows of a plan, and what of them is to be run."""

    keys: list[str] = field(default_factory=list)
    units: list[Unit] = field(default_factory=list)
    errors: list[tuple[str, PmpoOfflineError]] = field(default_factory=list)
    """Titles of cells and conditions that are impossible, such as DPO where nothing is accepted, and why."""

    @contextmanager
    def collecting(self, title: str) -> Iterator[None]:
        """Collect an error: where an algorithm or a share is impossible, others are not, and the table goes on."""
        try:
            yield
        except PmpoOfflineError as error:
            self.errors.append((title, error))


def prepare(plan: Plan) -> Agenda:
    """Open the dataset of every condition, building what is missing, and find the rows that are to be run."""
    agenda, hashed = Agenda(), cache(partial(base_model, home=plan.home))
    for condition, neighbours in groupby(plan.cells, key=lambda cell: cell.condition):
        cells = list(neighbours)
        with agenda.collecting(condition.title):
            dataset = open_condition(condition, plan.home, plan.workers)
            for cell in cells:
                with agenda.collecting(cell.title):
                    job = Job(plan.suite, cell, dataset)
                    _add(agenda, job, plan, hashed(job.model) if job.is_language else None)
    return agenda


def open_condition(condition: Condition, home: str | Path | None = None, workers: int | None = None) -> Dataset:
    """Return a condition's dataset: a stored one with other labels in memory, or one that is built."""
    name, imbalance, noise = condition.dataset, condition.imbalance, condition.noise
    # The dataset's own share, or none, is left as it is.
    balance = condition.balance if isinstance(imbalance, float) else None
    if stored_at(name, home):
        return data.load_dataset(name, imbalance=imbalance, balance=balance, noise=noise, verify=True, home=home)
    share = None if imbalance == "collected" else imbalance
    dataset = build_dataset(name, imbalance=share, balance=balance, noise=noise, home=home, workers=workers)
    # A recipe may declare a share of its own, which can only be undone afterwards.
    return dataset.relabelled(imbalance="collected") if imbalance == "collected" else dataset


def base_model(name: str, home: str | Path | None) -> str | None:
    """Return the content hash of a model that training starts from, None if there is no such model here.

    It is stored beside the scores, because keys hold the model's name alone.
    """
    from pmpo_offline.policies.language.model import model_hash
    from pmpo_offline.tasks.language import model_directory

    with suppress(PmpoOfflineError):  # reported when the row is run
        return model_hash(model_directory(name, home))
    return None


def stack_name(rows: Missing) -> str:
    """Return the name of the checkpoint of rows that are trained together."""
    return hash_json({"rows": list(rows)})[:16]


def _add(agenda: Agenda, job: Job, plan: Plan, model: str | None) -> None:
    """Add a job's rows; `UserError` if some are to be run and cannot be scored here."""
    _discard(job, plan, model)
    agenda.keys += job.rows
    missing = {key: settings for key, settings in job.rows.items() if not plan.results.is_settled(key)}
    _discard_left(job, plan)
    if not missing:
        return
    check_scorable(job.dataset.metadata)
    stacks = _stacks(job, missing)
    where = (plan.results.output.absolute(), None if plan.home is None else Path(plan.home).absolute())
    content = (job.dataset.fingerprint, model, job.is_language)
    agenda.units += [Unit(job.suite, job.cell, stack, *content, *where) for stack in stacks]


def _stacks(job: Job, rows: Missing) -> list[Missing]:
    """Return the rows that are trained together: all of a control cell, one of a language cell."""
    return [{key: settings} for key, settings in rows.items()] if job.is_language else [rows]


def _discard_left(job: Job, plan: Plan) -> None:
    """Remove checkpoints of rows that have scores, left by a process that was killed before it removed them."""
    results = plan.results
    for stack in _stacks(job, job.rows) if results.checkpoints.exists() else ():
        done = [key for key in stack if results.path(key).exists()]
        with results.claim(stack_name(stack), wait=False) as held:  # not held by a benchmark that writes them just now
            for name in (stack_name(stack), *done) if held and done else ():
                results.discard_checkpoint(name)


def _discard(job: Job, plan: Plan, model: str | None) -> None:
    """Remove what is to be made again: all if `plan.fresh`, failures if asked, and scores of another base model."""
    results = plan.results
    for key in job.rows if plan.fresh or plan.retry_failed else ():
        results.discard_failure(key)
    for key in (*job.rows, stack_name(job.rows)) if plan.fresh else ():
        results.path(key).unlink(missing_ok=True)
        results.discard_checkpoint(key)
    for key in job.rows if job.is_language else ():
        recorded = results.model(key)
        if recorded is not None and model not in (None, recorded):
            warnings.warn(f"{job.cell.title}: {job.model} has changed since it was scored: run again", stacklevel=2)
            results.path(key).unlink()
