"""Behaviour policies: the small networks that collect control datasets, read from a file and never changed again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from pmpo_offline.runtime.arrays import save_tensors
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError

Array = NDArray[np.float64]
Single = NDArray[np.float32]

FARTHEST = 10.0
"""Normalised observations are clipped to this."""
_LAYERS = 3
_NAMES = ("center", "scale", "log_std", *(f"{kind}.{i}" for i in range(_LAYERS) for kind in ("weight", "bias")))


@dataclass(frozen=True)
class BehaviorPolicy:
    """A Gaussian policy: its mean is a perceptron with two tanh layers of H units, its deviation the same everywhere.

    The mean is not squashed: environments clip actions. NumPy computes it, in single precision.
    """

    center: Single
    """Subtracted from an observation, (O,)."""
    scale: Single
    """Divides it then, (O,), above 0."""
    weights: tuple[Single, ...]
    """(O, H), (H, H), (H, A)."""
    biases: tuple[Single, ...]
    """(H,), (H,), (A,)."""
    log_std: Single
    """Logarithm of the deviation with which the policy explored, (A,)."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Where it comes from: task, algorithm, seed, steps, return."""

    def __post_init__(self) -> None:
        for name, values in self.arrays().items():
            if not np.isfinite(values).all():
                raise ValueError(f"{name} holds values that are not finite")
            values.flags.writeable = False
        shapes = [weight.shape for weight in self.weights]
        hidden = self.weights[0].shape[-1]
        ends = (len(self.center), hidden), (hidden, hidden), (hidden, len(self.log_std))
        if shapes != list(ends) or [bias.shape for bias in self.biases] != [(end,) for _, end in ends]:
            raise ValueError(f"weights {shapes} do not lead from observations to actions: expected {list(ends)}")
        if self.scale.shape != self.center.shape or (self.scale <= 0).any():
            raise ValueError("scale must be positive and as long as center")

    def arrays(self) -> dict[str, Single]:
        """Return its numbers by the names they have in a file."""
        layers = {f"weight.{i}": weight for i, weight in enumerate(self.weights)}
        layers |= {f"bias.{i}": bias for i, bias in enumerate(self.biases)}
        return {"center": self.center, "scale": self.scale, "log_std": self.log_std, **layers}

    @classmethod
    def of(cls, arrays: Mapping[str, Single], facts: Mapping[str, str]) -> Self:
        """Return the policy of such numbers; `ValueError` if they do not fit together, `KeyError` if any is missing."""
        return cls(
            center=arrays["center"],
            scale=arrays["scale"],
            weights=tuple(arrays[f"weight.{i}"] for i in range(_LAYERS)),
            biases=tuple(arrays[f"bias.{i}"] for i in range(_LAYERS)),
            log_std=arrays["log_std"],
            facts=dict(facts),
        )

    @property
    def observation_dim(self) -> int:
        """O."""
        return len(self.center)

    @property
    def action_dim(self) -> int:
        """A."""
        return len(self.log_std)

    def normalised(self, observation: Array) -> Single:
        """Return what the network sees of observations, (…, O) -> (…, O)."""
        scaled = (observation - self.center) / self.scale
        return np.clip(scaled, -FARTHEST, FARTHEST).astype(np.float32)

    def mean(self, observation: Array) -> Array:
        """Return the mean actions at observations, (m, O) -> (m, A), unclipped."""
        x = self.normalised(observation)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = np.tanh(x @ weight + bias)
        return np.asarray(x @ self.weights[-1] + self.biases[-1], np.float64)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a policy.

        Raises:
            UserError: there is no such file.
            PmpoOfflineError: it is damaged or holds something else.
        """
        arrays, facts = _read(path)
        return cls._checked(path, arrays, facts)

    @classmethod
    def load_ladder(cls, path: Path) -> list[Self]:
        """Read the policies of a training, earliest first; raises what `load` raises."""
        arrays, facts = _read(path)
        rungs = {len(values) if values.ndim else 0 for values in arrays.values()}
        if len(rungs) != 1:
            raise PmpoOfflineError(f"{path} is no ladder of behaviour policies: its tensors differ in length")
        frames = facts.get("frames", "").split(",")
        return [
            cls._checked(
                path,
                {name: values[rung] for name, values in arrays.items()},
                facts | ({"frames": frames[rung]} if rung < len(frames) else {}),
            )
            for rung in range(rungs.pop())
        ]

    def save(self, path: Path) -> None:
        """Write the policy, whole or not at all; `PmpoOfflineError` if the disk refuses."""
        _write(path, self.arrays(), self.facts)

    @staticmethod
    def save_ladder(path: Path, policies: Sequence[BehaviorPolicy], facts: Mapping[str, str]) -> None:
        """Write the policies of a training in one file, at half precision; `PmpoOfflineError` if the disk refuses.

        The fact `frames` lists the `frames` of each policy.
        """
        each = [policy.arrays() for policy in policies]
        stacked = {name: np.stack([arrays[name] for arrays in each]).astype(np.float16) for name in _NAMES}
        frames = ",".join(policy.facts.get("frames", "") for policy in policies)
        _write(path, stacked, {**facts, "frames": frames})

    @classmethod
    def _checked(cls, path: Path, arrays: Mapping[str, Single], facts: Mapping[str, str]) -> Self:
        try:
            return cls.of(arrays, facts)
        except (ValueError, TypeError, IndexError) as error:
            raise PmpoOfflineError(f"{path} holds no behaviour policy: {error}") from None


def _read(path: Path) -> tuple[dict[str, Single], dict[str, str]]:
    if not path.is_file():
        raise UserError(f"{path} does not exist: name a behaviour policy's .safetensors")
    try:
        with safe_open(path, framework="np") as file:
            arrays = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}  # noqa: SIM118
            facts = dict(file.metadata() or {})
    except (OSError, SafetensorError, TypeError) as error:
        raise PmpoOfflineError(
            f"{path} cannot be read as safetensors ({error}): get it again, or train it again"
        ) from None
    if missing := [name for name in _NAMES if name not in arrays]:
        raise PmpoOfflineError(f"{path} holds no behaviour policy: {', '.join(missing)} missing")
    return arrays, facts


def _write(path: Path, arrays: Mapping[str, NDArray[np.float32 | np.float16]], facts: Mapping[str, str]) -> None:
    import torch  # here, because what collects episodes only reads policies, without torch

    save_tensors(path, {name: torch.tensor(values) for name, values in arrays.items()}, **facts)
