"""One run of an algorithm on a dataset of responses, from the declaration to an adapter on the disk.

<output>/checkpoints/     the Trainer's own, while it trains; a run that was stopped goes on from the last whole one
<output>/adapter/         what was learned, in safetensors
<output>/run.json         written last (`training.run`)
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import transformers

from pmpo_offline import data
from pmpo_offline.data import Dataset
from pmpo_offline.declarations import catalog
from pmpo_offline.declarations.catalog import AlgorithmDeclaration
from pmpo_offline.policies.language import quiet
from pmpo_offline.policies.language.model import LanguageModel, add_lora, load_adapter, open_model, save_adapter
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.hashing import hash_bytes
from pmpo_offline.tasks.language.models import model_directory
from pmpo_offline.tasks.language.sampling import context
from pmpo_offline.training.checkpoint import training_identity
from pmpo_offline.training.config import hyperparameters, settle
from pmpo_offline.training.language.checkpoints import is_whole
from pmpo_offline.training.language.config import ResponseConfig
from pmpo_offline.training.language.responses import check_held_out, part
from pmpo_offline.training.language.settings import LanguageSettings
from pmpo_offline.training.language.trainer import ResponseTrainer
from pmpo_offline.training.run import bound_text, claim, finished, labels_of, write_record
from pmpo_offline.training.shuffle import check_control, identified

_OWNER = "run"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True)
class TrainedLanguage:
    """A run that is done."""

    adapter: Path
    """The adapter's directory (`policies.language.load_adapter`)."""
    metrics: dict[str, Any]
    """The last line of the history."""
    history: list[dict[str, Any]]
    """What the Trainer logged, a line every few updates."""
    settings: dict[str, Any]
    """The objective's, complete."""
    bound: float | None
    """The least stable β of these settings on the rows trained on; None where the objective has no bound."""
    model: str
    """Name of the model that the adapter belongs on."""

    @classmethod
    def of(cls, output: Path, record: Mapping[str, Any]) -> TrainedLanguage:
        """Return the run that left this record."""
        bound = None if record["bound"] is None else float(record["bound"])
        names = ("metrics", "history", "settings", "model")
        return cls(output / record["adapter"], bound=bound, **{name: record[name] for name in names})

    def policy(self, base: LanguageModel) -> LanguageModel:
        """Return what was learned, on the model that it was learned on, as `open_model` returns it."""
        return load_adapter(base, self.adapter)


