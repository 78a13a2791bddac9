"""Trainers of language models on accept/reject responses: transformers' own `Trainer` with one of our objectives.

They have the signature of TRL's trainers, take TRL's datasets (`trl_data`) beside ours, and log TRL's metrics.

What differs from TRL's: micro-batches with constant class counts (`sampler`), a cached reference, and log-probabilities
computed at the completions' places only.
"""

from __future__ import annotations

import itertools
import math
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from torch import Tensor
from transformers.trainer_callback import ExportableState

from pmpo_offline.data import Dataset, home
from pmpo_offline.objectives.objective import Loss
from pmpo_offline.policies.language import model as models
from pmpo_offline.policies.language.model import LanguageModel
from pmpo_offline.policies.language.scoring import check_head
from pmpo_offline.policies.language.tokens import with_prefix
from pmpo_offline.runtime.errors import UserError, reason_of
from pmpo_offline.tasks.language.models import model_directory
from pmpo_offline.training.config import Setup, warn_below
from pmpo_offline.training.language.batches import InputSettings, Parts, ResponseBatch, Scorer
from pmpo_offline.training.language.checkpoints import SafeCheckpoints
from pmpo_offline.training.language.config import PMPOConfig, ResponseConfig
from pmpo_offline.training.language.reference import Reference, load_reference
from pmpo_offline.training.language.responses import Indices, behind_labels, take_split, tokenize_responses
from pmpo_offline.training.language.sampler import Division, Entries, MicroBatchLoader, WholeLoader
from pmpo_offline.training.language.trl_data import dataset_of
from pmpo_offline.training.shuffle import check_control
from pmpo_offline.training.tracking import trl_metrics

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_COMPARED = {"ref_logp", "ref_chosen", "ref_rejected", "policy_kl"}
"""Inputs that need a reference."""


