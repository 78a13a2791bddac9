"""Gaussian mixture policies: able to hold several ways of acting at once, where one Gaussian would average them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from pmpo_offline.policies.network import StackedLinear, stacked_mlp
from pmpo_offline.runtime.arrays import load_tensors, save_tensors
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError, reason_of
from pmpo_offline.runtime.files import from_json

_HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class Mixture:
    """A mixture of K diagonal Gaussians over actions at each of (R, B) states."""

    log_weight: Tensor  # (R, B, K), normalised
    mean: Tensor  # (R, B, K, A)
    log_std: Tensor  # (R, B, K, A)

    def log_prob(self, action: Tensor) -> Tensor:
        """Log-density of actions, nats: (R, B, A) -> (R, B), or of several a state: (R, B, M, A) -> (R, B, M)."""
        grouped = action.dim() == self.mean.dim()
        points = action if grouped else action.unsqueeze(-2)
        # log_weight and log_std enter once a state; only the squared distance depends on the action.
        constant = self.log_weight - (self.log_std + _HALF_LOG_TAU).sum(-1)
        scaled = (points.unsqueeze(-2) - self.mean.unsqueeze(-3)) * torch.exp(-self.log_std).unsqueeze(-3)
        joint = constant.unsqueeze(-2) - 0.5 * scaled.square().sum(-1)
        log_prob = torch.logsumexp(joint, dim=-1) if joint.shape[-1] > 1 else joint.squeeze(-1)
        return log_prob if grouped else log_prob.squeeze(-1)

    def mode(self) -> Tensor:
        """Mean of the likeliest component, (R, B, A)."""
        return self._pick(self.mean, self.log_weight.argmax(-1))

    def component(self, uniform: Tensor) -> Tensor:
        """Choose a component a state and return its mean, (R, B, A): the policy's choices without its jitter.

        Args:
            uniform: numbers in [0, 1) that decide, (B,) shared by all runs: a run then acts alike alone and in a stack.
        """
        return self._pick(self.mean, self._choose(uniform))

    def sample(self, uniform: Tensor, normal: Tensor) -> Tensor:
        """Draw one action a state, (R, B, A), from `uniform` and standard `normal` numbers.

        Args:
            uniform: (B,) shared by all runs, or (R, B).
            normal: (B, A) or (R, B, A), likewise.
        """
        chosen = self._choose(uniform)
        return self._pick(self.mean, chosen) + self._pick(self.log_std, chosen).exp() * normal

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw `count` actions a state, (R, B, count, A), from random numbers that all runs share."""
        *_, states, _, action_dim = self.mean.shape
        drawn = []
        for _ in range(count):
            uniform = torch.rand(states, generator=generator).to(self.mean.device)
            normal = torch.randn(states, action_dim, generator=generator).to(self.mean.device)
            drawn.append(self.sample(uniform, normal))
        return torch.stack(drawn, dim=-2)

    def _choose(self, uniform: Tensor) -> Tensor:
        passed = self.log_weight.exp().cumsum(-1) < uniform.unsqueeze(-1)
        return passed.sum(-1).clamp(max=self.log_weight.shape[-1] - 1)

    @staticmethod
    def _pick(values: Tensor, component: Tensor) -> Tensor:
        index = component[..., None, None].expand(*component.shape, 1, values.shape[-1])
        return values.gather(-2, index).squeeze(-2)


