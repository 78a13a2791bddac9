"""Trainers of language models on accept/reject responses: transformers' own `Trainer` with an objective of ours.

They are called like TRL's trainers, take its datasets (`training.language.columns`) beside ours, and log its metrics
(`training.language.metrics`).

What differs from TRL's: micro-batches of constant classes (`strata`), the reference from its cache, log-probabilities
at the completions' places alone.
"""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from torch import Tensor

from pmpo_offline.data import Dataset, home
from pmpo_offline.declarations import OBJECTIVES
from pmpo_offline.policies.language.model import LanguageModel
from pmpo_offline.policies.language.scoring import check_head
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.training.config import beta_bound, settle, warn_below
from pmpo_offline.training.control.batches import inputs as asked_of
from pmpo_offline.training.language.batches import Measures
from pmpo_offline.training.language.checkpoints import SafeCheckpoints
from pmpo_offline.training.language.config import PMPOConfig, ResponseConfig
from pmpo_offline.training.language.ddp import inside
from pmpo_offline.training.language.load_policy import policy_of
from pmpo_offline.training.language.metrics import by_name
from pmpo_offline.training.language.reference import Reference, reference_of
from pmpo_offline.training.language.responses import part, read
from pmpo_offline.training.language.sampler import Feed, Loader
from pmpo_offline.training.language.strata import Indices
from pmpo_offline.training.language.trl_data import dataset_of
from pmpo_offline.training.shuffle import check_control

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


_COMPARED = {"ref_logp", "ref_chosen", "ref_rejected", "policy_kl"}


