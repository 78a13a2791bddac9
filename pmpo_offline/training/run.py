"""One training run in its own directory: resolve its settings, check what is there already, train, write run.json.

<output>/run.json             kind, dataset (its path, a digest of all of it, its labelling), task, algorithm,
                              settings, seed, bound, metrics, identity; model and adapter, or policy, and its hash:
                              written last, so that its presence marks a finished run
<output>/metrics.csv          the training's metrics over updates (`tracking`)
<output>/.begun               the identity of a run that is not finished
<output>/adapter/             of a language model (kind "responses"), as peft writes it
<output>/policy.safetensors   of a control policy (kind "transitions" or "candidates"; `MixturePolicy.load`)
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pmpo_offline.data import Dataset, check_outside
from pmpo_offline.declarations.catalog import AlgorithmDeclaration
from pmpo_offline.policies import MixturePolicy
from pmpo_offline.runtime import files
from pmpo_offline.runtime.arguments import checked
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError, refusal
from pmpo_offline.runtime.files import read_json, write_json
from pmpo_offline.runtime.hashing import hash_file, hash_json
from pmpo_offline.training import tracking
from pmpo_offline.training.config import algorithm_for, divide
from pmpo_offline.training.control.config import TrainingSettings
from pmpo_offline.training.control.stack import Stack
from pmpo_offline.training.control.trainer import train_stack

NAME, BEGUN = "run.json", ".begun"
AGAIN = "remove the whole directory and train the run again"
"""The remedy for a damaged record or artefact: without its record a directory is not recognised as a run."""


@dataclass(frozen=True)
class Run:
    """An algorithm with one set of settings and one seed, on one dataset of any kind."""

    dataset: Dataset
    algorithm: AlgorithmDeclaration | str
    """A declared algorithm, or its name in the family of the dataset's task."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the objective, or of its training, over what the algorithm declares."""
    seed: int = 0
    steps: int | None = None
    """Updates, in place of the declared ones."""
    model: str | None = None
    """Of responses: the language model to train; default the one that they are from."""
    shuffle_labels: bool = False
    """Permute the labels, as a control."""


def train_run(
    run: Run, output: Path, home: Path | None = None, loggers: Sequence[tracking.AnyLogger] = ()
) -> dict[str, Any]:
    """Train a run in its directory and return its record; it resumes where it was stopped, and is not repeated.

    Args:
        run: what to train.
        output: the run's directory.
        home: directory of datasets and models.
        loggers: objects with `log(metrics, step)`, or functions.

    Raises:
        UserError: as `train` and `train_language`; another run, or anything else, in `output`.
        PmpoOfflineError: it diverged, or a file is damaged.
    """
    check_outside(output)
    with tracking.observed(tracking.Loggers(loggers)):
        return _train_run(run, output, home)


def _train_run(run: Run, output: Path, home: Path | None) -> dict[str, Any]:
    dataset, algorithm = run.dataset, run.algorithm
    if isinstance(algorithm, str):
        algorithm = algorithm_for(algorithm, dataset)
    kind: type[BaseModel] = TrainingSettings
    if responses := dataset.metadata.kind == "responses":
        from pmpo_offline.training.language import LanguageSettings, train_language

        kind = LanguageSettings
    settings, overrides = divide(algorithm, run.settings, kind)
    if run.steps is not None:
        overrides["steps" if responses else "updates"] = run.steps
    if responses:
        train_language(
            dataset,
            algorithm,
            settings=settings,
            seed=run.seed,
            output=output,
            model=run.model,
            home=home,
            shuffle_labels=run.shuffle_labels,
            overrides=overrides,
        )
        return read_record(output) or {}
    if run.model is not None:
        raise UserError(f"dataset {dataset.metadata.id} holds transitions, for which no language model is trained")
    stack = Stack(dataset, algorithm, [run.seed], [settings], overrides, run.shuffle_labels)
    with alone(output):
        return _train_control(stack, output)


def _train_control(stack: Stack, output: Path) -> dict[str, Any]:
    if record := finished(output, stack.identity):
        return record
    checkpoint = output / "checkpoint.safetensors"
    claim(output, stack.identity, checkpoint.exists())
    with tracking.observed(tracking.MetricsFile(output / tracking.FILE)):
        trained = train_stack(stack, checkpoint, output / "references")
    trained.policy.save(output / "policy.safetensors")
    record = {
        **source_of(stack.dataset, stack.algorithm),
        "settings": stack.complete[0],
        "training": stack.hyper.model_dump(mode="json"),
        "seed": stack.seeds[0],
        "shuffle_labels": stack.shuffled,
        "policy": "policy.safetensors",
        "bound": trained.bounds[0],
        "metrics": {name: float(value[0]) for name, value in trained.metrics.items()},
        "diverged": trained.strayed[0],
        "identity": stack.identity,
    }
    record = write_record(output, record)
    checkpoint.unlink(missing_ok=True)
    return record


@contextmanager
def alone(output: Path) -> Iterator[None]:
    """Wait for another process that trains in this directory; the ranks of one launch train together."""
    together = int(os.environ.get("WORLD_SIZE", "1")) > 1
    with nullcontext() if together else files.claim(output.absolute()):
        yield


