"""The reference: the model before training, evaluated once per row and read from a cache ever after.

<folder>/<model hash>-<precision>-<versions>/logp/…          log-probabilities of a completion's tokens
                                             states/…        the last hidden states that predict them, from which every
                                                             distribution over the vocabulary follows exactly
                                             trunk-<cut>/…   the hidden states of the whole row that enter layer `cut`

A row is found by the hash of its tokens and a model by the hash of its weights, so whatever else a training changes
(its dataset, algorithm, learning rate, beta, seed, order of rows, batch size), nothing is computed again.
"""

from __future__ import annotations

import importlib.metadata
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pmpo_offline.policies.language.model import LanguageModel
from pmpo_offline.policies.language.scoring import causal, check_head, check_split, states, token_logp, trunk_states
from pmpo_offline.policies.language.tokens import TokenBatch, Tokens, collate
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import PmpoOfflineError
from pmpo_offline.runtime.files import atomic_file, file_lock, refusal
from pmpo_offline.runtime.hashing import hash_bytes, hash_tensors, identity

BATCH_TOKENS = 4096
"""Places, padding counted, that go through the model at once."""
SHARD_BYTES = 64 * 2**20
"""Size of a file: what a killed process has to compute again at most."""
REVISION = "2"
"""Raise it whenever the same model and tokens give other numbers, or files another layout."""
CHECKSUM = "checksum"
"""Entry of a shard's metadata: the hash of its tensors, with their names, types and shapes."""


class CachedRow(NamedTuple):
    """The reference's values for a row with T_c completion tokens, on the CPU, memory-mapped: do not write."""

    logp: Tensor
    """(T_c,), nats, float32 or wider."""
    states: Tensor
    """(T_c, H), the last hidden states that predict the tokens, in the model's precision."""
    trunk: Tensor | None
    """(T, H), the hidden states at the T places of `collate([row])` that enter layer `cut`, in the same precision."""


@dataclass(frozen=True)
class ReferenceScores:
    """The reference's values for a batch of B rows with N completion tokens, on the batch's device."""

    head: torch.nn.Module
    """(n, H) -> (n, V) logits."""
    states: Tensor
    """(N, H), the last hidden states."""
    logp: Tensor
    """(N,)."""
    trunk: Tensor | None = None
    """(B, T, H), the hidden states that enter layer `cut`."""


