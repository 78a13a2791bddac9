"""Source of datasets from trajectory files of other libraries: their feedback, actions, default label and id."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from pydantic import JsonValue

from pmpo_offline import data
from pmpo_offline.build.import_warnings import warn
from pmpo_offline.build.options import ImportOptions, Target
from pmpo_offline.build.pipeline import (
    Content,
    Critic,
    Spec,
    build,
    load_notes,
    name_parts,
    raw_folder,
    save_notes,
    variant,
    versions,
)
from pmpo_offline.build.recorded_task import REACH, check_task, choices_of, reach_of, references_of, task_of
from pmpo_offline.data import Dataset, Experience, Labelling, LabelRule
from pmpo_offline.data.exchange.forms.columns import directed
from pmpo_offline.data.exchange.readers import Exported, Recorded, Source, open_source
from pmpo_offline.data.exchange.readers.arrays import counting_rounded
from pmpo_offline.data.exchange.readers.folders import THE_FOLDER
from pmpo_offline.data.exchange.readers.labels_file import Episodes, feedback_of_file
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.arguments import checked
from pmpo_offline.runtime.arrays import load_arrays, save_arrays
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.hashing import hash_file, hash_json
from pmpo_offline.training import CandidateSettings, CriticSettings

_READERS = 8
"""Revision of readers and critics: raise it when they change what they make of a file."""


@checked()
def import_dataset(
    source: str | Path,
    *,
    id: str | None = None,
    label: str | None = None,
    imbalance: float | None = None,
    balance: data.Balance = "labels",
    noise: float | None = None,
    score: str | None = None,
    labels: str | Path | None = None,
    accept: Sequence[str] = (),
    actions: int | None = None,
    task: str | None = None,
    seed: int = 0,
    format: data.Format | None = None,
    overwrite: bool = False,
    home: str | Path | None = None,
) -> Dataset:
    """Import a data set of another library, or open it if it was imported with the same content and settings.

    Args:
        source: `minari:ID`, or the path of a file or a folder in one of the forms of `data.exchange.readers`. An
            export of this package comes back with its labels, unless others are asked for.
        id: of the dataset; default `<format>/<its own name>`, with a word for every setting that is not the default.
        label: `SCORE[:THRESHOLD[:MARGIN]]`; default `column` where the source has labels or `score` or `labels` is
            given, else success where the source tells it and both kinds occur, or all returns are equal, else
            `return:q0.5`; without rewards and success nothing is labelled.
        imbalance: accepted share of the labelled units in [0, 1]; None as it comes.
        balance: what is dropped for it: "labels", or "rows" with their episodes.
        noise: rate of flipped labels.
        score: name of the column of labels or scores, in the file `labels` if there is one; its values are split by
            `label`, default `column:q0.5` (of labels `column`).
        labels: a .csv, .jsonl or .parquet file with the labels or scores of episodes, or of steps, if it has a
            column `step`.
        accept: the values in that file that mean accept; all others but empty ones mean reject. Default: words such as
            accept, success and yes, and numbers.
        actions: number of discrete actions, where the actions are whole numbers and the source does not say.
        task: the task here that it is of; default the source's, else the name of its own environment.
        seed: of noise, imbalance and critics.
        format: "arrow", or "hdf5" (a Minari directory); by default "arrow", and a stored one is opened as it is.
        overwrite: read the source again, and replace an earlier import.
        home: where datasets are; default `data.home()`.

    Raises:
        UserError: the source cannot be had or represented, or something is unknown, malformed or impossible.
        PmpoOfflineError: the disk refuses.
    """
    root = data.home(home)
    if id is not None:
        data.dataset_path(id, root)  # refuse a malformed id before anything is read
    reviewed = None if labels is None else Path(labels).expanduser()
    options = ImportOptions(label, imbalance, noise, seed, balance, score, reviewed, tuple(accept), actions)
    options.check()
    rule = None if label is None else LabelRule.parse(label)
    found, target = open_source(str(source)), Target(root, overwrite, format)
    if found.exported and task is None and options == ImportOptions():
        spec = _as_exported(found, found.exported)
    else:
        spec = _labelled_anew(found, options, rule, task_of(found, task), target)
    return build(replace(spec, id=id) if id else spec, target)


def _as_exported(found: Source, exported: Exported) -> Spec:
    """Return the dataset of this package that a source is an export of, with its own labels and candidates."""
    metadata, hashes = exported.metadata, found.hashes()

    def read(_: Path) -> Content:
        progress.report("read tables", 0, 1)
        tables = exported.tables()
        progress.report("read tables", 1, 1)
        return Content(
            table=tables["transitions"],
            settings={},
            packages=versions("pmpo-offline", *found.packages),
            episodes=tables["episodes"],
            candidates=tables.get("candidates"),
            exported=metadata,
        )

    return Spec(
        id="/".join([found.format, *name_parts(found.name)]),
        task=metadata.task,
        labelling=Labelling(metadata.label, seed=metadata.seed),
        digest=hash_json([_READERS, found.format, "as exported", hashes]),
        hashes=hashes,
        source=f"{found.format}: {found.name}",
        licence=metadata.licence,
        read=read,
        files=found.files.values(),
    )


def _labelled_anew(found: Source, options: ImportOptions, rule: LabelRule | None, task: str, target: Target) -> Spec:
    """Return the dataset that is made of a source's episodes with these labels; reads them."""
    hashes = found.hashes()
    if options.accept and not options.labels:
        raise UserError("--accept is for texts, and for episodes with a file of --labels")
    own = None if options.labels else options.score  # else it is a column of the labels' file
    if own and not found.takes_column:
        raise UserError(f"--score {own}: a {found.format} source has no columns of scores")
    column, sign = directed(own) if own else (None, 1.0)
    raw = hash_json([_READERS, found.format, found.name, hashes, *([column] if column else [])])[:16]
    with raw_folder(data.home(target.home), raw) as folder:
        recorded = _recorded(found, column, folder, target.overwrite)
    if sign < 0 and recorded.feedback is not None:
        recorded = replace(recorded, feedback=-recorded.feedback)  # now more is better, and +1 is accept
    recorded, choices = choices_of(found, recorded, options.actions)
    if options.labels:
        recorded = _with_labels(recorded, options.labels, options)
        hashes = {**hashes, options.labels.name: hash_file(options.labels)}
    recorded = _counting_repeats(recorded)
    check_task(found, recorded.experience, task)
    transitions, ends = _tables(recorded)
    usual = Labelling(_default_label(found, recorded, ends))
    labelling = Labelling(rule or usual.label, options.imbalance, options.noise or 0.0, options.seed, options.balance)
    if (options.score or options.labels) and labelling.label.score != "column":
        raise UserError(
            f"label '{labelling.label}' does not use --score or --labels: leave them out, or label by column"
        )
    _check_label(found, recorded, labelling.label, usual.label)
    warn(found, recorded)
    less, score = (options.score or "")[:1] == "-", (options.score or "").lstrip("+-")
    named = {"score": f"less-{score}" if less else score, "labels": options.labels and options.labels.stem}
    named["accept"] = "-".join(options.accept)
    changed = {key: value for key, value in vars(labelling).items() if value != vars(usual)[key]}
    changed |= {key: value for key, value in named.items() if value}
    settings, candidates = CriticSettings(), CandidateSettings() if labelling.label.score == "q_rank" else None
    # The episodes do not depend on the seed, and the critics do.
    scored = hash_json([settings.model_dump(), candidates and candidates.model_dump(), options.seed])[:16]
    references = references_of(found, task)
    labels = [str(labelling.label), *labelling.shares, options.seed, options.score]
    labels += [] if options.actions is None else [f"{options.actions} actions"]
    labels += [f"accept {options.accept}"] if options.accept else []
    made_of = [_READERS, found.format, hashes, task, references and references.model_dump(), *labels, scored]
    content = Content(
        table=transitions,
        episodes=ends,
        settings={
            "author": found.author,
            "environment": found.environment and found.environment.id,
            "raw": raw,
            **recorded.notes,
            **({"actions": choices} if choices else {}),
        },
        packages=versions("pmpo-offline", "numpy", "torch", *found.packages),
        references=references,
        actions=choices,
    )
    by_column = labelling.label.score == "column"
    return Spec(
        id=variant("/".join([found.format, *name_parts(found.name)]), changed),
        task=task,
        labelling=labelling,
        digest=hash_json(made_of),
        hashes=hashes,
        source=f"{found.format}: {found.name}",
        licence=found.licence,
        read=lambda _: content,
        raw=raw,
        critic=Critic(settings, candidates, f"judged-{scored}.npz"),
        score={"column": recorded.feedback_note["column"]} if by_column else {},
        files=[*found.files.values(), *([options.labels] if options.labels else [])],
    )