@checked()
def load_policy(run: str | Path) -> MixturePolicy:
    """Return the policy of a finished run of control, given its directory, or of a `policy.safetensors`.

    Raises:
        UserError: there is no finished run, or it trained a language model.
        PmpoOfflineError: the record or the policy is damaged.
    """
    directory = Path(run).expanduser()
    if directory.is_file():
        return MixturePolicy.load(directory)
    record = read_record(directory)
    if record is None:
        what = f"there is no {NAME} in it" if directory.is_dir() else "no such directory"
        raise UserError(f"{directory}: {what}; give the output directory of a finished training")
    if "adapter" in record:
        adapter = directory / str(record["adapter"])
        text = record["settings"].get("accept_text")
        behind = f", with {text!r} before every prompt" if text else ""
        raise UserError(
            f"{directory} holds an adapter: peft.AutoPeftModelForCausalLM.from_pretrained({str(adapter)!r}){behind}"
        )
    check_artefact(directory, record)
    return MixturePolicy.load(directory / str(record["policy"]))


def read_record(output: Path) -> dict[str, Any] | None:
    """Return the record of a finished run, None if there is none; `PmpoOfflineError` if it is damaged."""
    path = output / NAME
    return read_json(path, AGAIN) if path.is_file() else None


def source_of(dataset: Dataset, algorithm: AlgorithmDeclaration) -> dict[str, Any]:
    """Return the entries of a record about what was trained on what."""
    return {
        "kind": dataset.metadata.kind,
        "dataset": dataset.metadata.id,
        "dataset_path": str(dataset.path.absolute()),
        "dataset_digest": dataset.content_hash,
        "labels": labels_of(dataset),
        "task": dataset.metadata.task,
        "algorithm": algorithm.name,
        "objective": algorithm.objective,
    }


def write_record(output: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Write and return the record with the hash of what was learned; infinite numbers and NaN become null.

    A bound of infinity, where no β is enough, becomes "inf": null is left to mean that there is no bound.
    """
    bound = {"bound": "inf"} if record.get("bound") == math.inf else {}
    record = {**record, **bound, "sha256": _artefact_hash(output, record)}
    try:
        write_json(output / NAME, record)
        (output / BEGUN).unlink(missing_ok=True)
    except OSError as error:
        raise PmpoOfflineError(refusal(output / NAME, error, "name another --output")) from None
    return record


def finished(output: Path, identity: str) -> dict[str, Any] | None:
    """Return the record of this very run, None if it is not finished.

    Raises:
        UserError: another run is there.
        PmpoOfflineError: the record is damaged, or what was learned is not what was recorded.
    """
    record = read_record(output)
    if record is None:
        return None
    if record.get("identity") != identity:
        raise UserError(f"{output} holds another run: name another --output, or delete it")
    check_artefact(output, record)
    return record


def check_artefact(output: Path, record: Mapping[str, Any]) -> None:
    """Raise `PmpoOfflineError` if the policy or adapter is not the one that was recorded."""
    if _artefact_hash(output, record) != record.get("sha256"):
        raise PmpoOfflineError(f"{_artefact(output, record)} is not what was trained: {AGAIN}")


def _artefact(output: Path, record: Mapping[str, Any]) -> Path:
    return output / str(record.get("adapter") or record.get("policy") or "")


def _artefact_hash(output: Path, record: Mapping[str, Any]) -> str | None:
    """Return the hash of the policy's file, or of the files of the adapter; None if there is none."""
    path = _artefact(output, record)
    files = sorted(path.glob("*.safetensors")) + sorted(path.glob("*.json")) if path.is_dir() else [path]
    try:
        return hash_json([[file.name, hash_file(file)] for file in files])
    except OSError:
        return None


def claim(output: Path, identity: str, resumable: bool) -> None:
    """Take an empty directory, or one in which a run was begun; no file of anything else is ever overwritten.

    Args:
        output: the run's directory.
        identity: of the run, which the file `.begun` holds until the record is written.
        resumable: whether the run that was begun there has left a checkpoint.

    Raises:
        UserError: the directory is something else, holds other files, or another run that can be resumed.
        PmpoOfflineError: the disk refuses.
    """
    marker = output / BEGUN
    try:
        if resumable and marker.is_file() and marker.read_text(errors="replace") != identity:
            raise UserError(f"{output} holds another run that was stopped: name another --output, or delete it")
        foreign = output.exists() and not output.is_dir()
        if not foreign and not marker.is_file():
            # Empty folders are what a kill before the marker leaves.
            foreign = any(path.is_symlink() or not path.is_dir() for path in output.rglob("*"))
        if foreign:
            raise UserError(f"{output} exists and is no run: name another --output, it will not be overwritten")
        output.mkdir(parents=True, exist_ok=True)
        marker.write_text(identity)
    except OSError as error:
        raise PmpoOfflineError(refusal(output, error, "name another --output")) from None


def labels_of(dataset: Dataset) -> dict[str, Any]:
    """Return the arguments of `Dataset.relabelled` that give the stored rows the labels of this dataset."""
    meta = dataset.metadata
    share = "collected" if meta.imbalance.asked is None else meta.imbalance.asked
    labels = {"label": str(meta.label), "imbalance": share, "noise": meta.noise, "seed": meta.seed}
    return {**labels, **({"balance": "rows"} if meta.imbalance.drops_rows else {})}
