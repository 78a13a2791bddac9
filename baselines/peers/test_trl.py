"""Our losses of pairs and of labels against TRL's own trainers: loss and gradient on the same random inputs.

TRL keeps its losses inside `compute_loss`, so that method of a real trainer is what runs here, on batches of its own
collator. It is given two kinds of networks: a random Llama, whose log-probabilities we compute on our own from its
logits (TRL's fused head does so in float32, whatever the model's precision), and a bigram table in float64, whose
log-probabilities spread as far as one likes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

from baselines.peers.bigram import Bigram
from baselines.peers.language import WORDS, arguments, llama, texts, tokenizer
from pmpo_offline import objectives

ROWS = 16
LOSSES = ("sigmoid", "ipo", "nca_pair", "bco_pair", "apo_down", "sppo_hard", "aot_unpaired")
"""TRL's names of its losses of pairs."""
NETWORKS = [("llama", 0.5), ("bigram", 0.1), ("bigram", 3.0), ("bigram", 30.0)]
"""Each with the spread of its logits: log ratios of sequences up to 1, tens and hundreds of nats."""

Batch = dict[str, Tensor]


def of_pairs(loss: str, logp: Tensor, ref: Tensor, lengths: Tensor, beta: float) -> Tensor:
    """Our loss of that name, from the (2P,) sequences of TRL's batch: the chosen ones, then the rejected ones."""
    pairs = (*logp.chunk(2), *ref.chunk(2))
    if loss == "sigmoid":
        return objectives.dpo(*pairs, beta=beta)[0]
    if loss == "ipo":
        chosen, rejected = lengths.chunk(2)
        return objectives.ipo_length_normalized(*pairs, length_chosen=chosen, length_rejected=rejected, beta=beta)[0]
    if loss == "nca_pair":
        return objectives.nca(*pairs, beta=beta)[0]
    if loss == "apo_down":
        return objectives.apo_down(*pairs, beta=beta)[0]
    # What is left compares no pair with itself: the chosen are accepts, the rejected are rejects.
    label = torch.ones_like(logp)
    label[len(label) // 2 :] = -1
    if loss == "sppo_hard":
        return objectives.sppo_unpaired(logp, ref, label, beta=beta)[0]
    if loss == "aot_unpaired":
        return objectives.aot_unpaired(logp, ref, label, beta=beta)[0]
    # TRL's loss of pairs knows no reward shift.
    return objectives.bco(logp, ref, label, beta=beta, shift=torch.zeros((), dtype=logp.dtype))[0]


@pytest.fixture(scope="module")
def dpo_trainer(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, float], DPOTrainer]:
    """Makes real trainers by loss and beta."""

    def make(loss: str, beta: float) -> DPOTrainer:
        folder = tmp_path_factory.mktemp("dpo")
        return DPOTrainer(
            model=llama(0),
            ref_model=llama(1),
            args=DPOConfig(**arguments(folder, ROWS), loss_type=loss, beta=beta),
            train_dataset=texts(ROWS, 2, "prompt", "chosen", "rejected"),
            processing_class=tokenizer(),
        )

    return make


@pytest.fixture(scope="module")
def kto_trainer(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., KTOTrainer]:
    """Makes real trainers by their settings."""

    def make(**settings: Any) -> KTOTrainer:
        folder = tmp_path_factory.mktemp("kto")
        return KTOTrainer(
            model=llama(0),
            ref_model=llama(1),
            args=KTOConfig(**arguments(folder, ROWS), **settings),
            train_dataset=texts(ROWS, 3, "prompt", "completion", "label"),
            processing_class=tokenizer(),
        )

    return make


@pytest.mark.parametrize(("network", "spread"), NETWORKS)
@pytest.mark.parametrize("beta", [0.05, 1.0])
@pytest.mark.parametrize("loss", LOSSES)
def test_losses_of_pairs(loss: str, beta: float, network: str, spread: float, dpo_trainer: Any, agree: Any) -> None:
    """Loss and gradient in the network's weights."""
    trainer = dpo_trainer(loss, beta)
    batch = first_batch(trainer)
    policy = networks(trainer, network, spread)
    theirs = trainer.compute_loss(policy, batch)

    rows = (batch["input_ids"], batch["attention_mask"], batch["completion_mask"])
    logp = sequence_logp(policy, *rows)
    with torch.no_grad():
        ref = sequence_logp(trainer.ref_model, *rows)
    ours = of_pairs(loss, logp, ref, batch["completion_mask"].sum(1), beta)
    agree(f"DPOTrainer, {loss}, {network}", with_gradient(ours, policy), with_gradient(theirs, policy))


