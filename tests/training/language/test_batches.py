"""The inputs of objectives, computed by hand from the whole logits; and sums that no division of an update changes."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.small_language import declared, labelled_rows, random_model
from peft import IA3Config, get_peft_model
from torch import Tensor

from pmpo_offline import objectives
from pmpo_offline.objectives import OBJECTIVES
from pmpo_offline.policies.language import LanguageModel, add_lora
from pmpo_offline.policies.language.model import weights_hash
from pmpo_offline.policies.language.tokens import Tokens, collate
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.tasks.language.tiny import tokenizer
from pmpo_offline.training.config import Setup
from pmpo_offline.training.language.batches import InputSettings, ResponseBatch, ResponseGroups, ResponsePairs, Scorer
from pmpo_offline.training.language.reference import Reference, own_reference
from pmpo_offline.training.language.responses import TokenizedResponses, take_split, tokenize_responses
from pmpo_offline.training.language.sampler import Division, Entries
from pmpo_offline.training.language.trl_data import dataset_of


@pytest.fixture(scope="module")
def policy() -> Any:
    """An adapter that has moved away from its reference."""
    model = add_lora(random_model(), 4, 8, ["q_proj", "v_proj", "o_proj"])
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data = 0.2 * torch.randn_like(weight)
    return model


@pytest.fixture(scope="module")
def base() -> Any:
    return random_model()


@pytest.fixture(scope="module")
def responses() -> TokenizedResponses:
    return tokenize_responses(take_split(dataset_of(labelled_rows(), tokenizer()), "train"), tokenizer(), 32)


@pytest.fixture
def reference(base: Any, tmp_path: Path) -> Reference:
    return Reference(LanguageModel(base, tokenizer(), "base", weights_hash(base)), tmp_path)


def log_probs(model: Any, row: Tokens) -> Tensor:
    """Return the distributions that predict a row's completion, (T, V), from the model's own logits."""
    ids = torch.tensor([row.prompt + row.completion])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0]
    return logits[len(row.prompt) - 1 : -1].log_softmax(-1)


def by_hand(model: Any, row: Tokens, reduction: str) -> float:
    chosen = log_probs(model, row)[range(len(row.completion)), list(row.completion)]
    return float(chosen.sum() if reduction == "sum" else chosen.mean())


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


def test_what_is_kept_is_as_precise_as_the_weights(tmp_path: Path) -> None:
    model = LanguageModel(random_model(), tokenizer(), "base", "4" * 64)
    row = Tokens((3, 4), (5, 6, 7))
    exact = Reference(model, tmp_path / "exact").scores([row], collate([row]))
    mixed = Reference(model, tmp_path / "mixed")
    with torch.autocast("cpu", torch.bfloat16):
        found, once = mixed.scores([row], collate([row])), mixed.uncached(collate([row]))
    assert torch.equal(found.states, exact.states)
    assert torch.equal(found.logp, exact.logp)
    assert torch.equal(once.logp, exact.logp)


def test_adapters_are_a_part_of_who_a_model_is() -> None:
    plain, adapted, other = random_model(), add_lora(random_model(), 4, 8, ["q_proj"]), random_model()
    other = add_lora(other, 4, 16, ["q_proj"])  # as strong weights at twice the scale
    for one in (adapted, other):
        for name, weight in one.named_parameters():
            if "lora_" in name:
                weight.data.fill_(0.1)
    assert weights_hash(plain) == weights_hash(adapted) == weights_hash(other)
    whole = [weights_hash(one, adapters=True) for one in (plain, adapted, other)]
    assert whole[0] == weights_hash(plain)
    assert len(set(whole)) == 3
    with adapted.disable_adapter():
        assert weights_hash(adapted, adapters=True) not in whole


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


def test_advantages_compare_the_responses_to_one_prompt(responses: TokenizedResponses) -> None:
    for prompt in range(12):
        rows = np.flatnonzero((responses.prompt == prompt) & ~np.isnan(responses.score))
        if len(rows) > 1:
            assert responses.advantage[rows] == pytest.approx(responses.score[rows] - responses.score[rows].mean())
        else:
            assert np.isnan(responses.advantage[rows]).all()


def test_accept_rates_are_those_of_the_labelled_responses_to_one_prompt(responses: TokenizedResponses) -> None:
    for row, prompt in enumerate(responses.prompt):
        labels = responses.label[responses.prompt == prompt]
        assert responses.accept_rate[row] == pytest.approx((labels > 0).sum() / max(1, (labels != 0).sum()))


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


@lru_cache
def train_dataset() -> Any:
    return take_split(dataset_of(labelled_rows(), tokenizer()), "train")


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
        assert torch.allclose(divided, whole, atol=1e-6 * float(whole.abs().max()) + 1e-6)


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


def test_without_labels_to_serve_rows_are_left_out(responses: TokenizedResponses) -> None:
    values = Setup(declared("pmpo"), {}, train_dataset()).settled().settings
    labelled = int((responses.label != 0).sum())
    assert len(Entries(responses, declared("pmpo"), values)) == len(responses)
    assert len(Entries(responses, declared("pmpo"), {**values, "over": "labelled"})) == labelled
    assert len(Entries(responses, declared("kto", "balanced"), {})) == labelled
    assert len(Entries(responses, declared("topr"), {})) == labelled
    assert len(Entries(responses, declared("sspo"), {})) == len(responses), "it labels them itself"
    assert len(Entries(responses, declared("bc"), {})) == len(responses)
    best = Entries(responses, declared("bc", "top").model_copy(update={"top": 0.5}), {})
    assert len(best) == round(0.5 * labelled)  # rows without a label have no score here


def with_labels(*labels: bool | None) -> TokenizedResponses:
    rows = [{"prompt": "abcde=", "completion": "ab" * (i + 1), "label": label} for i, label in enumerate(labels)]
    return tokenize_responses(take_split(dataset_of(rows, tokenizer(), "mine"), "train"), tokenizer(), 32)


@pytest.mark.parametrize(
    ("algorithm", "labels", "message"),
    [
        (declared("dpo", "pairs"), [True, True], "no prompt of mine has an accepted and a rejected response"),
        (declared("pmpo"), [None, None], "learns from labelled responses and mine has none"),
        (declared("mpo", "candidates"), [True, None], "no prompt of mine has two or more"),
        (declared("awr"), [False], "no prompt of mine has two scored ones"),
    ],
)
def test_data_that_cannot_serve_an_objective_are_refused(algorithm: Any, labels: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Entries(with_labels(*labels), algorithm, {"over": "all"})


def test_one_class_is_one_stratum(policy: Any, tmp_path: Path) -> None:
    entries = Entries(with_labels(False, False, False), declared("pmpo"), {"over": "all"})
    sampler = entries.sampler(Division(2), 0)
    assert sampler.counts == [2]
    batch = entries.batch(sampler.draw(0)[0, 0], torch.ones(2), Scorer(policy, None, InputSettings()))
    loss, _ = objectives.pmpo(batch.logp, batch.label, batch.divergence)
    assert torch.isfinite(loss)


def test_an_empty_completion_is_safe(policy: Any, reference: Reference, responses: TokenizedResponses) -> None:
    rows = [*responses.tokens[:2], Tokens(responses.tokens[2].prompt, ())]
    cut = replace(responses, tokens=rows, label=responses.label[:3])
    for reduction in ("sum", "mean"):
        scorer = Scorer(policy, reference, InputSettings(reduction, "forward"))
        batch = ResponseBatch(cut, np.arange(3), torch.ones(3), scorer)
        assert float(batch.logp[2]) == float(batch.ref_logp[2]) == 0
        assert torch.isfinite(batch.divergence)
        assert torch.isfinite(batch.policy_kl)


def test_shuffled_labels_are_as_many_and_fall_on_any_rows(responses: TokenizedResponses) -> None:
    shuffled = responses.shuffled(3)
    assert sorted(shuffled.label) == sorted(responses.label)
    assert ((shuffled.label != 0) != (responses.label != 0)).any()
    assert (shuffled.label != responses.label).any()
    assert (shuffled.label == responses.shuffled(3).label).all()
    assert (shuffled.label != responses.shuffled(4).label).any()


def test_shuffled_scores_are_as_many_and_leave_learners_of_scores_nothing(responses: TokenizedResponses) -> None:
    score = np.arange(len(responses), dtype=np.float32)
    score[::5] = np.nan
    scored = replace(responses, score=score)  # among them are rows without a label
    shuffled = scored.shuffled(3)
    assert (np.isnan(shuffled.score) != np.isnan(score)).any(), "nor does it speak who has a score"
    assert sorted(shuffled.score[~np.isnan(shuffled.score)]) == sorted(score[~np.isnan(score)])
    assert (shuffled.label == responses.shuffled(3).label).all()
    assert set(shuffled.top(0.2)) != set(scored.top(0.2))
    alike = []
    for seed in range(50):
        other = scored.shuffled(seed)
        known = ~np.isnan(scored.advantage) & ~np.isnan(other.advantage)
        alike.append(np.corrcoef(other.advantage[known], scored.advantage[known])[0, 1])
    assert abs(np.mean(alike)) < 0.1


def test_an_adapter_is_compared_with_the_model_below_it(policy: Any, tmp_path: Path) -> None:
    fresh = add_lora(random_model(), 4, 8, ["q_proj"])
    model = LanguageModel(fresh, tokenizer(), "fresh", "0" * 64)
    rows = [Tokens((3, 4), (5, 6, 7)), Tokens((5,), (6,))]
    reference = own_reference(model, tmp_path, 0)
    fresh.train()
    for name, weight in fresh.named_parameters():
        if "lora_B" in name:
            weight.data.normal_()
    reference.prepare(rows)
    assert fresh.training
    for row in rows:
        known = reference.scores([row], collate([row]))
        assert float(known.logp.sum()) == pytest.approx(by_hand(random_model(), row, "sum"), abs=1e-5)


def test_whatever_else_is_trained_is_compared_with_a_copy_of_itself(policy: Any, tmp_path: Path) -> None:
    embedded = add_lora(random_model(), 4, 8, ["q_proj"])
    embedded.get_input_embeddings().weight.requires_grad_(True)
    scaled = get_peft_model(
        random_model(), IA3Config(task_type="CAUSAL_LM", target_modules=["v_proj"], feedforward_modules=[])
    )
    row = Tokens((3, 4), (5, 6, 7))
    for number, model in enumerate((policy, embedded, scaled)):
        before = by_hand(model, row, "sum")
        reference = own_reference(LanguageModel(model, tokenizer(), "moved", str(number) * 64), tmp_path, 0)
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        kept = [weight.detach().clone() for weight in trained]
        copied = {id(weight) for weight in reference._model.parameters()}
        assert copied.isdisjoint(map(id, trained))
        assert copied & set(map(id, model.parameters()))  # the weights below an adapter are shared
        with torch.no_grad():
            for weight in trained:
                weight.add_(0.1)
        assert by_hand(model, row, "sum") != pytest.approx(before, abs=1e-4)
        assert float(reference.scores([row], collate([row])).logp.sum()) == pytest.approx(before, abs=1e-5)
        with torch.no_grad():
            for weight, old in zip(trained, kept, strict=True):
                weight.copy_(old)