class ResponseTrainer(SafeCheckpoints):
    """Trains any objective on responses.

    Args:
        model: a causal language model, a directory or a hub id of one, or a peft model with a fresh adapter.
        ref_model: what the policy is compared with; default the model without its adapter, or, where it is trained
            whole, a copy of it.
        args: default `config_class` with a folder named after the model.
        data_collator: None; rows are collated here.
        train_dataset: ours (its train split), or rows in one of TRL's forms.
        eval_dataset: likewise (of ours its test split), or a dictionary of several.
        processing_class: the tokenizer; default the model's own.
        compute_metrics: None; there are no logits to compute any from.
        callbacks: of transformers.
        optimizers: an optimizer and a schedule in place of the configured ones.
        quantization_config: for a model that is given by its name: hold its weights in 8 or 4 bits (on a GPU).
        peft_config: puts a fresh adapter on the model.

    Raises:
        UserError: whatever of this does not fit together, in one line.
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
        if data_collator is not None or compute_metrics is not None:
            raise UserError("rows are collated here and there are no logits: leave data_collator, compute_metrics out")
        if train_dataset is None:
            raise UserError("train_dataset is missing: give a dataset of responses")
        args = args or self.config_class(f"{_name(model)}-{self.config_class.objective}")
        if args.n_gpu > 1:
            raise UserError(f"one process sees {args.n_gpu} GPUs: start one for each with accelerate launch")
        transformers.set_seed(args.seed)  # an adapter begins at random
        self._config, self._algorithm = args, args.algorithm
        if args.shuffle_labels:
            check_control(self._algorithm, responses=True)
        self.policy = policy_of(model, processing_class, quantization_config, peft_config)
        check_head(self.policy.model)
        if args.gradient_checkpointing and hasattr(self.policy.model, "peft_config"):
            self.policy.model.enable_input_require_grads()

        dataset = self._dataset(train_dataset, "train")
        self.settings = settle(self._algorithm, {}, dataset)
        """The objective's, complete."""
        self.objective = OBJECTIVES[self._algorithm.objective]
        self.beta_bound = beta_bound(self._algorithm, self.settings, dataset)
        """The least stable β of these settings on the training rows; None where the objective has no bound."""
        if args.process_index == 0:
            warn_below(self._algorithm, [self.settings], [self.beta_bound])
        self.measures = self._measures()
        self.reference = self._reference(ref_model)
        """None where nothing is compared."""
        held_out = eval_dataset if isinstance(eval_dataset, dict) else {"": eval_dataset}
        feeds = {name: self._feed(self._dataset(each, "test")) for name, each in held_out.items() if each is not None}
        self._reported: dict[str, list[dict[str, Tensor]]] = defaultdict(list)
        super().__init__(
            model=self.policy.model,
            args=args,
            train_dataset=self._feed(dataset, shuffle=args.shuffle_labels),
            eval_dataset=feeds if isinstance(eval_dataset, dict) else feeds.get(""),
            processing_class=self.policy.tokenizer,
            callbacks=callbacks,
            optimizers=optimizers,
        )
        self.loss_is_scaled_for_ga = False  # a micro-batch's loss is a mean, and the Trainer takes the mean of these

    def _dataset(self, given: Any, split: str) -> Dataset:
        return part(given, split) if isinstance(given, Dataset) else dataset_of(given, self.policy.tokenizer, split)

    def _feed(self, dataset: Dataset, *, shuffle: bool = False) -> Feed:
        responses = read(dataset, self.policy.tokenizer, context=self._context)
        return Feed(responses.shuffled(self._config.seed) if shuffle else responses, self._algorithm, self.settings)

    @property
    def _context(self) -> int:
        """The most tokens of a row."""
        positions: int = self.policy.model.config.get_text_config().max_position_embeddings
        return min(self._config.max_length or positions, positions)

    def _measures(self) -> Measures:
        kind = self.settings.get("divergence", "behavior")
        return Measures(
            reduction=self._config.reduction,
            divergence=kind,
            order=self.settings.get("order", 0.0),
            over=self.settings.get("over", "all"),
            policy_kl=self._config.policy_kl,
            together=kind != "behavior",
            policy_kl_together="policy_kl" in self.objective.inputs.values() and self._config.policy_kl == "exact",
            context=self._context,
            beta=self.settings.get("beta", 1.0),
            gather=lambda rows: self.accelerator.gather(rows),
        )

    def _reference(self, ref_model: PreTrainedModel | None) -> Reference | None:
        args, policy = self._config, self.policy
        compared = _COMPARED & set(self.objective.inputs.values())
        if not compared and not args.cut and self.measures.divergence == "behavior":
            return None
        folder = Path(args.reference_cache) if args.reference_cache else home() / ".reference"
        return reference_of(policy, ref_model, folder, args.cut, args.device)

    def get_train_dataloader(self) -> Loader:
        """Return this rank's micro-batches, after making sure that the cache knows the reference's view of them."""
        args, feed = self.args, self.train_dataset
        strata = feed.strata(
            args.per_device_train_batch_size,
            args.seed,
            accumulation=args.gradient_accumulation_steps,
            ranks=args.world_size,
            window=8 if args.train_sampling_strategy == "group_by_length" else 1,
        )
        steps = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * len(strata))
        # Before the model is wrapped or sharded, those for evaluation too.
        drawn = np.concatenate([strata.draw(step).flatten() for step in range(min(steps, len(strata)))])
        self._prepare(feed, feed.rows(drawn))
        held_out = self.eval_dataset.values() if isinstance(self.eval_dataset, dict) else [self.eval_dataset]
        for each in held_out:
            if each is not None:
                self._prepare(each, each.every_row)
        return Loader(feed, strata, args.process_index)

    def _prepare(self, feed: Feed, rows: Indices) -> None:
        """Make sure that the cache knows the reference's view of rows: every rank looks after its share of them."""
        if self.reference is None:
            return
        tokens = [feed.responses.tokens[row] for row in rows.tolist()]
        self.reference.prepare(tokens[self.args.process_index :: self.args.world_size])
        self.accelerator.wait_for_everyone()
        self.reference.prepare(tokens)  # what the others found is read, or, on another machine's disk, computed

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Loader:
        """Return the rows once over; the last batches are filled up with rows of another pass."""
        given = self.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(given, str):
            given = self.eval_dataset[given]
        feed = given if isinstance(given, Feed) else self._feed(self._dataset(given, "test"))
        self._prepare(feed, feed.every_row)
        batch, ranks = self.args.per_device_eval_batch_size, self.args.world_size
        strata = feed.strata(batch, self.args.seed, accumulation=1, ranks=ranks, window=1)
        return Loader(feed, strata, self.args.process_index)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the loss of a micro-batch, a mean over its entries."""
        policy = self.accelerator.unwrap_model(model)

        def loss() -> tuple[Tensor, dict[str, Tensor]]:
            entries = inputs["entries"].cpu().numpy()
            batch = inputs["feed"].batch(entries, inputs["weight"], policy, self.reference, self.measures)
            wanted = asked_of(batch, {**self.objective.inputs, **self.objective.optional})
            value, metrics = self.objective(wanted, weight=inputs["weight"], **self.settings)
            return value, by_name(batch, metrics)

        with self.accelerator.autocast():
            value, metrics = inside(model, policy, loss)
        self._reported["train" if model.training else "eval"].append(metrics)
        return (value, {}) if return_outputs else value

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[Tensor, None, None]:
        """Return the loss alone."""
        with torch.no_grad():
            return self.compute_loss(model, self._prepare_inputs(inputs)).detach(), None, None

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log these and the means, over micro-batches and ranks, of what the objective reported since last time."""
        loss = next((name for name in logs if name.startswith("eval_") and name.endswith("_loss")), None)
        reported = self._reported.pop("eval" if loss else "train", [])
        if reported:
            means = {name: torch.stack([each[name] for each in reported]).mean() for name in sorted(reported[0])}
            table = self.accelerator.reduce(torch.stack(list(means.values())), "mean")
            prefix = loss.removesuffix("loss") if loss else ""
            logs.update({f"{prefix}{name}": value for name, value in zip(means, table.tolist(), strict=True)})
        super().log(logs, start_time)

    def floating_point_ops(self, inputs: Any) -> int:
        """Return 0: what transformers would count here are the tokens of inputs that we do not have."""
        return 0


class PMPOTrainer(ResponseTrainer):
    """PMPO: accepts, rejects, or both. Its arguments are those of `ResponseTrainer`, its configuration `PMPOConfig`."""

    config_class = PMPOConfig


def _name(model: Any) -> str:
    if isinstance(model, str):
        return Path(model).name
    if isinstance(model, LanguageModel):
        return model.name
    return Path(getattr(model.config, "_name_or_path", "") or "model").name
