"""The tiny language of the stability experiment as sweeps over labels use it: strings to reverse, a sampled corpus.

All learners start from the reference that sampled the responses, and are scored by the probability of the right
response to unseen prompts: 0 is that of the reference, 100 is certainty.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from typing import Any

import polars as pl
import torch
from torch import Tensor

from benchmarks.experiments.arms import Arm, Setting, runs_of
from benchmarks.experiments.labellings import ROWS, Run, imbalanced
from benchmarks.experiments.stability.language import (
    BATCH,
    HELD_OUT,
    LENGTH,
    LETTERS,
    PROMPT,
    PROMPTS,
    RESPONSES,
    SHOWN,
    WIDTH,
    answered,
    reference,
    responses,
    strings,
)
from benchmarks.experiments.stability.sequence import SequencePolicy
from pmpo_offline.declarations import OBJECTIVES
from pmpo_offline.objectives import bco_shift, divergences
from pmpo_offline.training.control.batches import inputs
from pmpo_offline.training.control.fit import stack_settings
from pmpo_offline.training.control.sampler import Pools

FAMILY, UPDATES = "bandit", 200
OWN = 4
"""Responses that the policy draws for each row, where an objective compares with them: as in `training.control`."""
_STRENGTHS = [{"beta": beta, "rate": rate} for beta in (0.03, 0.1, 0.3, 1.0) for rate in (1e-3, 3e-3)]
ARMS = {
    "bc-accepted": Arm("bc-accepted"),
    "bc-unrejected": Arm("bc-unrejected"),
    "PMPO AR": Arm("pmpo", [{"multiple": m, "alpha": a} for m in (1.05, 0.25, 0.5, 2.0) for a in (0.5, 0.8)]),
    "PMPO R": Arm("reject-bc", [{"multiple": m, "rate": rate} for m in (1.05, 0.5, 0.8, 2.0) for rate in (1e-3, 3e-3)]),
    "KTO": Arm("kto", _STRENGTHS),
    "BCO": Arm("bco", _STRENGTHS),
}
"""Declared as for bandits: without a network to tell rows apart; only objective and rows are read from there."""
PAIRS = "DPO, pairs of a prompt"
COMPARED = {
    **{title: Arm(name, _STRENGTHS) for title, name in (("APO-zero", "apo-zero"), ("AOT", "aot"), ("SPPO", "sppo"))},
    **{title: Arm(name, _STRENGTHS) for title, name in (("SSPO", "sspo"), ("NPO", "npo"), (PAIRS, "dpo"))},
    "TOPR": Arm("topr", [{"rate": rate} for rate in (1e-3, 3e-3)]),
    "RPO": Arm("rpo", [{"temperature": each["beta"], "rate": each["rate"]} for each in _STRENGTHS]),
    "D2O": Arm("d2o", _STRENGTHS),
}
"""The other learners that compare with a reference, for the sweep of poor ones alone."""
LEARNERS = {**ARMS, **COMPARED}


@cache
def corpus() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return tokens (N, LENGTH), labels (N,), the reference's log-probabilities of each response and of each token."""
    tokens, label = responses(strings()[:PROMPTS], RESPONSES)
    log_reference = _next(reference(), tokens)[0]
    return tokens, label, _chosen(log_reference, tokens), log_reference


def _next(policy: SequencePolicy, tokens: Tensor) -> Tensor:
    found: Tensor = policy(tokens[..., :-1])
    return found[..., PROMPT - 1 :, :]


