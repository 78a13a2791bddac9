"""Micro-batches of responses: the inputs of objectives by name, as in `training.control.batches`.

A batch has a property for each name of the vocabulary (`objectives.objective`) that it can provide, and computes it on
access; nothing here knows an algorithm. A property's gradient reaches the policy through one forward pass over the
batch, whatever is accessed. The reference's values come from its cache, never from a second network: its distributions
are computed from its last hidden states, which take about a hundredth of their room, a chunk of tokens at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pmpo_offline.objectives import bco_shift, divergences, kto_reference_point
from pmpo_offline.objectives.rows import mean
from pmpo_offline.policies.language import scoring
from pmpo_offline.policies.language.scoring import Causal, states, token_logp
from pmpo_offline.policies.language.tokens import Reduction, TokenBatch, Tokens, collate
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import UserError, unknown
from pmpo_offline.training.language.reference import Reference, ReferenceScores
from pmpo_offline.training.language.responses import Indices, TokenizedResponses

PolicyKL = Literal["exact", "mismatched"]
KINDS = ("forward", "reverse", "alpha", "renyi")
"""KL(reference || policy), KL(policy || reference), and the two families of an order between them."""


@dataclass(frozen=True)
class TokenDivergence:
    """An exact divergence between policy and reference, over the whole vocabulary, at each token; nats.

    It raises `UserError` for an unknown kind, and `ValueError` for an order outside [0, 1].
    """

    kind: str
    """One of `KINDS`."""
    order: float = 0.0
    """Of "alpha" and "renyi": near 1 they are like the forward, near 0 like the reverse divergence."""
    constant: bool = False
    """It needs no gradient, which saves a third of the work."""

    def __call__(
        self, model: Causal, states: Tensor, target: Tensor, reference: ReferenceScores
    ) -> tuple[Tensor, Tensor]:
        """Return the log-probability of each target, (N,), and the divergence, which share the policy's distributions.

        Args:
            model: the policy, whose head turns `states` into its distributions.
            states: of the policy, (N, H).
            target: (N,), the tokens.
            reference: at the same tokens; its head is the policy's own if that is not trained.
        """
        head = scoring.causal(model).get_output_embeddings()
        if reference.head is head and scoring.is_closed(head, states) and reference.states.dtype == states.dtype:
            # A constant reverse divergence reads nothing but the reference's states and log-probabilities, a tenth of a
            # step of KTO less; the forward one needs no tensor of the vocabulary's width, a tenth of a step of PMPO.
            if self.kind == "forward" and not self.constant:
                logp, _ = scoring.logp_and_slope(head, states, target)
                known, slope = scoring.logp_and_slope(head, reference.states.detach(), target)
                return logp, scoring.kl(known, slope, reference.states, logp, states)
            if self.kind == "reverse" and self.constant:
                logp, slope = scoring.logp_and_slope(head, states, target)
                return logp, scoring.kl(logp, slope, states, reference.logp, reference.states).detach()

        def measure(log_p: Tensor, word: Tensor, other: Tensor) -> Tensor:
            return torch.cat([scoring.of_target(log_p, word), self._between(log_p, other, reference).unsqueeze(0)])

        logp, divergence = scoring.per_token(
            model, states, measure, target, reference.states, constants=int(self.constant)
        )
        return logp, divergence.detach() if self.constant else divergence

    def _between(self, policy: Tensor, reference_states: Tensor, reference: ReferenceScores) -> Tensor:
        """Return the divergence at n tokens from the policy's log-probabilities: (n, V), (n, H) -> (n,)."""
        with torch.no_grad():
            known = scoring.head_log_probs(reference.head, reference_states)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.constant):
            match self.kind:
                case "forward":
                    return divergences.categorical_kl(known, policy)
                case "reverse":
                    return divergences.categorical_kl(policy, known)
                case "alpha":
                    return divergences.categorical_alpha(known, policy, self.order)
                case "renyi":
                    return divergences.categorical_renyi(known, policy, self.order)
                case _:
                    raise unknown("divergence", self.kind, KINDS)


