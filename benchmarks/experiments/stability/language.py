"""A tiny language model: strings to be reversed, by a transformer that learned it from a corpus half of which is wrong.

A response is accepted if it is exactly right, which the one reference, pretrained here, is in about 58 of 100.
"""

from __future__ import annotations

import functools

import polars as pl
import torch
from torch import Tensor

from benchmarks.experiments.stability.experiment import SEEDS, Arm, described, follow
from benchmarks.experiments.stability.sequence import SequencePolicy
from pmpo_offline import objectives
from pmpo_offline.objectives import divergences, stability

LETTERS, STRING = 8, 4
SEPARATOR, END = LETTERS, LETTERS + 1
PROMPT, LENGTH = STRING + 1, 2 * STRING + 2
"""Tokens of a prompt (the string and the separator), and of a prompt with its response (the reverse and the end)."""
WIDTH, RESPONSES, BATCH, RATE = 32, 4, 32, 3e-3
PROMPTS, HELD_OUT, SHOWN = 3584, 512, 256
"""Strings that are trained on and held out, of the 4,096 that there are; rows that a run is measured on, of each."""
FEW_PROMPTS = "64 prompts"
ARMS = [
    Arm("language", 0.0, "joint", "closed form"),
    Arm("language", 0.5, "joint", "closed form"),
    Arm("language", 0.5, "set", "closed form"),
    Arm("language", 0.0, "joint", "closed form", FEW_PROMPTS),
    Arm("language", 0.0, "joint", "recorded", FEW_PROMPTS),
]
"""On rejects alone, "set" is "joint" with another unit of β wherever every row is labelled, and is left out."""


def strings(seed: int = 0) -> Tensor:
    """Return every string in a random order, (8^4, 4): the first are trained on, the last `HELD_OUT` are not."""
    every = torch.cartesian_prod(*[torch.arange(LETTERS)] * STRING)
    return every[torch.randperm(len(every), generator=torch.Generator().manual_seed(seed))]


def answered(string: Tensor) -> Tensor:
    """Return prompts with their right responses, (n, LENGTH)."""
    separator, end = (torch.full((len(string), 1), token) for token in (SEPARATOR, END))
    return torch.cat([string, separator, string.flip(1), end], dim=1)


@functools.cache
def reference(
    updates: int = 800, batch: int = 128, rate: float = 5e-3, wrong: float = 0.5, copied: float = 0.0
) -> SequencePolicy:
    """Pretrain from scratch on a corpus in which half of the responses have one wrong letter.

    Args:
        updates: of the weights.
        batch: strings an update.
        rate: of learning.
        wrong: share of the responses with a wrong letter.
        copied: share of the responses that repeat the string in place of reversing it.
    """
    policy = SequencePolicy([0], LETTERS + 2, LENGTH - 1, width=WIDTH)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=rate, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=updates)
    generator = torch.Generator().manual_seed(1)
    for _ in range(updates):
        tokens = answered(torch.randint(LETTERS, (batch, STRING), generator=generator))
        place = PROMPT + torch.randint(STRING, (batch, 1), generator=generator)
        shift = torch.randint(1, LETTERS, (batch, 1), generator=generator)
        shift *= torch.rand(batch, 1, generator=generator) < wrong
        tokens.scatter_(1, place, (tokens.gather(1, place) + shift) % LETTERS)
        if copied:
            repeats = torch.rand(batch, 1, generator=generator) < copied
            tokens[:, PROMPT:-1] = torch.where(repeats, tokens[:, :STRING], tokens[:, PROMPT:-1])
        optimizer.zero_grad()
        (-policy.log_prob(tokens, PROMPT).mean()).backward()
        optimizer.step()
        schedule.step()
    return policy.requires_grad_(False)


def responses(string: Tensor, each: int) -> tuple[Tensor, Tensor]:
    """Sample `each` responses a string from the reference: tokens (n * each, LENGTH), labels (n * each,), ±1."""
    prompt = answered(string)[:, :PROMPT].repeat_interleave(each, 0)
    uniform = torch.rand(len(prompt), LENGTH - PROMPT, generator=torch.Generator().manual_seed(2))
    tokens = reference().sample(prompt, uniform)[0]
    right = (tokens == answered(string).repeat_interleave(each, 0)).all(1)
    return tokens, right.float() * 2 - 1


@functools.cache
def dataset(arm: Arm) -> tuple[Tensor, Tensor]:
    """Return what an arm is trained on, as `responses` does."""
    return responses(strings()[: 64 if arm.variant == FEW_PROMPTS else PROMPTS], RESPONSES)