def learn(name: str, runs: Sequence[Run], rate: float = 3e-3, start: SequencePolicy | None = None) -> SequencePolicy:
    """Train an arm from the reference, all runs stacked, by Adam with a one-cycle rate.

    With another policy to start from all compare with that: the divergence is then KL(start || policy) in closed form,
    because the recorded responses are not samples of it.
    """
    algorithm = LEARNERS[name].declared(FAMILY)
    objective = OBJECTIVES[algorithm.objective]
    complete = [{**objective.settings, **algorithm.settings, **run.settings} for run in runs]
    settings = stack_settings(complete, 1, torch.device("cpu"))
    policy = SequencePolicy([0] * len(runs), LETTERS + 2, LENGTH - 1, width=WIDTH)
    for weight, first in zip(policy.parameters(), (start or reference()).parameters(), strict=True):
        weight.data.copy_(first)
    source = _Source(policy, start, torch.stack([run.labelled.label for run in runs]), settings)
    parts = (
        _pair_pools(runs)
        if algorithm.rows == "pairs"
        else [Pools([r.labelled.rows(signs) for r in runs]) for signs in ROWS[algorithm.rows]]
    )
    seeds, names = [run.seed for run in runs], {**objective.inputs, **objective.optional}
    optimizer = torch.optim.Adam(policy.parameters(), lr=rate, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=UPDATES)
    for step in range(UPDATES):
        row = torch.cat([part.draw(seeds, step, BATCH // len(parts)) for part in parts], dim=1)
        optimizer.zero_grad()
        objective(inputs(_Batch(source, row, step), names), **settings)[0].sum().backward()
        optimizer.step()
        schedule.step()
    return policy


class _Source:
    """What the minibatches of R runs are made from."""

    def __init__(
        self, policy: SequencePolicy, start: SequencePolicy | None, label: Tensor, settings: Mapping[str, Any]
    ) -> None:
        self.policy, self.reference, self.settings = policy, start or reference(), settings
        self.label, self.shift = label, torch.zeros(len(label))
        self.tokens, _, self.ref_logp, self.log_reference = corpus()
        self.is_recorded = start is None  # the responses are samples of the reference
        if start is not None:
            self.log_reference = _next(start, self.tokens)[0]
            self.ref_logp = _chosen(self.log_reference, self.tokens)
        of_prompt = label.unflatten(1, (-1, RESPONSES))
        rate = (of_prompt > 0).sum(-1) / (of_prompt != 0).sum(-1).clamp(min=1)
        self.accept_rate = rate.repeat_interleave(RESPONSES, 1)


class _Batch:
    """Rows (R, B) of the corpus: the inputs of objectives by name, as in `training.control.batches`."""

    def __init__(self, source: _Source, row: Tensor, step: int) -> None:
        self._source, self._row, self._step = source, row, step
        self._tokens = source.tokens[row]
        self.ref_logp, self.label = source.ref_logp[row], source.label.gather(1, row)
        self.accept_rate = source.accept_rate.gather(1, row)

    @cached_property
    def _log_policy(self) -> Tensor:
        return _next(self._source.policy, self._tokens)

    @cached_property
    def logp(self) -> Tensor:
        """(R, B)."""
        return _chosen(self._log_policy, self._tokens)

    @property
    def divergence(self) -> Tensor:
        """(R,)."""
        if self._source.is_recorded:
            return -self.logp.mean(-1)
        start = self._source.log_reference[self._row]
        return divergences.categorical_kl(start, self._log_policy).sum(-1).mean(-1)

    @property
    def policy_kl(self) -> Tensor:
        """(R,), detached."""
        start = self._source.log_reference[self._row]
        return divergences.categorical_kl(self._log_policy.detach(), start).sum(-1).mean(-1)

    @property
    def reward_shift(self) -> Tensor:
        """(R,): half way between the mean rewards of both classes, averaged over about a hundred batches."""
        here = bco_shift(self.logp, self.ref_logp, self.label, beta=self._source.settings["beta"])
        self._source.shift = torch.lerp(self._source.shift, here, 0.01)
        return self._source.shift

    @cached_property
    def _own(self) -> Tensor:
        """(R, B * K, LENGTH): K responses to each row's prompt, drawn from the policy."""
        generator = torch.Generator().manual_seed(self._step)
        prompt = self._tokens[..., :PROMPT].repeat_interleave(OWN, dim=1)
        return self._source.policy.sample(prompt, torch.rand(prompt.shape[1], LENGTH - PROMPT, generator=generator))

    @property
    def own_logp(self) -> Tensor:
        """(R, B, K)."""
        return self._source.policy.log_prob(self._own, PROMPT).unflatten(-1, (-1, OWN))

    @property
    def own_ref_logp(self) -> Tensor:
        """(R, B, K)."""
        logp = self._source.reference.log_prob(self._own.flatten(0, 1), PROMPT)
        return logp.view(*self._row.shape, OWN)

    @property
    def logp_chosen(self) -> Tensor:
        """(R, B / 2), of pairs, whose accepted rows come first."""
        return self.logp.chunk(2, dim=1)[0]

    @property
    def logp_rejected(self) -> Tensor:
        """(R, B / 2)."""
        return self.logp.chunk(2, dim=1)[1]

    @property
    def ref_chosen(self) -> Tensor:
        """(R, B / 2)."""
        return self.ref_logp.chunk(2, dim=1)[0]

    @property
    def ref_rejected(self) -> Tensor:
        """(R, B / 2)."""
        return self.ref_logp.chunk(2, dim=1)[1]


def _chosen(log_next: Tensor, tokens: Tensor) -> Tensor:
    """Return the log-probability of each row's response, (..., B), from those of every next token."""
    return log_next.gather(-1, tokens[..., PROMPT:].unsqueeze(-1)).squeeze(-1).sum(-1)


def _pair_pools(runs: Sequence[Run]) -> list[Pools]:
    """Return the accepted and the rejected row of every pair of responses to one prompt: drawn alike, they match."""
    prompt = torch.arange(len(corpus()[0])) // RESPONSES
    halves: list[list[Tensor]] = [[], []]
    for run in runs:
        accepted, rejected = run.labelled.rows([1]), run.labelled.rows([-1])
        pair = (prompt[accepted, None] == prompt[rejected]).nonzero().T
        halves[0].append(accepted[pair[0]])
        halves[1].append(rejected[pair[1]])
    return [Pools(half) for half in halves]


@torch.no_grad()
def scores(policy: SequencePolicy, *, tuning: bool = False) -> pl.DataFrame:
    """Return the normalized score of every run, and whether it diverged; prompts for tuning are not those reported."""
    held_out = strings()[-HELD_OUT:]
    unseen = answered(held_out[SHOWN:] if tuning else held_out[:SHOWN])
    right, start = (each.log_prob(unseen, PROMPT).exp().mean(-1) for each in (policy, reference()))
    score = 100 * (right - start) / (1 - start)
    return pl.DataFrame({"score": score.double().numpy(), "diverged": (~score.isfinite()).tolist()})


def cells(
    function: str, name: str, grid: Sequence[Mapping[str, Any]], seeds: Sequence[int], settings: Sequence[Setting]
) -> pl.DataFrame:
    """Train and score an arm in cells, with settings of one rate; one row a run; see `bandit_rows.cells`."""
    truth = corpus()[1].numpy().astype("int8")
    draws = ((seed, cell, imbalanced(truth, None, seed, **cell)) for cell, seed in itertools.product(grid, seeds))
    runs, named = runs_of(LEARNERS[name], FAMILY, draws, settings)
    if not runs:
        return pl.DataFrame()
    named = [{"function": function, "arm": name, **each} for each in named]
    frame = pl.DataFrame(named, schema_overrides={"beta": pl.Float64})
    return frame.hstack(scores(learn(name, runs, **{key: settings[0][key] for key in ("rate",) if key in settings[0]})))
