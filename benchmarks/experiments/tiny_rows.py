"""The tiny language of the stability experiment as sweeps over labels use it: strings to reverse, a sampled corpus.

All learners start from the reference that sampled the responses, and are scored by the probability of the right
response to unseen prompts: 0 is that of the reference, 100 is certainty.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import cache
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
from pmpo_offline.training.control.fit import stack_settings
from pmpo_offline.training.control.sampler import Pools

FAMILY, UPDATES = "bandit", 200
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
}
"""The other learners that compare with a reference, for the sweep of poor ones alone."""
LEARNERS = {**ARMS, **COMPARED}


@cache
def corpus() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return tokens (N, LENGTH), labels (N,), the reference's log-probabilities of each response and of each token."""
    tokens, label = responses(strings()[:PROMPTS], RESPONSES)
    log_reference = _next(reference(), tokens)[0]
    chosen = log_reference.gather(-1, tokens[:, PROMPT:, None]).squeeze(-1)
    return tokens, label, chosen.sum(-1), log_reference


def _next(policy: SequencePolicy, tokens: Tensor) -> Tensor:
    found: Tensor = policy(tokens[..., :-1])
    return found[..., PROMPT - 1 :, :]


def learn(name: str, runs: Sequence[Run], rate: float = 3e-3, start: SequencePolicy | None = None) -> SequencePolicy:
    """Train an arm from the reference, all runs stacked, by Adam with a one-cycle rate.

    With another policy to start from all compare with that: the divergence is then KL(start || policy) in closed form,
    because the recorded responses are not samples of it.
    """
    tokens, _, ref_logp, log_reference = corpus()
    if start is not None:
        log_reference = _next(start, tokens)[0]
        ref_logp = log_reference.gather(-1, tokens[:, PROMPT:, None]).squeeze(-1).sum(-1)
    algorithm = LEARNERS[name].declared(FAMILY)
    objective = OBJECTIVES[algorithm.objective]
    complete = [{**objective.settings, **algorithm.settings, **run.settings} for run in runs]
    settings = stack_settings(complete, 1, torch.device("cpu"))
    policy = SequencePolicy([0] * len(runs), LETTERS + 2, LENGTH - 1, width=WIDTH)
    for weight, first in zip(policy.parameters(), (start or reference()).parameters(), strict=True):
        weight.data.copy_(first)
    labels = torch.stack([run.labelled.label for run in runs])
    paired = algorithm.rows == "pairs"
    parts = (
        _pair_pools(runs)
        if paired
        else [Pools([r.labelled.rows(signs) for r in runs]) for signs in ROWS[algorithm.rows]]
    )
    seeds, shift = [run.seed for run in runs], torch.zeros(len(runs))
    optimizer = torch.optim.Adam(policy.parameters(), lr=rate, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=UPDATES)
    for step in range(UPDATES):
        row = torch.cat([part.draw(seeds, step, BATCH // len(parts)) for part in parts], dim=1)
        log_policy = _next(policy, tokens[row])
        logp = log_policy.gather(-1, tokens[row][..., PROMPT:].unsqueeze(-1)).squeeze(-1).sum(-1)
        batch = {"logp": logp, "ref_logp": ref_logp[row], "label": labels.gather(1, row), "divergence": -logp.mean(-1)}
        if start is not None:
            batch["divergence"] = divergences.categorical_kl(log_reference[row], log_policy).sum(-1).mean(-1)
        if "policy_kl" in objective.inputs.values():
            kl = divergences.categorical_kl(log_policy.detach(), log_reference[row]).sum(-1).mean(-1)
            batch["policy_kl"] = kl
        if "shift" in objective.optional:
            shift = torch.lerp(shift, bco_shift(logp, ref_logp[row], batch["label"], beta=settings["beta"]), 0.01)
            batch["reward_shift"] = shift
        if paired:
            batch["logp_chosen"], batch["logp_rejected"] = logp.chunk(2, dim=1)
            batch["ref_chosen"], batch["ref_rejected"] = ref_logp[row].chunk(2, dim=1)
        optimizer.zero_grad()
        objective(batch, **settings)[0].sum().backward()
        optimizer.step()
        schedule.step()
    return policy


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
