"""Micro-batches of responses, and the inputs that objectives ask of them by name, as in `training.batches`.

A batch has a property of each name of the vocabulary (`objectives.objective`) that it can serve and computes it when
asked; nothing here knows an algorithm. A property's gradient reaches the policy through one forward pass over the
batch, whatever is asked. What the reference says comes from its cache, never from a second network.

`reduction` says how the tokens of a response count, the same for every log-probability and divergence: their sum (the
probability of the whole response, in which long ones weigh more) or their mean (every response weighs the same).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from pmpo_offline.objectives import bco_shift, kto_reference_point
from pmpo_offline.policies.language.scoring import states, token_logp
from pmpo_offline.policies.language.tokens import Reduction, Tokens, collate
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.training.language.divergence import token_divergence, token_logp_and_divergence
from pmpo_offline.training.language.reference import Reference
from pmpo_offline.training.language.responses import Responses
from pmpo_offline.training.language.strata import Indices

PolicyKL = Literal["exact", "mismatched"]


@dataclass(frozen=True)
class Measures:
    """How the inputs are computed."""

    reduction: Reduction = "sum"
    divergence: str = "forward"
    """"behavior": KL(behaviour || policy) less the behaviour's entropy, -log pi of the recorded tokens; "forward",
    "reverse", "alpha", "renyi": between reference and policy, exact over the vocabulary at every recorded place."""
    order: float = 0.5
    over: Literal["all", "labelled"] = "all"
    """The rows that the divergence runs over."""
    policy_kl: PolicyKL = "exact"
    """"exact": KL(policy || reference) over the vocabulary at the recorded places; the places are the data's own, not
    ones that the policy would get to. "mismatched": `kto_reference_point` on every prompt with its neighbour's
    response, as TRL has it, for a forward pass more."""
    together: bool = False
    """Whether log-probabilities and this divergence are both asked for: one pass over the head finds the two."""
    policy_kl_together: bool = False
    """Likewise for log-probabilities and an exact `policy_kl`."""
    context: int | None = None
    """The most tokens of a row; a mismatched response may not fit behind another prompt, and is cut."""
    beta: float = 1.0
    """By which a log-ratio becomes the reward that `reward_shift` is of."""
    gather: Callable[[Tensor], Tensor] = lambda value: value
    """Joins the rows (B,) of all ranks."""


class Scored:
    """B rows, how likely the policy makes them, and the reference.

    Args:
        model: the policy.
        rows: B of them.
        reference: None where nothing is compared.
        reduction: over tokens.
        together: a divergence, its kind and order, that is found along with the log-probabilities.
        constant: whether that divergence needs no gradient.
        kept: whether what the reference says of the rows is in its cache, or is put there.
    """

    def __init__(
        self,
        model: Any,
        rows: Sequence[Tokens],
        reference: Reference | None,
        reduction: Reduction,
        together: tuple[str, float] | None = None,
        *,
        constant: bool = False,
        kept: bool = True,
    ) -> None:
        self._model, self._rows, self._given, self._reduction = model, rows, reference, reduction
        self._together, self._constant, self._kept = together, constant, kept
        self._batch = collate(rows).to(next(model.parameters()).device)

    @cached_property
    def _states(self) -> Tensor:
        """(N, H)."""
        if self._given is None or not self._given.cut:
            return states(self._model, self._batch)
        return states(self._model, self._batch, trunk=self._known.trunk, cut=self._given.cut)

    @cached_property
    def _known(self) -> Any:
        return self._reference(self._rows, self._batch) if self._kept else self._reference.once(self._batch)

    @property
    def _reference(self) -> Reference:
        if self._given is None:
            raise UserError("this objective compares with a reference model: train an adapter, or give a ref_model")
        return self._given

    @cached_property
    def _both(self) -> tuple[Tensor, Tensor]:
        """(N,) each: log-probabilities, and the divergence that is found along with them."""
        kind, order = self._together or ("", 0.0)
        target, head = self._batch.target, self._reference.head
        known, constant = self._known, {"constant": self._constant, "reference_logp": self._known.logp}
        return token_logp_and_divergence(self._model, self._states, target, head, known.states, kind, order, **constant)

    @cached_property
    def logp(self) -> Tensor:
        """(B,)."""
        tokens = self._both[0] if self._together else token_logp(self._model, self._states, self._batch.target)
        return self._batch.reduce(tokens, self._reduction)

    @cached_property
    def ref_logp(self) -> Tensor:
        """(B,)."""
        return self._batch.reduce(self._known.logp, self._reduction)

    @property
    def length(self) -> Tensor:
        """(B,), at least 1 by its meaning: an empty response is one end."""
        return self._batch.length.clamp(min=1)

    def divergence(self, kind: str, order: float) -> Tensor:
        """Return each row's divergence between reference and policy, (B,)."""
        if (kind, order) == self._together:
            return self._batch.reduce(self._both[1], self._reduction)
        head = self._reference.head
        tokens = token_divergence(self._model, self._states, head, self._known.states, kind, order)
        return self._batch.reduce(tokens, self._reduction)


