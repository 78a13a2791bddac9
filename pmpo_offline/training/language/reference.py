"""The reference: the model before training, evaluated once per row and read from a cache ever after.

<folder>/<model hash>-<precision>-<versions>/<hash>.safetensors     of some rows, by the hash of a row's tokens

    <row>.logp           log-probabilities of the completion's tokens
    <row>.states         the last hidden states that predict them, from which every distribution over the vocabulary
                         follows exactly
    <row>.trunk-<cut>    the hidden states of the whole row that enter layer `cut`

A row is found by the hash of its tokens and a model by the hash of its weights, so whatever else a training changes
(its dataset, algorithm, learning rate, beta, seed, order of rows, batch size), nothing is computed again.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pmpo_offline.policies.language import scoring
from pmpo_offline.policies.language.model import LanguageModel, weights_hash
from pmpo_offline.policies.language.tokens import TokenBatch, Tokens, collate
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError, reason_of, refusal
from pmpo_offline.runtime.files import atomic_file, file_lock
from pmpo_offline.runtime.hashing import hash_bytes, hash_tensors, identity, version

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BATCH_TOKENS = 4096
"""Places, padding counted, that go through the model at once."""
SHARD_BYTES = 64 * 2**20
"""Size of a file: what a killed process has to compute again at most."""
REVISION = "3"
"""Raise it whenever the same model and tokens give other numbers, or files another layout."""
CHECKSUM = "checksum"
"""Entry of a shard's metadata: the hash of its tensors, with their names, types and shapes."""


class CachedRow(NamedTuple):
    """The reference's values for a row with T_c completion tokens, on the CPU, memory-mapped: do not write."""

    logp: Tensor
    """(T_c,), nats, float32 or wider."""
    states: Tensor
    """(T_c, H), the last hidden states that predict the tokens, in the model's precision."""
    trunk: Tensor | None = None
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
        versions = {name: version(name).partition("+")[0] for name in ("torch", "transformers")}
        owner = {"reference": model.digest, "precision": precision, "revision": REVISION, **versions}
        self._kinds = ("logp", "states", *([f"trunk-{cut}"] if cut else []))
        self._shards = Shards(folder / f"{model.digest[:16]}-{precision}-{identity(**owner)[:8]}", owner)

    def prepare(self, rows: Sequence[Tokens]) -> list[str]:
        """Compute and cache the rows that are not in the cache yet, and return the name of each row in it.

        Raises:
            UserError: the model's distributions are not those of its head, or it cannot be split at `cut`.
            PmpoOfflineError: the disk is full. What was computed before is kept.
        """
        names = [_name(row) for row in rows]
        named = dict(zip(names, rows, strict=True))
        if not all(self._is_cached(name) for name in named):
            self._shards.refresh()
        missing = {name: row for name, row in named.items() if not self._is_cached(name)}
        self._shards.warn_of_damage()
        if missing:
            with self._alone():
                self._compute(missing)
        return names

    def _keys(self, name: str) -> list[str]:
        return [f"{name}.{kind}" for kind in self._kinds]

    def _is_cached(self, name: str) -> bool:
        found = [key in self._shards for key in self._keys(name)]  # no short cut: it finds all damaged files at once
        return all(found)

    def rows(self, rows: Sequence[Tokens]) -> list[CachedRow]:
        """Return the reference's values for each row; as `prepare`. A row may be repeated."""
        return [CachedRow(*(self._shards[key] for key in self._keys(name))) for name in self.prepare(rows)]

    def scores(self, rows: Sequence[Tokens], batch: TokenBatch) -> ReferenceScores:
        """Return the reference's values for rows that were collated to `batch`; as `prepare`."""
        found, device = self.rows(rows), batch.ids.device
        trunks = [row.trunk for row in found if row.trunk is not None]
        trunk = pad_sequence(trunks, batch_first=True).to(device) if trunks else None
        hidden, logp = (torch.cat([getattr(row, kind) for row in found]).to(device) for kind in ("states", "logp"))
        return ReferenceScores(self._head, hidden, logp, trunk)

    def uncached(self, batch: TokenBatch) -> ReferenceScores:
        """Return the reference's values for a batch without reading or writing the cache."""
        with self._alone():
            return self._evaluate(batch)

    @property
    def _head(self) -> torch.nn.Module:
        return scoring.causal(self._model).get_output_embeddings()  # type: ignore[no-any-return]

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
        trunk = scoring.trunk_states(self._model, batch.ids, self.cut) if self.cut else None
        hidden = scoring.states(self._model, batch, trunk=trunk, cut=self.cut)
        return ReferenceScores(self._head, hidden, scoring.token_logp(self._model, hidden, batch.target), trunk)

    def _compute(self, missing: dict[str, Tokens]) -> None:
        scoring.check_head(self._model)
        if self.cut:
            scoring.check_split(self._model, self.cut)
        done, waiting = 0, dict[str, Tensor]()
        for names in _batches(missing):
            for name, values in zip(names, self._split([missing[name] for name in names]), strict=True):
                named = zip(self._keys(name), values, strict=True)
                waiting |= {key: value for key, value in named if key not in self._shards}
            done += len(names)
            if done == len(missing) or sum(value.nbytes for value in waiting.values()) > SHARD_BYTES:
                self._shards.write(waiting)
                waiting = {}
            progress.report("reference model", done, len(missing))

    def _split(self, rows: Sequence[Tokens]) -> Iterator[tuple[Tensor, ...]]:
        """Evaluate rows as one batch and yield each row's tensors, one of each kind."""
        batch = collate(rows).to(self._model.device)
        found, lengths = self._evaluate(batch), batch.length.tolist()
        parts = (torch.split(values.cpu(), lengths) for values in (found.logp, found.states))
        for i, (row, *values) in enumerate(zip(rows, *parts, strict=True)):
            if found.trunk is not None:
                values.append(found.trunk[i, : len(row.prompt + row.completion[:-1])].cpu())
            yield tuple(value.clone() for value in values)  # a slice would keep the whole batch in memory


