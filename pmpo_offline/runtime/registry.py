"""Registries: the entries of one kind by name, ours and those that other packages add by entry points."""

from __future__ import annotations

import importlib.metadata
import warnings
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Generic, TypeVar, cast

from pmpo_offline.runtime.errors import UserError, unknown

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """The entries of one kind by name, imported on first use.

    Args:
        kind: what an entry is, as messages call it: "writer".
        group: entry points of other packages that add to it: "pmpo_offline.writers".
        own: our entries, each an object or, as entry points are written, "module:attribute".
    """

    def __init__(self, kind: str, group: str, own: Mapping[str, T | str]) -> None:
        self.kind, self.group, self._own = kind, group, own
        self._loaded: dict[str, T] = {}

    @cached_property
    def _added(self) -> dict[str, importlib.metadata.EntryPoint]:
        """Entries of other packages; of one name only the first, ours before all, and a warning for the others."""
        added: dict[str, importlib.metadata.EntryPoint] = {}
        for point in importlib.metadata.entry_points(group=self.group):
            other = "pmpo-offline" if point.name in self._own else _package(added.setdefault(point.name, point))
            if point is not added.get(point.name):
                warnings.warn(
                    f"{_package(point)} adds the {self.kind} {point.name}, which {other} has already: it is left out, "
                    "rename it or uninstall one of the two",
                    stacklevel=2,
                )
        return added

    def source(self, name: str) -> str:
        """Return the name of the package that an entry comes from."""
        return "pmpo-offline" if name in self._own else _package(self._added[name])

    def __getitem__(self, name: str) -> T:
        """Return the entry; `UserError` with the near misses for an unknown name, or if its package fails to load."""
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self._added

    def __iter__(self) -> Iterator[str]:
        yield from self._own
        yield from sorted(self._added)

    def __len__(self) -> int:
        return len(self._own) + len(self._added)

    def _load(self, name: str) -> T:
        if name in self._own:
            entry = self._own[name]
            if not isinstance(entry, str):
                return entry
            return cast(T, importlib.metadata.EntryPoint(name, entry, self.group).load())
        if name not in self._added:
            raise unknown(self.kind, name, self)
        point = self._added[name]
        try:
            return cast(T, point.load())
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"{self.kind} {name}: {_package(point)} cannot be loaded ({reason})") from error


def _package(point: importlib.metadata.EntryPoint) -> str:
    return point.dist.name if point.dist else point.value
