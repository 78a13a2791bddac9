"""Other people's data becomes a dataset: read it, then the tail that builds share (`finishing`).

```
source ── data.exchange.readers ── finish ── write ──▶ <home>/<id>/
            (the episodes are kept under <home>/.raw/: another labelling of the same files does not read them again)
```
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pmpo_offline import data
from pmpo_offline.build.cache import kept, standing, versions
from pmpo_offline.build.import_options import base_id, check_label, check_task, default_label, references_of, task_of
from pmpo_offline.build.label import Order, finish
from pmpo_offline.build.naming import digest, variant
from pmpo_offline.data import Dataset, Experience, LabelRule
from pmpo_offline.data.exchange.readers import Recorded, Source, open_source
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.training import CandidateSettings, CriticSettings

_READERS = 1
"""Raise it when a reader changes what it makes of a file: kept experience of before is then left alone."""


def import_dataset(
    source: str | Path,
    *,
    id: str | None = None,
    label: str | None = None,
    imbalance: float | None = None,
    noise: float | None = None,
    task: str | None = None,
    seed: int = 0,
    format: data.Format = "arrow",
    overwrite: bool = False,
    home: Path | None = None,
) -> Dataset:
    """Import a data set of another library, or open it if it stands with the same content and settings.

    Args:
        source: `minari:ID`, or the path of a Minari folder, a D4RL .hdf5, an OGBench .npz, or RLDS steps.
        id: of the dataset; default `<format>/<its own name>`, with a word for every setting that is not the default.
        label: `SCORE[:THRESHOLD[:DEAD_ZONE]]`; default success where the source tells it and both kinds occur, else
            `return:q0.5`; without rewards nothing is labelled.
        imbalance: accepted share of the labelled units in [0, 1]; None as it comes.
        noise: rate of flipped labels.
        task: the task here that it is of; default what the source says, else the name of its own environment.
        seed: of noise, imbalance and critics.
        format: "arrow", or "hdf5" (a Minari directory).
        overwrite: import again what stands.
        home: where datasets are; default `data.home()`.

    Raises:
        UserError: the source cannot be had or represented, or something is unknown, malformed or impossible.
        PmpoOfflineError: the disk refuses.
    """
    root = data.home() if home is None else home
    if id is not None:
        data.dataset_path(id, root)  # a malformed id is said before anything is read
    for setting, rate in (("imbalance", imbalance), ("noise", noise)):
        if rate is not None and not 0 <= rate <= 1:
            raise UserError(f"import: {setting} {rate:g}: choose a number between 0 and 1")
    if seed < 0:
        raise UserError(f"import: seed {seed}: choose a number of 0 or more")
    asked = None if label is None else LabelRule.parse(label)
    found = open_source(str(source))
    name = task_of(found, task)
    hashes = found.hashes()
    with kept(root, digest([_READERS, found.format, found.name, hashes])[:16]) as folder:
        recorded = _recorded(found, folder)
        check_task(found, recorded.experience, name)
        usual = Labelling(default_label(recorded))
        labelling = Labelling(asked or usual.label, imbalance, noise or 0.0, seed)
        check_label(found, recorded, labelling.label, usual.label)
        changed = {key: value for key, value in vars(labelling).items() if value != vars(usual)[key]}
        order = _order(found, recorded, id or variant(base_id(found), changed), name, hashes, labelling)
        directory = data.dataset_path(order.id, root)
        if any(path.resolve().is_relative_to(directory.resolve()) for path in found.files.values()):
            raise UserError(f"{source} lies in {directory}, where its import would go: choose another --id or --home")
        if not overwrite and (stands := standing(order, format, root)):
            return stands
        metadata, tables = finish(order, recorded.experience, None, folder)
    data.write(directory, metadata, tables, format=format, overwrite=overwrite)
    return data.load_dataset(order.id, home=root)


@dataclass(frozen=True)
class Labelling:
    """How an import is labelled, and what is left of its labels."""

    label: LabelRule
    imbalance: float | None = None
    noise: float = 0.0
    seed: int = 0


def _order(
    found: Source, recorded: Recorded, id: str, task: str, hashes: dict[str, str], labelling: Labelling
) -> Order:
    critic = CriticSettings()
    candidates = CandidateSettings() if labelling.label.score == "q_rank" else None
    # The episodes do not depend on the seed, and the critics do.
    judged = digest([critic.model_dump(), candidates and candidates.model_dump(), labelling.seed])[:16]
    references = references_of(found, task)
    said = None if references is None else references.model_dump()
    asked = [str(labelling.label), labelling.imbalance, labelling.noise, labelling.seed]
    return Order(
        id=id,
        task=task,
        **vars(labelling),
        critic=critic,
        candidates=candidates,
        digest=digest([_READERS, found.format, hashes, task, said, *asked, judged]),
        judged=f"judged-{judged}.npz",
        licence=found.licence,
        references=references,
        provenance=data.Provenance(
            sources=[f"{found.format}: {found.name}"],
            hashes=hashes,
            packages=versions(*dict.fromkeys(("pmpo-offline", "numpy", "torch", *found.packages))),
            settings={
                "author": found.author,
                "environment": None if found.environment is None else found.environment.id,
                **recorded.notes,
            },
        ),
        remedy="imported from other files or with other settings: add --overwrite to import it again, or give it an "
        "--id of its own",
    )


def _recorded(found: Source, folder: Path) -> Recorded:
    """Return the episodes, from `folder` where they were read before."""
    notes, path = folder / "notes.json", folder / "experience.npz"
    if path.exists() and notes.exists():
        return Recorded(Experience.load(path), json.loads(notes.read_text(encoding="utf-8")))
    recorded = found.read()
    notes.write_text(json.dumps(dict(recorded.notes)), encoding="utf-8")
    recorded.experience.save(path)
    return recorded
