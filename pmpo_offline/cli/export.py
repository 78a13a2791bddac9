"""The command `export`: a dataset in the format of another library."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from pmpo_offline.cli.console import emit, working
from pmpo_offline.cli.options import Home, Json, Name
from pmpo_offline.runtime.errors import UserError


class Command(TyperCommand):
    """The command with the registered formats at the end of its help."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help; the formats are looked up only here."""
        from pmpo_offline.data.exchange.writers import WRITERS

        self.epilog = "\n\n".join(f"{name}: {writer.description}." for name, writer in WRITERS.items())
        super().format_help(ctx, formatter)


def export(
    name: Name,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write: a new one, or an earlier export.")],
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="A format, of those below.")],
    fps: Annotated[
        int | None, typer.Option(min=1, help="Steps a second, for lerobot's times.", show_default="20")
    ] = None,
    home: Home = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export.")] = False,
    json: Json = False,
) -> None:
    """Write a dataset in another library's format; what was written says how it is read."""
    from pmpo_offline.build import is_built
    from pmpo_offline.data import load_dataset

    if not is_built(name, home):
        raise UserError(f"dataset {name!r} is declared but not built: run pmpo-offline build-dataset {name}")
    with working():
        from pmpo_offline.data.exchange import export_dataset, left_out

        dataset = load_dataset(name, home=home)
        path = export_dataset(dataset, to, directory, overwrite, fps=fps)
    files = {
        each.relative_to(path).as_posix(): each.stat().st_size for each in sorted(path.rglob("*")) if each.is_file()
    }
    missing = left_out(dataset, to)
    if json:
        counts = dataset.metadata.counts
        described = {"id": dataset.metadata.id, "to": to, "path": str(path), "left_out": missing}
        emit(described | {"rows": counts.rows, "episodes": counts.episodes, "files": files})
        return
    print(path)
    for file, size in files.items():
        print(f"  {file}  {size:,} bytes")
    if missing:
        print(f"{to} has no place for {', '.join(missing)}: left out")