def _with_labels(recorded: Recorded, path: Path, options: ImportOptions) -> Recorded:
    """Return the episodes with the feedback of a file that names them, in its column `score` if there are several."""
    if recorded.feedback_note.get("column") == THE_FOLDER:
        raise UserError(f"--labels {path}: the folders say what their episodes are: leave it out, or move the episodes")
    length = recorded.experience.length
    numbers = np.arange(len(length)) if recorded.numbers is None else recorded.numbers
    episodes = Episodes(numbers, length, cut="dropped" in recorded.report)
    values, note, unused = feedback_of_file(path, episodes, options.score, options.accept)
    if unnamed := int(np.isnan(values).sum()):
        of = f"{unnamed} of {len(values)} {note['of']}s"
        warnings.warn(f"--labels {path} has no label for {of}: they stay unlabelled", stacklevel=3)
    if lost := note.get("of_dropped_rows"):
        warnings.warn(f"--labels {path} labels {lost} rows that were dropped, as no steps", stacklevel=3)
    own = [str(before["column"])] if (before := recorded.feedback_note) else []
    passed_over = [*recorded.report.get("columns_not_used", []), *own, *unused]
    recorded = _reporting(recorded, columns_not_used=passed_over) if passed_over else recorded
    return replace(recorded, feedback=values, notes={**recorded.notes, "feedback": note})


