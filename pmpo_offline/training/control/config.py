"""Hyperparameters of training control policies (`[training]` of an algorithm's TOML), and when one has diverged."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

FARTHEST = 10.0
"""Largest mean action, in units of the largest recorded one, of a control policy that still does what the data do."""
LARGEST_LOSS = 1e6
"""In nats. With means within the recorded range and the least deviation, .05, an action has at most 803 a dimension."""


class TrainingSettings(BaseModel):
    """The trainer's hyperparameters, equal for all runs of a cell."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    updates: int = Field(default=3000, ge=1, le=10**9)
    batch: int = Field(default=256, ge=1, le=2**24)
    """Rows, states or pairs an update and run."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """Peak of a one-cycle schedule: linear up over the first tenth, cosine down to zero."""
    weight_decay: float = Field(default=1e-4, ge=0)
    clip: float = Field(default=5.0, gt=0)
    """Largest gradient norm of a run."""
    averaging: float = Field(default=0.999, ge=0, lt=1)
    """Decay of the running average of the weights, which is what is evaluated."""
    components: int = Field(default=5, ge=1, le=1024)
    hidden: tuple[PositiveInt, ...] = (256, 256, 256)
    refresh: float = Field(default=0.0, ge=0, lt=1)
    """Share of the way that the reference moves towards the policy every update; 0: it is frozen."""
    checkpoint_every: int = Field(default=500, ge=1)
    pretraining: int | None = Field(default=None, ge=1)
    """Updates of the clone that training starts from, where they are not those declared for it."""
    epsilon_target: float | None = Field(default=None, gt=0)
    """Of MPO, in nats: KL(target ‖ uniform over the candidates). With it the temperature is learned, by its dual."""
    epsilon_mean: float = Field(default=0.0025, gt=0)
    """Then the trust region of the means: their part of KL(reference ‖ policy), held by a learned multiplier."""
    epsilon_std: float = Field(default=1e-6, gt=0)
    """Then that of the deviations."""

    @property
    def identified(self) -> dict[str, Any]:
        """The settings that enter the identity of a training: of the constraints where they are in use.

        That of the clone has its `pretraining`.
        """
        constraints = {"epsilon_target", "epsilon_mean", "epsilon_std"}
        return self.model_dump(exclude={"pretraining"} | (set() if self.epsilon_target else constraints))


def has_diverged(reach: float | None, loss: float | None) -> bool:
    """Return whether a run's actions or its loss left all bounds, even if they are finite; None: not measured.

    Evaluation clips actions, so that such a policy still gets a score: that of pressing every lever to its end.

    Args:
        reach: the largest mean action in units of the largest recorded one.
        loss: the last one, nats.
    """
    return not ((reach is None or reach <= FARTHEST) and (loss is None or abs(loss) <= LARGEST_LOSS))