@dataclass(frozen=True)
class InputSettings:
    """How the inputs are computed."""

    reduction: Reduction = "sum"
    """How the tokens of a response count, in log-probabilities and divergences alike: their sum (the probability of the
    whole response, in which long ones weigh more) or their mean (every response weighs the same)."""
    divergence: str = "behavior"
    """"behavior": KL(behaviour || policy) less the behaviour's entropy, -log pi of the recorded tokens; "forward",
    "reverse", "alpha", "renyi": between reference and policy, exact over the vocabulary at every recorded place."""
    order: float = 0.0
    over: Literal["all", "labelled"] = "all"
    """The rows that the divergence runs over."""
    policy_kl: PolicyKL = "exact"
    """"exact": KL(policy || reference) over the vocabulary at the recorded places; the places are the data's own, not
    ones that the policy would reach. "mismatched": `kto_reference_point` on every prompt with its neighbour's response,
    as TRL has it, at the cost of one more forward pass."""
    needs_policy_kl: bool = False
    """Whether the objective reads `policy_kl`: an exact one is then computed along with the log-probabilities."""
    context: int | None = None
    """The most tokens of a row; a mismatched response may not fit behind another prompt, and is cut."""
    beta: float = 1.0
    """Turns a log-ratio into the reward behind `reward_shift`."""
    gather: Callable[[Tensor], Tensor] = lambda value: value
    """Joins the rows (B,) of all ranks."""

    @property
    def divergences(self) -> list[TokenDivergence]:
        """Between reference and policy, those that are needed; the first comes along with the log-probabilities."""
        own = [] if self.divergence == "behavior" else [TokenDivergence(self.divergence, self.order)]
        return own + ([_REVERSE] if self.needs_policy_kl and self.policy_kl == "exact" else [])


_REVERSE = TokenDivergence("reverse", constant=True)


@dataclass(frozen=True)
class Parts:
    """How rows that are too many for one forward pass are scored, without a graph."""

    size: int
    """The most rows of a part."""
    rank: int = 0
    ranks: int = 1
    sum: Callable[[Tensor], Tensor] = lambda value: value
    """Adds the tensors of all ranks."""


@dataclass(frozen=True)
class Scorer:
    """A policy and the reference it is compared with, None if it is not, with the settings of the inputs."""

    policy: Any
    reference: Reference | None
    settings: InputSettings
    parts: Parts | None = None
    """None: rows are scored in one pass, with a graph."""

    def score(
        self, rows: Sequence[Tokens], divergences: Sequence[TokenDivergence] = (), *, cached: bool = True
    ) -> RowScores | PartScores:
        """Return the scores of rows; the arguments are those of `Scores`."""
        return (RowScores if self.parts is None else PartScores)(self, rows, divergences, cached)


@dataclass(eq=False)
class Scores:
    """Log-probabilities and divergences of B rows."""

    scorer: Scorer
    """The models."""
    rows: Sequence[Tokens]
    """B of them."""
    divergences: Sequence[TokenDivergence] = ()
    """Those that are asked for; of rows in one pass the first is computed along with the log-probabilities."""
    cached: bool = True
    """Read the reference's values from its cache, and add missing ones to it."""


