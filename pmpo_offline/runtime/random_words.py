"""Random words that depend only on a key: the source of randomness in labels, imbalance and sampling.

They come from NumPy's bit generators, whose streams NumPy promises to keep; it does not promise that for the
distributions of `Generator`. So a dataset can be built again from its seed, byte for byte, with later versions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def random_words(count: int, *key: int | str) -> NDArray[np.uint64]:
    """Return `count` uniform 64-bit words, a pure function of `key` (non-negative integers and words).

    A shorter draw from the same key is a prefix of a longer one.
    """
    entropy = [part if isinstance(part, int) else int.from_bytes(part.encode(), "little") for part in key]
    words: NDArray[np.uint64] = np.random.PCG64(np.random.SeedSequence(entropy)).random_raw(count)
    return words


def uniforms(count: int, *key: int | str) -> NDArray[np.float64]:
    """Return `count` floats in [0, 1) from the 53 upper bits of `random_words`."""
    return (random_words(count, *key) >> np.uint64(11)).astype(np.float64) * 2.0**-53
