"""Configuration of language-model training: of the trainers, as fields beside transformers' own, and of runs.

>>> from pmpo_offline.training.language import PMPOConfig, PMPOTrainer
>>> args = PMPOConfig("results", beta="1.05x", per_device_train_batch_size=8, max_steps=100)
>>> trainer = PMPOTrainer(model, args=args, train_dataset=dataset, processing_class=tokenizer, peft_config=LoraConfig())
>>> trainer.train()
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from transformers import TrainingArguments

from pmpo_offline.declarations.catalog import AlgorithmDeclaration
from pmpo_offline.objectives import OBJECTIVES
from pmpo_offline.policies.language.tokens import Reduction
from pmpo_offline.runtime.errors import UserError

WITHOUT_EFFECT = {
    "the reference is always evaluated before the training, and cached": (
        "precompute_ref_log_probs",
        "precompute_ref_batch_size",
    ),
    "the reference stays the model before training": (
        "sync_ref_model",
        "ref_model_mixup_alpha",
        "ref_model_sync_steps",
    ),
    "rows are tokenized in this process": ("dataset_num_proc",),
    "sample from the trained model with `pmpo-offline evaluate`": ("generate_during_eval",),
    "a completion that is too long is cut at its end": ("truncation_mode",),
    "max_length limits prompt and completion together": ("max_prompt_length", "max_completion_length"),
    "padding is not read": ("padding_free", "padding_value", "pad_token", "pad_to_multiple_of", "label_pad_token_id"),
    "the loss is the objective's, and its hyperparameters are in `settings`": (
        *("loss_type", "loss_weights", "ld_alpha", "f_divergence_type", "f_alpha_divergence_coef", "label_smoothing"),
        *("use_weighting", "discopop_tau", "desirable_weight", "undesirable_weight"),
    ),
    "no auxiliary loss of experts is added": ("router_aux_loss_coef",),
    "gradient_checkpointing lowers the memory of activations": ("activation_offloading",),
    "code that comes with a model is not run: load the model yourself and pass it": ("trust_remote_code",),
}
"""Fields of TRL's `DPOConfig` and `KTOConfig` that are accepted and change nothing, by the reason why."""


@dataclass
class TRLFields(TrainingArguments):  # type: ignore[misc]
    """transformers' arguments and TRL's fields without effect; setting one of these is a warning."""

    precompute_ref_log_probs: bool = False
    precompute_ref_batch_size: int | None = None
    sync_ref_model: bool = False
    ref_model_mixup_alpha: float = 0.6
    ref_model_sync_steps: int = 512
    dataset_num_proc: int | None = None
    generate_during_eval: bool = False
    truncation_mode: str = "keep_start"
    max_prompt_length: int | None = None
    max_completion_length: int | None = None
    padding_free: bool = False
    padding_value: int | None = None
    pad_token: str | None = None
    pad_to_multiple_of: int | str | None = "auto"
    label_pad_token_id: int = -100
    loss_type: list[str] | str | None = None
    loss_weights: list[float] | None = None
    ld_alpha: float | None = None
    f_divergence_type: str = "reverse_kl"
    f_alpha_divergence_coef: float = 0.5
    label_smoothing: float = 0.0
    use_weighting: bool = False
    discopop_tau: float = 0.05
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0
    router_aux_loss_coef: float | None = None
    activation_offloading: bool = False
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        defaults: dict[str, Any] = {field.name: field.default for field in fields(TRLFields)}
        for reason, names in WITHOUT_EFFECT.items():
            if changed := [name for name in names if getattr(self, name) != defaults[name]]:
                warnings.warn(f"{', '.join(changed)} has no effect: {reason}", stacklevel=4)
        if self.train_sampling_strategy == "sequential":
            warnings.warn(
                "train_sampling_strategy = sequential has no effect: every batch holds all classes, in random order",
                stacklevel=4,
            )


@dataclass
class ResponseConfig(TRLFields):
    """Any objective on responses. `per_device_train_batch_size` counts rows of the dataset, or groups of a prompt.

    Mixed precision, FSDP, DeepSpeed and 8-bit optimizers are the options of `TrainingArguments` and of `accelerate
    launch`. They take the same path through the code as what is tested, but need a GPU and were not run.
    """

    _VALID_DICT_FIELDS = (*TrainingArguments._VALID_DICT_FIELDS, "settings", "model_init_kwargs")
    objective: str = "pmpo"
    """A name in `objectives.OBJECTIVES`."""
    settings: dict[str, Any] | str | None = field(default_factory=dict)
    """The objective's hyperparameters, over its defaults; β may be a multiple of its bound, as in `"1.05x"`."""
    rows: Literal["all", "accepted", "unrejected", "balanced", "top", "pairs", "candidates"] = "all"
    """What a batch consists of: rows in the shares of the data, accepted rows, equally many accepted and rejected rows,
    the best tenth by score; pairs of an accepted and a rejected response to one prompt; groups of scored responses."""
    reduction: Reduction = "sum"
    """How the tokens of a response count, in log-probabilities and divergences alike."""
    policy_kl: Literal["exact", "mismatched"] = "exact"
    """KTO's reference point: over the vocabulary at the recorded places, or from mismatched responses as in TRL."""
    max_length: int | None = 1024
    """The most tokens of a prompt and its completion: a longer completion is cut, a longer prompt an error. None: the
    model's context."""
    reference_cache: str | None = None
    """Folder of the reference's values for every row, shared by all trainings; default `.reference` beside datasets."""
    cut: int = 0
    """The number of lower layers that are not trained: their output is cached, so that only those above are run."""
    shuffle_labels: bool = False
    """Permute labels and scores among all rows: a control with uninformative feedback."""
    logging_steps: float = 10
    """Updates per line of the log."""
    logging_nan_inf_filter: bool = False
    """Leave non-finite losses out of the log; with it a collapse would look like success."""

    model_init_kwargs: dict[str, Any] | str | None = None
    """Options of `from_pretrained`, for a model that is given by its name."""
    disable_dropout: bool = True
    """Train without the dropout of the model and its adapter, as in TRL."""

    @property
    def algorithm(self) -> AlgorithmDeclaration:
        """The declaration of what is trained."""
        settings = self.settings if isinstance(self.settings, dict) else {}
        return AlgorithmDeclaration(
            name=self.objective,
            family="language",
            title=self.objective,
            objective=self.objective,
            rows=self.rows,
            start="reference",
            settings=settings,
        )


