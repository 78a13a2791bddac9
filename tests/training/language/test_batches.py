"""The inputs of objectives, computed by hand from the whole logits; and sums that no division of an update changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.small_language import by_hand, declared, log_probs, random_model, train_dataset
from torch import Tensor

from pmpo_offline import objectives
from pmpo_offline.objectives import OBJECTIVES
from pmpo_offline.policies.language import LanguageModel, add_lora
from pmpo_offline.policies.language.tokens import Tokens
from pmpo_offline.tasks.language.tiny import tokenizer
from pmpo_offline.training.config import Setup
from pmpo_offline.training.language.batches import InputSettings, ResponseBatch, ResponseGroups, ResponsePairs, Scorer
from pmpo_offline.training.language.reference import Reference, own_reference
from pmpo_offline.training.language.responses import TokenizedResponses
from pmpo_offline.training.language.sampler import Division, Entries


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("kind", ["forward", "reverse", "alpha", "renyi", "behavior"])
def test_rows_are_what_the_logits_say(
    policy: Any, base: Any, responses: TokenizedResponses, reference: Reference, reduction: Any, kind: str
) -> None:
    index = np.array([0, 5, 17, 30, 31])
    weight = torch.tensor([0.5, 1.0, 2.0, 1.0, 0.5])
    scorer = Scorer(policy, reference, InputSettings(reduction, kind, 0.3))
    batch = ResponseBatch(responses, index, weight, scorer)
    rows = [responses.tokens[row] for row in index]
    expected = torch.tensor([by_hand(policy, row, reduction) for row in rows])
    assert torch.allclose(batch.logp, expected, atol=1e-5)
    assert torch.allclose(batch.ref_logp, torch.tensor([by_hand(base, row, reduction) for row in rows]), atol=1e-5)

    def distance(row: Tokens, kind: str) -> Tensor:
        ours, theirs = log_probs(policy, row), log_probs(base, row)
        if kind == "reverse":
            tokens = objectives.divergences.categorical_kl(ours, theirs)
        elif kind == "forward":
            tokens = objectives.divergences.categorical_kl(theirs, ours)
        elif kind == "behavior":
            tokens = -ours[range(len(row.completion)), list(row.completion)]
        else:
            tokens = getattr(objectives.divergences, f"categorical_{kind}")(theirs, ours, 0.3)
        return tokens.sum() if reduction == "sum" else tokens.mean()

    every = torch.stack([distance(row, kind) for row in rows])
    assert torch.allclose(batch.divergence, (weight * every).sum() / weight.sum(), atol=1e-5)
    reverse = torch.stack([distance(row, "reverse") for row in rows])
    assert torch.allclose(batch.policy_kl, (weight * reverse).sum() / weight.sum(), atol=1e-5)
    assert not batch.policy_kl.requires_grad

    labelled = replace(scorer, settings=InputSettings(reduction, kind, 0.3, over="labelled"))
    counted = weight * torch.from_numpy(responses.label[index] != 0)
    assert 0 < counted.sum() < weight.sum()
    partly = ResponseBatch(responses, index, weight, labelled).divergence
    assert torch.allclose(partly, (counted * every).sum() / counted.sum(), atol=1e-5)


def test_mismatched_reference_point_pairs_each_prompt_with_its_neighbours_response(
    policy: Any, base: Any, responses: TokenizedResponses, reference: Reference
) -> None:
    index = np.array([0, 4, 8])  # of three prompts
    batch = ResponseBatch(
        responses, index, torch.ones(3), Scorer(policy, reference, InputSettings(policy_kl="mismatched"))
    )
    rows = [responses.tokens[row] for row in index]
    crossed = [Tokens(rows[i].prompt, rows[i - 1].completion) for i in range(3)]
    ratios = [by_hand(policy, row, "sum") - by_hand(base, row, "sum") for row in crossed]
    assert float(batch.policy_kl) == pytest.approx(max(0.0, float(np.mean(ratios))), abs=1e-5)


@pytest.mark.parametrize("cut", [0, 1])
def test_mismatched_rows_are_not_kept_and_fit_the_context(
    responses: TokenizedResponses, tmp_path: Path, cut: int
) -> None:
    model = add_lora(random_model(), 4, 8, ["q_proj"], from_layer=cut)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.zeros_(weight)
    reference = own_reference(LanguageModel(model, tokenizer(), "fresh", "3" * 64), tmp_path, cut)
    rows = [Tokens((3, 4), (5, 6, 7, 8)), Tokens((3, 4, 5, 6), (7,))]
    both = replace(responses, tokens=rows, label=np.array([1, -1], np.int8))
    reference.prepare(rows)
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data = 0.5 * torch.randn_like(weight)
    kept = sorted(path for path in tmp_path.rglob("*.safetensors"))
    scorer = Scorer(model, reference, InputSettings(policy_kl="mismatched", context=6))
    batch = ResponseBatch(both, np.arange(2), torch.ones(2), scorer)
    found = float(batch.policy_kl)
    assert sorted(path for path in tmp_path.rglob("*.safetensors")) == kept
    crossed = [Tokens((3, 4), (7,)), Tokens((3, 4, 5, 6), (5, 6))]  # the second one cut to six tokens
    ratios = [by_hand(model, row, "sum") - by_hand(random_model(), row, "sum") for row in crossed]
    assert found == pytest.approx(max(0.0, float(np.mean(ratios))), abs=1e-5)


def test_pairs_are_every_accept_beside_every_reject_of_a_prompt(
    policy: Any, base: Any, responses: TokenizedResponses, reference: Reference
) -> None:
    expected = {
        (a, r)
        for a in range(len(responses))
        for r in range(len(responses))
        if responses.prompt[a] == responses.prompt[r] and responses.label[a] > 0 > responses.label[r]
    }
    assert set(map(tuple, responses.pairs.tolist())) == expected
    assert len(responses.pairs) == len(expected) > 0

    index = np.array([3, 0, 3])
    batch = ResponsePairs(responses, index, torch.ones(3), Scorer(policy, reference, InputSettings()))
    for side, logp, ref, length in (
        (0, batch.logp_chosen, batch.ref_chosen, batch.length_chosen),
        (1, batch.logp_rejected, batch.ref_rejected, batch.length_rejected),
    ):
        rows = [responses.tokens[row] for row in responses.pairs[index, side]]
        assert logp.tolist() == pytest.approx([by_hand(policy, row, "sum") for row in rows], abs=1e-5)
        assert ref.tolist() == pytest.approx([by_hand(base, row, "sum") for row in rows], abs=1e-5)
        assert length.tolist() == [len(row.completion) for row in rows]


def test_groups_hold_the_scored_responses_of_a_prompt_and_leave_empty_places_out(
    policy: Any, responses: TokenizedResponses
) -> None:
    known = [np.flatnonzero((responses.prompt == p) & ~np.isnan(responses.score)) for p in range(12)]
    several = [rows for rows in known if len(rows) > 1]
    assert len({len(rows) for rows in several}) > 1  # not all groups are equally large
    scorer = Scorer(policy, None, InputSettings())
    batch = ResponseGroups(responses, np.arange(len(several)), torch.ones(len(several)), scorer)
    loss, _ = objectives.mpo(batch.group_logp, batch.group_score, temperature=0.5)
    alone = []
    for rows in several:
        logp = torch.tensor([[by_hand(policy, responses.tokens[row], "sum") for row in rows]])
        alone.append(objectives.mpo(logp, torch.tensor(responses.score[rows])[None], temperature=0.5)[0])
    assert float(loss.detach()) == pytest.approx(float(torch.stack(alone).mean()), abs=1e-5)


def gradient(
    policy: Any, entries: Entries, reference: Reference, algorithm: Any, accumulation: int, ranks: int
) -> Tensor:
    """Return the mean gradient over the micro-batches of one update, as accumulation and ranks take it."""
    sampler = entries.sampler(Division(24 // (accumulation * ranks), accumulation, ranks), 0)
    values = Setup(algorithm, {}, train_dataset()).settled().settings
    objective = OBJECTIVES[algorithm.objective]
    divergence = values.get("divergence", "behavior")
    settings = InputSettings("sum", divergence, values.get("order", 0.0), values.get("over", "all"))
    policy.zero_grad()
    for index in sampler.draw(0).reshape(-1, 24 // (accumulation * ranks)):
        batch = entries.batch(index, torch.from_numpy(sampler.weight), Scorer(policy, reference, settings))
        loss, _ = objective(
            {name: getattr(batch, name) for name in objective.inputs.values()}, weight=batch.weight, **values
        )
        (loss / (accumulation * ranks)).backward()
    return torch.cat([weight.grad.flatten() for weight in policy.parameters() if weight.grad is not None])


@pytest.mark.parametrize(
    "algorithm",
    [
        declared("pmpo", normalize="joint", divergence="forward"),
        declared("pmpo", normalize="set", divergence="forward"),
        declared("pmpo", divergence="reverse", over="labelled"),
        declared("pmpo", alpha=0.0, divergence="behavior"),
        declared("unlikelihood"),
        declared("asymre"),
        declared("topr"),
        declared("npo", retain=1.0),
        declared("rpo"),
        declared("sppo_unpaired", "balanced"),
        declared("bc_accepts"),
        declared("bc_accepts", "accepted"),
        declared("bc"),
        declared("dpo", "pairs"),
        declared("ipo_length_normalized", "pairs"),
        declared("mpo", "candidates"),
    ],
    ids=lambda each: f"{each.objective}-{each.rows}-{'-'.join(map(str, each.settings.values()))}",
)
def test_the_gradient_of_an_update_is_that_of_one_big_batch(
    policy: Any, responses: TokenizedResponses, reference: Reference, algorithm: Any
) -> None:
    entries = Entries(responses, algorithm, Setup(algorithm, {}, train_dataset()).settled().settings)
    whole = gradient(policy, entries, reference, algorithm, 1, 1)
    assert whole.abs().max() > 1e-3
    for accumulation, ranks in [(4, 1), (1, 2), (2, 2)]:
        divided = gradient(policy, entries, reference, algorithm, accumulation, ranks)
        # What a wrong weight changes is above 1e-2; sums of squares in single precision differ by up to 2e-6.
        assert torch.allclose(divided, whole, atol=1e-5 * float(whole.abs().max()) + 1e-6)


def test_a_micro_batch_has_the_shares_of_the_dataset(
    policy: Any, responses: TokenizedResponses, reference: Reference
) -> None:
    entries = Entries(responses, declared("pmpo"), Setup(declared("pmpo"), {}, train_dataset()).settled().settings)
    sampler = entries.sampler(Division(5), 0)
    weight = torch.from_numpy(sampler.weight)
    batch = entries.batch(sampler.draw(0)[0, 0], weight, Scorer(policy, reference, InputSettings()))
    _, metrics = objectives.pmpo(batch.logp, batch.label, torch.tensor(0.0), weight=weight)
    joint = objectives.pmpo(batch.logp.detach(), batch.label, torch.tensor(0.0), weight=weight)[0]
    labelled = (responses.label != 0).mean()
    accepted = (responses.label > 0).sum() / (responses.label != 0).sum()
    # The shares of the data: 0.5 of each class's mean, times what the class has of the labelled rows.
    assert float(joint) == pytest.approx(
        -0.5 * accepted * float(metrics["accept_logp"]) + 0.5 * (1 - accepted) * float(metrics["reject_logp"]), abs=1e-5
    )
    assert weight[batch.label != 0].sum() / weight.sum() == pytest.approx(labelled, abs=1e-6)


def test_an_empty_completion_is_safe(policy: Any, reference: Reference, responses: TokenizedResponses) -> None:
    rows = [*responses.tokens[:2], Tokens(responses.tokens[2].prompt, ())]
    cut = replace(responses, tokens=rows, label=responses.label[:3])
    for reduction in ("sum", "mean"):
        scorer = Scorer(policy, reference, InputSettings(reduction, "forward"))
        batch = ResponseBatch(cut, np.arange(3), torch.ones(3), scorer)
        assert float(batch.logp[2]) == float(batch.ref_logp[2]) == 0
        assert torch.isfinite(batch.divergence)
        assert torch.isfinite(batch.policy_kl)
