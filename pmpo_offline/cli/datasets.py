"""The commands on what is there: list, show, verify."""

from __future__ import annotations

import importlib
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pmpo_offline.cli.console import emit, working
from pmpo_offline.cli.options import Home, Json, Name
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError

if TYPE_CHECKING:
    from pmpo_offline.data import Dataset
    from pmpo_offline.runtime.registry import Registry


REGISTRIES = {
    "tasks": "pmpo_offline.tasks:TASKS",
    "language tasks": "pmpo_offline.tasks.language:TASKS",
    "rewards": "pmpo_offline.tasks.language:REWARDS",
    "objectives": "pmpo_offline.declarations:OBJECTIVES",
    "readers": "pmpo_offline.data.exchange.readers:READERS",
    "forms": "pmpo_offline.data.exchange.forms:FORMS",
    "writers": "pmpo_offline.data.exchange.writers:WRITERS",
    "executors": "pmpo_offline.benchmark.runner:EXECUTORS",
    "report sections": "pmpo_offline.benchmark.report:SECTIONS",
}
"""What other packages may add to, beside datasets and algorithms."""
OURS = "pmpo-offline"


def list_names(home: Home = None, json: Json = False) -> None:
    """List datasets, suites, algorithms, tasks, objectives and formats, and the packages that extensions are from."""
    from pmpo_offline.data import stored_ids
    from pmpo_offline.declarations import catalog

    declared = {declaration.id: declaration.title for declaration in catalog.datasets()}
    built = stored_ids(home)
    content: dict[str, list[dict[str, Any]]] = {
        "datasets": [
            {"id": name, "built": name in built, "title": declared[name] if name in declared else _labels(name, home)}
            for name in sorted({*declared, *built})
        ],
        "suites": [{"name": suite.name, "title": suite.title} for suite in catalog.suites()],
        "algorithms": [
            {
                "name": each.name,
                "family": each.family,
                "title": each.title,
                "package": catalog.source("algorithms", each.name, each.family),
            }
            for family in catalog.families()
            for each in catalog.algorithms(family)
        ],
    }
    for kind, place in REGISTRIES.items():
        module, _, name = place.partition(":")
        registry: Registry[object] = getattr(importlib.import_module(module), name)
        content[kind] = [{"name": each, "package": registry.source(each)} for each in registry]
    if json:
        return emit(content)
    for kind, entries in content.items():
        for family, group in groupby(entries, lambda entry: entry.get("family")):
            print(f"{kind}, {family}:" if family else f"{kind}:")
            for entry in group:
                mark = "" if entry.get("built", True) else " (not built)"
                origin = "" if entry.get("package", OURS) == OURS else f"  (from {entry['package']})"
                print(f"  {entry.get('id') or entry['name']}{mark}  {entry.get('title', '')}{origin}".rstrip())
    return None


def show(name: Name, home: Home = None, json: Json = False) -> None:
    """Show a dataset's counts, labels, bounds on β, files, references and path."""
    from pmpo_offline.build import is_built
    from pmpo_offline.data import load_dataset
    from pmpo_offline.declarations import catalog

    if is_built(name, home):
        with working():
            summary = summary_of(load_dataset(name, home=home))
    else:
        summary = {"built": False, **catalog.dataset(name).model_dump(exclude={"behavior", "critic", "candidates"})}
    print_summary(summary, json)


def verify(name: Name, home: Home = None, json: Json = False) -> None:
    """Check the hash of every file of a dataset, and that its tables agree with one another."""
    from pmpo_offline import data
    from pmpo_offline.build import is_built

    if not is_built(name, home):
        raise UserError(f"dataset {name!r} is declared but not built: run pmpo-offline build-dataset {name}")
    with working():
        problems = data.verify(name, home)
    if json:
        emit({"ok": not problems, "problems": problems})
    else:
        print("\n".join(problems) or f"{name}: sound")
    if problems:
        raise typer.Exit(1)