@dataclass
class PMPOConfig(ResponseConfig):
    """PMPO: `objectives.pmpo`, with the divergence of a language model."""

    alpha: float = 0.5
    """Weight of the accepts, in [0, 1]; 1 learns from accepts only, 0 from rejects only."""
    beta: float | str | None = 1.0
    """Weight of the divergence: a number, or a multiple of the least stable one such as `"1.05x"`. Below that bound
    the loss has no minimum, which is allowed with a warning; the bound is `PMPOTrainer.beta_bound`."""
    normalize: Literal["joint", "set"] = "joint"
    """Average each class over its own rows ("set"), or divide both sums by the number of labelled rows."""
    divergence: Literal["behavior", "forward", "reverse", "alpha", "renyi"] = "forward"
    """From the reference, exact over the vocabulary; "behavior": -log pi of the data itself, which needs none."""
    order: float = 0.5
    """Of the alpha- and Renyi divergence, in [0, 1]."""
    over: Literal["all", "labelled"] = "all"
    """The rows that the divergence is averaged over."""
    reject_mass: float | str | None = 1.0
    """P_r, by which β is divided; "dataset" for that of the data."""
    floor: float = 0.0
    """A probability: rejects less likely than this are pushed no further."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objective != "pmpo":
            raise UserError(f"PMPOConfig is for the objective pmpo: take ResponseConfig for {self.objective}")
        given = self.settings if isinstance(self.settings, dict) else {}
        chosen = {name: _number(getattr(self, name)) for name in OBJECTIVES["pmpo"].settings}
        self.settings = {**{name: value for name, value in chosen.items() if value is not None}, **given}


def _number(value: Any) -> Any:
    """Return the number in a command line's text; any other value as it is.

    `HfArgumentParser` reads a field that may be a number, a text or None as text.
    """
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


class LanguageSettings(BaseModel):
    """Hyperparameters of `train_language`, beside the objective's own: `[training]` of baselines/language/*.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    steps: int = Field(default=100, ge=1, le=10**9, serialization_alias="max_steps")
    """Updates."""
    batch: int = Field(default=32, ge=1)
    """Rows, pairs or groups of one prompt per update."""
    accumulation: int = Field(default=1, ge=1, serialization_alias="gradient_accumulation_steps")
    """Micro-batches per update, to save memory; the update stays the same."""
    learning_rate: float = Field(default=2e-4, gt=0)
    """Peak of the schedule: linear up over the first tenth of the steps, then half a cosine down to zero."""
    weight_decay: float = Field(default=0.0, ge=0)
    clip: float = Field(default=1.0, gt=0, serialization_alias="max_grad_norm")
    """Largest norm of the gradient."""
    reduction: Reduction = "sum"
    """Over the tokens of a response, for log-probabilities and divergences alike."""
    policy_kl: Literal["exact", "mismatched"] = "exact"
    """KTO's reference point (`batches.InputSettings`)."""
    max_length: int | None = Field(default=None, ge=2)
    """The most tokens of a prompt and its completion; None: the model's context."""
    lora_rank: int = Field(default=8, ge=1)
    lora_alpha: float = Field(default=16.0, gt=0)
    lora_targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    """The linear modules that an adapter is put on."""
    lora_layers: int | None = Field(default=None, ge=1)
    """Put the adapter on this many top layers only; the states below them are computed once and cached. None: all."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the model's weights; the adapter is trained in float32."""
    quantize: Literal["8bit", "4bit"] | None = None
    """Hold the model's weights in 8 or 4 bits, on a GPU."""
    checkpoint_every: int = Field(default=50, ge=1, serialization_alias="save_steps")
    """Updates between checkpoints."""

    def trainer_config(self, algorithm: AlgorithmDeclaration, output: Path, **more: Any) -> ResponseConfig:
        """Return the configuration of a trainer that writes its checkpoints to `output`; `more` are further fields."""
        rows: Any = algorithm.rows
        return ResponseConfig(
            str(output),
            objective=algorithm.objective,
            settings=dict(algorithm.settings),
            rows=rows,
            per_device_train_batch_size=self.batch // self.accumulation,
            lr_scheduler_type="cosine",
            warmup_steps=self.steps // 10,
            logging_steps=max(1, self.steps // 20),
            save_total_limit=1,
            disable_tqdm=True,
            **self.model_dump(by_alias=True, include=_PASSED_ON),
            **more,
        )


_PASSED_ON = {
    *("steps", "accumulation", "learning_rate", "weight_decay", "clip", "checkpoint_every"),
    *("reduction", "policy_kl", "max_length"),
}
"""The settings that are fields of `ResponseConfig`, by their serialization aliases."""