class Reference:
    """A frozen model behind its cache.

    Args:
        model: the reference, or the policy itself if that is the reference with an adapter on top.
        folder: of the cache, shared by all models.
        cut: number of lower layers that nothing trains, whose output is cached too.
        without: a context in which `model` is the reference, its adapter switched off.
    """

    def __init__(
        self,
        model: LanguageModel,
        folder: Path,
        cut: int = 0,
        without: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self._model, self._without, self.cut = model.model, without, cut
        precision = _precision(model.model)
        # "2.5.1+cpu" and "2.5.1+cu124" are one version: the cache serves any device.
        versions = {name: importlib.metadata.version(name).partition("+")[0] for name in ("torch", "transformers")}
        owner = {"reference": model.digest, "precision": precision, "revision": REVISION, **versions}
        place = folder / f"{model.digest[:16]}-{precision}-{identity(**owner)[:8]}"
        self._shards = [
            Shards(place / kind, {**owner, "kind": kind})
            for kind in ("logp", "states", *([f"trunk-{cut}"] if cut else []))
        ]

    def prepare(self, rows: Sequence[Tokens]) -> list[str]:
        """Compute and cache the rows that are not in the cache yet, and return the name of each row in it.

        Raises:
            UserError: the model's distributions are not those of its head, or it cannot be split at `cut`.
            PmpoOfflineError: the disk is full. What was computed before is kept.
        """
        names = [_name(row) for row in rows]
        named = dict(zip(names, rows, strict=True))
        if not all(name in shards for shards in self._shards for name in named):
            for shards in self._shards:
                shards.refresh()
        # Look for every row in every shard, without a short cut, to find all damaged files at once.
        found = {name: [name in shards for shards in self._shards] for name in named}
        self._warn_of_damage()
        if missing := {name: row for name, row in named.items() if not all(found[name])}:
            with self._alone():
                self._compute(missing)
        return names

    def rows(self, rows: Sequence[Tokens]) -> list[CachedRow]:
        """Return the reference's values for each row; as `prepare`. A row may be repeated."""
        found = [[shards[name] for shards in self._shards] for name in self.prepare(rows)]
        return [CachedRow(logp, hidden, trunk[0] if trunk else None) for logp, hidden, *trunk in found]

    def scores(self, rows: Sequence[Tokens], batch: TokenBatch) -> ReferenceScores:
        """Return the reference's values for rows that were collated to `batch`; as `prepare`."""
        found, device = self.rows(rows), batch.ids.device
        trunk = None
        if self.cut:
            trunk = pad_sequence([row.trunk for row in found if row.trunk is not None], batch_first=True).to(device)
        hidden = torch.cat([row.states for row in found]).to(device)
        return ReferenceScores(self._head, hidden, torch.cat([row.logp for row in found]).to(device), trunk)

    def uncached(self, batch: TokenBatch) -> ReferenceScores:
        """Return the reference's values for a batch without reading or writing the cache."""
        with self._alone():
            return self._evaluate(batch)

    @property
    def _head(self) -> torch.nn.Module:
        return causal(self._model).get_output_embeddings()  # type: ignore[no-any-return]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Make the model the reference: no adapter, no dropout, and the precision of its own weights."""
        training, device = self._model.training, self._model.device.type
        self._model.eval()
        try:
            # The cache is labelled with that precision, and trainings without mixed precision read it too.
            with torch.no_grad(), torch.autocast(device, enabled=False), self._without():
                yield
        finally:
            self._model.train(training)

    def _evaluate(self, batch: TokenBatch) -> ReferenceScores:
        trunk = trunk_states(self._model, batch.ids, self.cut) if self.cut else None
        hidden = states(self._model, batch, trunk=trunk, cut=self.cut)
        return ReferenceScores(self._head, hidden, token_logp(self._model, hidden, batch.target), trunk)

    def _compute(self, missing: dict[str, Tokens]) -> None:
        check_head(self._model)
        if self.cut:
            check_split(self._model, self.cut)
        done, held = 0, 0
        waiting: list[dict[str, Tensor]] = [{} for _ in self._shards]
        for names in _batches(missing):
            for name, values in zip(names, self._split([missing[name] for name in names]), strict=True):
                for batch, value in zip(waiting, values, strict=True):
                    batch[name] = value
                    held += value.nbytes
            done += len(names)
            if held > SHARD_BYTES or done == len(missing):
                for shards, batch in zip(self._shards, waiting, strict=True):
                    shards.write({name: value for name, value in batch.items() if name not in shards})
                    batch.clear()
                held = 0
            progress.report("reference model", done, len(missing))

    def _split(self, rows: Sequence[Tokens]) -> Iterator[tuple[Tensor, ...]]:
        """Evaluate rows as one batch and yield each row's tensors, one for each of the shards."""
        batch = collate(rows).to(self._model.device)
        found, lengths = self._evaluate(batch), batch.length.tolist()
        parts = (torch.split(each.cpu(), lengths) for each in (found.logp, found.states))
        for i, (row, *values) in enumerate(zip(rows, *parts, strict=True)):
            if found.trunk is not None:
                values.append(found.trunk[i, : len(row.prompt + row.completion[:-1])].cpu())
            yield tuple(value.clone() for value in values)  # a slice would keep the whole batch in memory

    def _warn_of_damage(self) -> None:
        damaged = [each for shards in self._shards for each in shards.damaged]
        for shards in self._shards:
            shards.damaged.clear()
        if damaged:
            path, reason = damaged[0]
            others = f" and {len(damaged) - 1} other files" if len(damaged) > 1 else ""
            warnings.warn(f"{path}{others} cannot be read ({reason}): computing their rows again", stacklevel=4)


def _batches(rows: dict[str, Tokens]) -> Iterator[list[str]]:
    """Yield the names of rows of similar length, the longest first, so that running out of memory shows at once."""
    lengths = {name: len(row.prompt) + len(row.completion) for name, row in rows.items()}
    batch: list[str] = []
    for name in sorted(lengths, key=lambda name: (-lengths[name], name)):
        if batch and (len(batch) + 1) * lengths[batch[0]] > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(name)
    yield batch


def _name(row: Tokens) -> str:
    """Return the hash of a row's tokens and of where its completion begins."""
    return hash_bytes([np.array([*row.prompt, -1, *row.completion], dtype="<i8").tobytes()])[:32]


def _precision(model: Any) -> str:
    """Return the precision of the weights in memory, which their files do not determine."""
    whole = causal(model)
    dtype = str(whole.dtype).removeprefix("torch.")
    packed = getattr(whole.config, "quantization_config", None)
    if packed is None:
        return dtype
    return f"{dtype}-{'4bit' if getattr(packed, 'load_in_4bit', False) else '8bit'}"


@dataclass
class _Shard:
    path: Path
    opened: Any
    checksum: str | None
    is_checked: bool = False
    """A file is read for its checksum when it is first used."""


class Shards:
    """Tensors of one kind by name, in a folder of safetensors files that several processes add to.

    <folder>/<hash of the names in it>.safetensors     whole or absent; read by memory-mapping
    <folder>/.<hash>.safetensors.<pid>.tmp             left by a killed writer; the next writer removes it

    It is a cache: a file that cannot be read, or whose checksum differs, counts as absent.

    Args:
        folder: made when something is written.
        owner: identity of the tensors; a file with another one is left alone.
    """

    def __init__(self, folder: Path, owner: Mapping[str, str]) -> None:
        self._folder, self._owner = folder, dict(owner)
        self.damaged: list[tuple[Path, str]] = []
        """Files that could not be read, and why; the caller reports and clears them."""
        self._seen: set[str] = set()
        self._index: dict[str, _Shard] = {}  # by the names of their tensors

    def __contains__(self, name: str) -> bool:
        """Return whether the tensor was there at the last `refresh`, and is as it was written."""
        shard = self._index.get(name)
        return shard is not None and self._is_intact(shard)

    def __getitem__(self, name: str) -> Tensor:
        """Return a tensor, memory-mapped; KeyError if there is none."""
        tensor: Tensor = self._index[name].opened.get_tensor(name)
        return tensor

    def refresh(self) -> None:
        """Open the files that were added since the last call."""
        for path in sorted(self._folder.glob("*.safetensors")) if self._folder.is_dir() else []:
            if path.name not in self._seen:
                self._open(path)

    def write(self, tensors: Mapping[str, Tensor]) -> None:
        """Add tensors in one file.

        Raises:
            PmpoOfflineError: the disk is full, or may not be written.
        """
        if not tensors:
            return
        path = self._folder / f"{hash_bytes([','.join(sorted(tensors)).encode()])[:24]}.safetensors"
        whole = {key: value.contiguous() for key, value in tensors.items()}
        content = save(whole, {**self._owner, CHECKSUM: hash_tensors(whole)})
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with file_lock(self._folder):
                for left in self._folder.glob(".*.tmp"):
                    left.unlink()
                with atomic_file(path) as scratch:
                    scratch.write_bytes(content)
        except OSError as error:
            raise PmpoOfflineError(refusal(self._folder, error, "choose another folder for the cache")) from error
        self._open(path)

    def _open(self, path: Path) -> None:
        self._seen.add(path.name)
        try:
            opened: Any = safe_open(path, framework="pt")
            owner, names = opened.metadata() or {}, opened.keys()
        except FileNotFoundError:  # another process has just removed it
            return
        except (SafetensorError, OSError) as error:
            self._discard(path, str(error).splitlines()[0])
            return
        checksum = owner.pop(CHECKSUM, None)
        if owner != self._owner:
            warnings.warn(f"{path} does not belong to this cache: leaving it alone", stacklevel=4)
            return
        self._index |= dict.fromkeys(names, _Shard(path, opened, checksum))

    def _is_intact(self, shard: _Shard) -> bool:
        """Return whether a file's tensors are as they were written; if not, remove the file and forget them."""
        if not shard.is_checked:
            opened = shard.opened
            if hash_tensors({name: opened.get_tensor(name) for name in opened.keys()}) != shard.checksum:  # noqa: SIM118
                self._index = {name: each for name, each in self._index.items() if each is not shard}
                self._discard(shard.path, "its checksum differs")
                return False
            shard.is_checked = True
        return True

    def _discard(self, path: Path, reason: str) -> None:
        self.damaged.append((path, reason))
        with suppress(OSError):  # a read-only disk keeps it
            path.unlink()