class ResponseBatch:
    """Single responses: B rows."""

    def __init__(
        self,
        responses: Responses,
        index: Indices,
        weight: Tensor,
        model: Any,
        reference: Reference | None,
        measures: Measures,
    ) -> None:
        self._rows = [responses.tokens[row] for row in index.tolist()]
        self._model, self._reference, self._measures = model, reference, measures
        together = (measures.divergence, measures.order) if measures.together else None
        if constant := not together and measures.policy_kl_together:
            together = "reverse", 0.0
        self.scored = Scored(model, self._rows, reference, measures.reduction, together, constant=constant)
        self.weight = weight
        self.label = torch.from_numpy(responses.label[index]).to(weight)
        self._responses, self._index = responses, index

    @property
    def compared(self) -> bool:
        """Whether there is a reference."""
        return self._reference is not None

    @property
    def logp(self) -> Tensor:
        """(B,)."""
        return self.scored.logp

    @property
    def ref_logp(self) -> Tensor:
        """(B,)."""
        return self.scored.ref_logp

    @property
    def advantage(self) -> Tensor:
        """(B,): how much better the response scored than its prompt's usual one."""
        return torch.from_numpy(self._responses.advantage[self._index]).to(self.weight)

    @property
    def divergence(self) -> Tensor:
        """(), over all rows or the labelled ones."""
        how = self._measures
        counted = torch.where(self.label != 0, self.weight, 0) if how.over == "labelled" else self.weight
        if how.divergence == "behavior":
            return _mean(-self.logp, counted)
        return _mean(self.scored.divergence(how.divergence, how.order), counted)

    @property
    def policy_kl(self) -> Tensor:
        """(), detached, at least 0, over the rows of all ranks."""
        gather = self._measures.gather
        if self._measures.policy_kl == "exact":
            kl = self.scored.divergence("reverse", 0.0).detach()
            return _mean(gather(kl), gather(self.weight)).clamp(min=0)
        with torch.no_grad():
            neighbours = [self._rows[-1], *self._rows[:-1]]
            context = self._measures.context
            crossed = [
                Tokens(a.prompt, b.completion[: context and context - len(a.prompt)])
                for a, b in zip(self._rows, neighbours, strict=True)
            ]
            # Rows are crossed anew in every batch: nothing of this is worth keeping.
            other = Scored(self._model, crossed, self._reference, self._measures.reduction, kept=False)
            return kto_reference_point(gather(other.logp), gather(other.ref_logp), gather(self.weight))

    @property
    def reward_shift(self) -> Tensor:
        """(), detached, over the rows of all ranks."""
        gather, beta = self._measures.gather, self._measures.beta
        rows = (gather(each.detach()) for each in (self.logp, self.ref_logp, self.label))
        return bco_shift(*rows, beta=beta, weight=gather(self.weight))


class PairBatch:
    """An accepted beside a rejected response to one prompt: P pairs."""

    def __init__(
        self,
        responses: Responses,
        index: Indices,
        weight: Tensor,
        model: Any,
        reference: Reference | None,
        measures: Measures,
    ) -> None:
        rows = responses.pairs[index].T.flatten()  # the accepted ones first
        self.scored = Scored(model, [responses.tokens[row] for row in rows.tolist()], reference, measures.reduction)
        self.weight = weight
        self._count = len(index)

    @property
    def logp_chosen(self) -> Tensor:
        """(P,)."""
        return self.scored.logp[: self._count]

    @property
    def logp_rejected(self) -> Tensor:
        """(P,)."""
        return self.scored.logp[self._count :]

    @property
    def ref_chosen(self) -> Tensor:
        """(P,)."""
        return self.scored.ref_logp[: self._count]

    @property
    def ref_rejected(self) -> Tensor:
        """(P,)."""
        return self.scored.ref_logp[self._count :]

    @property
    def length_chosen(self) -> Tensor:
        """(P,), tokens."""
        return self.scored.length[: self._count]

    @property
    def length_rejected(self) -> Tensor:
        """(P,), tokens."""
        return self.scored.length[self._count :]


class GroupBatch:
    """The scored responses to one prompt: B groups of up to K."""

    def __init__(
        self,
        responses: Responses,
        index: Indices,
        weight: Tensor,
        model: Any,
        reference: Reference | None,
        measures: Measures,
    ) -> None:
        self._groups = responses.groups[index]
        self._there = torch.from_numpy(self._groups >= 0).to(weight.device)
        rows = self._groups[self._groups >= 0]
        self.scored = Scored(model, [responses.tokens[row] for row in rows.tolist()], reference, measures.reduction)
        self.weight = weight
        self._score = torch.from_numpy(responses.score[rows]).to(weight)

    @cached_property
    def group_logp(self) -> Tensor:
        """(B, K), 0 where a group is short."""
        logp = self.scored.logp
        return logp.new_zeros(self._there.shape).masked_scatter(self._there, logp)

    @property
    def group_score(self) -> Tensor:
        """(B, K), -inf where a group is short: that leaves the place out."""
        empty = self._score.new_full(self._there.shape, -torch.inf)
        return empty.masked_scatter(self._there, self._score)


Batch = ResponseBatch | PairBatch | GroupBatch
BATCHES: dict[str, type[Batch]] = {"pairs": PairBatch, "candidates": GroupBatch}
"""By `rows` of the algorithm's declaration; any other draws single responses."""


def _mean(value: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean (), zero where nothing weighs."""
    total = weight.sum()
    return torch.where(weight != 0, value * weight, 0).sum() / torch.where(total > 0, total, 1)
