"""D4RL's own reference scores, by environment, as in its `get_normalized_score` (arXiv 2004.07219, infos.py).

They belong to D4RL's data sets and to the simulator of their time. The environments of these names that Gymnasium has
today (Hopper-v5) are others: no data set of theirs is ever given these numbers.
"""

from __future__ import annotations

import re

from pmpo_offline.data.schema import References

SCORES = {
    "halfcheetah": (-280.178953, 12135.0),
    "hopper": (-20.272305, 3234.3),
    "walker2d": (1.629008, 4592.3),
    "ant": (-325.6, 3879.7),
    "pen": (96.262799, 3076.8331017826877),
    "door": (-56.512833, 2880.5693087298737),
    "hammer": (-274.856578, 12794.134825156867),
    "relocate": (-6.425911, 4233.877797728884),
    "antmaze": (0.0, 1.0),
    "kitchen": (0.0, 4.0),
}
"""Return of a random policy and of an expert; the same in every version of D4RL."""

_NAME = re.compile(rf"(?P<environment>{'|'.join(SCORES)})-(?P<set>[a-z-]+)-(?P<version>v[0-2])")


def references(name: str) -> References | None:
    """Return the reference scores of a D4RL data set by its name, hopper-medium-v2, or None for any other name."""
    if not (found := _NAME.fullmatch(name)):
        return None
    low, high = SCORES[found["environment"]]
    return References(
        min=low,
        max=high,
        how=f"D4RL's own constants for {found['environment']}: a random policy and an expert (arXiv 2004.07219)",
        versions={"d4rl": found["version"]},
    )


def environment(name: str) -> str | None:
    """Return the id of a D4RL data set's environment, d4rl/hopper-v2 of hopper-medium-v2, or None for another name."""
    found = _NAME.fullmatch(name)
    return f"d4rl/{found['environment']}-{found['version']}" if found else None
