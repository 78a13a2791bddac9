"""What an objective declares about itself, so that a trainer needs to know none of them by name."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Interval:
    """The finite numbers from `low` to `high`, both among them unless `low` is `open`."""

    low: float
    high: float = math.inf
    open: bool = False

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return False
        return self.low <= value <= self.high and not (self.open and value == self.low)

    def __str__(self) -> str:
        if math.isfinite(self.high):
            return f"a number {'above' if self.open else 'from'} {self.low:g} to {self.high:g}"
        return f"a number above {self.low:g}" if self.open else f"a number of {self.low:g} or more"


class Words(tuple[str, ...]):
    """A few words to choose from."""

    __slots__ = ()

    def __str__(self) -> str:
        return " or ".join(self)


@dataclass(frozen=True)
class Objective:
    """A loss with the tensors that it needs and the hyperparameters that it offers.

    The vocabulary of inputs, `(*runs, B)` unless said otherwise, B rows, P pairs, K candidates a state:

    - `logp`, `ref_logp`: log-probability of each row's outcome under the policy and under the reference
    - `label`: +1 accept, -1 reject, 0 unlabelled
    - `advantage`: how much better the row's outcome was than the policy's average one, in the reward's units
    - `divergence`: `(*runs,)`, how far the policy is from its reference, as the caller's settings say (`caller`)
    - `policy_value`: what a critic makes of the policy's own action, with its gradient; `distance`: the mean squared
      difference of that action from the recorded one
    - `policy_kl`: `(*runs,)`, KL(pi || pi_ref), detached and at least 0
    - `group_logp`, `group_score`: `(*runs, B, K)`, of the candidates of each state
    - `logp_chosen`, `logp_rejected`, `ref_chosen`, `ref_rejected`: `(*runs, P)`, of each pair's two outcomes
    - `length_chosen`, `length_rejected`: `(*runs, P)`, how many tokens or steps each pair's two outcomes have, from 1
    - `reward_shift`: `(*runs,)`, half way between the mean rewards of both classes (`bco_shift`), detached
    """

    name: str
    """Its key in `OBJECTIVES`."""
    loss: Callable[..., tuple[Tensor, dict[str, Tensor]]]
    """The pure function: tensors in, loss `(*runs,)` and metrics out."""
    inputs: Mapping[str, str]
    """The loss's tensor parameters, each with the name of its input in the vocabulary."""
    allowed: Mapping[str, Interval | Words]
    """The values that each setting may take."""
    caller: Mapping[str, Any] = field(default_factory=dict)
    """Settings that tell the caller how to compute the inputs, with their defaults; the loss never sees them."""
    optional: Mapping[str, str] = field(default_factory=dict)
    """Likewise those that the loss works out from the rows that it is given: for callers who see more of them."""
    families: tuple[str, ...] = ("control", "language")
    """Where its inputs can be had: "control", of transitions and candidates; "language", of responses."""
    bound: Callable[..., float] | None = None
    """The least stable beta from `alpha`, `reject_mass`, `normalize`, `reject_share`; None where no bound applies."""

    @property
    def settings(self) -> dict[str, Any]:
        """The hyperparameters and their defaults, the loss's own and then the caller's.

        Numeric ones of the loss also take a tensor `(*runs, 1)`. Tensors that a loss can do without (`weight`, the
        `optional` ones) default to None and are not among them.
        """
        parameters = inspect.signature(self.loss).parameters.values()
        own = {p.name: p.default for p in parameters if p.name not in self.inputs and p.default is not None}
        return {**own, **self.caller}

    def __call__(self, inputs: Mapping[str, Tensor], **settings: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and its metrics, picking what it needs from `inputs` by the names of the vocabulary.

        The caller's settings may be given with the others and change nothing here.
        """
        own = {name: value for name, value in settings.items() if name not in self.caller}
        needed = {parameter: inputs[name] for parameter, name in self.inputs.items()}
        given = {parameter: inputs[name] for parameter, name in self.optional.items() if name in inputs}
        return self.loss(**needed, **given, **own)
