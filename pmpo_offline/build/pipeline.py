"""One pipeline for every dataset: reuse, source, critics, labels, balance, storage.

```
spec ── is it there already? ── spec.read ── critics ── label_tables ── write ──▶ <home>/<id>/
         (raw content and the critics' scores are cached in <home>/.raw/ and shared by every labelling,
          share and noise that is made of them)
```
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import JsonValue

from pmpo_offline import data
from pmpo_offline.build import shipped
from pmpo_offline.build.options import Target
from pmpo_offline.data import Dataset, Labelling, LabelRule
from pmpo_offline.data.mapping import spilled
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError, refusal
from pmpo_offline.runtime.files import finite, locked_folder, read_json, write_json
from pmpo_offline.runtime.hashing import hash_file, hash_json, version

if TYPE_CHECKING:
    from pmpo_offline.tasks import ScoredCandidates
    from pmpo_offline.tasks.language import LanguageTask
    from pmpo_offline.training import Advantages, CandidateSettings, CriticSettings

_SEAL = "sha256"
_FROM_FILES = (
    "imported from other files, with other settings or by another version: add --overwrite to import it again, or give "
    "it an --id"
)
_FROM_RECIPE = (
    "built from another recipe or on other versions of the simulators: add --overwrite to build it again, or give the "
    "recipe an id"
)


@dataclass(frozen=True)
class Critic:
    """The critics that score recorded experience where the labels need it."""

    settings: CriticSettings
    candidates: CandidateSettings | None
    file: str
    """Name of the file with their scores, beside the raw experience: a hash of all else that the scores depend on."""


@dataclass(frozen=True, eq=False)
class Content(data.columns.Tables):
    """Unlabelled tables from a source, and how they were made."""

    table: pa.Table
    """Transitions, or responses if there are no episodes."""
    settings: dict[str, Any]
    packages: dict[str, str]
    hashes: dict[str, str] = field(default_factory=dict)
    """Beyond those of `Spec.hashes`, which are known before anything is read."""
    episodes: pa.Table | None = None
    candidates: pa.Table | None = None
    """Candidate actions with their true values, where a task knows them."""
    references: data.References | None = None
    actions: int | None = None
    """Number of discrete actions."""
    exported: data.Metadata | None = None
    """The dataset of this package whose export was read: the tables have its labels, which are kept."""


@dataclass(frozen=True)
class Spec:
    """A dataset to build: the identity by which a stored one is found, its source and its labels."""

    id: str
    task: str
    labelling: Labelling
    digest: str
    """Hash of the whole request: two datasets of one digest are equal."""
    hashes: Mapping[str, str]
    """Hashes of what the content is made from; a stored dataset with others is another one."""
    source: str
    """As the provenance states it."""
    licence: str
    read: Callable[[Path], Content]
    """Returns the content, given the folder that raw content is cached in."""
    raw: str | None = None
    """Name of that folder under <home>/.raw/, a hash of all that the raw content depends on; None: no cache."""
    critic: Critic | None = None
    score: Mapping[str, JsonValue] = field(default_factory=dict)
    """Settings of what computed the scores."""
    files: Collection[Path] = ()
    """The files of an import, which the dataset must not replace."""


def build(spec: Spec, target: Target) -> Dataset:
    """Build a dataset, or open the stored one if it was made of the same.

    Raises:
        UserError: the source cannot serve the labels, or another dataset of this id is stored.
        PmpoOfflineError: a cached file is damaged, or the disk refuses.
    """
    directory = data.dataset_path(spec.id, target.home)
    for path in spec.files:
        if path.resolve().is_relative_to(directory.resolve()):
            raise UserError(f"{path} lies in {directory}, where its import would go: choose another --id or --home")
    if found := _stored(spec, target):
        return found
    with raw_folder(data.home(target.home), spec.raw) as folder:
        # Another process may have built it while this one waited for the folder.
        if spec.raw and (found := _stored(spec, target)):
            return found
        return store(*_labelled(spec, spec.read(folder), folder), target, lambda: _stored(spec, target))


def store(
    metadata: data.Metadata, tables: Mapping[str, pa.Table], target: Target, found: Callable[[], Dataset | None]
) -> Dataset:
    """Write a dataset, or return the one that is `found` because another process has stored it meanwhile."""
    directory = data.dataset_path(metadata.id, target.home)
    try:
        data.write(directory, metadata, tables, form=target.format or "arrow", overwrite=target.overwrite)
    except UserError:
        if known := found():
            return known
        raise
    return data.load_dataset(metadata.id, home=target.home)


@contextmanager
def raw_folder(home: Path, name: str | None) -> Iterator[Path]:
    """Yield the folder of this raw content, locked, or `home` where it has no name; `PmpoOfflineError` if refused."""
    folder = home / ".raw" / name if name else home
    try:
        with locked_folder(folder) if name else nullcontext(), spilled(folder):
            yield folder
    except OSError as error:
        raise PmpoOfflineError(refusal(home, error, "choose another --home")) from None


def save_notes(path: Path, notes: Mapping[str, JsonValue], *files: Path) -> None:
    """Write what is known of cached files, with a checksum of it and of them."""
    write_json(path, {**notes, _SEAL: _seal(notes, files)})


def load_notes(path: Path, *files: Path) -> dict[str, Any] | None:
    """Return what `save_notes` wrote; None where it or a file is absent, or older than checksums.

    Raises `PmpoOfflineError` if the notes or one of the files are damaged.
    """
    if not all(file.exists() for file in (path, *files)):
        return None
    notes = read_json(path)
    seal = notes.pop(_SEAL, None)
    if seal is not None and seal != _seal(notes, files):
        names = " or ".join(file.name for file in (*files, path))
        raise PmpoOfflineError(
            f"{names} in {path.parent} is damaged (the checksum differs): delete it and run the same command again"
        )
    return None if seal is None else notes


def _seal(notes: Mapping[str, JsonValue], files: Collection[Path]) -> str:
    return hash_json([finite(notes), *map(hash_file, files)])


def versions(*names: str) -> dict[str, str]:
    """Return the installed versions of packages, for the provenance."""
    return {name: version(name) for name in names}


def rewards(task: LanguageTask, prompts: list[str], completions: list[str]) -> NDArray[np.float32]:
    """Return what a task's reward function gives completions."""
    progress.report("score responses", 0, len(prompts))
    scores = task.reward(prompts, completions)
    progress.report("score responses", len(prompts), len(prompts))
    return scores


