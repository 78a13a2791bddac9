"""The normalized score: 0 is a random policy and 100 an expert, of one task in one version of its simulator."""

from __future__ import annotations

import importlib.metadata
from typing import Any, TypeVar, cast

from pmpo_offline.data import References
from pmpo_offline.runtime.errors import UserError

N = TypeVar("N", bound=Any)


def normalized(returns: N, low: N, high: N) -> N:
    """Return 100 (returns - low) / (high - low), never clipped, of numbers, arrays or columns.

    Fu et al., *D4RL*, arXiv 2004.07219, section 5; Minari's `get_normalized_score` is a hundredth of it.
    """
    return cast(N, 100 * (returns - low) / (high - low))


def check_versions(name: str, references: References | None) -> None:
    """Refuse to compare returns simulated here with references that were measured on another simulator.

    Args:
        name: the dataset, for the message.
        references: its references; those that name no installed package say nothing of a simulator.

    Raises:
        UserError: a package that the references name is installed in another version.
    """
    for package, version in (references.versions if references else {}).items():
        try:
            installed = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
        if installed != version:
            raise UserError(
                f"{name}: its reference scores are of {package} {version}, and returns of the installed {installed} "
                f"cannot be compared with them: install {package}=={version}, or build the dataset again with what is "
                "installed"
            )
