"""A small decoder-only transformer with a leading run dimension: language models for experiments, by the hundred."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from pmpo_offline.policies.network import StackedLinear


class SequencePolicy(nn.Module):
    """R transformers over sequences of tokens, pre-norm, with learned positions and causal attention.

    The layer norms have no weights of their own: a linear map follows each and can hold them.

    Args:
        seeds: one initialisation seed a run; R is their number.
        vocabulary: V, the number of tokens.
        length: the longest sequence.
        width: D, a multiple of `heads`.
        layers: number of blocks.
        heads: of the attention.

    Raises:
        ValueError: a width that the heads do not divide.
    """

    def __init__(
        self, seeds: Sequence[int], vocabulary: int, length: int, *, width: int = 64, layers: int = 2, heads: int = 4
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of {heads} heads")
        self.vocabulary, self.length = vocabulary, length
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]

        def table(rows: int) -> nn.Parameter:
            return nn.Parameter(torch.stack([torch.randn(rows, width, generator=g) * 0.1 for g in generators]))

        self.token, self.position = table(vocabulary), table(length)
        self.blocks = nn.ModuleList(_Block(generators, width, heads) for _ in range(layers))
        self.head = StackedLinear(generators, width, vocabulary, gain=0.1)

    @property
    def runs(self) -> int:
        """R."""
        return len(self.token)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the log-probabilities of each next token: (R, B, T) or, shared by all runs, (B, T) -> (R, B, T, V).

        Those at place t depend on the tokens up to t alone and are about the token at t + 1.

        Raises:
            ValueError: sequences longer than `length`.
        """
        places = tokens.shape[-1]
        if places > self.length:
            raise ValueError(f"sequences of {places} tokens, but there are positions for {self.length}")
        tokens = tokens.expand(self.runs, *tokens.shape[-2:])
        # One table of all runs' embeddings: the gradient of an ordinary lookup is far quicker than that of indexing.
        first = torch.arange(self.runs, device=tokens.device).view(-1, 1, 1) * self.vocabulary
        x = functional.embedding(tokens + first, self.token.flatten(0, 1)) + self.position[:, None, :places]
        for block in self.blocks:
            x = block(x)
        return torch.log_softmax(_each(self.head, _normed(x)), dim=-1)

    def log_prob(self, tokens: Tensor, prompt: int) -> Tensor:
        """Log-probability of all tokens after the first `prompt`, nats: (R, B, T) or (B, T) -> (R, B)."""
        following = tokens[..., prompt:].expand(self.runs, -1, -1).unsqueeze(-1)
        log_probs: Tensor = self(tokens[..., :-1])
        return log_probs[..., prompt - 1 :, :].gather(-1, following).squeeze(-1).sum(-1)

    @torch.no_grad()
    def sample(self, prompt: Tensor, uniform: Tensor) -> Tensor:
        """Continue prompts (R, B, P) or (B, P) by as many tokens as `uniform` (B, M) has numbers in [0, 1).

        Returns (R, B, P + M). All runs share the numbers: a run then answers alike alone and in a stack.
        """
        tokens = prompt.expand(self.runs, *prompt.shape[-2:])
        for number in uniform.unbind(1):
            passed = self(tokens)[:, :, -1].exp().cumsum(-1) < number[:, None]
            chosen = passed.sum(-1, keepdim=True).clamp(max=self.vocabulary - 1)
            tokens = torch.cat([tokens, chosen], dim=-1)
        return tokens


class _Block(nn.Module):
    """Attention and a two-layer perceptron, each added to what came in."""

    def __init__(self, generators: Sequence[torch.Generator], width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attend = StackedLinear(generators, width, 3 * width)
        self.merge = StackedLinear(generators, width, width, gain=0.5)
        self.widen = StackedLinear(generators, width, 2 * width, gain=2**0.5)
        self.narrow = StackedLinear(generators, 2 * width, width, gain=0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Map (R, B, T, D) to the same shape."""
        runs, rows, places, width = x.shape
        heads = _each(self.attend, _normed(x)).reshape(runs * rows, places, 3, self.heads, width // self.heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + _each(self.merge, attended.transpose(1, 2).reshape(runs, rows, places, width))
        return x + _each(self.narrow, torch.relu(_each(self.widen, _normed(x))))


def _each(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a stacked layer at every place: (R, B, T, inputs) -> (R, B, T, outputs)."""
    y: Tensor = layer(x.flatten(1, 2))
    return y.reshape(*x.shape[:3], -1)


def _normed(x: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:])
