"""Declaration of an objective: inputs, settings, families, bound; a trainer needs to know none of them by name."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, ParamSpec

import numpy as np
import torch
from torch import Tensor

from .noise import debias
from .vocabulary import row_dimension

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
        if self.low == -math.inf:
            return f"a number of {self.high:g} or less"
        if math.isfinite(self.high):
            return f"a number {'above' if self.open else 'from'} {self.low:g} to {self.high:g}"
        return f"a number above {self.low:g}" if self.open else f"a number of {self.low:g} or more"


class Words(tuple[str, ...]):
    """A few words to choose from."""

    __slots__ = ()

    def __str__(self) -> str:
        return " or ".join(self)


class Text:
    """Any text of one character or more."""

    def __contains__(self, value: object) -> bool:
        return isinstance(value, str) and bool(value)

    def __str__(self) -> str:
        return "a text of one character or more"


POSITIVE, NOT_NEGATIVE, SHARE = Interval(0, open=True), Interval(0), Interval(0, 1)
NOISE: Mapping[str, Interval | Words] = {"flip_rate": Interval(0, 0.499), "accept_share": SHARE}
"""The settings that every objective of labels has beside its own (`noise`)."""


@dataclass(frozen=True)
class Objective:
    """A loss with the tensors that it needs and the hyperparameters that it offers.

    The names of inputs are those of `vocabulary`.
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
    texts: tuple[str, ...] = ()
    """Settings without a default by which the caller computes the inputs of responses: texts that it puts before
    prompts. No other data have them, and the loss never sees them."""
    optional: Mapping[str, str] = field(default_factory=dict)
    """Like `inputs`, those that the loss computes from its rows where they are absent: for callers that see more."""
    running: Mapping[str, str] = field(default_factory=dict)
    """Optional inputs that a training loop fills with the running mean of a metric over its earlier updates."""
    families: tuple[str, ...] = ("control", "language")
    """Data that have its inputs: "control", transitions and candidates; "language", responses."""
    bound: Callable[..., float] | None = None
    """The least stable beta from `alpha`, `reject_mass`, `normalize`, `reject_share`, `minibatch`; or None."""
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Settings with which something else is computed, by title: the laws are checked with each of them, too."""
    exempt: Mapping[str, str] = field(default_factory=dict)
    """Laws that it does not obey, with the reason. The laws of tests/objectives/test_laws.py that can be named:
    "exact stacking" (a run in a stack equals the run alone to the last bit), "accepts rise" and "rejects sink" (their
    gradient raises and lowers them), "one class teaches" (without the other class), "unlabelled rows" (teach nothing),
    "extreme values" (log-probabilities of 1e30 leave loss and gradient finite, else of 1e15), "gradient everywhere"
    (every labelled row and pair has one: a hinge has none beyond its margin), "flipped labels" (the loss can be
    de-biased, `noise`)."""
    revision: int = 0
    """Raise it with every change after which training comes out differently: older results are then not its own."""

    @property
    def needs(self) -> tuple[str, ...]:
        """The names of its inputs in the vocabulary."""
        return tuple(self.inputs.values())

    @property
    def version(self) -> dict[str, int]:
        """What its revision adds to the identity of a training or a result: nothing to those of the first."""
        return {"objective_revision": self.revision} if self.revision else {}

    @property
    def settings(self) -> dict[str, Any]:
        """The hyperparameters and their defaults, the loss's own and then the caller's.

        Numeric ones of the loss also take a tensor `(*runs, 1)`. Tensors that a loss can do without (`weight`, the
        `optional` ones) default to None and are not among them.
        """
        parameters = inspect.signature(self.loss).parameters.values()
        own = {p.name: p.default for p in parameters if p.name not in self.inputs and p.default is not None}
        return {**own, **self.caller}

    @property
    def noise(self) -> Mapping[str, Interval | Words]:
        """The settings by which flipped labels are accounted for, with their ranges; none for other objectives.

        They are not among `settings`: an objective without them is the objective itself.
        """
        return NOISE if "label" in self.needs and "flipped labels" not in self.exempt else {}

    @property
    def known(self) -> Mapping[str, Interval | Words | Text]:
        """Every setting that may be given, with its values: `allowed`, `noise` and `texts`."""
        return {**self.allowed, **self.noise, **dict.fromkeys(self.texts, Text())}

    def __call__(self, inputs: Mapping[str, Tensor], weight: Tensor | None = None, **settings: Any) -> Loss:
        """Return the loss and its metrics, picking what it needs from `inputs` by the names of the vocabulary.

        The caller's settings may be given with the others and change nothing here. With `flip_rate`, and `accept_share`
        for balanced batches, the loss is the estimate of `noise.debias` of what it would be on the true labels.
        """
        others = {*self.caller, *self.texts, *NOISE}
        own = {name: value for name, value in settings.items() if name not in others}
        names = {*self.needs, *self.optional.values()}
        inputs = {name: value for name, value in inputs.items() if name in names}
        if "flip_rate" in settings:
            if not self.noise:
                why = self.exempt.get("flipped labels", "it learns from no labels")
                raise ValueError(f"{self.name} has no flip_rate: {why}")
            inputs, weight = debias(inputs, weight, settings["flip_rate"], settings.get("accept_share"))
        needed = {parameter: inputs[name] for parameter, name in self.inputs.items()}
        extra = {parameter: inputs[name] for parameter, name in self.optional.items() if name in inputs}
        return self.loss(**needed, **extra, **own, **({} if weight is None else {"weight": weight}))

    def check(self, arguments: Mapping[str, Any]) -> None:
        """Raise `ValueError` for arguments of the loss that are no tensors, labels, weights, rows or settings' values.

        Tensors on a device are not read; of these only the shapes are checked.
        """
        names = {**self.inputs, **self.optional, "weight": "weight"}
        given = {
            name: value
            for name, value in arguments.items()
            if name in names and (value is not None or name in self.inputs)
        }
        for name, value in given.items():
            if not isinstance(value, Tensor):
                raise ValueError(f"{name} is a tensor, not {type(value).__name__}: wrap it in torch.as_tensor")
        _check_rows({name: value for name, value in given.items() if row_dimension(names[name]) is not None}, names)
        for name, value in given.items():
            if names[name] == "label" and not value.is_cuda:
                _check_labels(value)
            if name == "weight" and not value.is_cuda and not (value.isfinite() & (value >= 0)).all():
                raise ValueError("weight is a finite number of 0 or more for each row: it holds other values")
        for name, allowed in self.allowed.items():
            for value in _values(arguments.get(name)):
                if value not in allowed:
                    raise ValueError(f"{name} is {allowed}, not {value!r}")


def _check_rows(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> None:
    """Raise `ValueError` unless all tensors have as many rows: one alone would be repeated in silence."""
    sizes = {}
    for name, value in tensors.items():
        dimension = row_dimension(names[name]) or -1
        if value.dim() < -dimension:
            raise ValueError(f"{name} has no dimension of rows: its shape is {tuple(value.shape)}")
        sizes[name] = value.shape[dimension]
    first = next(iter(sizes), "")
    for name, size in sizes.items():
        if size != sizes[first]:
            raise ValueError(f"{name} has {size} rows and {first} has {sizes[first]}: give one value for each row")


def _check_labels(label: Tensor) -> None:
    if label.dtype == torch.bool:
        return
    if label.is_complex() or not label.dtype.is_signed:
        raise ValueError(
            f"label is of {label.dtype}: give Boolean labels, True for accept, or floats of -1 (reject), "
            "0 (unlabelled) and +1 (accept)"
        )
    if not label.is_floating_point() and (label == 0).any() and not (label < 0).any():
        raise ValueError(
            "integer labels of 0 and no -1 are ambiguous, because 0 means unlabelled: give Boolean labels, "
            "True for accept, or floats of -1, 0 and +1"
        )
    if ((label != 0) & (label.abs() != 1)).any():
        raise ValueError("label is -1 (reject), 0 (unlabelled) or +1 (accept), or Boolean: it holds other values")


def _values(setting: Any) -> list[Any]:
    """Return the values of a setting that can be read without waiting for a device."""
    if isinstance(setting, Tensor):
        return [] if setting.is_cuda else setting.detach().flatten().tolist()
    if isinstance(setting, np.generic):
        return [setting.item()]
    return [setting] if isinstance(setting, int | float | str) else []


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
