"""How a loss that goes through parts of a model reaches what wraps the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def inside(outer: Any, inner: Any, function: Callable[[], T]) -> T:
    """Call a function as if it were the forward pass of the model, within whatever wraps the model.

    DDP starts to listen for gradients, and FSDP gathers the weights, when the *wrapper* is called; what we compute goes
    through parts of the model only.
    """
    own = inner.__dict__.get("forward")

    def once() -> T:
        restore()
        return function()

    def restore() -> None:
        inner.__dict__.pop("forward", None)
        if own is not None:
            inner.forward = own

    inner.forward = once
    try:
        return outer()  # type: ignore[no-any-return]
    finally:
        restore()