class MixturePolicy(nn.Module):
    """R policies with K-component mixture heads; K = 1 is the Gaussian policy.

    The environment clips actions, so the means need no squashing: recorded actions of exactly ±1 would drive a squashed
    mean to infinity, where an unsquashed one comes to rest on them and the floor of the deviation bounds the density.

    Args:
        seeds: one initialisation seed a run; R is their number.
        observation_mean: per-column mean of the training observations, (O,).
        observation_std: per-column deviation, (O,).
        action_dim: A.
        components: K.
        hidden: widths of the hidden layers.
        std_range: smallest and largest standard deviation; a floor keeps the density of clipped actions finite.
        conditional: whether a label is an input beside the observation.
    """

    observation_mean: Tensor
    observation_std: Tensor
    format = "pmpo-offline mixture policy 1"
    """Of the files that `save` writes."""

    def __init__(
        self,
        seeds: Sequence[int],
        observation_mean: Tensor,
        observation_std: Tensor,
        action_dim: int,
        *,
        components: int = 5,
        hidden: Sequence[int] = (256, 256, 256),
        std_range: tuple[float, float] = (0.05, 1.0),
        conditional: bool = False,
    ) -> None:
        super().__init__()
        self.conditional = conditional
        self.runs, self.action_dim, self.components = len(seeds), action_dim, components
        self.log_std_range = (math.log(std_range[0]), math.log(std_range[1]))
        self.register_buffer("observation_mean", observation_mean.clone())
        self.register_buffer("observation_std", observation_std.clamp(min=1e-3))
        outputs = self._outputs(components, action_dim)
        self.network: nn.Sequential = stacked_mlp(seeds, len(observation_mean) + conditional, hidden, outputs)
        self._spread(seeds)

    @staticmethod
    def _outputs(components: int, action_dim: int) -> int:
        """Return the width of the network's head."""
        return components * (1 + 2 * action_dim)

    def _spread(self, seeds: Sequence[int]) -> None:
        components, action_dim = self.components, self.action_dim
        with torch.no_grad():  # spread the means, or all components learn the same mode
            bias: Tensor = self.network[-1].bias  # type: ignore[assignment]
            for run, seed in enumerate(seeds):
                generator = torch.Generator().manual_seed(seed + 1)
                bias[run, 0, components : components * (1 + action_dim)] = (
                    torch.randn(components * action_dim, generator=generator) * 0.5
                )

    def forward(self, observation: Tensor, label: Tensor | None = None) -> Mixture:
        """Return the action distributions at observations (R, B, O).

        Args:
            observation: raw, as it was recorded.
            label: (R, B) of a conditional policy: +1 accept, -1 reject, 0 hidden. None: all +1, which is how it acts.
        """
        x = ((observation - self.observation_mean) / self.observation_std).clamp(-10, 10)
        if self.conditional:
            shown = torch.ones_like(x[..., 0]) if label is None else label.to(x)
            x = torch.cat([x, shown.unsqueeze(-1)], dim=-1)
        head: Tensor = self.network(x)
        return self._distribution(head)

    def _distribution(self, head: Tensor) -> Mixture:
        """Return the distributions whose parameters are the network's outputs (R, B, ·)."""
        k, a = self.components, self.action_dim
        shape = (*head.shape[:-1], k, a)
        low, high = self.log_std_range
        weight, mean, deviation = head.split_with_sizes([k, k * a, k * a], dim=-1)
        return Mixture(
            log_weight=torch.log_softmax(weight, dim=-1) if k > 1 else torch.zeros_like(weight),
            mean=mean.reshape(shape),
            log_std=low + (high - low) * torch.sigmoid(deviation.reshape(shape)),
        )

    def predict(self, observation: ArrayLike) -> NDArray[Any]:
        """Return what the policy does: the mean of the likeliest component, in the units of the recorded actions.

        Args:
            observation: (O,) one, or (B, O) many.

        Returns:
            (A,) or (B, A); of several runs (R, A) or (R, B, A) (`select` takes one of them). Actions are not clipped.

        Raises `UserError` for observations of another width.
        """
        seen, width = np.asarray(observation, np.float32), len(self.observation_mean)
        if seen.ndim not in (1, 2) or seen.shape[-1] != width:
            raise UserError(f"observations have shape {seen.shape}: expected ({width},) for one or (n, {width}) for n")
        batch = torch.tensor(np.atleast_2d(seen)).to(self.observation_mean.device)
        with torch.no_grad():
            action = self(batch.expand(self.runs, *batch.shape)).mode()
        if seen.ndim == 1:
            action = action[:, 0]
        chosen: NDArray[np.float32] = (action if self.runs > 1 else action[0]).cpu().numpy()
        return chosen

    def select(self, run: int) -> Self:
        """Return one of the R runs as a policy of its own, a copy; `UserError` if there is no such run."""
        if not -self.runs <= run < self.runs:
            raise UserError(f"select: there is no run {run}: the policy holds runs 0 to {self.runs - 1}")
        return self.take([run])

    def take(self, runs: Sequence[int]) -> Self:
        """Return a copy of these of the R runs; each may be there several times."""
        taken = deepcopy(self)
        taken.runs = len(runs)
        for parameter in taken.parameters():
            parameter.data = parameter.data[list(runs)]
        return taken

    def save(self, path: str | Path) -> None:
        """Write the R policies to a file; `PmpoOfflineError` if the disk refuses."""
        layers = [layer for layer in self.network if isinstance(layer, StackedLinear)]
        shape = {
            "runs": self.runs,
            "action_dim": self.action_dim,
            "components": self.components,
            "hidden": [layer.weight.shape[-1] for layer in layers[:-1]],
            "std_range": [math.exp(bound) for bound in self.log_std_range],
            **({"conditional": True} if self.conditional else {}),
        }
        save_tensors(Path(path), self.state_dict(), format=self.format, shape=json.dumps(shape))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote, of this class or one below it; `PmpoOfflineError` for a damaged or other file."""
        tensors, facts = load_tensors(Path(path))
        kinds = {kind.format: kind for kind in (cls, *cls.__subclasses__())}
        if (kind := kinds.get(str(facts.get("format")))) is None:
            raise PmpoOfflineError(f"{path} is no policy of pmpo-offline: expected the policy.safetensors of a run")
        try:
            shape = from_json(facts["shape"])
            layers = range(0, 2 * len(shape["hidden"]) + 1, 2)
            stored = [tensors[f"network.{layer}.weight"].shape for layer in layers]
            runs, action_dim = shape.pop("runs"), shape.pop("action_dim")
            outputs = kind._outputs(shape["components"], action_dim)
            # Before memory is allocated for what the fact says.
            if [size[0::2] for size in stored] != [(runs, width) for width in (*shape["hidden"], outputs)]:
                raise ValueError("its tensors are of other shapes than it says")
            mean, std = (torch.ones_like(tensors[f"observation_{name}"]) for name in ("mean", "std"))
            policy = kind([0] * runs, mean, std, action_dim, **shape)
            policy.load_state_dict(tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise PmpoOfflineError(f"{path} is damaged ({reason_of(error)}): train it again") from None
        return policy.eval()