def _reporting(recorded: Recorded, **entries: JsonValue) -> Recorded:
    """Return the episodes with more in that report."""
    return replace(recorded, notes={**recorded.notes, "report": {**recorded.report, **entries}})


def _counting_repeats(recorded: Recorded) -> Recorded:
    """Return the episodes with the number of repeated ones in the report, and of those that contradict the first."""
    if recorded.firsts is None:
        return recorded
    again = recorded.firsts != np.arange(len(recorded.firsts))
    entries: dict[str, JsonValue] = {"repeated_episodes": int(again.sum())}
    if recorded.feedback is not None and recorded.feedback_note["of"] == "episode":
        mine, first = recorded.feedback, recorded.feedback[recorded.firsts]
        entries["contradicting_episodes"] = int((~np.isnan(mine) & ~np.isnan(first) & (mine != first)).sum())
    return _reporting(recorded, **{name: count for name, count in entries.items() if count})


def _tables(recorded: Recorded) -> tuple[pa.Table, pa.Table]:
    """Return the transitions and the episodes, the source's feedback as the scores of either."""
    steps, episodes = recorded.experience.tables()
    note = recorded.feedback_note
    if note.get("of") == "episode":
        return steps, data.columns.replace(episodes, score=recorded.feedback)
    return (data.columns.replace(steps, score=recorded.feedback) if note else steps), episodes


def _recorded(found: Source, column: str | None, folder: Path, again: bool) -> Recorded:
    """Return the episodes and the feedback in a column, from `folder` where they were read before, unless `again`."""
    notes, path, beside = folder / "notes.json", folder / "experience.npz", folder / "feedback.npz"
    if not again and (known := load_notes(notes, path, beside)) is not None:
        arrays = load_arrays(beside, ["feedback", "numbers", "firsts"])
        held = {name: each if len(each) else None for name, each in arrays.items()}
        return Recorded(Experience.load(path), known, held["feedback"], held["numbers"], firsts=held["firsts"])
    with counting_rounded() as rounded:
        recorded = (found.exported or found).read() if column is None else found.read(column)
    recorded = replace(recorded, firsts=recorded.experience.firsts())
    if rounded:
        recorded = _reporting(recorded, rounded=dict(rounded.items()))
    notes.unlink(missing_ok=True)
    recorded.experience.save(path)
    kept = {"feedback": recorded.feedback, "numbers": recorded.numbers, "firsts": recorded.firsts}
    save_arrays(beside, {name: np.empty(0) if values is None else values for name, values in kept.items()})
    save_notes(notes, recorded.notes, path, beside)
    return recorded


def _default_label(found: Source, recorded: Recorded, episodes: pa.Table) -> LabelRule:
    if note := recorded.feedback_note:
        if found.exported and found.exported.metadata.label.score == "column":
            return found.exported.metadata.label
        return LabelRule.parse("column" if note["labels"] else "column:q0.5")
    success = recorded.experience.success
    splits = bool(recorded.notes["rewards"]) and len(np.unique(data.columns.vector(episodes, "return"))) > 1
    if recorded.notes["success"] and (not splits or (success.any() and not success.all())):
        return LabelRule.parse("success")
    return LabelRule.parse("return:q0.5" if recorded.notes["rewards"] else "reward")


def _check_label(found: Source, recorded: Recorded, rule: LabelRule, default: LabelRule) -> None:
    """Raise `UserError` for labels that do not follow from what the source holds."""
    if rule.score == "column":
        if not recorded.feedback_note:
            raise UserError(
                f"{found.name} has no column of labels: name one with --score, or give the episodes' labels in a file "
                "with --labels"
            )
        return
    if rule.score == "success" and not recorded.notes["success"]:
        raise UserError(f"{found.name} does not say which episodes succeeded: label it by {default}")
    if rule.score != "success" and not recorded.notes["rewards"]:
        if rule != default:
            raise UserError(
                f"{found.name} holds no rewards, from which {rule.score} would follow: add an array rewards, "
                "one number a step"
            )
        warnings.warn(
            f"{found.name} holds no rewards: nothing is labelled; give the episodes' labels in a file with --labels, "
            "or sort episodes of a file each into folders accepts and rejects",
            stacklevel=3,
        )
    if rule.score == "q_rank" and recorded.experience.action.dtype.kind == "i":
        raise UserError(f"{found.name}: candidates are not drawn from discrete actions: use another label")
    if rule.score == "q_rank" and reach_of(recorded.experience) > REACH:
        raise UserError(
            f"{found.name}: candidates are drawn within -1 and 1, and its actions are not: use another label"
        )
