"""From a request to a table: revise the suite, expand it, execute the cells whose scores are missing, report.

What is stored is not run again, so that a later run continues where one was stopped.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import polars as pl
import torch

from pmpo_offline import data
from pmpo_offline.benchmark import provenance, report
from pmpo_offline.benchmark.leaderboard import Leaderboard, is_leaderboard
from pmpo_offline.benchmark.results import SCHEMA, TRAINING, Results, Row, table
from pmpo_offline.benchmark.suite import Cell, Condition, Job, Settings, Sweep, expand
from pmpo_offline.build import build_dataset, is_built
from pmpo_offline.data import Dataset
from pmpo_offline.declarations import catalog
from pmpo_offline.declarations.catalog import Balance, Share, SuiteDeclaration
from pmpo_offline.evaluation.rollouts import check_scorable
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import PmpoOfflineError
from pmpo_offline.runtime.hashing import hash_json
from pmpo_offline.runtime.registry import Registry


@dataclass(frozen=True)
class Benchmark:
    """A finished benchmark: the table, and the raw scores that it was computed from."""

    rows: list[Row]
    """The table as dictionaries; the keys are those of `results.table`."""
    title: str
    output: Path
    failures: list[str] = field(default_factory=list)
    """One line for each cell or condition that could not be run, such as DPO where nothing is accepted, and for each
    row with returns that are not numbers."""

    def __repr__(self) -> str:
        failed = f", {len(self.failures)} failures" if self.failures else ""
        return f"Benchmark({self.title}: {len(self.rows)} rows{failed}, in {self.output})"

    def _repr_html_(self) -> str:
        return f"<p><b>{escape(self.title)}</b></p>{self.table()._repr_html_()}"

    @property
    def raw(self) -> Path:
        """The directory of Parquet files with one record per evaluation episode."""
        return Results(self.output).raw

    @property
    def report(self) -> Path:
        """The table as Markdown; report.json and report.png lie beside it."""
        return self.output / "report.md"

    def table(self) -> pl.DataFrame:
        """Return the table's main columns as a frame."""
        return report.frame(self.rows)


def bench(
    suite: str = "quick",
    *,
    algos: Sequence[str] | str | None = None,
    datasets: Sequence[str] | str | None = None,
    imbalance: Sequence[Share] | None = None,
    balance: Sequence[Balance] | None = None,
    noise: Sequence[float] | None = None,
    seeds: int | None = None,
    episodes: int | None = None,
    updates: int | None = None,
    settings: Sweep | None = None,
    output: str | Path | None = None,
    fresh: bool = False,
    executor: str = "local",
    workers: int | None = None,
    home: str | Path | None = None,
) -> Benchmark:
    """Run a suite and return its table; what is already in `output` is not run again.

    Args:
        suite: its name, or the path of a suite's `.toml`.
        algos: run only these (or this; and the suite's reference, and the shuffled controls among these).
        datasets: ids or paths of datasets, in place of the suite's.
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
        executor: what runs the cells, one of `EXECUTORS`.
        workers: threads of the simulator and of torch, and processes where a dataset is collected or language models
            are trained; default, one per core (of language models four at most, each holds the model).
        home: where datasets are; default `$PMPO_OFFLINE_DATASETS`, else the user's cache.

    Raises:
        UserError: something in the request is unknown, malformed or impossible.
        PmpoOfflineError: no cell could be trained.
    """
    algos = [algos] if isinstance(algos, str) else algos
    datasets = [datasets] if isinstance(datasets, str) else datasets
    replaced: dict[str, Any] = {"datasets": datasets, "imbalance": imbalance, "balance": balance, "noise": noise}
    replaced |= {"seeds": seeds, "episodes": episodes, "updates": updates}
    changes = {name: value for name, value in replaced.items() if value is not None}
    declared = catalog.revise(catalog.suite(suite), "bench", changes)
    families = {name: _family(name, home) for name in declared.datasets}
    cells = expand(declared, families, algos=algos, sweep=settings)
    results = Results(Path("results") / declared.name if output is None else Path(output))
    keys, failures = EXECUTORS[executor](Plan(declared, cells, results, fresh, workers, home)).run()
    chosen = {} if algos is None else {"algos": algos}
    provenance.record(results.output, provenance.command(suite, chosen | changes, settings))
    return _publish(results, declared.title, keys, failures)


def report_on(output: str | Path) -> Benchmark:
    """Compute the table again from all raw scores in a directory, whatever their suite, and rewrite it there.

    Its title is that of the report that is there, if any.

    Raises `UserError` where there are none.
    """
    results = results_in(Path(output))
    return _publish(results, report.title(results.output) or f"Results in {results.output.resolve().name}", None, [])


def results_in(folder: Path) -> Results:
    """Return the raw scores of a folder: of a benchmark, or of all submissions to a leaderboard."""
    return Leaderboard(folder) if is_leaderboard(folder) else Results(folder)


