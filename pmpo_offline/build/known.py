"""The datasets that there are, declared and built, and what is known of one of them."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
from pydantic import JsonValue

from pmpo_offline.data import Dataset, load_dataset, read_metadata, resolve, stored_ids
from pmpo_offline.data.storage import HISTORY, stored_at
from pmpo_offline.declarations import catalog
from pmpo_offline.runtime.arguments import checked
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError, unknown
from pmpo_offline.runtime.notebook import Facts

DOUBTFUL = ("episodes_ended_by_next_observations", "episodes_begin_where_the_last_ended", "images")
"""What imports of episodes warn of and keep beside their report, among the settings of the provenance."""


@checked()
def list_datasets(home: str | Path | None = None) -> pl.DataFrame:
    """Return every dataset that is declared or built, one a row: id, built, title (or what its labels are)."""
    declared = {declaration.id: declaration.title for declaration in catalog.datasets()}
    built = stored_ids(home)
    names = sorted({*declared, *built})
    titles = [declared[name] if name in declared else _labels(name, home) for name in names]
    return pl.DataFrame(
        {"id": names, "built": [name in built for name in names], "title": titles},
        schema={"id": pl.String, "built": pl.Boolean, "title": pl.String},
    )


@checked()
def show(dataset: Dataset | str | Path, home: str | Path | None = None) -> Facts:
    """Return what is known of a dataset, given itself, its id or its path; of one that is not built, its recipe.

    Raises `UserError`, with the near misses, if there is none.
    """
    if isinstance(dataset, Dataset):
        return _summary(dataset)
    if is_built(str(dataset), home):
        return _summary(load_dataset(dataset, home=home))
    recipe = catalog.dataset(str(dataset)).model_dump(exclude={"behavior", "critic", "candidates"})
    return Facts({"built": False, **recipe})


def is_built(name: str, home: str | Path | None = None) -> bool:
    """Return whether a dataset, given its id or its path, is built (True) or only declared (False).

    Raises `UserError`, with the near misses among both, if it is neither.
    """
    if stored_at(name, home):
        return True
    check_declared(name, home)
    return False


def check_declared(name: str, home: str | Path | None = None) -> None:
    """Raise `UserError`, with the near misses among stored ones too, unless a dataset is declared; it is not stored."""
    if catalog.is_declared(name):
        return
    if Path(name).exists():
        resolve(name, home)  # raises
    declared = [declaration.id for declaration in catalog.datasets()]
    base = re.sub(r"-accept[^/]*(-v\d+)$", r"\1", name)  # as `build-dataset --imbalance` names what it makes
    if base in declared:
        made = f"pmpo-offline build-dataset {base} with the --imbalance of its name makes it"
        raise UserError(f"dataset {name!r} is not built: {made}")
    raise unknown("dataset", name, {*stored_ids(home), *declared})


def require_built(name: str, home: str | Path | None = None) -> None:
    """Raise `UserError` unless a dataset, given its id or its path, is built."""
    if not is_built(name, home):
        raise UserError(f"dataset {name!r} is declared but not built: run pmpo-offline build-dataset {name}")


def _summary(dataset: Dataset) -> Facts:
    """Return counts, labels, origin, bounds on β, files and references of a dataset, as `show` and `--json` do."""
    meta = dataset.metadata
    content = meta.model_dump(exclude={"counts", "provenance"})
    settings = meta.provenance.settings
    imported = settings.get("report")  # what became of an import's rows
    report = dict(imported) if isinstance(imported, dict) else {}
    report |= {name: settings[name] for name in DOUBTFUL if settings.get(name)}
    units = dataset.table if dataset.episodes is None else dataset.episodes
    splits = units["split"].value_counts().sort("descending", by="values")  # train before test
    return Facts(
        {
            "id": meta.id,
            "path": str(dataset.path),
            "built": True,
            **{name: content[name] for name in ("kind", "task", "unit")},
            "rows": meta.counts.rows,
            "episodes": meta.counts.episodes,
            **({"prompts": len(units["prompt_id"].unique())} if dataset.episodes is None else {}),
            "splits": {each["values"]: each["counts"] for each in splits.to_pylist()},
            "sources": meta.provenance.sources,
            "made_from": _operation(settings.get(HISTORY)),
            "score": meta.score.name,
            "column": meta.score.settings.get("column"),
            "label": str(meta.label),
            **{name: content[name] for name in ("threshold", "noise")},
            "accepted": meta.counts.accepted,
            "rejected": meta.counts.rejected,
            "unlabelled": meta.counts.unlabelled,
            "share": meta.imbalance.achieved,
            **{name: content[name] for name in ("imbalance", "reject_mass", "labelled_reject_mass", "reject_share")},
            "beta_min": _bounds(meta.reject_mass, meta.reject_share),
            "beta_min_rows": _bounds(meta.labelled_reject_mass, meta.reject_share),
            **{name: content[name] for name in ("candidates", "references", "seed", "licence")},
            "bytes": sum(info.bytes for info in meta.files.values()),
            "files": content["files"],
            **({"dropped": report.pop("dropped", {}), "report": report} if report else {}),
        }
    )


def _operation(history: JsonValue) -> dict[str, JsonValue]:
    """Return the operation that made a dataset of others, with their ids; empty if none did."""
    if not isinstance(history, dict) or not isinstance(parents := history.get("parents"), list):
        return {}
    return {**history, "parents": [parent["id"] for parent in parents if isinstance(parent, dict)]}


def _bounds(reject_mass: float, reject_share: float) -> dict[str, dict[str, float]]:
    """Return the smallest bounded β of PMPO on accepts and rejects (α = ½) and on rejects alone (α = 0).

    With the reject mass before balancing it is the bound of a policy that cannot tell labelled rejects from those whose
    label was dropped; with the mass after it (`beta_min_rows`), of one that can. `bench` goes by the
    second, but for datasets whose observation never changes (`training.Setup.reject_mass`).
    """
    from pmpo_offline.objectives.stability import beta_min

    return {
        feedback: {way: beta_min(alpha, reject_mass, way, reject_share) for way in ("joint", "set")}
        for feedback, alpha in {"accept_reject": 0.5, "reject": 0.0}.items()
    }


def _labels(name: str, home: str | Path | None) -> str:
    """Describe in a few words the labels of a dataset that is not declared."""
    try:
        metadata = read_metadata(resolve(name, home))
    except PmpoOfflineError:
        return "damaged, see verify"
    share = metadata.imbalance.achieved
    words = [str(metadata.label), "nothing labelled" if share is None else f"{share:.4g} accepted"]
    return ", ".join(words + ([f"noise {metadata.noise:g}"] if metadata.noise else []))
