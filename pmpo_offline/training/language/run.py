"""One run of an algorithm on a dataset of responses, from the declaration to an adapter on the disk.

<output>/checkpoints/     the Trainer's own, while it trains; a stopped run resumes from the last complete one
<output>/adapter/         the trained adapter, in safetensors
<output>/metrics.csv      its metrics over updates (`training.tracking`)
<output>/run.json         written last (`training.run`, which also explains `.begun`)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import transformers
from safetensors import SafetensorError

from pmpo_offline import data
from pmpo_offline.data import Dataset, Metadata
from pmpo_offline.declarations.catalog import AlgorithmDeclaration
from pmpo_offline.policies.language.model import LanguageModel, add_lora, load_adapter, open_model, quiet, save_adapter
from pmpo_offline.policies.language.tokens import prefix_of, with_prefix
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.arguments import checked
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError, counted, reason_of
from pmpo_offline.runtime.notebook import html_table
from pmpo_offline.tasks.language.models import check_texts, model_directory, published_name
from pmpo_offline.training import tracking
from pmpo_offline.training.config import Setup, algorithm_for, hyperparameters, opened, training_identity
from pmpo_offline.training.language.checkpoints import checkpoints_in, last_complete, remove_checkpoints
from pmpo_offline.training.language.config import LanguageSettings
from pmpo_offline.training.language.responses import check_held_out, take_split
from pmpo_offline.training.language.trainer import ResponseTrainer
from pmpo_offline.training.run import alone, claim, finished, source_of, write_record
from pmpo_offline.training.shuffle import check_control, identified


@dataclass(frozen=True)
class TrainedLanguage:
    """A finished run."""

    adapter: Path
    """The adapter's directory (`policies.language.load_adapter`)."""
    metrics: dict[str, Any]
    """The last line of the history."""
    history: list[dict[str, Any]]
    """The Trainer's log, a line every few updates."""
    settings: dict[str, Any]
    """The objective's, complete."""
    bound: float | None
    """The least stable β of these settings on the training rows; None if the objective has no bound."""
    model: str
    """Name of the model that the adapter belongs to."""

    def __repr__(self) -> str:
        loss = self.metrics.get("loss")
        ended = "" if loss is None else f"loss {loss:.4g}, "
        return f"TrainedLanguage({self.model}, {ended}adapter {str(self.adapter)!r})"

    def _repr_html_(self) -> str:
        facts = {"adapter": self.adapter, "model": self.model, "bound": self.bound}
        return html_table(repr(self), {**facts, "settings": self.settings, "metrics": self.metrics})

    @classmethod
    def of(cls, output: Path, record: Mapping[str, Any]) -> TrainedLanguage:
        """Return the run of a record."""
        bound = None if record["bound"] is None else float(record["bound"])
        names = ("metrics", "history", "settings", "model")
        return cls(output / record["adapter"], bound=bound, **{name: record[name] for name in names})

    def policy(self, base: LanguageModel) -> LanguageModel:
        """Return the trained policy: the adapter on its model, as `open_model` returns it."""
        return load_adapter(base, self.adapter)


@checked("settings={…} takes hyperparameters of the objective, overrides={…} those of training")
def train_language(
    dataset: Dataset | str | Path,
    algorithm: AlgorithmDeclaration | str,
    *,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    output: str | Path,
    model: str | None = None,
    cache: str | Path | None = None,
    home: str | Path | None = None,
    shuffle_labels: bool = False,
    overrides: Mapping[str, Any] | None = None,
    loggers: Sequence[tracking.AnyLogger] = (),
) -> TrainedLanguage:
    """Train a LoRA adapter on the train split of a dataset.

    Args:
        dataset: labelled responses, or the id or path of a stored dataset.
        algorithm: a declared algorithm, or its name in the family of the dataset's task.
        settings: the objective's hyperparameters, over those that the algorithm declares.
        seed: of the adapter's initial weights and of the order of the rows.
        output: the run's directory; the same run resumes there from its checkpoint, a finished one is not repeated.
        model: a name (`tasks.language.models`) or a directory; default the model that the responses are from.
        cache: folder of the reference's values for every row, shared by all runs; default `<home>/.reference`.
        home: folder of datasets and models.
        shuffle_labels: permute labels and scores among all rows, as a control.
        overrides: training hyperparameters (`LanguageSettings`) in place of the declared ones.
        loggers: objects with `log(metrics, step)`, or functions, called with numbers by name every few updates.

    Raises:
        UserError: unknown or malformed hyperparameters, labels that leave nothing to learn from, feedback to shuffle
            that it does not learn from, prompts that are too long for the model (held-out ones too, which `evaluate`
            needs), another run in `output`, or anything else.
        PmpoOfflineError: the loss or the weights are not finite any more.
    """
    dataset, output, root = opened(dataset, home), Path(output), data.home(home)
    learned_from = take_split(dataset, "train")
    if isinstance(algorithm, str):
        algorithm = algorithm_for(algorithm, dataset)
    hyper = hyperparameters(algorithm, overrides or {}, LanguageSettings)
    _check(algorithm, hyper, shuffle_labels)
    algorithm = algorithm.model_copy(update={"settings": {**algorithm.settings, **(settings or {})}})
    setup = Setup(algorithm, {}, learned_from).settled()
    name = model or dataset.metadata.provenance.settings.get("model")
    if not isinstance(name, str):
        raise UserError(
            f"dataset {dataset.metadata.id} names no model: choose one with --model, as "
            "HuggingFaceTB/SmolLM2-135M-Instruct of the hub, or a directory"
        )
    for column in ("prompt", "completion"):
        check_texts(name, filter(None, dataset.table.column(column).to_pylist()))
    directory = model_directory(name, root)
    base = open_model(directory, name=name, dtype=hyper.dtype, quantize=hyper.quantize)
    run = _LanguageRun(dataset, setup, hyper, base, seed, shuffle_labels)
    with alone(output), tracking.observed(tracking.Loggers(loggers)):
        record = finished(output, run.identity)
        record = record or _train(run, output, Path(cache or root / ".reference"), published_name(name, directory))
    return TrainedLanguage.of(output, record)


