"""The hyperparameters of a training run on responses, as `[training]` of baselines/language/*.toml declares them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pmpo_offline.policies.language.tokens import Reduction


class LanguageSettings(BaseModel):
    """What `train_language` is told beside the objective's own settings."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    steps: int = Field(default=100, ge=1)
    """Updates."""
    batch: int = Field(default=32, ge=1)
    """Rows, pairs or groups of one prompt an update."""
    accumulation: int = Field(default=1, ge=1)
    """Micro-batches that an update is divided into, to save memory; the update stays the same."""
    learning_rate: float = Field(default=2e-4, gt=0)
    """Peak of the schedule: linear up over the first tenth of the steps, then half a cosine down to zero."""
    weight_decay: float = Field(default=0.0, ge=0)
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    reduction: Reduction = "sum"
    """Over the tokens of a response, for log-probabilities and divergences alike."""
    policy_kl: Literal["exact", "mismatched"] = "exact"
    """KTO's reference point (`batches.Measures`)."""
    max_length: int | None = Field(default=None, ge=2)
    """The most tokens of a prompt and its completion; None: what the model has positions for."""
    lora_rank: int = Field(default=8, ge=1)
    lora_alpha: float = Field(default=16.0, gt=0)
    lora_targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    """The linear modules that an adapter is put on."""
    lora_layers: int | None = Field(default=None, ge=1)
    """Only so many layers, from the top; the states below them are computed once and cached. None: all."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the model's weights; the adapter is trained in float32."""
    quantize: Literal["8bit", "4bit"] | None = None
    """Hold the model's weights in 8 or 4 bits, on a GPU."""
    checkpoint_every: int = Field(default=50, ge=1)
    """Updates between checkpoints."""