def name_parts(name: str) -> list[str]:
    """Return the parts of a source's name in letters that ids allow, the last with a version."""
    parts = [re.sub(r"[^A-Za-z0-9_-]+", "-", part).strip("-_") for part in name.split("/")]
    *space, last = [part for part in parts if part] or ["unnamed"]
    return [*space, last if re.search(r"-v\d+$", last) else f"{last}-v0"]


def variant(base: str, changed: Mapping[str, Any]) -> str:
    """Return the id of a dataset with these settings changed: readable for one change, else with their hash."""
    if not changed:
        return base
    name, _, version = base.rpartition("-")
    named = {key: value for key, value in changed.items() if key != "balance"}
    word = _word(*next(iter(named.items()))) if len(named) == 1 else None
    if word and changed.get("balance") == "rows":  # accept10 → accept10rows
        word = f"{word}rows" if "imbalance" in named else None
    word = word or hash_json({key: str(value) for key, value in changed.items()})[:8]
    return f"{name}-{word}-{version}"


def _word(name: str, value: Any) -> str | None:
    """Return the word for one changed setting in an id, None where there is no readable one."""
    if name == "label":
        plain = value == LabelRule.parse(value.score)
        return str(value.score).replace("_", "-") if plain else None
    if name in ("imbalance", "noise"):
        if value is None:
            return "collected"
        percent = round(100 * value, 6)
        prefix = "accept" if name == "imbalance" else "noise"
        return f"{prefix}{percent:.0f}" if percent == int(percent) else None
    return f"{name}{value}"


def _stored(spec: Spec, target: Target) -> Dataset | None:
    """Return the stored dataset of this spec, None if there is none or it is built again.

    Raises `UserError` for another dataset of this id, or another form.
    """
    if target.overwrite or not data.is_stored(spec.id, target.home):
        return None
    found = data.load_dataset(spec.id, home=target.home)
    hashes = found.metadata.provenance.hashes
    if any(hashes.get(name) != value for name, value in {"recipe": spec.digest, **spec.hashes}.items()):
        raise UserError(f"{spec.id} exists in {found.path}, {_FROM_FILES if spec.files else _FROM_RECIPE} of its own")
    stored = "arrow" if any(name.endswith(".arrow") for name in found.metadata.files) else "hdf5"
    if target.format not in (None, stored):
        raise UserError(f"{spec.id} exists as {stored} in {found.path}: add --overwrite to store it as {target.format}")
    return found


