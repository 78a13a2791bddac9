"""What a reader returns: a source that says what it is, and reads its episodes when asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from pmpo_offline.data.experience import Experience
from pmpo_offline.data.schema import References
from pmpo_offline.runtime.hashing import hash_bytes, hash_file

_LISTED = 100  # files whose hashes are told one by one


@dataclass(frozen=True)
class Environment:
    """The environment that the episodes were recorded in."""

    id: str
    """As its own library names it, with its version: "Hopper-v5", or "d4rl/hopper-v2" for one of D4RL's."""
    plain: bool = True
    """Whether it was made without arguments and wrappers of its own."""
    horizon: int | None = None
    """Steps after which episodes were cut; None where the source does not say."""


@dataclass(frozen=True)
class Recorded:
    """The episodes, and what is to be known of how they were read."""

    experience: Experience
    notes: Mapping[str, JsonValue]
    """`rewards`, `success`: whether the source has any (False: the columns hold 0 and false); rows without a successor
    that were dropped; what stands in for unknown final observations; the action space's bounds."""


@dataclass(frozen=True)
class Source:
    """A data set of somebody's, found and identified, but not yet read."""

    format: str
    """minari, d4rl, ogbench or rlds."""
    name: str
    """What it is called there; may be made of anything."""
    files: Mapping[str, Path]
    """Every file that is read, by a short name."""
    read: Callable[[], Recorded]
    """Read all of it; `UserError` where the content is not what the format says."""
    packages: tuple[str, ...]
    """Whose versions matter to how it is read."""
    task: str | None = None
    """The task here that it says it is of, as exports of this package do."""
    environment: Environment | None = None
    """None where the source does not say."""
    references: References | None = None
    licence: str = "unknown"
    author: str = "unknown"

    def hashes(self) -> dict[str, str]:
        """Return the sha256 of every file; of many files, that of the list which `sha256sum` prints of them."""
        return hashes_of(self.files)


def hashes_of(files: Mapping[str, Path]) -> dict[str, str]:
    """Return the sha256 of every file; of many files, that of the list which `sha256sum` prints of them."""
    each = {name: hash_file(path) for name, path in sorted(files.items())}
    if len(each) <= _LISTED:
        return each
    listed = "".join(f"{digest}  {name}\n" for name, digest in each.items())
    return {f"list of {len(each)} files": hash_bytes([listed.encode()])}