def train_language(
    dataset: Dataset,
    algorithm: AlgorithmDeclaration | str,
    *,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    output: Path,
    model: str | None = None,
    cache: Path | None = None,
    home: Path | None = None,
    shuffle_labels: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> TrainedLanguage:
    """Train a LoRA adapter on the train split of a dataset.

    Args:
        dataset: labelled responses.
        algorithm: a declared algorithm, or its name in the family of the dataset's task.
        settings: the objective's hyperparameters, over those that the algorithm declares.
        seed: of the adapter's beginning and of the order of the rows.
        output: the run's directory; the same run in it goes on from its checkpoint, a finished one is not run again.
        model: a name (`tasks.language.models`) or a directory; default the one that the responses are from.
        cache: folder of what the reference says of every row, shared by all runs; default `<home>/.reference`.
        home: where datasets and models are.
        shuffle_labels: permute labels and scores among all rows, as a control.
        overrides: training hyperparameters (`LanguageSettings`) in place of the declared ones.

    Raises:
        UserError: unknown or malformed hyperparameters, labels that leave nothing to learn from, feedback to shuffle
            that it does not learn from, prompts that are too long for the model (held-out ones too, that `evaluate` has
            to ask), another run in `output`, or anything else.
    """
    if isinstance(algorithm, str):
        algorithm = catalog.algorithm(algorithm, catalog.family(dataset.metadata.task))
    if algorithm.start != "reference":
        raise UserError(f'{algorithm.name}: a language model starts from what it is: set start = "reference"')
    if shuffle_labels:
        check_control(algorithm, responses=True)
    hyper = hyperparameters(algorithm, overrides or {}, LanguageSettings)
    if hyper.batch % hyper.accumulation:
        raise UserError(f"{algorithm.name}: a batch of {hyper.batch} cannot be divided by {hyper.accumulation}")
    algorithm = algorithm.model_copy(update={"settings": {**algorithm.settings, **(settings or {})}})
    rows = part(dataset, "train")
    complete = settle(algorithm, {}, rows)
    name = model or dataset.metadata.provenance.settings.get("model")
    if not isinstance(name, str):
        raise UserError(f"dataset {dataset.metadata.id} names no model: say which one to train with --model")
    root = data.home() if home is None else home
    directory = model_directory(name, root)
    base = open_model(directory, name=name, dtype=hyper.dtype, quantize=hyper.quantize)
    control = shuffle_labels and identified(rows.metadata, algorithm.rows)
    run = training_identity(
        *("transformers", "peft"),
        content=_content(rows),
        algorithm=algorithm.model_dump(),
        settings=complete,
        training=hyper.model_dump(),
        seed=seed,
        shuffled=control,
        model=base.digest,
    )
    if record := finished(output, run):
        return TrainedLanguage.of(output, record)
    check_held_out(dataset, base.tokenizer, context(base))

    checkpoints = output / "checkpoints"
    _begin(checkpoints, run)
    trainer = _trainer(base, algorithm, hyper, rows, checkpoints, cache or root / ".reference", seed, shuffle_labels)
    last = _last_whole(checkpoints)
    with quiet():
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    save_adapter(trainer.policy.model, output / "adapter")
    history = [line for line in trainer.state.log_history if "loss" in line]
    record = {
        "kind": "responses",
        "dataset": dataset.metadata.id,
        "dataset_path": str(dataset.path),
        "dataset_digest": dataset.content_hash,
        "labels": labels_of(dataset),
        "task": dataset.metadata.task,
        "algorithm": algorithm.name,
        "objective": algorithm.objective,
        "settings": trainer.settings,
        "training": hyper.model_dump(),
        "seed": seed,
        "shuffle_labels": shuffle_labels,
        "model": name,
        "model_digest": base.digest,
        "adapter": "adapter",
        "bound": bound_text(trainer.beta_bound),
        "metrics": history[-1] if history else {},
        "history": history,
        "identity": run,
    }
    write_record(output, record)
    _end(checkpoints)
    return TrainedLanguage.of(output, record)


def _trainer(
    base: LanguageModel,
    algorithm: AlgorithmDeclaration,
    hyper: LanguageSettings,
    rows: Dataset,
    checkpoints: Path,
    cache: Path,
    seed: int,
    shuffle_labels: bool,
) -> ResponseTrainer:
    layers = base.model.config.get_text_config().num_hidden_layers
    cut = 0 if hyper.lora_layers is None else max(0, layers - hyper.lora_layers)
    transformers.set_seed(seed)
    adapted = add_lora(base.model, hyper.lora_rank, hyper.lora_alpha, hyper.lora_targets, cut)
    args = ResponseConfig(
        output_dir=str(checkpoints),
        objective=algorithm.objective,
        settings=dict(algorithm.settings),
        rows=algorithm.rows,
        reduction=hyper.reduction,
        policy_kl=hyper.policy_kl,
        max_length=hyper.max_length,
        reference_cache=str(cache),
        cut=cut,
        shuffle_labels=shuffle_labels,
        max_steps=hyper.steps,
        per_device_train_batch_size=hyper.batch // hyper.accumulation,
        gradient_accumulation_steps=hyper.accumulation,
        learning_rate=hyper.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=hyper.steps // 10,
        weight_decay=hyper.weight_decay,
        max_grad_norm=hyper.clip,
        seed=seed,
        logging_steps=max(1, hyper.steps // 20),
        save_strategy="steps",
        save_steps=hyper.checkpoint_every,
        save_total_limit=1,
        disable_tqdm=True,
    )
    trainer = ResponseTrainer(
        replace(base, model=adapted),
        args=args,
        train_dataset=rows,
        callbacks=[_Told(algorithm.name)],
    )
    trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
    return trainer


class _Told(transformers.TrainerCallback):  # type: ignore[misc]
    def __init__(self, name: str) -> None:
        self._name = name

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        progress.report(f"train {self._name}", state.global_step, state.max_steps)


def _content(rows: Dataset) -> str:
    """Return a hash of all that is learned from."""
    columns = (rows.table.column(name).to_pylist() for name in ("prompt", "completion", "score", "label", "prompt_id"))
    settings = rows.metadata.provenance.settings
    parts = (*columns, [settings.get("ends", True), settings.get("tokens")])
    return hash_bytes(json.dumps(part).encode() for part in parts)


def _begin(checkpoints: Path, run: str) -> None:
    """Take a folder for the checkpoints of this run; `UserError` if it is not ours, or holds those of another one."""
    owner = checkpoints / _OWNER
    if owner.is_file() and owner.read_text(errors="replace") != run and _written(checkpoints):
        raise UserError(f"{checkpoints.parent} holds another run that was stopped: name another --output, or delete it")
    claim(checkpoints.parent, owner, run)


def _end(checkpoints: Path) -> None:
    """Remove what the training wrote; what somebody put beside it stays."""
    for path in _written(checkpoints):
        shutil.rmtree(path)
    (checkpoints / _OWNER).unlink()
    with suppress(OSError):
        checkpoints.rmdir()


def _written(checkpoints: Path) -> list[Path]:
    """Return the Trainer's checkpoints, the oldest first."""
    found = {int(name[1]): path for path in checkpoints.glob("*") if (name := _CHECKPOINT.fullmatch(path.name))}
    return [found[step] for step in sorted(found) if found[step].is_dir()]


def _last_whole(checkpoints: Path) -> Path | None:
    """Return the last whole checkpoint, None if there is none. What is not whole is removed."""
    whole = None
    for path in _written(checkpoints):
        if is_whole(path):
            whole = path
        else:
            shutil.rmtree(path, ignore_errors=True)
    return whole
