"""Loggers of other libraries, each imported when it is opened: TensorBoard, Weights & Biases, Trackio.

>>> from pmpo_offline.training import TensorBoard
>>> train("bandit/sphere-v0", "pmpo", loggers=[TensorBoard("runs/sphere")])

They send nothing anywhere and write into the run's directory. `WANDB_MODE=online` and `wandb sync` upload, as their
documentation says. A run that was killed resumes from its checkpoint: the steps that it logs again replace those from
before in TensorBoard, and belong to the same run of Weights & Biases.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

from pmpo_offline.runtime.errors import PmpoOfflineError, UserError, reason_of
from pmpo_offline.runtime.registry import Registry
from pmpo_offline.training.tracking import Logger

PROJECT = "pmpo-offline"


class RunLogger(Protocol):
    """A logger of one run, opened by its name, as `LOGGERS` holds its class."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Take the metrics of an update."""

    def close(self) -> None:
        """Write what is left."""


class TensorBoard:
    """Writes event files into a directory, for `tensorboard --logdir`."""

    library = "tensorboard"

    def __init__(self, directory: str | Path, config: Mapping[str, Any] | None = None) -> None:
        _library("tensorboard")
        from torch.utils.tensorboard.writer import SummaryWriter

        self._open = partial(SummaryWriter, str(Path(directory) / "tensorboard"))
        self._config = config or {}
        self._writer: Any = None

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Write one scalar a metric; the first call also has TensorBoard forget this step and later ones, if any."""
        if self._writer is None:
            self._writer = self._open(purge_step=step)
            for name, value in self._config.items():
                self._writer.add_text(name, str(value), step)
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush the event file."""
        if self._writer is not None:
            self._writer.close()


class WandB:
    """A run of Weights & Biases in the directory's `wandb/`, offline unless WANDB_MODE says otherwise."""

    library = "wandb"

    def __init__(self, directory: str | Path, config: Mapping[str, Any] | None = None) -> None:
        place = Path(directory).absolute() / "wandb"
        place.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("WANDB_CACHE_DIR", str(place / "cache"))
        wandb = _library("wandb")
        before = place / "latest-run"  # a link to offline-run-<time>-<id>
        self._run = wandb.init(
            project=PROJECT,
            name=Path(directory).name,
            id=before.resolve().name.rpartition("-")[2] if before.exists() else None,
            resume="allow",
            dir=str(directory),
            config=dict(config or {}),
            mode=os.environ.get("WANDB_MODE", "offline"),
            settings=wandb.Settings(silent=True, console="off"),
        )

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log to the run."""
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


class Trackio:
    """A run in Trackio's database, for `TRACKIO_DIR=<directory>/trackio trackio show`.

    The database is in TRACKIO_DIR if that is set. Trackio looks once in a process: further runs share the first one's.
    """

    library = "trackio"

    def __init__(self, directory: str | Path, config: Mapping[str, Any] | None = None) -> None:
        os.environ.setdefault("TRACKIO_DIR", str(Path(directory).absolute() / "trackio"))
        self._library = trackio = _library("trackio")
        options = {"embed": False, "auto_log_cpu": False, "auto_log_gpu": False}
        self._run = trackio.init(PROJECT, Path(directory).name, config=dict(config or {}), **options)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log to the run."""
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        """Finish the run; by itself it would do so again at exit, and print that to stdout."""
        self._library.finish()


LOGGERS: Registry[Callable[[Path, Mapping[str, Any]], RunLogger]] = Registry(
    "logger", "pmpo_offline.loggers", {"tensorboard": TensorBoard, "wandb": WandB, "trackio": Trackio}
)
"""What opens a logger of a run, given its directory and its configuration, by the name for `train --track`."""


def check_loggers(names: Sequence[str]) -> None:
    """Raise `UserError` for an unknown name, or a library that is not installed."""
    for name in names:
        if library := getattr(LOGGERS[name], "library", None):
            _library(library)


@contextmanager
def tracked(names: Sequence[str], directory: Path, config: Mapping[str, Any]) -> Iterator[list[Logger]]:
    """Yield the loggers of these names for a run's directory, which are closed at the end.

    They are opened with the first metrics, so that a run that is refused, or finished already, leaves no files.
    """
    with ExitStack() as stack:
        yield [_Later(stack, name, directory, config) for name in dict.fromkeys(names)]


class _Later:
    """A logger that is opened with the first metrics."""

    def __init__(self, stack: ExitStack, name: str, directory: Path, config: Mapping[str, Any]) -> None:
        self._stack, self._name, self._directory, self._config = stack, name, directory, config

    @cached_property
    def _opened(self) -> RunLogger:
        try:
            logger = LOGGERS[self._name](self._directory, self._config)
        except Exception as error:
            raise PmpoOfflineError(f"cannot start {self._name}: {reason_of(error)}") from error
        self._stack.callback(self._close, logger)
        return logger

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        logger = self._opened
        with self._refused():
            logger.log(metrics, step)

    def _close(self, logger: RunLogger) -> None:
        with self._refused():
            logger.close()

    @contextmanager
    def _refused(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise PmpoOfflineError(
                f"{self._name} failed: {reason_of(error)}; the same command without --track {self._name} goes on"
            ) from error


def _library(name: str) -> Any:
    """Import a library; `UserError` that says how to install it where it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"{name} cannot be imported ({error}): pip install 'pmpo-offline[tracking]'") from None
