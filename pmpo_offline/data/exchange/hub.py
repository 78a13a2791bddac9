"""Datasets on the Hugging Face hub: `push` uploads one in one commit, `pull` brings it back byte for byte.

    README.md          the card, whose `configs` name the tables for the hub's viewer and `datasets.load_dataset`
    dataset/…          the dataset's own folder, as `data.storage` writes it

What is pulled lies in `<home>/.hub/` until all hashes and tables have been checked. An interrupted download is resumed.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pmpo_offline import data
from pmpo_offline.data import Dataset
from pmpo_offline.data.mapping import table_files
from pmpo_offline.data.schema import Metadata
from pmpo_offline.data.storage import HISTORY, METADATA_FILE, SEAL_FILE, card, file_problems
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.arguments import checked
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError, reason_of, refusal
from pmpo_offline.runtime.files import atomic_directory, file_lock

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_FOLDER = "dataset"
_NOT_OURS = {".gitattributes"}
"""Files that the hub puts into every new repository."""


@checked()
def push_dataset(name: str | Path, repository: str, *, private: bool = False, home: str | Path | None = None) -> str:
    """Upload a stored dataset to the hub, in one commit, and return the page's address.

    Args:
        name: id or path of the dataset.
        repository: `user/name`; it is made if there is none, and an earlier push to it is replaced.
        private: whether a new repository is private.
        home: where datasets are; default `data.home()`.

    Raises:
        UserError: there is no such dataset or account, no token or no right to write, or the repository holds
            something else.
        PmpoOfflineError: the dataset is damaged, or the hub cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    if repository.count("/") != 1:
        raise UserError(f"push to {repository}: write user/name")
    dataset = data.load_dataset(name, home=home, verify=True)
    names = [METADATA_FILE, *([SEAL_FILE] if data.is_sealed(dataset.path) else []), *dataset.metadata.files]
    with _hub(repository) as api:
        api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        there = set(api.list_repo_files(repository, repo_type="dataset")) - _NOT_OURS
        if there and f"{_FOLDER}/{METADATA_FILE}" not in there:
            raise UserError(f"{repository} holds files that are no push of pmpo-offline: choose another repository")
        page = hub_card(dataset, repository).encode()
        added = [CommitOperationAdd("README.md", page)]
        added += [CommitOperationAdd(f"{_FOLDER}/{file}", dataset.path / file) for file in names]
        for done, file in enumerate(added):
            progress.report("upload", done, len(added))
            api.preupload_lfs_files(repository, [file], repo_type="dataset")
        stale = there - {file.path_in_repo for file in added}
        commit = api.create_commit(
            repository,
            [*added, *map(CommitOperationDelete, sorted(stale))],
            repo_type="dataset",
            commit_message=dataset.metadata.id,
        )
        progress.report("upload", len(added), len(added))
    return str(commit.commit_url).partition("/commit/")[0]


@checked()
def pull_dataset(
    source: str, *, revision: str | None = None, overwrite: bool = False, home: str | Path | None = None
) -> Dataset:
    """Download a dataset that was pushed, check it and store it under its own id; opens an equal one that is there.

    Args:
        source: `hf:user/name`.
        revision: a branch, a tag or a commit; default the main branch.
        overwrite: replace another dataset of its id.
        home: where datasets are; default `data.home()`.

    Raises:
        UserError: there is no such repository or revision, it holds no pushed dataset, or another dataset has its id.
        PmpoOfflineError: what was downloaded is damaged, the disk refuses, or the hub cannot be reached.
    """
    if not source.startswith("hf:"):
        raise UserError(f"pull {source}: write hf:user/name")
    repository, root = source.removeprefix("hf:"), data.home(home)
    try:
        (root / ".hub").mkdir(parents=True, exist_ok=True)
        with file_lock(root / ".hub"), _hub(repository) as api:
            sha = str(api.dataset_info(repository, revision=revision).sha)
            if not re.fullmatch("[0-9a-f]{40,64}", sha):
                raise PmpoOfflineError(f"the hub names no commit of {repository}: {sha[:80]!r}")
            partial = root / ".hub" / f".{repository.replace('/', '--')}@{sha}.partial"
            metadata, directory = _download(api, repository, sha, partial)
            if not overwrite and data.is_stored(metadata.id, root):
                shutil.rmtree(partial)
                return _equal(data.load_dataset(metadata.id, home=root), metadata, source)
            with atomic_directory(directory, METADATA_FILE, "dataset", overwrite) as place:
                for path in sorted((partial / _FOLDER).iterdir()):
                    path.rename(place / path.name)
            shutil.rmtree(partial)
    except OSError as error:
        raise PmpoOfflineError(refusal(root, error, "choose another --home")) from error
    return data.load_dataset(metadata.id, home=root)


def hub_card(dataset: Dataset, repository: str) -> str:
    """Return the README.md of a dataset's repository: what it is, how it was labelled, what it is for."""
    meta = dataset.metadata
    tables = [*dataset.tables]
    form = "arrow" if any(name.endswith(".arrow") for name in meta.files) else "hdf5"
    found = table_files(tables, meta.files) if form == "arrow" else {name: f"{name}.hdf5" for name in tables}
    shown = {name: f"{_FOLDER}/{file}" for name, file in found.items() if "*" in file or file in meta.files}
    loading = [
        f"# pmpo-offline pull hf:{repository}",
        "from pmpo_offline import load_dataset",
        f'dataset = load_dataset("{meta.id}")',
    ]
    if form == "arrow":
        loading += ["", f'import datasets; rows = datasets.load_dataset("{repository}", "{tables[0]}", split="train")']
    return card(meta, shown, loading, "\n".join(_sections(meta)))