def load_reference(
    policy: LanguageModel, ref_model: PreTrainedModel | None, folder: Path, cut: int, device: torch.device
) -> Reference:
    """Return the reference of a policy, and move both to the device.

    Args:
        policy: as it is before training, with its digest.
        ref_model: the reference, if it is not that.
        folder: of the cache.
        cut: see `Reference`.
        device: where it is trained.

    Raises:
        UserError: a cut below which the policy is trained, or at which it cannot be split.
    """
    model = policy.model
    if ref_model is not None:
        if cut:
            raise UserError("below the cut the reference is the policy: leave ref_model out, or set cut to 0")
        frozen: Any = _placed(ref_model.eval().requires_grad_(False), device)
        digest = weights_hash(frozen, adapters=True)
        return Reference(LanguageModel(frozen, policy.tokenizer, "reference", digest), folder)
    if cut:
        scoring.check_split(model, cut)
        if scoring.trains_below(model, cut):
            raise UserError(
                f"weights below layer {cut} are trained, and cut = {cut} caches their output: put the adapter on the "
                f"layers from {cut} up (layers_to_transform), or set cut to 0"
            )
    _placed(model, device)
    return own_reference(policy, folder, cut)


def own_reference(policy: LanguageModel, folder: Path, cut: int) -> Reference:
    """Return the reference that is the policy itself as it is now.

    Under a fresh LoRA adapter that is the model without it. Else it is a copy, which shares the weights that are not
    trained: of an adapter that was trained before, of one of another kind, of a model that is trained whole.
    """
    model = policy.model
    if not hasattr(model, "peft_config"):
        return Reference(replace(policy, model=_frozen_copy(model)), folder, cut)
    if _is_fresh_lora(model):
        return Reference(policy, folder, cut, model.disable_adapter)
    frozen = _frozen_copy(model)
    return Reference(replace(policy, model=frozen, digest=weights_hash(frozen, adapters=True)), folder, cut)


def _is_fresh_lora(model: torch.nn.Module) -> bool:
    """Return whether all that is trained are LoRA's factors, and one of each two is zero."""
    factors = ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B")
    weights = list(model.named_parameters())
    only_factors = all(any(f".{factor}." in name for factor in factors) for name, w in weights if w.requires_grad)
    zero = [weight for name, weight in weights if ".lora_B." in name or ".lora_embedding_A." in name]
    return only_factors and not any(weight.any() for weight in zero)


