"""From a request to a table: revise the suite, expand it, execute its cells, report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from pmpo_offline import data
from pmpo_offline.benchmark import report
from pmpo_offline.benchmark.executors import EXECUTORS, Plan
from pmpo_offline.benchmark.results import Results, Row, table
from pmpo_offline.benchmark.suite import Sweep, expand
from pmpo_offline.build import is_built
from pmpo_offline.declarations import catalog
from pmpo_offline.declarations.catalog import Share


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

    @property
    def raw(self) -> Path:
        """The directory of Parquet files with one record an evaluation episode."""
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
    algos: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
    imbalance: Sequence[Share] | None = None,
    noise: Sequence[float] | None = None,
    seeds: int | None = None,
    episodes: int | None = None,
    updates: int | None = None,
    settings: Sweep | None = None,
    output: str | Path | None = None,
    fresh: bool = False,
    executor: str = "local",
    workers: int | None = None,
    home: Path | None = None,
) -> Benchmark:
    """Run a suite and return its table; what is already in `output` is not run again.

    Args:
        suite: its name, or the path of a suite's `.toml`.
        algos: run only these (and the suite's reference, and the shuffled controls among these).
        datasets: ids or paths of datasets, in place of the suite's.
        imbalance: accepted shares, "collected" for labels without a balance, None for those that the dataset has; in
            place of the suite's.
        noise: rates of flipped labels, in place of the suite's.
        seeds: training runs a row; their seeds are 0, 1, ….
        episodes: evaluation episodes a run, or responses that a language model samples.
        updates: gradient steps a run, in place of what the algorithms declare.
        settings: values to try, `{"pmpo": {"beta": [0.5, 1, 2]}}`; every combination becomes a row.
        output: the directory of the results; default `results/<suite>`.
        fresh: remove the scores of this benchmark in `output` and run it all again.
        executor: what runs the cells, one of `executors.EXECUTORS`.
        workers: threads of the simulator and of torch, and processes where a dataset is collected or language models
            are trained; default, one a core (of language models four at most, each holds the model).
        home: where datasets are; default `$PMPO_OFFLINE_DATASETS`, else the user's cache.

    Raises:
        UserError: something in the request is unknown, malformed or impossible.
        PmpoOfflineError: no cell could be trained.
    """
    replaced: dict[str, Any] = {"datasets": datasets, "imbalance": imbalance, "noise": noise}
    replaced |= {"seeds": seeds, "episodes": episodes, "updates": updates}
    changes = {name: value for name, value in replaced.items() if value is not None}
    declared = catalog.revise(catalog.suite(suite), "bench", changes)
    families = {name: _family(name, home) for name in declared.datasets}
    cells = expand(declared, families, algos=algos, sweep=settings)
    results = Results(Path("results") / declared.name if output is None else Path(output))
    keys, failures = EXECUTORS[executor](Plan(declared, cells, results, fresh, workers, home)).run()
    return _publish(results, declared.title, keys, failures)


def report_on(output: str | Path) -> Benchmark:
    """Compute the table again from all raw scores in a directory, whatever their suite, and rewrite it there.

    Raises `UserError` where there are none.
    """
    results = Results(Path(output))
    return _publish(results, f"Results in {results.output.resolve().name}", None, [])


def _family(dataset: str, home: Path | None) -> str:
    """Return the family of a dataset; a mistyped name is refused here, before hours of training."""
    if is_built(dataset, home):
        return catalog.family(data.read_metadata(data.resolve(dataset, home)).task)
    return catalog.family(catalog.dataset(dataset).task)


def _publish(results: Results, title: str, keys: Sequence[str] | None, failures: list[str]) -> Benchmark:
    raw = results.read(keys)
    rows = table(raw)
    report.write(results.output, title, raw, rows)
    return Benchmark(rows, title, results.output, failures + _not_numbers(raw))


def _not_numbers(raw: pl.DataFrame) -> list[str]:
    """Return one line for each row of the table with returns that are not finite."""
    wrong = raw.filter(~pl.col("return").is_finite().fill_null(False))
    counts = wrong.group_by("algo", "dataset", "shuffled", "key", maintain_order=True).len()
    return [
        f"{algo}{' on shuffled labels' if shuffled else ''}, {dataset}: {count} returns are not numbers: its score "
        f"means nothing (raw/{key}.parquet)"
        for algo, dataset, shuffled, key, count in counts.iter_rows()
    ]