class ResponseTrainer(SafeCheckpoints):
    """Trains any objective on responses.

    Args:
        model: a causal language model, a directory or a hub id of one, or a peft model with an adapter of its layers.
        ref_model: the reference; default the model as it is, with its adapter if that was trained before.
        args: default `config_class` with a folder named after the model.
        data_collator: has no effect; rows are collated here.
        train_dataset: ours (its train split), or rows in one of TRL's forms.
        eval_dataset: likewise (of ours its test split), or a dictionary of several.
        processing_class: the tokenizer; default the model's own.
        compute_metrics: has no effect; there are no logits to compute any from.
        callbacks: of transformers.
        optimizers: an optimizer and a schedule in place of the configured ones.
        quantization_config: for a model that is given by its name: hold its weights in 8 or 4 bits (on a GPU).
        peft_config: puts a fresh adapter on the model.

    Raises:
        UserError: arguments that do not fit together, in one line.
    """

    config_class: type[ResponseConfig] = ResponseConfig

    def __init__(
        self,
        model: str | PreTrainedModel | LanguageModel,
        ref_model: PreTrainedModel | None = None,
        args: ResponseConfig | None = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        compute_metrics: Any = None,
        callbacks: list[Any] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        quantization_config: Any = None,
        peft_config: PeftConfig | None = None,
    ) -> None:
        if data_collator is not None:
            warnings.warn("data_collator has no effect: rows are collated here, without padding", stacklevel=2)
        if compute_metrics is not None:
            warnings.warn("compute_metrics has no effect: an evaluation computes no logits to give it", stacklevel=2)
        if train_dataset is None:
            raise UserError("train_dataset is missing: give a dataset of responses")
        args = args or self.config_class(f"{_name_of(model)}-{self.config_class.objective}")
        if args.n_gpu > 1:
            raise UserError(f"one process sees {args.n_gpu} GPUs: start one for each with accelerate launch")
        transformers.set_seed(args.seed)  # an adapter is initialised at random
        self._config, self._algorithm = args, args.algorithm
        if args.shuffle_labels:
            check_control(self._algorithm, responses=True)
        options = dict(args.model_init_kwargs or {})  # type: ignore[arg-type]
        if quantization_config is not None:
            options["quantization_config"] = quantization_config
        self.policy = load_policy(model, processing_class, options, peft_config)
        _prepare(self.policy.model, args)

        dataset = self._dataset(train_dataset, "train")
        setup = Setup(self._algorithm, {}, dataset).settled()
        self.objective, self.settings = setup.objective, setup.settings
        if self.objective.texts:  # it acts on the first, of accepted responses, wherever its tokenizer goes
            acting = with_prefix(self.policy.tokenizer, self.settings[self.objective.texts[0]])
            self.policy = replace(self.policy, tokenizer=acting)
        self.beta_bound = setup.bound
        """The least stable β of these settings on the training rows; None if the objective has no bound."""
        if args.process_index == 0:
            warn_below([setup])
        self.input_settings = InputSettings(
            reduction=args.reduction,
            policy_kl=args.policy_kl,
            needs_policy_kl="policy_kl" in self.objective.needs,
            context=self._context,
            gather=lambda rows: self.accelerator.gather(rows),
            **{name: self.settings[name] for name in ("divergence", "order", "over", "beta") if name in self.settings},
        )
        self.running = RunningMeans(set(self.objective.running) & set(self.objective.optional.values()))
        self.reference = self._reference(ref_model)
        """None if nothing is compared."""
        held_out = eval_dataset if isinstance(eval_dataset, dict) else {"": eval_dataset}
        evaluated = {
            name: self._entries(self._dataset(rows, "test")) for name, rows in held_out.items() if rows is not None
        }
        self._reported: dict[str, list[dict[str, Tensor]]] = defaultdict(list)
        super().__init__(
            model=self.policy.model,
            args=args,
            train_dataset=self._entries(dataset, shuffle=args.shuffle_labels),
            eval_dataset=evaluated if isinstance(eval_dataset, dict) else evaluated.get(""),
            processing_class=self.policy.tokenizer,
            callbacks=[*(callbacks or []), *([self.running] if self.running.means else [])],
            optimizers=optimizers,
        )
        self.loss_is_scaled_for_ga = False  # a micro-batch's loss is a mean, and the Trainer takes the mean of these

    def _dataset(self, given: Any, split: str) -> Dataset:
        if isinstance(given, Dataset):
            return take_split(given, split)
        if split == "train" and not hasattr(given, "__len__") and isinstance(given, Iterable):
            args = self._config
            if args.max_steps <= 0:
                raise UserError("train_dataset has no length: set max_steps, or give rows that can be counted")
            update = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
            given = itertools.islice(given, args.max_steps * update)
        return dataset_of(given, self.policy.tokenizer, split, self._context)

    def _entries(self, dataset: Dataset, *, shuffle: bool = False) -> Entries:
        tokenizer, texts = self.policy.tokenizer, [self.settings[name] for name in self.objective.texts]
        if texts:
            responses = behind_labels(dataset, tokenizer, texts, self._context)
        else:
            responses = tokenize_responses(dataset, tokenizer, self._context)
        return Entries(responses.shuffled(self._config.seed) if shuffle else responses, self._algorithm, self.settings)

    @property
    def _context(self) -> int:
        """The most tokens of a row."""
        return min(self._config.max_length or sys.maxsize, self.policy.context or sys.maxsize)

    def _reference(self, ref_model: PreTrainedModel | None) -> Reference | None:
        args = self._config
        if _COMPARED.isdisjoint(self.objective.needs) and not args.cut and self.input_settings.divergence == "behavior":
            return None
        folder = Path(args.reference_cache) if args.reference_cache else home() / ".reference"
        return load_reference(self.policy, ref_model, folder, args.cut, args.device)

    def get_train_dataloader(self) -> MicroBatchLoader:
        """Return this rank's micro-batches, after caching the reference's values for them."""
        args, entries = self.args, self.train_dataset
        window = 8 if args.train_sampling_strategy == "group_by_length" else 1
        division = Division(args.per_device_train_batch_size, args.gradient_accumulation_steps, args.world_size, window)
        sampler = entries.sampler(division, args.seed)
        steps = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * len(sampler))
        # Before the model is wrapped or sharded, and the rows for evaluation too.
        drawn = np.concatenate([sampler.draw(step).flatten() for step in range(min(steps, sampler.first_pass))])
        self._prepare_reference(entries, entries.rows(drawn))
        held_out = self.eval_dataset.values() if isinstance(self.eval_dataset, dict) else [self.eval_dataset]
        for evaluated in filter(None, held_out):
            self._prepare_reference(evaluated, evaluated.every_row)
        return MicroBatchLoader(entries, sampler, args.process_index)

    def _prepare_reference(self, entries: Entries, rows: Indices) -> None:
        """Cache the reference's values for rows, each rank a share of them."""
        if self.reference is None:
            return
        tokens = [entries.responses.tokens[row] for row in rows.tolist()]
        if entries.responses.shown:
            tokens += entries.responses.given_label(rows)
        self.reference.prepare(tokens[self.args.process_index :: self.args.world_size])
        self.accelerator.wait_for_everyone()
        self.reference.prepare(tokens)  # the others' share is read or, without a shared disk, computed

    def get_eval_dataloader(self, eval_dataset: Any = None) -> WholeLoader:
        """Return a loader of one batch, all rows, so that no size of a batch changes the loss or a metric."""
        given = self.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(given, str):
            given = self.eval_dataset[given]
        entries = given if isinstance(given, Entries) else self._entries(self._dataset(given, "test"))
        self._prepare_reference(entries, entries.every_row)
        return WholeLoader(entries)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the loss of a micro-batch, a mean over its entries; without a gradient it is computed in parts."""
        args = self.args
        # Looking for wrappers goes through all modules, so it is done where there are any.
        policy = model if model is self.policy.model else self.accelerator.unwrap_model(model)
        parts = None
        if not torch.is_grad_enabled():
            place = args.per_device_eval_batch_size, args.process_index, args.world_size
            parts = Parts(*place, lambda table: self.accelerator.reduce(table, "sum"))
        scorer = Scorer(policy, self.reference, self.input_settings, parts)

        def loss() -> Loss:
            index, weight = inputs["index"].cpu().numpy(), inputs["weight"]
            batch = inputs["entries"].batch(index, weight, scorer)
            names = (*self.objective.needs, *self.objective.optional.values())
            read = {name: getattr(batch, name) for name in names}
            if parts is None and self.running.means:
                self.running.observe({name: read[name] for name in self.running.means})
                read |= {name: read[name].new_tensor(mean) for name, mean in self.running.means.items()}
            value, metrics = self.objective(read, weight=weight, **self.settings)
            rewarded = (batch.label, batch.ratio) if isinstance(batch, ResponseBatch) else ()
            return value, trl_metrics(metrics, *rewarded)

        with self.accelerator.autocast():
            value, metrics = _as_forward(model, policy, loss)
        self._reported["train" if model.training else "eval"].append(metrics)
        return (value, {}) if return_outputs else value

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[Tensor, None, None]:
        """Return the loss alone."""
        with torch.no_grad():
            return self.compute_loss(model, self._prepare_inputs(inputs)).detach(), None, None

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log these and the objective's metrics since the last call, averaged over micro-batches and ranks."""
        loss = next((name for name in logs if name.startswith("eval_") and name.endswith("_loss")), None)
        reported = self._reported.pop("eval" if loss else "train", [])
        if reported:
            means = {name: torch.stack([metrics[name] for metrics in reported]).mean() for name in sorted(reported[0])}
            table = self.accelerator.reduce(torch.stack(list(means.values())), "mean")
            prefix = loss.removesuffix("loss") if loss else ""
            logs.update({f"{prefix}{name}": value for name, value in zip(means, table.tolist(), strict=True)})
        super().log(logs, start_time)

    def floating_point_ops(self, inputs: Any) -> int:
        """Return 0: transformers would count the tokens of inputs that we do not have."""
        return 0


