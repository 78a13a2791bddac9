"""Means over the updates so far of inputs that one batch gives too coarsely, such as BCO's reward shift."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import transformers
from torch import Tensor
from transformers.trainer_callback import ExportableState


class RunningMeans(transformers.TrainerCallback, ExportableState):  # type: ignore[misc]
    """The mean of each input over all updates, constant while one is computed, 0 before the first.

    Checkpoints hold the means, in trainer_state.json.

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
