"""Fields of TRL's `DPOConfig` and `KTOConfig` that change nothing here: each is accepted, setting one is a warning.

Those that do something are fields of `config.ResponseConfig`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields
from typing import Any

from transformers import TrainingArguments

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
"""The fields by the reason why they change nothing."""


@dataclass
class TRLFields(TrainingArguments):  # type: ignore[misc]
    """transformers' arguments and TRL's fields without effect."""

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
