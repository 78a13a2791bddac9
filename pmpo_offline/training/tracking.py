"""Metrics over updates: a training reports them, a file in the run's directory records them, loggers receive them.

```
<run>/metrics.csv    step, run, loss, learning_rate, kl, logps/chosen, rewards/margins, …
```
Names are TRL's, the same for every kind of policy. `run` counts the stacked runs of a training, one line each. Values
are those of the minibatch of this update (of language models: means since the line before).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import polars as pl

from pmpo_offline.runtime.errors import PmpoOfflineError, UserError, refusal
from pmpo_offline.runtime.files import atomic_file

if TYPE_CHECKING:
    from torch import Tensor

FILE = "metrics.csv"
TRL_NAMES = {
    "accept_reward": "rewards/chosen",
    "reject_reward": "rewards/rejected",
    "margin": "rewards/margins",
    "accuracy": "rewards/accuracies",
    "accept_logp": "logps/chosen",
    "reject_logp": "logps/rejected",
}
"""TRL's names of our objectives' metrics; all others keep theirs."""
POINTS = 200
"""The most lines that a training records of a run."""


class Logger(Protocol):
    """Receives metrics; a run of Weights & Biases is one, and so is a function of the same arguments."""

    def log(self, metrics: Mapping[str, float], step: int) -> object:
        """Take the metrics of an update; those of several stacked runs are called `loss/seed 0`, `loss/seed 1`, …"""


AnyLogger = Logger | Callable[[Mapping[str, float], int], object]


class Observer(Protocol):
    """Receives the metrics of the trainings inside a block of `observed`."""

    def begin(self, step: int) -> None:
        """A training begins, or resumes after this many updates."""

    def record(self, step: int, metrics: Mapping[str, Sequence[float]]) -> None:
        """Take the metrics after an update, one number a run each."""


_observers: ContextVar[tuple[Observer, ...]] = ContextVar("observers", default=())


def trl_metrics(
    metrics: Mapping[str, Tensor], label: Tensor | None = None, ratio: Tensor | None = None
) -> dict[str, Tensor]:
    """Return an objective's metrics by TRL's names, with rewards if the objective has none of its own.

    A reward is the objective's own (beta times the log-ratio to the reference), else the log-ratio itself; the accuracy
    of single responses is the share of accept x reject pairs within the batch whose rewards are in order.

    Args:
        metrics: () each.
        label: (B,), of single responses.
        ratio: (B,), their log-ratios, without a gradient, if there is a reference.
    """
    if label is None:
        return {TRL_NAMES.get(name, name): value for name, value in metrics.items()}
    accepted, rejected = label > 0, label < 0
    # Objectives report 0 for the mean of an absent class. Which classes are there is the same in every micro-batch.
    absent = {name for name, rows in (("accept", accepted), ("reject", rejected)) if not rows.any()}
    named = {TRL_NAMES.get(name, name): value for name, value in metrics.items() if name.split("_")[0] not in absent}
    if ratio is not None:
        if "accept" not in absent:
            named.setdefault("rewards/chosen", ratio[accepted].mean())
        if "reject" not in absent:
            named.setdefault("rewards/rejected", ratio[rejected].mean())
        if not absent:
            named["rewards/margins"] = (named["rewards/chosen"] - named["rewards/rejected"]).detach()
            named["rewards/accuracies"] = _ordered(ratio[accepted], ratio[rejected])
    return named


def _ordered(accepted: Tensor, rejected: Tensor) -> Tensor:
    """Return the share of pairs in which the accepted reward is larger, (), from (A,) and (R,); NaN is never."""
    import torch

    smaller = torch.searchsorted(rejected.sort().values, accepted.contiguous())
    return torch.where(accepted.isnan(), 0, smaller).float().mean() / len(rejected)


@contextlib.contextmanager
def observed(*observers: Observer, alone: bool = False) -> Iterator[None]:
    """Report the trainings inside the block to these observers too, or to these alone."""
    token = _observers.set(observers if alone else (*_observers.get(), *observers))
    try:
        yield
    finally:
        _observers.reset(token)


def begin(step: int) -> None:
    """Report that a training begins after so many updates."""
    with _told() as observers:
        for observer in observers:
            observer.begin(step)


def is_due(done: int, total: int, every: int) -> bool:
    """Return whether metrics are reported after an update, of a training that may only stop every `every` updates."""
    return bool(_observers.get()) and (done == total or done % (every * -(-total // (every * POINTS))) == 0)


def report(step: int, metrics: Mapping[str, Tensor]) -> None:
    """Report the metrics after an update, (R,) each by the objective's names: one copy from the device."""
    import torch

    names = [TRL_NAMES.get(name, name) for name in metrics]
    values = torch.stack([value.detach().float() for value in metrics.values()]).tolist()
    report_numbers(step, dict(zip(names, values, strict=True)))