class RowScores(Scores):
    """Of rows in one forward pass, with a graph."""

    @cached_property
    def _batch(self) -> TokenBatch:
        return collate(self.rows).to(next(self.scorer.policy.parameters()).device)

    @cached_property
    def _states(self) -> Tensor:
        """(N, H)."""
        reference = self.scorer.reference
        if reference is None or not reference.cut:
            return states(self.scorer.policy, self._batch)
        return states(self.scorer.policy, self._batch, trunk=self._known.trunk, cut=reference.cut)

    @cached_property
    def _known(self) -> ReferenceScores:
        reference = self.scorer.reference
        if reference is None:
            raise UserError("this objective compares with a reference model: train an adapter, or give a ref_model")
        return reference.scores(self.rows, self._batch) if self.cached else reference.uncached(self._batch)

    @cached_property
    def _tokens(self) -> tuple[Tensor, Tensor | None]:
        """(N,) each: log-probabilities, and the joint divergence."""
        places = self.scorer.policy, self._states, self._batch.target
        return self.divergences[0](*places, self._known) if self.divergences else (token_logp(*places), None)

    @cached_property
    def logp(self) -> Tensor:
        """(B,)."""
        return self._batch.reduce(self._tokens[0], self.scorer.settings.reduction)

    @cached_property
    def ref_logp(self) -> Tensor:
        """(B,)."""
        return self._batch.reduce(self._known.logp, self.scorer.settings.reduction)

    @property
    def length(self) -> Tensor:
        """(B,), tokens, at least 1: an empty response counts as its end."""
        return self._batch.length.clamp(min=1)

    def row_divergence(self, wanted: TokenDivergence) -> Tensor:
        """Return each row's divergence between reference and policy, (B,)."""
        tokens = self._tokens[1] if wanted in self.divergences[:1] else None
        if tokens is None:
            _, tokens = wanted(self.scorer.policy, self._states, self._batch.target, self._known)
        return self._batch.reduce(tokens, self.scorer.settings.reduction)


