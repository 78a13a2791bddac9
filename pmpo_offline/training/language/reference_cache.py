"""What the reference model says of each row of tokens: computed once, for every learner, setting and seed.

<folder>/<digest>-<precision>/logp/…          a row's completion: log-probabilities of its tokens
                              states/…        the last hidden states that predict them, from which every distribution
                                              over the vocabulary follows exactly
                              trunk-<cut>/…   the hidden states of the whole row that enter layer `cut`

A row is found by the hash of its tokens, and a model by the hash of its files, so nothing else that a training changes
(its dataset, learner, learning rate, beta, seed, order of rows, size of minibatches) makes anything new to compute.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pmpo_offline.policies.language.model import LanguageModel
from pmpo_offline.policies.language.scoring import causal, check_head, check_split, states, token_logp, trunk_states
from pmpo_offline.policies.language.tokens import Tokens, collate
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.hashing import hash_bytes
from pmpo_offline.training.language.shards import Shards

BATCH_TOKENS = 4096
"""Places, padding counted, that go through the model at once."""
SHARD_BYTES = 64 * 2**20
"""Of a file: as much as a killed process has to compute again."""


class CachedRow(NamedTuple):
    """What the reference says of a row with T_c completion tokens, on the CPU, mapped from the disk: do not write."""

    logp: Tensor
    """(T_c,), nats, float32 or wider."""
    states: Tensor
    """(T_c, H), the last hidden states that predict the tokens, in the model's precision."""
    trunk: Tensor | None
    """(T, H), the hidden states at the T places of `collate([row])` that enter layer `cut`; as precise as the model."""


class ReferenceCache:
    """The cache of one model.

    Args:
        folder: shared by all models.
        reference: the model, in evaluation mode whenever something is computed.
        cut: the layer whose inputs are kept too; None: none.
    """

    def __init__(self, folder: Path, reference: LanguageModel, *, cut: int | None = None) -> None:
        self._model, self._cut = reference.model, cut
        identity = {"reference": reference.digest, "precision": _precision(reference.model)}
        place = folder / f"{reference.digest[:16]}-{identity['precision']}"
        sorts = ["logp", "states", *([f"trunk-{cut}"] if cut is not None else [])]
        self._shards = [Shards(place / sort, {**identity, "sort": sort}) for sort in sorts]

    def get(self, rows: Sequence[Tokens]) -> list[CachedRow]:
        """Return what the reference says of each row; what nobody has asked for yet is computed and kept.

        Args:
            rows: in any order, the same one as often as you like.

        Raises:
            UserError: the model's distributions are not those of its head, or it cannot be split at `cut`.
            PmpoOfflineError: the disk is full. What was computed before is kept.
        """
        names = [_name(row) for row in rows]
        if any(name not in shards for shards in self._shards for name in names):
            for shards in self._shards:
                shards.look()
        missing = {
            name: row
            for name, row in zip(names, rows, strict=True)
            if sum(name in shards for shards in self._shards) < len(self._shards)  # asks all: each finds its damage
        }
        self._tell_of_lost()
        if missing:
            self._compute(missing)
        found = [[shards[name] for shards in self._shards] for name in names]
        return [CachedRow(logp, hidden, trunk[0] if trunk else None) for logp, hidden, *trunk in found]

    def _tell_of_lost(self) -> None:
        """Warn, once, of all files that could not be read."""
        lost = [each for shards in self._shards for each in shards.lost]
        for shards in self._shards:
            shards.lost.clear()
        if lost:
            path, reason = lost[0]
            others = f" and {len(lost) - 1} other files" if len(lost) > 1 else ""
            what = "they" if others else "it"
            warnings.warn(f"{path}{others} cannot be read ({reason}): computing again what {what} held", stacklevel=3)

    @torch.no_grad()
    def _compute(self, missing: dict[str, Tokens]) -> None:
        if self._model.training:
            raise ValueError("the reference model is in training mode: dropout would be cached for good")
        check_head(self._model)
        if self._cut is not None:
            check_split(self._model, self._cut)
        done, held = 0, 0
        waiting: list[dict[str, Tensor]] = [{} for _ in self._shards]
        for names in _batches(missing):
            for name, values in zip(names, self._say([missing[name] for name in names]), strict=True):
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

    def _say(self, rows: Sequence[Tokens]) -> Iterator[tuple[Tensor, ...]]:
        """Yield each row's tensors, one for each of the shards."""
        batch = collate(rows).to(self._model.device)
        below = None if self._cut is None else trunk_states(self._model, batch.ids, self._cut)
        hidden = states(self._model, batch, trunk=below, cut=self._cut or 0)
        logp = token_logp(self._model, hidden, batch.target)
        lengths = batch.length.tolist()
        of_rows = zip(rows, *(torch.split(each.cpu(), lengths) for each in (logp, hidden)), strict=True)
        for i, (row, *values) in enumerate(of_rows):
            places = len(row.prompt + row.completion[:-1])
            # Clones: a slice would bring the whole batch's memory along to the file that it waits for.
            yield tuple(value.clone() for value in (*values, *([] if below is None else [below[i, :places].cpu()])))


def _batches(rows: dict[str, Tokens]) -> Iterator[list[str]]:
    """Yield the names of rows of about one length, the longest first: what does not fit is known at once."""
    lengths = {name: len(row.prompt) + len(row.completion) for name, row in rows.items()}
    batch: list[str] = []
    for name in sorted(lengths, key=lambda name: (-lengths[name], name)):
        if batch and (len(batch) + 1) * lengths[batch[0]] > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(name)
    yield batch


def _name(row: Tokens) -> str:
    """Return the hash of a row's tokens, and of where its completion begins."""
    return hash_bytes([np.array([*row.prompt, -1, *row.completion], dtype="<i8").tobytes()])[:32]


def _precision(model: Any) -> str:
    """Return the precision of the weights: the same files opened otherwise say something else."""
    whole = causal(model)
    dtype = str(whole.dtype).removeprefix("torch.")
    packed = getattr(whole.config, "quantization_config", None)
    if packed is None:
        return dtype
    return f"{dtype}-{'4bit' if getattr(packed, 'load_in_4bit', False) else '8bit'}"