def _sections(meta: Metadata) -> Iterator[str]:
    """Yield the lines of the card that say how a dataset was labelled, what it is for and where it is from."""
    of = {"step": "every step", "episode": "whole episodes", "response": "every response"}[meta.unit]
    split = "" if meta.threshold is None else f", which splits at {meta.threshold:.6g}"
    yield "`label` is true for accept, false for reject and null where unlabelled; an absent `score` is null."
    yield "\n## How it was labelled\n"
    yield f"The rule `{meta.label}` labels {of} by the score `{meta.score.name}`{split}. "
    yield (
        f"{meta.noise:.3g} of the labels were flipped at random. "
        if meta.noise
        else "No labels were flipped on purpose. "
    )
    if meta.score.name == "column":
        yield "Scores or labels were in the source, which describes who gave them and how."
    yield "\n## Intended use\n"
    yield "Research on learning from accept/reject feedback without further interaction, and comparison of its methods."
    yield "Labels follow from scores as said above: they are no judgement of safety or quality beyond that."
    yield "\n## Sources\n"
    yield from (f"- {source}" for source in meta.provenance.sources or ["not recorded"])
    made_from = meta.provenance.settings.get(HISTORY)
    if isinstance(made_from, dict) and isinstance(parents := made_from["parents"], list):
        names = ", ".join(f"`{parent['id']}`" for parent in parents if isinstance(parent, dict))
        yield f"- made by {made_from['operation']} from {names}"
    yield f"\nLicence: {meta.licence}.\n"


def _download(api: HfApi, repository: str, sha: str, partial: Path) -> tuple[Metadata, Path]:
    """Fill `partial` with the files that dataset.json lists, and check them; it is removed if they are not sound.

    Returns the metadata and where the dataset belongs.
    """
    from huggingface_hub.errors import EntryNotFoundError

    def fetch(name: str) -> None:
        path, cache = f"{_FOLDER}/{name}", partial / ".cache"
        api.hf_hub_download(repository, path, repo_type="dataset", revision=sha, local_dir=partial, cache_dir=cache)

    try:
        fetch(METADATA_FILE)
    except EntryNotFoundError:
        shutil.rmtree(partial, ignore_errors=True)
        raise UserError(
            f"hf:{repository} holds no dataset that pmpo-offline pushed; texts are read by import hf:{repository}"
        ) from None
    folder = partial / _FOLDER
    try:
        metadata = data.read_metadata(folder, "ask its owner to push it again")
        directory = data.dataset_path(metadata.id, partial.parent.parent)
        names = [SEAL_FILE, *metadata.files] if api.file_exists(
            repository, f"{_FOLDER}/{SEAL_FILE}", repo_type="dataset", revision=sha
        ) else [*metadata.files]  # fmt: skip
        for done, name in enumerate(names):
            progress.report("download", done, len(names))
            fetch(name)
        progress.report("download", len(names), len(names))
        if wrong := data.verify(folder):
            raise PmpoOfflineError(f"hf:{repository} is damaged: {wrong[0]}; ask its owner to push it again")
    except (PmpoOfflineError, EntryNotFoundError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, EntryNotFoundError):
            raise PmpoOfflineError(f"hf:{repository} is damaged: it lacks files that its dataset.json lists") from None
        raise
    return metadata, directory


def _equal(stored: Dataset, pulled: Metadata, source: str) -> Dataset:
    if stored.metadata != pulled or file_problems(stored.path, pulled):
        raise UserError(
            f"{pulled.id} exists in {stored.path} and is not that of {source}: add --overwrite, or rename it"
        )
    return stored


@contextmanager
def _hub(repository: str) -> Iterator[HfApi]:
    """Yield the hub's interface ($HF_ENDPOINT, the token of `hf auth login` or $HF_TOKEN); its errors in one line."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    # HTTPError of the httpx that this version of the package uses.
    unreachable: type[Exception] = HfHubHTTPError.__bases__[0]
    shown = not are_progress_bars_disabled()
    disable_progress_bars()  # ours is shown
    token = "give a token by hf auth login or HF_TOKEN"
    refusals: dict[type[Exception], str] = {  # by the first kind of error that applies
        GatedRepoError: f"{repository} is gated: ask for access on its page, and {token}",
        RevisionNotFoundError: f"{repository} has no such revision: leave --revision out, or see its page",
        RepositoryNotFoundError: f"there is no dataset {repository} on the hub, or it is private: {token}",
        LocalTokenNotFoundError: f"the hub wants to know who you are: {token}",
        HFValidationError: f"{repository!r} is no name of a repository: write user/name",
        OfflineModeIsEnabled: "HF_HUB_OFFLINE is set: unset it to use the hub",
    }
    try:
        yield HfApi(endpoint=os.environ.get("HF_ENDPOINT"), library_name="pmpo-offline")
    except tuple(refusals) as error:
        raise UserError(next(what for kind, what in refusals.items() if isinstance(error, kind))) from None
    except HfHubHTTPError as error:
        code = error.response.status_code
        if code in (401, 403):
            raise UserError(f"the hub does not let you do this to {repository} ({code}): {token} that may") from None
        raise PmpoOfflineError(f"the hub answered {code} for {repository}: {reason_of(error)}") from None
    except unreachable as error:
        raise PmpoOfflineError(f"the hub cannot be reached ({reason_of(error)}): try again later") from None
    finally:
        if shown:
            enable_progress_bars()