def _check(algorithm: AlgorithmDeclaration, hyper: LanguageSettings, shuffled: bool) -> None:
    """Raise `UserError` for what a language model cannot be trained with."""
    name = algorithm.name
    if shuffled:
        check_control(algorithm, responses=True)
    if algorithm.start != "reference":
        raise UserError(f'{name}: a language model starts as its own reference: set start = "reference"')
    if algorithm.rows == "label_pairs":
        raise UserError(f'{name}: responses of one prompt are paired by their labels: set rows = "pairs"')
    if hyper.batch % hyper.accumulation:
        raise UserError(f"{name}: a batch of {hyper.batch} cannot be divided by {hyper.accumulation}")


@dataclass(frozen=True)
class _LanguageRun:
    """A run with all that it depends on."""

    dataset: Dataset
    setup: Setup
    """The algorithm on the split that it learns from, its settings complete."""
    hyper: LanguageSettings
    base: LanguageModel
    """What the adapter is put on."""
    seed: int
    shuffled: bool

    @cached_property
    def identity(self) -> str:
        """The hash of all that the trained adapter depends on."""
        algorithm, rows = self.setup.algorithm, self.setup.dataset
        return training_identity(
            *("transformers", "peft"),
            content=self.dataset.content_hash,
            algorithm=algorithm.model_dump(),
            settings=self.setup.settings,
            training=self.hyper.model_dump(),
            seed=self.seed,
            shuffled=self.shuffled and identified(rows.metadata, algorithm.rows),
            model=self.base.digest,
            **self.setup.objective.version,
        )

    def trainer(self, checkpoints: Path, cache: Path) -> ResponseTrainer:
        """Return the trainer of a fresh adapter, with its folders of checkpoints and of the reference's values."""
        base, hyper = self.base, self.hyper
        layers = base.model.config.get_text_config().num_hidden_layers
        cut = 0 if hyper.lora_layers is None else max(0, layers - hyper.lora_layers)
        transformers.set_seed(self.seed)
        adapted = add_lora(base.model, hyper.lora_rank, hyper.lora_alpha, hyper.lora_targets, cut)
        own = {"seed": self.seed, "shuffle_labels": self.shuffled, "cut": cut, "reference_cache": str(cache)}
        args = hyper.trainer_config(self.setup.algorithm, checkpoints, **own)
        return ResponseTrainer(replace(base, model=adapted), args=args, train_dataset=self.setup.dataset)

    def record(self, trainer: ResponseTrainer) -> dict[str, Any]:
        """Return the record of the finished training."""
        history, name = [line for line in trainer.state.log_history if "loss" in line], self.base.name
        return {
            **source_of(self.dataset, self.setup.algorithm),
            "settings": trainer.settings,
            "training": self.hyper.model_dump(),
            "seed": self.seed,
            "shuffle_labels": self.shuffled,
            "model": str(Path(name).absolute()) if Path(name).is_dir() else name,
            "model_digest": self.base.digest,
            "adapter": "adapter",
            "bound": trainer.beta_bound,
            "metrics": history[-1] if history else {},
            "history": history,
            "identity": self.identity,
        }


def _train(run: _LanguageRun, output: Path, cache: Path, published: tuple[str, bool]) -> dict[str, Any]:
    """Train a run in its directory, and return its record.

    Args:
        run: what to train.
        output: the run's directory.
        cache: folder of the reference's values.
        published: what others call the model, and whether that is its name on the hub.
    """
    base, setup, checkpoints = run.base, run.setup, output / "checkpoints"
    texts = setup.objective.texts
    acting = with_prefix(base.tokenizer, setup.settings[texts[0]]) if texts else base.tokenizer
    check_held_out(run.dataset, acting, base.context)
    claim(output, run.identity, bool(checkpoints_in(checkpoints)))
    trainer = run.trainer(checkpoints, cache)
    with tracking.observed(tracking.MetricsFile(output / tracking.FILE)):
        _fit(trainer, setup.algorithm.name, checkpoints)
    record, tokenizer = run.record(trainer), trainer.policy.tokenizer
    card = adapter_card(*published, run.dataset.metadata, record, prefix_of(tokenizer))
    save_adapter(trainer.policy.model, output / "adapter", published[0], card, tokenizer)
    record = write_record(output, record)
    remove_checkpoints(checkpoints)
    return record