@pytest.mark.parametrize(("network", "spread"), NETWORKS)
@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.3, 0.4)])
@pytest.mark.parametrize("beta", [0.05, 1.0])
@pytest.mark.parametrize("classes", ["both", "accepts", "rejects"])
def test_kto(
    classes: str, beta: float, weights: tuple[float, float], network: str, spread: float, kto_trainer: Any, agree: Any
) -> None:
    """Loss and gradient in the network's weights, with the reference point of TRL's own mismatched completions."""
    trainer = kto_trainer(beta=beta, desirable_weight=weights[0], undesirable_weight=weights[1])
    batch = first_batch(trainer)
    if classes != "both":
        batch["label"] = torch.full_like(batch["label"], classes == "accepts")
    policy = networks(trainer, network, spread)
    theirs = trainer.compute_loss(policy, batch)

    rows = (batch["input_ids"], batch["attention_mask"], batch["completion_mask"])
    mismatched = (batch["KL_input_ids"], batch["KL_attention_mask"], batch["KL_completion_mask"])
    logp = sequence_logp(policy, *rows)
    with torch.no_grad():
        ref = sequence_logp(trainer.ref_model, *rows)
        kl = objectives.kto_reference_point(
            sequence_logp(policy, *mismatched), sequence_logp(trainer.ref_model, *mismatched)
        )
    ours, _ = objectives.kto(
        logp,
        ref,
        batch["label"],
        kl=kl,
        beta=beta,
        desirable_weight=weights[0],
        undesirable_weight=weights[1],
    )
    agree(f"KTOTrainer, {network}", with_gradient(ours, policy), with_gradient(theirs, policy))


@pytest.mark.parametrize(("network", "spread"), NETWORKS)
@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.3, 0.4)])
@pytest.mark.parametrize("beta", [0.05, 1.0])
def test_apo_zero(
    beta: float, weights: tuple[float, float], network: str, spread: float, kto_trainer: Any, agree: Any
) -> None:
    """Loss and gradient in the network's weights."""
    of_classes = {"desirable_weight": weights[0], "undesirable_weight": weights[1]}
    trainer = kto_trainer(loss_type="apo_zero_unpaired", beta=beta, **of_classes)
    batch = first_batch(trainer)
    policy = networks(trainer, network, spread)
    theirs = trainer.compute_loss(policy, batch)

    rows = (batch["input_ids"], batch["attention_mask"], batch["completion_mask"])
    logp = sequence_logp(policy, *rows)
    with torch.no_grad():
        ref = sequence_logp(trainer.ref_model, *rows)
    ours, _ = objectives.apo_zero_unpaired(logp, ref, torch.as_tensor(batch["label"]), beta=beta, **of_classes)
    agree(f"KTOTrainer, apo_zero_unpaired, {network}", with_gradient(ours, policy), with_gradient(theirs, policy))


def first_batch(trainer: DPOTrainer | KTOTrainer) -> Batch:
    """Return the trainer's own first minibatch."""
    return dict(next(iter(trainer.get_train_dataloader())))


def networks(trainer: DPOTrainer | KTOTrainer, network: str, spread: float) -> nn.Module:
    """Return the policy, and leave the reference in the trainer."""
    if network == "llama":
        return trainer.model  # type: ignore[no-any-return]
    trainer.ref_model = Bigram(len(WORDS) + 3, spread, seed=4)
    return Bigram(len(WORDS) + 3, spread, seed=5)


def sequence_logp(network: nn.Module, ids: Tensor, attention: Tensor, completion: Tensor) -> Tensor:
    """Return (B,) log-probabilities of the completions, computed without TRL from the network's own numbers."""
    if isinstance(network, LlamaForCausalLM):
        every = network(input_ids=ids, attention_mask=attention).logits[:, :-1].log_softmax(-1)
    else:
        every = network.table.log_softmax(-1)[ids[:, :-1]]
    token = every.gather(-1, ids[:, 1:].unsqueeze(-1)).squeeze(-1)
    return torch.where(completion[:, 1:] != 0, token, 0).sum(-1)


def with_gradient(loss: Tensor, network: nn.Module) -> tuple[Tensor, Tensor]:
    """Return the loss and its gradient in all of the network's weights."""
    gradients = torch.autograd.grad(loss, list(network.parameters()))
    return loss.detach(), torch.cat([gradient.flatten() for gradient in gradients])