def _family(dataset: str, home: str | Path | None) -> str:
    """Return the family of a dataset; a mistyped name is refused here, before hours of training."""
    if is_built(dataset, home):
        built = data.read_metadata(data.resolve(dataset, home))
        return catalog.family(built.task, by_step=built.label.by_step)
    recipe = catalog.dataset(dataset)
    return catalog.family(recipe.task, by_step=data.LabelRule.parse(recipe.label).by_step)


def _publish(results: Results, title: str, keys: Sequence[str] | None, failures: list[str]) -> Benchmark:
    """Write the report; rows of the table with returns that are not finite are failures too."""
    raw = results.read(keys)
    rows = table(raw)
    report.write(results.output, title, raw, rows)
    wrong = raw.filter(~pl.col("return").is_finite().fill_null(False))
    counts = wrong.group_by("algo", "dataset", "shuffled", "key", maintain_order=True).len()
    failures += [
        f"{algo}{' on shuffled labels' if shuffled else ''}, {dataset}: {count} returns are not numbers: its score "
        f"means nothing (raw/{key}.parquet)"
        for algo, dataset, shuffled, key, count in counts.iter_rows()
    ]
    return Benchmark(rows, title, results.output, failures)


Missing = dict[str, Settings]
"""The settings of the rows that are to be run, by key."""
Learn = Callable[[Job, Missing], Iterable[tuple[str, pl.DataFrame]]]
"""Trains and evaluates the missing rows of a job; yields the raw scores of each as they come, with its key."""


@dataclass(frozen=True)
class Plan:
    """A suite's cells, and where and how to run them."""

    suite: SuiteDeclaration
    cells: Sequence[Cell]
    """Those on equal data are neighbours."""
    results: Results
    fresh: bool = False
    """Remove the scores of these cells first."""
    workers: int | None = None
    home: str | Path | None = None


class Executor(Protocol):
    """Runs the cells of a suite; `bench --executor NAME` chooses one.

    Another package adds one by an entry point of the group `pmpo_offline.executors`: a class that is made with a `Plan`
    and whose `run` is called once. It opens the dataset of each condition, and makes a `Job` of each cell and dataset,
    which has the rows with their keys. Rows whose scores `plan.results` holds are not run again, unless `plan.fresh`;
    the scores of the others are written by `plan.results.write`, each as soon as it is known, so that an interrupted
    run continues. A cell that fails does not stop the others.
    """

    def __init__(self, plan: Plan) -> None: ...

    def run(self) -> tuple[list[str], list[str]]:
        """Return the keys of all rows that have scores, and one line for each cell or condition that failed.

        Raises the last `PmpoOfflineError` if there are no scores at all.
        """


