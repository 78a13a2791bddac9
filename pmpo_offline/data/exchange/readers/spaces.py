"""Gymnasium's spaces, flattened: which arrays an observation is stored as, and the numbers that are made of each.

Box                       its numbers in row-major order; never an image: a Box of bytes with two axes or more
MultiBinary               0 and 1
Discrete, MultiDiscrete   one of n, as n numbers of which one is 1
Dict, Tuple               their parts, one after the other, in the space's own order

Actions must be Boxes, or Dicts and Tuples of them, or one Discrete space, whose actions stay whole numbers from 0.

That is `gymnasium.spaces.flatten`, for whole episodes at once. Text, Sequence, Graph and OneOf have no fixed width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pmpo_offline.data.exchange.readers.arrays import choices, floats
from pmpo_offline.runtime.errors import UserError

if TYPE_CHECKING:
    from gymnasium import Space

Array = NDArray[Any]


@dataclass(frozen=True)
class Leaf:
    """One stored array of a space."""

    path: tuple[str | int, ...]
    """Keys of Dicts, places in Tuples; empty where the space is one array."""
    shape: tuple[int, ...]
    """Of one element as it is stored."""
    width: int
    """Numbers that it makes."""
    low: NDArray[np.float64]  # (width,)
    high: NDArray[np.float64]  # (width,)
    _numbers: Callable[[Array], Array]
    choices: int | None = None
    """Number of the discrete actions that it is of."""

    def flatten(self, values: Array, where: str) -> Array:
        """Return stored elements (n, *shape) as (n, width); `UserError` for another shape or what is not finite."""
        if values.shape[1:] != self.shape:
            raise UserError(f"{where} has elements of shape {values.shape[1:]}, and its space says {self.shape}")
        if self.choices is not None:
            return choices(self._numbers(values), where)
        return floats(self._numbers(values).reshape(len(values), self.width), where)


def leaves(space: Space[Any], where: str, *, acts: bool = False) -> list[Leaf]:
    """Return the arrays of a space in order; `UserError` names the part that cannot be numbers, and why.

    Args:
        space: the space of observations or actions.
        where: named in errors.
        acts: whether it is a space of actions, which must be continuous.
    """
    found = list(_leaves(space, where, (), acts))
    if not sum(leaf.width for leaf in found):
        raise UserError(f"{where} has no numbers: there is nothing to learn from")
    return found


def _leaves(space: Space[Any], where: str, path: tuple[str | int, ...], acts: bool) -> list[Leaf]:
    from gymnasium import spaces

    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        return [leaf for key, part in parts for leaf in _leaves(part, f"{where}[{key!r}]", (*path, key), acts)]
    if isinstance(space, spaces.Box):
        if space.dtype == np.uint8 and len(space.shape) >= 2:
            raise UserError(
                f"{where} is of images, Box{space.shape}: learners here read vectors of numbers; import a set of states"
            )
        low, high = (np.asarray(bound, np.float64).reshape(-1) for bound in (space.low, space.high))
        return [Leaf(path, space.shape, low.size, low, high, np.asarray)]
    if acts:
        if isinstance(space, spaces.Discrete) and not path:
            count, start = int(space.n), int(space.start)
            bounds = np.zeros(1), np.full(1, count - 1.0)
            return [Leaf(path, (), 1, *bounds, lambda values: np.asarray(values) - start, count)]
        raise UserError(
            f"{where} is {_named(space)}: actions can be imported of Boxes, or of one Discrete space; for several "
            "choices a step, number their combinations and write the set again with a Discrete space of that many"
        )
    if isinstance(space, spaces.MultiBinary):
        return [_indicators(path, space.shape, int(np.prod(space.shape)), np.asarray)]
    if isinstance(space, spaces.Discrete):
        count, start = int(space.n), int(space.start)
        return [_indicators(path, (), count, lambda values: _one_hot(values - start, count, where))]
    if isinstance(space, spaces.MultiDiscrete):
        counts, begin = space.nvec.reshape(-1), np.asarray(space.start).reshape(-1)

        def numbers(values: Array) -> Array:
            flat = values.reshape(len(values), -1) - begin
            return np.concatenate([_one_hot(flat[:, i], int(count), where) for i, count in enumerate(counts)], axis=1)

        return [_indicators(path, space.shape, int(counts.sum()), numbers)]
    raise UserError(
        f"{where} is {_named(space)}, which is no fixed number of numbers: Box, Dict, Tuple, MultiBinary, Discrete and "
        "MultiDiscrete can be imported"
    )


def _indicators(
    path: tuple[str | int, ...], shape: tuple[int, ...], width: int, numbers: Callable[[Array], Array]
) -> Leaf:
    return Leaf(path, shape, width, np.zeros(width), np.ones(width), numbers)


def _one_hot(index: Array, count: int, where: str) -> NDArray[np.float32]:
    if ((index < 0) | (index >= count)).any():
        raise UserError(f"{where} holds a number outside its {count} choices")
    result = np.zeros((len(index), count), np.float32)
    result[np.arange(len(index)), index.astype(np.int64)] = 1
    return result


def _named(space: Space[Any]) -> str:
    text = " ".join(str(space).split())
    return text if len(text) <= 60 else type(space).__name__
