"""Random words that depend only on a key: the one source of chance in labels, imbalance and sampling.

Only NumPy's bit generators are drawn from, whose streams NumPy promises to keep (the distributions of `Generator`
carry no such promise), so a dataset built from a seed today can be built again, byte for byte, in years.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def random_words(count: int, *key: int | str) -> NDArray[np.uint64]:
    """Return `count` uniform 64-bit words, a pure function of `key` (non-negative integers and words).

    A longer draw from the same key begins with the shorter one.
    """
    entropy = [part if isinstance(part, int) else int.from_bytes(part.encode(), "little") for part in key]
    words: NDArray[np.uint64] = np.random.PCG64(np.random.SeedSequence(entropy)).random_raw(count)
    return words


def uniforms(count: int, *key: int | str) -> NDArray[np.float64]:
    """Return `count` floats in [0, 1) from the 53 upper bits of `random_words`."""
    return (random_words(count, *key) >> np.uint64(11)).astype(np.float64) * 2.0**-53