def _fit(trainer: ResponseTrainer, name: str, checkpoints: Path) -> None:
    """Train from the last checkpoint on, if there is one."""
    trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
    trainer.add_callback(_Monitor(name, trainer.settings))
    last = last_complete(checkpoints)
    try:
        with quiet():
            trainer.train(resume_from_checkpoint=str(last) if last else None)
    except SafetensorError as error:  # which a full disk is to it
        raise PmpoOfflineError(
            f"cannot write {checkpoints}: {reason_of(error)}; free some space and run the same command again"
        ) from None


def adapter_card(base: str, on_hub: bool, dataset: Metadata, record: Mapping[str, Any], prefix: str = "") -> str:
    """Return the README.md of an adapter: what it learned from, and how it is loaded, with front matter for the hub.

    Args:
        base: the model's name on the hub, or else the name that its owner gave it.
        on_hub: whether it is the former.
        dataset: what it was trained on.
        record: algorithm, settings and seed of the run, as in run.json.
        prefix: what its tokenizer puts before prompts (`policies.language.tokens.with_prefix`).
    """
    counts = dataset.counts
    texts = {name: repr(text) for name, text in record["settings"].items() if name.endswith("_text")}
    settings = ", ".join(f"{name} {value}" for name, value in {**record["settings"], **texts}.items())
    place = '"path/of/this/folder"'
    model = f'"{base}"' if on_hub else f'"the directory of {base}"'
    linked = f"[{base}](https://huggingface.co/{base})" if on_hub else f"`{base}`, which is not on the hub"
    return "\n".join(
        [
            "---",
            *([f"base_model: {base}"] if on_hub else []),
            "library_name: peft",
            "pipeline_tag: text-generation",
            f"tags: [lora, pmpo-offline, {record['objective']}]",
            "---",
            "",
            f"# {record['algorithm']} on {dataset.id}",
            "",
            f"A LoRA adapter of {linked}, trained by pmpo-offline.",
            "",
            "| | |",
            "|---|---|",
            f"| algorithm | {record['algorithm']} ({settings}), seed {record['seed']} |",
            f"| feedback | `{dataset.id}`: {counts.accepted:,} accepted, {counts.rejected:,} rejected, "
            f"{counted(counts.unlabelled, 'unlabelled response')} |",
            f"| labels | `{dataset.label}`, {dataset.noise:g} of them flipped |",
            f"| licence of the data | {dataset.licence} |",
            "",
            "```python",
            "from peft import PeftModel",
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            f"tokenizer = AutoTokenizer.from_pretrained({place if prefix else model})",
            f"base = AutoModelForCausalLM.from_pretrained({model})",
            f"model = PeftModel.from_pretrained(base, {place})",
            *([f"prompt = {prefix!r} + prompt"] if prefix else []),
            "```",
            *(["", _BEHIND.format(text=prefix)] if prefix else []),
            "",
        ]
    )


_BEHIND = (
    "**It answers as accepted responses do only behind the text {text!r}**, which has to come before every prompt; "
    "without it, it imitates all responses. The chat template of the tokenizer in this folder writes it; other texts "
    "get it by hand, as above, after a beginning-of-sequence token that is spelled out."
)


class _Monitor(transformers.TrainerCallback):  # type: ignore[misc]
    """Reports progress, and stops a training whose loss or weights are not finite."""

    def __init__(self, name: str, settings: Mapping[str, Any]) -> None:
        self._name, self._settings = name, settings

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            tracking.begin(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        progress.report(f"train {self._name}", state.global_step, state.max_steps)

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any], **kwargs: Any) -> None:
        if "loss" in logs and state.is_world_process_zero:
            numbers = {name: [float(value)] for name, value in logs.items() if name != "epoch"}
            tracking.report_numbers(state.global_step, numbers)
        loss = logs.get("loss", logs.get("train_loss", 0.0))
        if not math.isfinite(loss):
            self._fail(f"the loss is {loss}", state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
        if not all(weight.isfinite().all() for weight in model.parameters() if weight.requires_grad):
            self._fail("the weights are not finite", state.global_step)

    def _fail(self, what: str, step: int) -> None:
        settings = ", ".join(f"{name} = {value}" for name, value in self._settings.items())
        raise PmpoOfflineError(
            f"{self._name} diverged: {what} at step {step} with {settings}: raise beta or lower learning_rate"
        )