def _frozen_copy(model: Any) -> Any:
    """Return a copy of a model as it is now, which shares the weights that are not trained."""
    tensors = (*model.parameters(), *model.buffers())
    shared = {id(tensor): tensor for tensor in tensors if not tensor.requires_grad}
    return copy.deepcopy(model, shared).eval().requires_grad_(False)


def _placed(model: Any, device: torch.device) -> Any:
    """Move a model to a device; one in 8 or 4 bits stays where it was loaded."""
    return model if getattr(model, "is_quantized", False) else model.to(device)


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
    whole = scoring.causal(model)
    dtype = str(whole.dtype).removeprefix("torch.")
    packed = getattr(whole.config, "quantization_config", None)
    if packed is None:
        return dtype
    return f"{dtype}-{'4bit' if getattr(packed, 'load_in_4bit', False) else '8bit'}"


class Shards:
    """Tensors by name, in a folder of safetensors files that several processes add to.

    <folder>/<hash of the names in it>.safetensors     whole or absent; read by memory-mapping
    <folder>/.<hash>.safetensors.<pid>.tmp             left by a killed writer; the next writer removes it

    It is a cache: a file that cannot be read, or whose checksum differs, counts as absent.

    Args:
        folder: made when something is written.
        owner: identity of the tensors; a file with another one is left alone.
    """

    def __init__(self, folder: Path, owner: Mapping[str, str]) -> None:
        self._folder, self._owner = folder, dict(owner)
        self._damaged: list[tuple[Path, str]] = []
        self._files: dict[Path, Any] = {}
        self._unchecked: dict[Path, str | None] = {}  # checksums of the files that were not used yet
        self._index: dict[str, Path] = {}  # by the names of their tensors

    def __contains__(self, name: str) -> bool:
        """Return whether the tensor was there at the last `refresh`, and is as it was written."""
        return name in self._index and self._is_intact(self._index[name])

    def __getitem__(self, name: str) -> Tensor:
        """Return a tensor, memory-mapped; KeyError if there is none."""
        tensor: Tensor = self._files[self._index[name]].get_tensor(name)
        return tensor

    def refresh(self) -> None:
        """Open the files that were added since the last call."""
        for path in sorted(self._folder.glob("*.safetensors")) if self._folder.is_dir() else []:
            if path not in self._files:
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

    def warn_of_damage(self) -> None:
        """Warn once of all files that could not be read since the last call."""
        if self._damaged:
            path, reason = self._damaged[0]
            others = f" and {len(self._damaged) - 1} other files" if len(self._damaged) > 1 else ""
            warnings.warn(f"{path}{others} cannot be read ({reason}): computing their rows again", stacklevel=4)
            self._damaged.clear()

    def _open(self, path: Path) -> None:
        self._files[path] = None
        try:
            opened: Any = safe_open(path, framework="pt")
            owner, names = opened.metadata() or {}, opened.keys()
        except FileNotFoundError:  # another process has just removed it
            return
        except (SafetensorError, OSError) as error:
            self._discard(path, reason_of(error))
            return
        checksum = owner.pop(CHECKSUM, None)
        if owner != self._owner:
            warnings.warn(f"{path} does not belong to this cache: leaving it alone", stacklevel=4)
            return
        self._files[path], self._unchecked[path] = opened, checksum
        self._index |= dict.fromkeys(names, path)

    def _is_intact(self, path: Path) -> bool:
        """Return whether a file's tensors are as they were written; if not, remove the file and forget them."""
        if path in self._unchecked:
            checksum, opened = self._unchecked.pop(path), self._files[path]
            if hash_tensors({name: opened.get_tensor(name) for name in opened.keys()}) != checksum:  # noqa: SIM118
                self._index = {name: place for name, place in self._index.items() if place != path}
                self._discard(path, "its checksum differs")
                return False
        return True

    def _discard(self, path: Path, reason: str) -> None:
        self._damaged.append((path, reason))
        with suppress(OSError):  # a read-only disk keeps it
            path.unlink()
