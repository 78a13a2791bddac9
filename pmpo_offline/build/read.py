"""Source of datasets from trajectory files of other libraries: their task, reference scores, default label and id.

A data set is of a task here only if it was recorded in that very version of its environment: Hopper-v4 and D4RL's
hopper-v2 are other tasks than mujoco/hopper (Hopper-v5), keep the names of their own environments, and bring their own
reference scores or none.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from pmpo_offline import data, tasks
from pmpo_offline.build.options import ImportOptions
from pmpo_offline.build.pipeline import (
    Content,
    Critic,
    Spec,
    Target,
    build,
    load_notes,
    name_parts,
    raw_folder,
    save_notes,
    variant,
    versions,
)
from pmpo_offline.data import Dataset, Experience, Labelling, LabelRule
from pmpo_offline.data.exchange.readers import Recorded, Source, open_source
from pmpo_offline.declarations import catalog
from pmpo_offline.runtime.errors import UserError, unknown
from pmpo_offline.runtime.hashing import hash_json
from pmpo_offline.training import CandidateSettings, CriticSettings

ENVIRONMENTS = {
    "HalfCheetah-v5": "mujoco/halfcheetah",
    "Hopper-v5": "mujoco/hopper",
    "Walker2d-v5": "mujoco/walker2d",
}
"""The task here that an environment of another library is, to the version."""
_HORIZON = 1000
_REACH = 1.0001
"""Largest action: 1, rounded to float32 and back."""
_READERS = 2
"""Revision of readers and critics: raise it when they change what they make of a file."""


def import_dataset(
    source: str | Path,
    *,
    id: str | None = None,
    label: str | None = None,
    imbalance: float | None = None,
    balance: data.Balance = "labels",
    noise: float | None = None,
    task: str | None = None,
    seed: int = 0,
    format: data.Format = "arrow",
    overwrite: bool = False,
    home: Path | None = None,
) -> Dataset:
    """Import a data set of another library, or open it if it was imported with the same content and settings.

    Args:
        source: `minari:ID`, or the path of a Minari folder, a D4RL .hdf5, an OGBench .npz, or RLDS steps.
        id: of the dataset; default `<format>/<its own name>`, with a word for every setting that is not the default.
        label: `SCORE[:THRESHOLD[:MARGIN]]`; default success where the source tells it and both kinds occur, else
            `return:q0.5`; without rewards nothing is labelled.
        imbalance: accepted share of the labelled units in [0, 1]; None as it comes.
        balance: what is dropped for it: "labels", or "rows" with their episodes.
        noise: rate of flipped labels.
        task: the task here that it is of; default the source's, else the name of its own environment.
        seed: of noise, imbalance and critics.
        format: "arrow", or "hdf5" (a Minari directory).
        overwrite: import again what is imported.
        home: where datasets are; default `data.home()`.

    Raises:
        UserError: the source cannot be had or represented, or something is unknown, malformed or impossible.
        PmpoOfflineError: the disk refuses.
    """
    root = home or data.home()
    if id is not None:
        data.dataset_path(id, root)  # refuse a malformed id before anything is read
    ImportOptions(label, imbalance, noise, seed, balance).check()
    rule = None if label is None else LabelRule.parse(label)
    found = open_source(str(source))
    of_task, hashes = _task(found, task), found.hashes()
    raw = hash_json([_READERS, found.format, found.name, hashes])[:16]
    with raw_folder(root, raw) as folder:
        recorded = _recorded(found, folder)
    _check_task(found, recorded.experience, of_task)
    usual = Labelling(_default_label(recorded))
    labelling = Labelling(rule or usual.label, imbalance, noise or 0.0, seed, balance)
    _check_label(found, recorded, labelling.label, usual.label)
    _warn(recorded)
    changed = {key: value for key, value in vars(labelling).items() if value != vars(usual)[key]}
    settings, candidates = CriticSettings(), CandidateSettings() if labelling.label.score == "q_rank" else None
    # The episodes do not depend on the seed, and the critics do.
    scored = hash_json([settings.model_dump(), candidates and candidates.model_dump(), seed])[:16]
    references = _references(found, of_task)
    labels = [str(labelling.label), *labelling.shares, seed]
    made_of = [_READERS, found.format, hashes, of_task, references and references.model_dump(), *labels, scored]
    transitions, ends = recorded.experience.tables()
    content = Content(
        table=transitions,
        episodes=ends,
        settings={"author": found.author, "environment": found.environment and found.environment.id, **recorded.notes},
        packages=versions("pmpo-offline", "numpy", "torch", *found.packages),
        references=references,
    )
    spec = Spec(
        id=id or variant("/".join([found.format, *name_parts(found.name)]), changed),
        task=of_task,
        labelling=labelling,
        digest=hash_json(made_of),
        hashes=hashes,
        source=f"{found.format}: {found.name}",
        licence=found.licence,
        read=lambda _: content,
        raw=raw,
        critic=Critic(settings, candidates, f"judged-{scored}.npz"),
        files=found.files.values(),
    )
    return build(spec, Target(root, format, overwrite))


def _warn(recorded: Recorded) -> None:
    """Warn of rows that were dropped, and of episodes that end where nothing marks it."""
    if count := recorded.notes.get("episodes_ended_by_next_observations"):
        warnings.warn(
            f"{count} episodes end unmarked, where next_observations is not the next row's observation: right if time "
            "ran out there, wrong if rows were shuffled or left out",
            stacklevel=3,
        )
    report = recorded.notes.get("report")
    if isinstance(report, dict) and isinstance(dropped := report["dropped"], dict):
        reasons = "; ".join(f"{count} rows: {reason}" for reason, count in dropped.items())
        warnings.warn(f"dropped {reasons} (show has the report)", stacklevel=3)


def _recorded(found: Source, folder: Path) -> Recorded:
    """Return the episodes, from `folder` where they were read before."""
    notes, path = folder / "notes.json", folder / "experience.npz"
    if (known := load_notes(notes, path)) is not None:
        return Recorded(Experience.load(path), known)
    recorded = found.read()
    notes.unlink(missing_ok=True)
    recorded.experience.save(path)
    save_notes(notes, recorded.notes, path)
    return recorded


def _task(found: Source, wanted: str | None) -> str:
    """Return the name of the task; `UserError` where the wanted one is unknown or not what was recorded."""
    environment = found.environment
    ours = found.task
    if not ours and environment and environment.plain and environment.horizon in (None, _HORIZON):
        ours = ENVIRONMENTS.get(environment.id)
    own = [environment.id] if environment else []
    if wanted is None:
        return ours or "/".join(own or [found.format, *name_parts(found.name)])
    if wanted not in tasks.TASKS and wanted not in own:
        raise unknown("task", wanted, [*tasks.TASKS, *own])
    recorded_in = ours or (environment.id if environment else wanted)
    if wanted not in (recorded_in, *own):
        raise UserError(
            f"{found.name} was recorded in {environment.id if environment else recorded_in}"
            f"{'' if environment is None or environment.plain else ' with arguments of its own'}, which is not task "
            f"{wanted}: their scores cannot be mixed; leave --task out and it is called {recorded_in}"
        )
    return wanted


def _references(found: Source, task: str) -> data.References | None:
    """Return the reference scores that the source brings, else those measured here for the task."""
    if found.references is not None and found.references.max > found.references.min:
        return found.references
    measured = catalog.references(task)
    return data.References.model_validate(measured) if measured else None


def _check_task(found: Source, experience: Experience, name: str) -> None:
    """Raise `UserError` unless the episodes fit the task, where it is one that policies are scored on here."""
    reach = float(np.abs(experience.action).max())
    if name not in tasks.TASKS:
        if reach > _REACH:
            warnings.warn(
                f"{found.name}: actions reach {reach:g}; they are stored as they are, and policies here are evaluated, "
                "and candidates drawn, within -1 and 1",
                stacklevel=3,
            )
        return
    task = tasks.get(name)
    has = (experience.observation.shape[1], experience.action.shape[1])
    needs = (task.observation_dim, task.action_dim)
    if has != needs:
        raise UserError(
            f"{found.name} has observations of {has[0]} numbers and actions of {has[1]}, and task {name} has "
            f"{needs[0]} and {needs[1]}: it is of another task"
        )
    if reach > _REACH:
        raise UserError(f"{found.name}: actions reach {reach:g}, and those of task {name} lie within -1 and 1")


def _default_label(recorded: Recorded) -> LabelRule:
    success = recorded.experience.success
    if recorded.notes["success"] and success.any() and not success.all():
        return LabelRule.parse("success")
    return LabelRule.parse("return:q0.5" if recorded.notes["rewards"] else "reward")


def _check_label(found: Source, recorded: Recorded, rule: LabelRule, default: LabelRule) -> None:
    """Raise `UserError` for labels that do not follow from what the source holds."""
    if rule.score == "column":
        raise UserError("an import has no column of scores: label it by return, return_to_go, reward or advantage")
    if rule.score == "success" and not recorded.notes["success"]:
        raise UserError(f"{found.name} does not say which episodes succeeded: label it by {default}")
    if rule.score != "success" and not recorded.notes["rewards"]:
        if rule != default:
            raise UserError(
                f"{found.name} holds no rewards, from which {rule.score} would follow: add an array rewards, "
                "one number a step"
            )
        warnings.warn(f"{found.name} holds no rewards: nothing is labelled", stacklevel=3)
    if rule.score == "q_rank" and np.abs(recorded.experience.action).max() > _REACH:
        raise UserError(
            f"{found.name}: candidates are drawn within -1 and 1, and its actions are not: use another label"
        )