def report_numbers(step: int, metrics: Mapping[str, Sequence[float]]) -> None:
    """Report metrics that are numbers, one a run, by TRL's names."""
    with _told() as observers:
        for observer in observers:
            observer.record(step, metrics)


@contextlib.contextmanager
def _told() -> Iterator[Sequence[Observer]]:
    """Yield the observers of this block; a training that one of them starts meanwhile is none of theirs."""
    observers = _observers.get()
    with observed(alone=True):
        yield observers


def replay(recorded: MetricsFile, times: int) -> None:
    """Report what is recorded of a training, with its runs `times` over, to the observers of this block."""
    table = recorded.read()
    if table is None or not _observers.get():
        return
    begin(0)
    for (step,), rows in table.group_by(["step"], maintain_order=True):
        values = rows.drop("step", "run").to_dict(as_series=False)
        report_numbers(int(str(step)), {name: each * times for name, each in values.items()})


@dataclass(frozen=True)
class Loggers:
    """The observer that hands metrics to loggers."""

    loggers: Sequence[AnyLogger]
    runs: Sequence[str] = ("",)
    """What distinguishes each stacked run from the others."""

    def __post_init__(self) -> None:
        for logger in self.loggers:
            if not callable(_receiver(logger)):
                raise UserError(f"loggers: expected objects with log(metrics, step), or functions, not {logger!r}")

    def begin(self, step: int) -> None:
        """Do nothing: a logger is new for every training."""

    def record(self, step: int, metrics: Mapping[str, Sequence[float]]) -> None:
        """Log all runs at once, with the run in the name where there are several."""
        named = {
            f"{name}/{run}" if len(self.runs) > 1 else name: value
            for name, values in metrics.items()
            for run, value in zip(self.runs, values, strict=True)
        }
        for logger in self.loggers:
            _receiver(logger)(dict(named), step)


def _receiver(logger: AnyLogger) -> Callable[[Mapping[str, float], int], object]:
    return logger.log if hasattr(logger, "log") else logger


class MetricsFile:
    """The observer that writes `metrics.csv`, line by line; a training that resumes replaces the lines since then."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._names: list[str] = []

    def read(self) -> pl.DataFrame | None:
        """Return what is recorded, as `read_metrics`."""
        return read_metrics(self._path)

    def begin(self, step: int) -> None:
        """Keep what was recorded until this update."""
        with self._refused():
            kept = self.read() if step else None
            if kept is None:
                self._path.unlink(missing_ok=True)
                return
            # Byte for byte: parsed and formatted again, equal numbers may look different.
            count = int((kept["step"] <= step).sum())
            lines = self._path.read_bytes().splitlines(keepends=True)[: 1 + count]
            with atomic_file(self._path) as scratch:
                scratch.write_bytes(b"".join(lines))
            self._names = kept.columns[2:]

    def record(self, step: int, metrics: Mapping[str, Sequence[float]]) -> None:
        """Append a line a run; columns are the names of the first update, and what a later one lacks is empty."""
        with self._refused():
            if not self._names:
                self._names = list(metrics)
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._path.write_text(",".join(["step", "run", *self._names]) + "\n", encoding="utf-8")
            runs = len(next(iter(metrics.values())))
            known = ([f"{value:.7g}" for value in metrics.get(name, ())] or [""] * runs for name in self._names)
            rows = enumerate(zip(*known, strict=True))
            lines = "".join(f"{step},{run},{','.join(values)}\n" for run, values in rows)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(lines)

    @contextlib.contextmanager
    def _refused(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise PmpoOfflineError(refusal(self._path, error, "write elsewhere")) from None


def read_metrics(path: Path) -> pl.DataFrame | None:
    """Return the recorded metrics, a row a run and update: `step`, `run` and a float64 column each.

    None if nothing is recorded, or the file is no table of metrics. A last line that a kill has cut is left out.
    """
    if not path.is_file():  # a pipe would be waited for
        return None
    with contextlib.suppress(OSError, pl.exceptions.PolarsError):
        content = path.read_bytes()
        found = pl.read_csv(BytesIO(content[: content.rfind(b"\n") + 1]), infer_schema=False)
        if found.columns[:2] == ["step", "run"]:
            return found.select(pl.col("step", "run").cast(pl.Int64), pl.exclude("step", "run").cast(pl.Float64))
    return None
