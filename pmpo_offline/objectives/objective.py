"""Declaration of an objective: inputs, settings, families, bound; a trainer needs to know none of them by name."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, ParamSpec

import torch
from torch import Tensor

P = ParamSpec("P")
Loss = tuple[Tensor, dict[str, Tensor]]
"""A loss `(*runs,)` and detached metrics `(*runs,)`."""


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


POSITIVE, NOT_NEGATIVE, SHARE = Interval(0, open=True), Interval(0), Interval(0, 1)


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
    loss: Callable[..., Loss]
    """The pure function: tensors in, loss `(*runs,)` and metrics out."""
    inputs: Mapping[str, str]
    """The loss's tensor parameters, each with the name of its input in the vocabulary."""
    allowed: Mapping[str, Interval | Words]
    """The values that each setting may take."""
    caller: Mapping[str, Any] = field(default_factory=dict)
    """Settings by which the caller computes the inputs, with their defaults; the loss never sees them."""
    optional: Mapping[str, str] = field(default_factory=dict)
    """Like `inputs`, those that the loss computes from its rows where they are absent: for callers that see more."""
    families: tuple[str, ...] = ("control", "language")
    """Data that have its inputs: "control", transitions and candidates; "language", responses."""
    bound: Callable[..., float] | None = None
    """The least stable beta from `alpha`, `reject_mass`, `normalize`, `reject_share`, `minibatch`; or None."""
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Settings with which something else is computed, by title: the laws are checked with each of them, too."""
    exempt: Mapping[str, str] = field(default_factory=dict)
    """Laws that it does not obey, with the reason. The laws of tests/objectives/test_laws.py that can be named:
    "exact stacking" (a run in a stack equals the run alone to the last bit), "rejects sink" (their gradient lowers
    them), "extreme values" (log-probabilities of 1e30 leave loss and gradient finite, else of 1e15), "gradient
    everywhere" (every labelled row and pair has one: a hinge has none beyond its margin)."""

    @property
    def settings(self) -> dict[str, Any]:
        """The hyperparameters and their defaults, the loss's own and then the caller's.

        Numeric ones of the loss also take a tensor `(*runs, 1)`. Tensors that a loss can do without (`weight`, the
        `optional` ones) default to None and are not among them.
        """
        parameters = inspect.signature(self.loss).parameters.values()
        own = {p.name: p.default for p in parameters if p.name not in self.inputs and p.default is not None}
        return {**own, **self.caller}

    def __call__(self, inputs: Mapping[str, Tensor], **settings: Any) -> Loss:
        """Return the loss and its metrics, picking what it needs from `inputs` by the names of the vocabulary.

        The caller's settings may be given with the others and change nothing here.
        """
        own = {name: value for name, value in settings.items() if name not in self.caller}
        needed = {parameter: inputs[name] for parameter, name in self.inputs.items()}
        extra = {parameter: inputs[name] for parameter, name in self.optional.items() if name in inputs}
        return self.loss(**needed, **extra, **own)

    def check(self, arguments: Mapping[str, Any]) -> None:
        """Raise `ValueError` for arguments of the loss that are no labels, or no values of a hyperparameter.

        Numbers are checked, and labels in the host's memory; other tensors are not read.
        """
        label = arguments.get("label")
        if isinstance(label, Tensor) and label.dtype != torch.bool and not label.is_cuda:
            if not label.is_floating_point() and (label == 0).any() and not (label < 0).any():
                raise ValueError(
                    "integer labels of 0 and no -1 are ambiguous, because 0 means unlabelled: give Boolean labels, "
                    "True for accept, or floats of -1, 0 and +1"
                )
            if ((label != 0) & (label.abs() != 1)).any():
                raise ValueError(
                    "label is -1 (reject), 0 (unlabelled) or +1 (accept), or Boolean: it holds other values"
                )
        for name, allowed in self.allowed.items():
            value = arguments.get(name)
            if isinstance(value, int | float | str) and value not in allowed:
                raise ValueError(f"{name} is {allowed}, not {value!r}")


def declare(
    allowed: Mapping[str, Interval | Words] | None = None, renamed: Mapping[str, str] | None = None, **more: Any
) -> Callable[[Callable[P, Loss]], Callable[P, Loss]]:
    """Declare a loss function as an objective, whose arguments are checked wherever it is called by its name.

    Its inputs are the parameters without a default. `Objective.__call__`, for training loops, checks nothing.

    Args:
        allowed: the values that each setting may take.
        renamed: the inputs whose names in the vocabulary are not those of their parameters.
        more: other fields of `Objective`.
    """

    def decorate(loss: Callable[P, Loss]) -> Callable[P, Loss]:
        signature = inspect.signature(loss)
        required = [p.name for p in signature.parameters.values() if p.default is p.empty]
        inputs = {name: (renamed or {}).get(name, name) for name in required}
        objective = Objective(loss.__name__, loss, inputs, allowed or {}, **more)

        @wraps(loss)
        def checked(*args: P.args, **kwargs: P.kwargs) -> Loss:
            if not torch.compiler.is_compiling():
                objective.check(signature.bind(*args, **kwargs).arguments)
            return loss(*args, **kwargs)

        checked.objective = objective  # type: ignore[attr-defined]
        return checked

    return decorate


def declaration(loss: Callable[..., Loss]) -> Objective:
    """Return what a decorated loss function declares."""
    return loss.objective  # type: ignore[attr-defined,no-any-return]