class PMPOTrainer(ResponseTrainer):
    """PMPO: accepts, rejects, or both. Its arguments are those of `ResponseTrainer`, its configuration `PMPOConfig`."""

    config_class = PMPOConfig


class RunningMeans(transformers.TrainerCallback, ExportableState):  # type: ignore[misc]
    """The mean over all updates of each input that one batch gives too coarsely, such as BCO's reward shift.

    It is constant while an update is computed, and 0 before the first. Checkpoints hold it, in trainer_state.json.

    Args:
        names: of the inputs.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.means: dict[str, float] = dict.fromkeys(sorted(names), 0.0)
        self._observed: list[Mapping[str, Tensor]] = []

    def observe(self, values: Mapping[str, Tensor]) -> None:
        """Take in what one micro-batch gave, () each; without a gradient, and of the rows of all ranks."""
        self._observed.append(values)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"args": {"names": list(self.means)}, "attributes": {"means": self.means}}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Go on from the means of the checkpoint that the training resumes from, if any."""
        self.means = dict(state.stateful_callbacks.get(type(self).__name__, self.state())["attributes"]["means"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add the update's batch, the mean of its micro-batches."""
        for name, mean in self.means.items():
            batch = sum(float(values[name]) for values in self._observed) / len(self._observed)
            self.means[name] += (batch - mean) / state.global_step
        self._observed.clear()


def _name_of(model: Any) -> str:
    """Return what a model, or the directory of this name, is called."""
    name = model if isinstance(model, str) else getattr(model, "name", "") or model.config._name_or_path
    return Path(name).name or "model"


def _prepare(model: Any, args: ResponseConfig) -> None:
    """Check that a model can be trained, and set it up as the arguments say."""
    models.check_adapter(model)
    check_head(model)
    if args.disable_dropout:
        for part in model.modules():
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.0
    if args.gradient_checkpointing and hasattr(model, "peft_config"):
        model.enable_input_require_grads()


def _as_forward(outer: Any, inner: Any, function: Callable[[], Loss]) -> Loss:
    """Call a loss as the forward pass of the model `inner`, inside its wrapper `outer`.

    DDP prepares to receive gradients, and FSDP gathers the weights, when the *wrapper* is called; our losses go through
    parts of the model only.
    """
    own = inner.__dict__.get("forward")

    def restore() -> None:
        inner.__dict__.pop("forward", None)
        if own is not None:
            inner.forward = own

    def once() -> Loss:
        restore()
        return function()

    inner.forward = once
    try:
        return outer()  # type: ignore[no-any-return]
    finally:
        restore()


def load_policy(
    model: str | PreTrainedModel | LanguageModel,
    tokenizer: PreTrainedTokenizerBase | None = None,
    options: Mapping[str, Any] | None = None,
    peft_config: PeftConfig | None = None,
) -> LanguageModel:
    """Return the model to train, in evaluation mode.

    Args:
        model: one of ours, one of transformers or peft, a directory, one of our names or a hub id.
        tokenizer: default the model's own.
        options: of transformers' `from_pretrained`, for a model given by its name.
        peft_config: puts a fresh adapter on it.

    Raises:
        UserError: no such model, no tokenizer or one without an EOS token, an adapter on an adapter.
    """
    found = _open(model, tokenizer, options or {})
    models.complete_tokenizer(found.tokenizer, found.name)
    if peft_config is not None:
        if hasattr(found.model, "peft_config"):
            raise UserError("the model has an adapter already: leave peft_config out, or merge it (merge_and_unload)")
        found = replace(found, model=models.add_adapter(found.model, peft_config))
    found.model.eval()
    return found


def _open(model: Any, tokenizer: PreTrainedTokenizerBase | None, options: Mapping[str, Any]) -> LanguageModel:
    if options and not isinstance(model, str):
        if "quantization_config" in options:
            raise UserError("quantization_config is for a model that is given by its name: this one is loaded already")
        warnings.warn("model_init_kwargs has no effect: the model is loaded already", stacklevel=4)
    if isinstance(model, LanguageModel):
        # It may have been trained since it was opened, whatever adapter is on it now.
        unchanged = model.fingerprint == models.fingerprint(model.model)
        digest = model.digest if unchanged else models.weights_hash(model.model)
        return replace(model, tokenizer=tokenizer or model.tokenizer, digest=digest)
    if isinstance(model, str):
        directory = model_directory(model)
        if not options:
            opened = models.open_model(directory, name=model, device="cpu")  # the Trainer places it
            return replace(opened, tokenizer=tokenizer or opened.tokenizer)
        try:
            model = models.load_weights(directory, **options)
        except Exception as error:  # transformers' own, bitsandbytes' where there is no GPU
            raise UserError(f"{directory} cannot be opened with {', '.join(options)}: {reason_of(error)}") from None
    name = str(getattr(model.config, "_name_or_path", "") or type(model).__name__)
    if tokenizer is None:
        try:
            tokenizer = models.load_tokenizer(model_directory(name))
        except Exception:  # the hub's, the network's and the tokenizers' own errors
            raise UserError(f"{name} comes without a tokenizer: give one as processing_class") from None
    return LanguageModel(model, tokenizer, name, models.weights_hash(model))
