"""The forms of PMPO that papers and public code use, from a policy's outputs to the loss.

`objectives.pmpo` is given log-probabilities and a divergence; most mistakes are made before that. Here each form is
computed from logits (or a Gaussian's mean and deviation), so that the direction of the divergence, the rows that it
runs over, and the ties of an advantage at zero are checked, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Normal

from pmpo_offline.objectives import OBJECTIVES, divergences
from pmpo_offline.objectives.rows import mean

Inputs = Mapping[str, Tensor]


@dataclass(frozen=True)
class Parts:
    """What PMPO's loss is made of."""

    logp: Tensor
    label: Tensor
    divergence: Tensor
    reversed: Tensor
    """The divergence in the other direction; where there is none, the divergence itself."""
    settings: Mapping[str, Any]
    """Of `objectives.pmpo`, and `flip_rate`."""
    weight: Tensor | None = None

    @property
    def loss(self) -> Tensor:
        """Return the loss, ()."""
        inputs = {"logp": self.logp, "label": self.label, "divergence": self.divergence}
        return OBJECTIVES["pmpo"](inputs, self.weight, **self.settings)[0]

    def with_settings(self, **changed: Any) -> Parts:
        """Return the parts of another setting."""
        return replace(self, settings={**self.settings, **changed})


MISTAKES: dict[str, Callable[[Parts], Parts]] = {
    "the divergence in the other direction": lambda parts: replace(parts, divergence=parts.reversed),
    "rejects taken for accepts": lambda parts: replace(parts, label=parts.label.abs()),
    "the wrong sign of the rejects' term": lambda parts: replace(
        parts, logp=torch.where(parts.label < 0, -parts.logp, parts.logp)
    ),
    "accepts and rejects swapped": lambda parts: replace(parts, label=-parts.label),
    "each class divided by its own rows, not both by all labelled rows": lambda parts: parts.with_settings(
        normalize="set"
    ),
    "both classes divided by all labelled rows, not each by its own": lambda parts: parts.with_settings(
        normalize="joint"
    ),
    "both classes divided by all rows, unlabelled ones too": lambda parts: replace(
        parts.with_settings(normalize="joint"), logp=parts.logp * (parts.label != 0).double().mean()
    ),
    "unlabelled rows taken for rejects": lambda parts: replace(
        parts, label=torch.where(parts.label == 0, -1, parts.label)
    ),
    "unlabelled rows taken for accepts": lambda parts: replace(
        parts, label=torch.where(parts.label == 0, 1, parts.label)
    ),
    "alpha and 1 - alpha swapped": lambda parts: parts.with_settings(alpha=1 - parts.settings["alpha"]),
    "no weights": lambda parts: replace(parts, weight=None),
    "the divergence subtracted": lambda parts: replace(parts, divergence=-parts.divergence),
    "the divergence summed over the rows, not averaged": lambda parts: replace(
        parts, divergence=parts.divergence * len(parts.logp)
    ),
    "no beta": lambda parts: parts.with_settings(beta=1.0),
    "no divergence": lambda parts: parts.with_settings(beta=0.0),
    "no floor": lambda parts: parts.with_settings(floor=0.0),
}
"""What a wrong loss is recognised by: each makes the parts that somebody has who makes it."""


def pmpo(inputs: Inputs, settings: Mapping[str, Any]) -> Parts:
    """Return the parts of `objectives.pmpo` itself, whose inputs are its own."""
    kl = inputs["divergence"]
    return Parts(inputs["logp"], inputs["label"], kl, kl, settings, inputs.get("weight"))


def paper(inputs: Inputs, settings: Mapping[str, Any]) -> Parts:
    """Return arXiv 2410.04166, Eq. 10: KL(reference || policy) in closed form, of a softmax.

    The settings are those of `objectives.pmpo` and `over`: the divergence's rows, "all" or "labelled".
    """
    logp, policy, reference = _softmax(inputs)
    forward, reverse = divergences.categorical_kl(reference, policy), divergences.categorical_kl(policy, reference)
    return _parts(inputs, logp, (forward, reverse), settings)


def sampled(inputs: Inputs, settings: Mapping[str, Any]) -> Parts:
    """Return `paper` with the divergence estimated on the recorded rows, E[log reference - log policy]."""
    logp, _, reference = _softmax(inputs)
    recorded = _chosen(reference, inputs["action"])
    return _parts(inputs, logp, (recorded - logp, logp - recorded), settings)


def dreamer(inputs: Inputs, settings: Mapping[str, Any]) -> Parts:
    """Return Dreamer 4, arXiv 2509.24527, Eq. 11: sign of the advantage, separate means, KL(policy || reference)."""
    logp, policy, reference = _softmax(inputs)
    label = torch.where(inputs["advantage"] >= 0, 1.0, -1.0)
    forward, reverse = divergences.categorical_kl(reference, policy), divergences.categorical_kl(policy, reference)
    return _parts({**inputs, "label": label}, logp, (reverse, forward), {**settings, "normalize": "set"})


def gaussian(inputs: Inputs, settings: Mapping[str, Any]) -> Parts:
    """Return `paper` for a diagonal Gaussian."""
    policy, reference = (inputs["mean"], inputs["log_std"]), (inputs["reference_mean"], inputs["reference_log_std"])
    logp = Normal(policy[0], policy[1].exp()).log_prob(inputs["action"]).sum(-1)
    forward = divergences.gaussian_kl(*_frozen(reference), *policy)
    reverse = divergences.gaussian_kl(*policy, *_frozen(reference))
    return _parts(inputs, logp, (forward, reverse), settings)


def tanh(inputs: Inputs, settings: Mapping[str, Any]) -> Tensor:
    """Return the loss with weights tanh |A|, every row counted in the denominator, and KL(reference || policy)::

        loss = -alpha (sum_{A >= 0} tanh|A| log pi - sum_{A < 0} tanh|A| log pi) / N + beta KL(pi_ref || pi)

    alpha weighs both classes. It is no setting of `objectives.pmpo`, whose weights are also counted in the denominator.
    """
    logp, policy, reference = _softmax(inputs)
    signed = inputs["advantage"].tanh()
    kl = divergences.categorical_kl(reference, policy).mean()
    return -settings["alpha"] * (signed * logp).mean() + settings["beta"] * kl


def _softmax(inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """Return log pi(y) of the rows' actions (B,), and the policy's and the frozen reference's logarithms (B, K)."""
    policy, reference = inputs["logits"].log_softmax(-1), inputs["reference_logits"].detach().log_softmax(-1)
    return _chosen(policy, inputs["action"]), policy, reference


def _chosen(logp: Tensor, action: Tensor) -> Tensor:
    return logp.gather(-1, action.long().unsqueeze(-1)).squeeze(-1)


def _frozen(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(tensor.detach() for tensor in tensors)


def _parts(inputs: Inputs, logp: Tensor, each: tuple[Tensor, Tensor], settings: Mapping[str, Any]) -> Parts:
    """Average a divergence and its reverse, (B,) each, over the rows that `over` names."""
    label = inputs["label"]
    rows = (label != 0).to(logp) if settings.get("over") == "labelled" else torch.ones_like(logp)
    own = {name: value for name, value in settings.items() if name != "over"}
    return Parts(logp, label, mean(each[0], rows), mean(each[1], rows), own)


VARIANTS: dict[str, Callable[[Inputs, Mapping[str, Any]], Parts | Tensor]] = {
    "pmpo_paper": paper,
    "pmpo_sampled": sampled,
    "pmpo_gaussian": gaussian,
    "pmpo_dreamer": dreamer,
    "pmpo_tanh": tanh,
}