class PartScores(Scores):
    """Of any number of rows, of which each rank scores a share, part by part; nothing has a gradient."""

    @cached_property
    @torch.no_grad()
    def _table(self) -> Tensor:
        """(2 + divergences, B): log-probabilities of policy and reference, and each divergence."""
        scorer, parts = self.scorer, self.scorer.parts or Parts(len(self.rows))
        longest = np.argsort([-len(row.prompt) - len(row.completion) for row in self.rows], kind="stable")
        count = -(-len(longest) // (parts.size * parts.ranks))
        table = torch.zeros(2 + len(self.divergences), len(longest))
        for number, share in enumerate(np.array_split(longest, count * parts.ranks)[parts.rank :: parts.ranks]):
            # A sharded model's ranks call it equally often: one without a row of its own repeats another's.
            read = share if len(share) else longest[:1]
            scores = RowScores(scorer, [self.rows[row] for row in read], self.divergences, self.cached)
            compared = scores.logp if scorer.reference is None else scores.ref_logp
            values = [scores.logp, compared, *(scores.row_divergence(wanted) for wanted in self.divergences)]
            table = table.to(values[0])  # its device and precision
            table[:, torch.from_numpy(share).to(table.device)] = torch.stack(values)[:, : len(share)]
            progress.report("evaluate", number + 1, count)
        return parts.sum(table)

    @property
    def logp(self) -> Tensor:
        """(B,)."""
        return self._table[0]

    @property
    def ref_logp(self) -> Tensor:
        """(B,)."""
        return self._table[1]

    @property
    def length(self) -> Tensor:
        """(B,), tokens, at least 1."""
        return torch.tensor([max(1, len(row.completion)) for row in self.rows], device=self._table.device)

    def row_divergence(self, wanted: TokenDivergence) -> Tensor:
        """Return each row's divergence, one of those that were asked for: (B,)."""
        return self._table[2 + list(self.divergences).index(wanted)]


class ResponseBatch:
    """Single responses: B rows."""

    def __init__(self, responses: TokenizedResponses, index: Indices, weight: Tensor, scorer: Scorer) -> None:
        self._scorer, self._settings = scorer, scorer.settings
        self._rows = [responses.tokens[row] for row in index.tolist()]
        self.scores = scorer.score(self._rows, scorer.settings.divergences)
        self._responses, self._index, self.weight = responses, index, weight

    @property
    def ratio(self) -> Tensor | None:
        """(B,), detached: the log-ratio to the reference, None without one."""
        return None if self._scorer.reference is None else self.logp.detach() - self.ref_logp.detach()

    @property
    def logp(self) -> Tensor:
        """(B,)."""
        return self.scores.logp

    @property
    def ref_logp(self) -> Tensor:
        """(B,)."""
        return self.scores.ref_logp

    @property
    def conditional_logp(self) -> Tensor:
        """(B,), behind the text of each row's label; at the cost of one more forward pass."""
        return self._scorer.score(self._responses.given_label(self._index)).logp

    @cached_property
    def label(self) -> Tensor:
        """(B,)."""
        return torch.from_numpy(self._responses.label[self._index]).to(self.weight)

    @property
    def advantage(self) -> Tensor:
        """(B,), the score less the mean score of the prompt's responses."""
        return torch.from_numpy(self._responses.advantage[self._index]).to(self.weight)

    @property
    def accept_rate(self) -> Tensor:
        """(B,)."""
        return torch.from_numpy(self._responses.accept_rate[self._index]).to(self.weight)

    @property
    def divergence(self) -> Tensor:
        """(), over all rows or the labelled ones."""
        settings = self._settings
        counted = torch.where(self.label != 0, self.weight, 0) if settings.over == "labelled" else self.weight
        if settings.divergence == "behavior":
            return mean(-self.logp, counted)
        return mean(self.scores.row_divergence(TokenDivergence(settings.divergence, settings.order)), counted)

    @property
    def policy_kl(self) -> Tensor:
        """(), detached, at least 0, over the rows of all ranks."""
        gather, context = self._settings.gather, self._settings.context
        if self._settings.policy_kl == "exact":
            kl = self.scores.row_divergence(_REVERSE).detach()
            return mean(gather(kl), gather(self.weight)).clamp(min=0)
        with torch.no_grad():
            neighbours = [self._rows[-1], *self._rows[:-1]]
            crossed = [
                Tokens(a.prompt, b.completion[: context and context - len(a.prompt)])
                for a, b in zip(self._rows, neighbours, strict=True)
            ]
            other = self._scorer.score(crossed, cached=False)  # every batch crosses other rows
            return kto_reference_point(gather(other.logp), gather(other.ref_logp), gather(self.weight))

    @property
    def reward_shift(self) -> Tensor:
        """(), detached, over the rows of all ranks."""
        gather, beta = self._settings.gather, self._settings.beta
        rows = (gather(value.detach()) for value in (self.logp, self.ref_logp, self.label))
        return bco_shift(*rows, beta=beta, weight=gather(self.weight))


def _half(name: str, half: int) -> property:
    """Return the property of pairs that is one half of a property of their rows: (P,)."""
    return property(lambda pairs: getattr(pairs.scores, name).chunk(2)[half])


class ResponsePairs:
    """An accepted beside a rejected response to one prompt: P pairs, and each input (P,); lengths in tokens."""

    def __init__(self, responses: TokenizedResponses, index: Indices, weight: Tensor, scorer: Scorer) -> None:
        rows = responses.pairs[index].T.flatten()  # the accepted ones first
        self.scores = scorer.score([responses.tokens[row] for row in rows.tolist()])
        self.weight = weight

    logp_chosen, logp_rejected = _half("logp", 0), _half("logp", 1)
    ref_chosen, ref_rejected = _half("ref_logp", 0), _half("ref_logp", 1)
    length_chosen, length_rejected = _half("length", 0), _half("length", 1)


class ResponseGroups:
    """The scored responses to one prompt: B groups of up to K."""

    def __init__(self, responses: TokenizedResponses, index: Indices, weight: Tensor, scorer: Scorer) -> None:
        groups = responses.groups[index]
        rows = groups[groups >= 0]
        self._filled = torch.from_numpy(groups >= 0).to(weight.device)
        self.scores = scorer.score([responses.tokens[row] for row in rows.tolist()])
        self.weight, self._score = weight, torch.from_numpy(responses.score[rows]).to(weight)

    @cached_property
    def group_logp(self) -> Tensor:
        """(B, K), 0 where a group is short."""
        logp = self.scores.logp
        return logp.new_zeros(self._filled.shape).masked_scatter(self._filled, logp)

    @property
    def group_score(self) -> Tensor:
        """(B, K), -inf where a group is short, which leaves the place out."""
        empty = self._score.new_full(self._filled.shape, -torch.inf)
        return empty.masked_scatter(self._filled, self._score)


Batch = ResponseBatch | ResponsePairs | ResponseGroups
BATCHES: dict[str, type[Batch]] = {"pairs": ResponsePairs, "candidates": ResponseGroups}
"""By `rows` of the algorithm's declaration; any other draws single responses."""