def _labelled(spec: Spec, content: Content, folder: Path) -> tuple[data.Metadata, dict[str, pa.Table]]:
    """Score the content where the labels need critics, label and balance it; return what `data.write` stores."""
    if content.exported:
        return _restored(spec, content, content.exported)
    critic, by_advantage = spec.critic, spec.labelling.label.score == "advantage"
    # Where the task itself knows candidates and their values, no clone is needed to draw them.
    drawn = critic.candidates if critic and content.candidates is None else None
    if critic is None or not (by_advantage or drawn):
        return _described(spec, content)
    estimates = _estimates(spec, critic, drawn, content, folder)
    settings = critic.settings.model_dump(mode="json")
    about: dict[str, Any] = {"critic": settings, "explained": float(estimates.explained)}
    if drawn:
        content = replace(content, candidates=candidates_table(estimates))
    if by_advantage:
        advantage = estimates.advantage
        if spec.raw and spec.labelling.label == shipped.RULE:
            known = shipped.with_shipped_labels(advantage, shipped.labels_path(spec.raw, settings), content)
            if known is not None:
                advantage, about = known, about | shipped.MARK
        content = replace(content, table=data.columns.replace(content.table, score=advantage))
        spec = replace(spec, score=about)
    return _described(spec, replace(content, settings={**content.settings, **about}))


def _restored(spec: Spec, content: Content, was: data.Metadata) -> tuple[data.Metadata, dict[str, pa.Table]]:
    """Return an exported dataset as it was, under another id and with the export among its sources.

    Of an export that left rows out, counts and shares are those of the rows that are there. Where rows are missing or
    in another order, noise and balance cannot be derived again, and the metadata say so. Raises `UserError` if the
    tables contradict the metadata.
    """
    found = content.tables
    if content.episodes is None and content.table.num_rows < was.counts.rows:
        was = was.model_copy(update=data.recounted(content.table, was))
    if was.kind == "transitions" and content.candidates is None:  # an export that has no place for them
        was = was.model_copy(update={"candidates": None})
    if wrong := data.problems(was, found):
        raise UserError(f"{spec.source} was changed after its export: {wrong[0]}; label it again with --label")
    exported = {
        "id": was.id,
        "recipe": was.provenance.hashes.get("recipe"),
        "derivable": not any(data.derived_problems(was, found)),
    }
    provenance = data.Provenance(
        sources=[*was.provenance.sources, spec.source],
        hashes={**was.provenance.hashes, **spec.hashes, "recipe": spec.digest},
        packages={**was.provenance.packages, **content.packages},
        settings={**was.provenance.settings, **content.settings, "exported": exported},
    )
    return was.model_copy(update={"id": spec.id, "provenance": provenance, "files": {}}), found


def _estimates(
    spec: Spec, critic: Critic, drawn: CandidateSettings | None, content: Content, folder: Path
) -> Advantages:
    """Return the critics' scores, of candidates too that a clone draws, from `folder` where they are cached."""
    from pmpo_offline.training import Advantages

    path = folder / critic.file
    if path.exists():
        return Advantages.load(path)
    plain = Labelling(LabelRule.parse("success"), seed=spec.labelling.seed)
    with warnings.catch_warnings(action="ignore"):  # about labels, which critics do not see
        metadata, tables = _described(replace(spec, labelling=plain), replace(content, candidates=None))
    dataset = Dataset(metadata, folder, tables["transitions"], tables["episodes"])
    estimates = Advantages.of(dataset, critic.settings, drawn, spec.labelling.seed, folder)
    estimates.save(path)
    return estimates


def candidates_table(scored: ScoredCandidates | Advantages) -> pa.Table:
    """Return the unlabelled table of K scored actions at each of S steps."""
    _, k, action_dim = scored.action.shape
    columns = {
        "row": np.repeat(scored.row, k),
        "action": data.columns.list_array(scored.action.reshape(-1, action_dim)),
        "score": scored.score.ravel(),
        "label": pa.nulls(scored.score.size, pa.bool_()),
    }
    return pa.table(columns, schema=data.candidates_schema(action_dim))


def _described(spec: Spec, content: Content) -> tuple[data.Metadata, dict[str, pa.Table]]:
    """Label and balance the tables; return them with the metadata, which is made here and nowhere else."""
    labelling = spec.labelling
    done = data.label_tables(content.table, content.episodes, labelling, content.candidates)
    done.warn(spec.id)
    metadata = data.Metadata(
        id=spec.id,
        task=spec.task,
        score=data.ScoreRule(name=labelling.label.score, settings=dict(spec.score)),
        label=labelling.label,
        noise=labelling.noise,
        seed=labelling.seed,
        references=content.references,
        actions=content.actions,
        provenance=data.Provenance(
            sources=[spec.source],
            hashes={"recipe": spec.digest, **spec.hashes, **content.hashes},
            packages=content.packages,
            settings=content.settings,
        ),
        licence=spec.licence,
        **done.described,
    )
    return metadata, done.tables
