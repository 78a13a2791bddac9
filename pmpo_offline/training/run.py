"""One run of an algorithm on any dataset, kept in a directory of its own: what the command `train` does."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pmpo_offline.data import Dataset
from pmpo_offline.declarations import OBJECTIVES, catalog
from pmpo_offline.declarations.catalog import AlgorithmDeclaration
from pmpo_offline.policies.stored import save_policy
from pmpo_offline.runtime.errors import UserError, unknown
from pmpo_offline.runtime.hashing import hash_bytes
from pmpo_offline.training.config import TrainingSettings, hyperparameters, settle
from pmpo_offline.training.control.trainer import train
from pmpo_offline.training.record import bound_text, claim, finished, identity, read_record, write_record
from pmpo_offline.training.shuffle import expected, identified


def train_single(
    dataset: Dataset,
    algorithm: AlgorithmDeclaration | str,
    *,
    output: Path,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    steps: int | None = None,
    model: str | None = None,
    home: Path | None = None,
    shuffle_labels: bool = False,
) -> dict[str, Any]:
    """Train one run and return its record (`training.record`); it goes on where it was stopped, and is not repeated.

    Args:
        dataset: transitions, or responses.
        algorithm: a declared algorithm, or its name in the family of the dataset's task.
        output: the run's directory.
        settings: of the objective, or of its training, over what the algorithm declares.
        seed: of the run.
        steps: updates, in place of the declared ones.
        model: of responses: the language model to train; default the one that they are from.
        home: where datasets and models are.
        shuffle_labels: permute the labels, as a control.

    Raises:
        UserError: as `train` and `train_language`; another run, or anything else, in `output`.
    """
    if isinstance(algorithm, str):
        algorithm = catalog.algorithm(algorithm, catalog.family(dataset.metadata.task))
    own = OBJECTIVES[algorithm.objective].settings if algorithm.objective in OBJECTIVES else {}
    known = {*own, *_training(dataset)}
    if odd := set(settings or {}) - known:
        raise unknown(f"setting of {algorithm.name}", min(odd), known)
    chosen = {name: value for name, value in (settings or {}).items() if name in own}
    overrides = {name: value for name, value in (settings or {}).items() if name not in own}
    if dataset.metadata.kind == "responses":
        from pmpo_offline.training.language import train_language

        train_language(
            dataset,
            algorithm,
            settings=chosen,
            seed=seed,
            output=output,
            model=model,
            home=home,
            shuffle_labels=shuffle_labels,
            overrides=overrides if steps is None else {**overrides, "steps": steps},
        )
        return read_record(output) or {}
    if model is not None:
        raise UserError(f"dataset {dataset.metadata.id} holds transitions, for which no language model is trained")
    overrides = overrides if steps is None else {**overrides, "updates": steps}
    return _control(dataset, algorithm, chosen, seed, output, shuffle_labels, overrides)


def _training(dataset: Dataset) -> Collection[str]:
    """Return the names of the training hyperparameters of a dataset's kind."""
    if dataset.metadata.kind == "responses":
        from pmpo_offline.training.language import LanguageSettings

        return LanguageSettings.model_fields
    return TrainingSettings.model_fields


def _control(
    dataset: Dataset,
    algorithm: AlgorithmDeclaration,
    settings: Mapping[str, Any],
    seed: int,
    output: Path,
    shuffle_labels: bool,
    overrides: Mapping[str, Any],
) -> dict[str, Any]:
    meta = dataset.metadata
    hyper = hyperparameters(algorithm, overrides)
    complete = settle(algorithm, settings, expected(dataset) if shuffle_labels else dataset)
    control = shuffle_labels and identified(meta, algorithm.rows)
    told = [algorithm.model_dump(), complete, hyper.model_dump(), seed, control]
    run = identity(*told, hash_bytes([meta.model_dump_json().encode()]))
    if record := finished(output, run):
        return record
    checkpoint, begun = output / "checkpoint.safetensors", output / ".begun"
    claim(output, begun, run)
    done = train(
        dataset,
        algorithm,
        seeds=[seed],
        settings=[complete],
        checkpoint=checkpoint,
        references=output / "references",
        shuffle_labels=shuffle_labels,
        overrides=overrides,
    )
    save_policy(output / "policy.safetensors", done.policy)
    record = {
        "kind": meta.kind,
        "dataset": meta.id,
        "dataset_path": str(dataset.path),
        "dataset_digest": dataset.content_hash,
        "task": meta.task,
        "algorithm": algorithm.name,
        "objective": algorithm.objective,
        "settings": complete,
        "training": hyper.model_dump(),
        "seed": seed,
        "shuffle_labels": shuffle_labels,
        "policy": "policy.safetensors",
        "bound": bound_text(done.bounds[0]),
        "metrics": {name: float(value[0]) for name, value in done.metrics.items()},
        "identity": run,
    }
    write_record(output, record)
    checkpoint.unlink(missing_ok=True)
    begun.unlink(missing_ok=True)
    return record
