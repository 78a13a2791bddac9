"""A bigram language model that TRL's trainers take for a network: log-probabilities of any spread, in float64."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor, nn


class Bigram(nn.Module):
    """log pi(next | word) from a table of random logits.

    Args:
        words: size of the vocabulary.
        spread: standard deviation of the logits; 30 makes sequences hundreds of nats likelier or unlikelier.
        seed: of the logits.
    """

    def __init__(self, words: int, spread: float, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.table = nn.Parameter(spread * torch.randn(words, words, generator=generator, dtype=torch.float64))

    def forward(self, input_ids: Tensor, labels: Tensor, **_: object) -> SimpleNamespace:
        """Return the per-token quantities that TRL's fused head returns; labels of -100 are not scored."""
        every = self.table.log_softmax(-1)[input_ids[:, :-1]]
        scored = labels[:, 1:] != -100
        likely = every.gather(-1, labels[:, 1:].clamp(min=0).unsqueeze(-1)).squeeze(-1)
        log_probs = torch.where(scored, likely, 0)
        return SimpleNamespace(
            log_probs=log_probs,
            entropy=-(every.exp() * every).sum(-1),
            mean_logits=every.mean(-1),
            is_top1=every.argmax(-1) == labels[:, 1:],
        )
