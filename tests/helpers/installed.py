"""Packages that are installed while a test runs, as if this process had been started after them."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pmpo_offline.declarations import catalog
from pmpo_offline.runtime.registry import Registry


def install(package: Path, site: Path) -> None:
    """Install a package with pip into a folder of its own, without what it depends on."""
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--target", str(site)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(package)], check=True, capture_output=True)


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Import from `folder` too, entry points included; forget afterwards what came from it."""
    before = [*sys.path]
    sys.path.insert(0, str(folder))
    forget_entries()
    try:
        yield
    finally:
        sys.path[:] = before
        for name, module in [*sys.modules.items()]:
            if (getattr(module, "__file__", None) or "").startswith(f"{folder}{os.sep}"):
                del sys.modules[name]
        forget_entries()


def forget_entries() -> None:
    """Let every registry look for the entries of other packages again."""
    importlib.invalidate_caches()
    catalog._registry.cache_clear()
    ours = [module for name, module in [*sys.modules.items()] if name.partition(".")[0] == "pmpo_offline"]
    for registry in (value for module in ours for value in vars(module).values() if isinstance(value, Registry)):
        vars(registry).pop("_added", None)
        registry._loaded.clear()