class Local:
    """Executes cells on this machine, one condition after another."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._jobs: list[Job] = []
        self._errors: list[tuple[str, PmpoOfflineError]] = []
        self._models: dict[str, str | None] = {}

    def run(self) -> tuple[list[str], list[str]]:
        """Run what is missing, as `Executor.run`."""
        plan, results, done = self.plan, self.plan.results, 0
        if plan.workers is not None:
            torch.set_num_threads(plan.workers)
        for condition, neighbours in groupby(plan.cells, key=lambda cell: cell.condition):
            cells = list(neighbours)
            with self._failing(condition.title):
                dataset = self.open(condition)
                jobs: list[tuple[Job, Missing]] = []
                for cell in cells:
                    with self._failing(cell.title):
                        job = Job(plan.suite, cell, dataset)
                        jobs.append((job, self.missing(job)))
                with self.learner(jobs) as learn:
                    for number, (job, missing) in enumerate(jobs):
                        progress.report("benchmark", done + number, len(plan.cells))
                        with self._failing(job.cell.title):
                            self.cell(job, missing, learn)
            done += len(cells)
        progress.report("benchmark", done, len(plan.cells))
        keys = [key for job in self._jobs for key in job.rows if results.path(key).exists()]
        if self._errors and not keys:
            raise self._errors[-1][1]
        return keys, [f"{title}: {error}" for title, error in self._errors]

    @contextmanager
    def _failing(self, title: str) -> Iterator[None]:
        """Record an error: where an algorithm or a share is impossible, others are not, and the table goes on."""
        try:
            yield
        except PmpoOfflineError as error:
            self._errors.append((title, error))

    def open(self, condition: Condition) -> Dataset:
        """Return a condition's dataset: a stored one with other labels in memory, or one that is built."""
        name, imbalance, noise, home = condition.dataset, condition.imbalance, condition.noise, self.plan.home
        # The dataset's own share, or none, is left as it is.
        balance = condition.balance if isinstance(imbalance, float) else None
        if is_built(name, home):
            return data.load_dataset(name, imbalance=imbalance, balance=balance, noise=noise, verify=True, home=home)
        share = None if imbalance == "collected" else imbalance
        dataset = build_dataset(
            name, imbalance=share, balance=balance, noise=noise, home=home, workers=self.plan.workers
        )
        # A recipe may declare a share of its own, which can only be undone afterwards.
        return dataset.relabelled(imbalance="collected") if imbalance == "collected" else dataset

    def missing(self, job: Job) -> Missing:
        """Return the settings of a job's rows without scores, by key; `UserError` if they cannot be scored here.

        Scores that are to be made again are removed first: all if `plan.fresh`, else those of another base model.
        """
        results = self.plan.results
        for key in (*job.rows, _stack(job.rows)) if self.plan.fresh else ():
            results.path(key).unlink(missing_ok=True)
            results.discard_checkpoint(key)
        for key in job.rows if job.is_language else ():
            recorded = results.model(key)
            if recorded is not None and self.model(job) not in (None, recorded):
                warnings.warn(f"{job.cell.title}: {job.model} has changed since it was scored: run again", stacklevel=2)
                results.path(key).unlink()
        self._jobs.append(job)
        missing = {key: settings for key, settings in job.rows.items() if not results.path(key).exists()}
        if missing:
            check_scorable(job.dataset.metadata)
        return missing

    @contextmanager
    def learner(self, jobs: Sequence[tuple[Job, Missing]]) -> Iterator[Learn]:
        """Yield the function that trains and evaluates the jobs of one condition, one after another."""
        languages = [job for job, missing in jobs if missing and job.is_language]
        if not languages:
            yield partial(learn_control, plan=self.plan)
            return
        from pmpo_offline.benchmark.language_cells import side_by_side

        with side_by_side(jobs, self.plan, self.model(languages[0])) as learn:
            yield learn

    def model(self, job: Job) -> str | None:
        """Return the content hash of the model that training starts from, None if there is no such model here.

        It is stored beside the scores, because keys hold the model's name alone.
        """
        from pmpo_offline.policies.language.model import model_hash
        from pmpo_offline.tasks.language import model_directory

        if job.model not in self._models:
            self._models[job.model] = None
            with suppress(PmpoOfflineError):  # reported when the cell runs
                self._models[job.model] = model_hash(model_directory(job.model, self.plan.home))
        return self._models[job.model]

    def cell(self, job: Job, missing: Missing, learn: Learn) -> None:
        """Train, evaluate and store what is missing of a cell."""
        if not missing:
            return
        model = self.model(job) if job.is_language else None
        for key, scores in learn(job, missing):
            constants = job.constants(job.rows[key]).items()
            columns = [pl.lit(value, SCHEMA[column]).alias(column) for column, value in constants]
            self.plan.results.write(key, scores.with_columns(columns), model)


EXECUTORS: Registry[type[Executor]] = Registry("executor", "pmpo_offline.executors", {"local": Local})


def learn_control(job: Job, missing: Missing, plan: Plan) -> Iterator[tuple[str, pl.DataFrame]]:
    """Train all settings and seeds of a control cell as one stacked batch, and evaluate it in a batched simulator."""
    from pmpo_offline.evaluation import evaluate
    from pmpo_offline.training import train

    results, seeds, stack = plan.results, job.seeds, _stack(missing)
    with progress.stage(job.cell.title):
        trained = train(
            job.dataset,
            job.cell.algorithm,
            seeds=seeds,
            settings=list(missing.values()),
            checkpoint=results.checkpoint(stack),
            references=results.output / "references",
            shuffle_labels=job.cell.shuffled,
            overrides=job.overrides,
        )
        task, first = job.dataset.metadata.task, plan.suite.first_episode
        scores = evaluate(trained.policy, task, episodes=first + plan.suite.episodes, workers=plan.workers)
        scores = scores.filter(pl.col("episode") >= first)
    # Run order: for each setting, for each seed.
    scores = scores.with_columns(row=pl.col("run") // len(seeds), seed=seeds.start + pl.col("run") % len(seeds))
    ended = {name: trained.metrics[name].tolist() for name in TRAINING if name in trained.metrics}
    scores = scores.with_columns(pl.Series(name, ended[name], pl.Float64).gather(scores["run"]) for name in ended)
    diverged = []
    for row, name in enumerate(missing):
        if any(trained.diverged[row * len(seeds) :][: len(seeds)]):
            diverged.append(json.dumps(missing[name]))
            continue
        bound = pl.lit(trained.bounds[row], pl.Float64)
        yield name, scores.filter(pl.col("row") == row).with_columns(beta_min=bound)
    results.discard_checkpoint(stack)
    if diverged:
        raise PmpoOfflineError(f"training diverged with {' and with '.join(diverged)}: no scores of these settings")


def _stack(rows: Missing) -> str:
    """Return the name of the checkpoint of rows that are trained together."""
    return hash_json({"rows": list(rows)})[:16]