def _labels(name: str, home: Path | None) -> str:
    """Say in a few words how a dataset is labelled that has no declaration to say it."""
    from pmpo_offline.data import read_metadata, resolve

    try:
        metadata = read_metadata(resolve(name, home))
    except PmpoOfflineError:
        return "damaged, see verify"
    share = metadata.imbalance.achieved
    words = [str(metadata.label), "nothing labelled" if share is None else f"{share:.4g} accepted"]
    return ", ".join(words + ([f"noise {metadata.noise:g}"] if metadata.noise else []))


def summary_of(dataset: Dataset) -> dict[str, Any]:
    """Return what the commands tell of a dataset."""
    metadata = dataset.metadata
    counts = metadata.counts
    said = metadata.provenance.settings.get("report")  # of an import: what became of its rows
    report = dict(said) if isinstance(said, dict) else {}
    dropped = {"dropped": report.pop("dropped", {}), "report": report} if report else {}
    return {
        "id": metadata.id,
        "path": str(dataset.path),
        "built": True,
        "kind": metadata.kind,
        "task": metadata.task,
        "unit": metadata.unit,
        "rows": counts.rows,
        "episodes": counts.episodes,
        "score": metadata.score.name,
        "label": str(metadata.label),
        "threshold": metadata.threshold,
        "noise": metadata.noise,
        "accepted": counts.accepted,
        "rejected": counts.rejected,
        "unlabelled": counts.unlabelled,
        "share": metadata.imbalance.achieved,
        "imbalance": metadata.imbalance.model_dump(),
        "reject_mass": metadata.reject_mass,
        "labelled_reject_mass": metadata.labelled_reject_mass,
        "reject_share": metadata.reject_share,
        "beta_min": _bounds(metadata.reject_mass, metadata.reject_share),
        "beta_min_rows": _bounds(metadata.labelled_reject_mass, metadata.reject_share),
        "candidates": None if metadata.candidates is None else metadata.candidates.model_dump(),
        "references": None if metadata.references is None else metadata.references.model_dump(),
        "seed": metadata.seed,
        "licence": metadata.licence,
        "bytes": sum(info.bytes for info in metadata.files.values()),
        "files": {name: info.model_dump() for name, info in metadata.files.items()},
        **dropped,
    }


def _bounds(reject_mass: float, reject_share: float) -> dict[str, dict[str, float]]:
    """Return the smallest bounded β of PMPO on accepts and rejects (α = ½) and on rejects alone (α = 0).

    With the reject mass before balancing it is the bound of a policy that cannot tell labelled rejects from those whose
    label was dropped; with the mass after it (`beta_min_rows`), of one that can. `bench` goes by the
    second, but for datasets whose observation never changes (`training.config.reject_mass`).
    """
    from pmpo_offline.objectives import stability

    return {
        feedback: {
            "joint": stability.beta_min(alpha, reject_mass, "joint", reject_share),
            "set": stability.beta_min(alpha, reject_mass, "set", reject_share),
        }
        for feedback, alpha in {"accept_reject": 0.5, "reject": 0.0}.items()
    }


def print_summary(summary: dict[str, Any], as_json: bool) -> None:
    """Print it, as one JSON object or as lines for people."""
    if as_json:
        return emit(summary)
    # Hashes are for programs.
    sizes = {name: f"{info['bytes']:,} bytes" for name, info in summary.get("files", {}).items()}
    lines: list[tuple[str, str]] = []
    for name, value in {**summary, **({"files": sizes} if sizes else {})}.items():
        if isinstance(value, dict) and value:
            lines += [(name, ""), *((f"  {key}", _text(inner)) for key, inner in value.items())]
        else:
            lines.append((name, _text(value)))
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        print(f"{name:<{width}}  {text}".rstrip())
    return None


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(inner)}" for key, inner in value.items())
    if value is None or isinstance(value, bool):
        return {None: "–", True: "yes", False: "no"}[value]
    return f"{value:.6g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