def memoriser_bounds(arm: Arm) -> Tensor:
    """Return the β that each reject needs of a policy that tells every prefix apart, (rejects,); "joint" only.

    The closed form holds token v after a prefix that was sampled m times by β m π_ref(v), and the labels push it by
    (1 - α) times its rejects less α times its accepts. A response needs what its worst token does.
    """
    tokens, label = dataset(arm)
    chance = _next(reference(), tokens)[0].gather(-1, tokens[:, PROMPT:, None]).squeeze(-1).exp()
    need = torch.zeros(len(tokens))
    for place in range(PROMPT, LENGTH):
        visits = (tokens[:, None, :place] == tokens[None, :, :place]).all(-1)
        taken = visits & (tokens[:, None, place] == tokens[None, :, place])
        push = (taken * torch.where(label < 0, 1 - arm.alpha, -arm.alpha)).sum(1)
        need = torch.maximum(need, push / (visits.sum(1) * chance[:, place - PROMPT]))
    return need[label < 0]


def run(arm: Arm, multiples: tuple[float, ...], updates: int = 400) -> pl.DataFrame:
    """Train every β with every seed from the reference and return the trajectories."""
    tokens, label = dataset(arm)
    reject_mass = float((label < 0).float().mean())
    bound = torch.full((SEEDS,), stability.beta_min(arm.alpha, reject_mass, arm.normalize))
    beta = (torch.tensor(multiples).unsqueeze(1) * bound).flatten().unsqueeze(1)  # (M * S, 1)
    settings = {"alpha": arm.alpha, "beta": beta, "normalize": arm.normalize}
    log_reference = _next(reference(), tokens)[0]
    ref_logp = reference().log_prob(tokens, PROMPT)[0]
    policy = SequencePolicy([0] * len(beta), LETTERS + 2, LENGTH - 1, width=WIDTH)
    for weight, start in zip(policy.parameters(), reference().parameters(), strict=True):
        weight.data.copy_(start)
    generator = torch.Generator().manual_seed(100)

    def terms(row: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probability (R, B), label (R, B) and divergence (R,) on rows (R, B) or (B,) of the data."""
        log_policy = _next(policy, tokens[row])
        chosen = tokens[row][..., PROMPT:].expand(len(beta), -1, -1).unsqueeze(-1)
        logp = log_policy.gather(-1, chosen).squeeze(-1).sum(-1)
        if arm.divergence == "recorded":
            kl = divergences.sampled_kl(ref_logp[row].expand_as(logp), logp)
        else:
            kl = divergences.categorical_kl(log_reference[row], log_policy).sum(-1).mean(-1)
        return logp, label[row], kl

    def loss(step: int) -> Tensor:
        row = torch.randint(len(tokens), (SEEDS, BATCH), generator=generator).repeat(len(multiples), 1)
        logp, labels, kl = terms(row)
        return objectives.pmpo(logp, labels, kl, **settings)[0].view(-1, SEEDS)

    shown = torch.arange(SHOWN)
    unseen = strings()[-HELD_OUT:][:SHOWN]
    drawn, drawn_label = responses(unseen, 1)
    log_reference_drawn = _next(reference(), drawn)[0]

    def measure() -> dict[str, Tensor]:
        logp, labels, kl = terms(shown)
        value, metrics = objectives.pmpo(logp, labels.expand_as(logp), kl, **settings)
        log_policy = _next(policy, drawn)
        found = {
            "loss": value,
            "reject_logp": metrics["reject_logp"],
            "kl": divergences.categorical_kl(log_reference_drawn, log_policy).sum(-1).mean(-1),
            # The right response is one alone, so its probability is the expected reward, without a sample.
            "reward": policy.log_prob(answered(unseen), PROMPT).exp().mean(-1),
            "held_out_reject_logp": policy.log_prob(drawn[drawn_label < 0], PROMPT).mean(-1),
        }
        return {name: each.view(-1, SEEDS) for name, each in found.items()}

    trajectories = follow(policy.parameters(), loss, measure, updates=updates, rate=RATE)
    return described(trajectories, arm, multiples, bound=bound, reject_mass=torch.full((SEEDS,), reject_mass))


def _next(policy: SequencePolicy, tokens: Tensor) -> Tensor:
    """Return the log-probabilities of every token at every place of the response, (R, n, LENGTH - PROMPT, V)."""
    found: Tensor = policy(tokens[..., :-1])
    return found[..., PROMPT - 1 :, :]


def optimum(arm: Arm, beta: float, seed: int) -> tuple[float, float]:
    """Return the relative reward and the divergence of a policy that tells right from wrong and nothing else.

    The reward is 0 for the reference and 1 for the best; ValueError below the bound.
    """
    del seed  # all share one dataset
    _, label = dataset(arm)
    wrong = float((label < 0).float().mean())
    reference = torch.tensor([1 - wrong, wrong])
    accept, reject = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    best = stability.optimal_policy(reference, accept, reject, alpha=arm.alpha, beta=beta, normalize=arm.normalize)
    return 1 - float(best[1]) / wrong, float(divergences.categorical_kl(reference.log(), best.log()))
