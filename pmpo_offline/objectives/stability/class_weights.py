"""What the normalisation of `pmpo` makes of the two classes."""

from __future__ import annotations


def class_weights(normalize: str, accepts: float, rejects: float) -> tuple[float, float]:
    """Return (w_a, w_r) from the amounts of accepts and rejects among the labelled rows.

    Raises:
        ValueError: another `normalize`.
    """
    if normalize == "set":
        return 1.0, 1.0
    if normalize == "joint":
        labelled = (accepts + rejects) or 1.0
        return accepts / labelled, rejects / labelled
    raise ValueError(f'normalize is "joint" or "set", not {normalize!r}')
