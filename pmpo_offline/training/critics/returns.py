"""Returns-to-go of recorded episodes: the rewards alone, or mixed with what critics say of the states on the way.

```
one step   r₀ + γ V(s₁)                                  trace = 0: little noise, and all of the critic's error
           r₀ + γ r₁ + γ² V(s₂)
           ⋮                                             mixed by (1 - λ) λᵏ
whole      r₀ + γ r₁ + γ² r₂ + … + γᵀ⁺¹ V(s_T+1), if cut   trace = 1: all noise of the future, and no error
```
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.signal import lfilter
from torch import Tensor

from pmpo_offline.data import Rows


def returns_to_go(rows: Rows, discount: float, bootstrap: Tensor, trace: float = 1.0) -> Tensor:
    """λ-returns G_t = r_t + γ ((1 - λ) V(s_t+1) + λ G_t+1) with λ = `trace`; float32 of the shape of `bootstrap`.

    Sutton and Barto, *Reinforcement Learning*, 2nd edition, equation 12.2 in its recursive form. G less V(s_t) is the
    generalised advantage of Schulman et al., arXiv 1506.02438, equation 16. The last step of a terminated episode
    returns its reward, that of a truncated one r_t + γ V(s_t+1).

    Args:
        rows: N steps.
        discount: γ in [0, 1).
        bootstrap: V(s_t+1) of each step's next state by one critic or several, (…, N).
        trace: λ in [0, 1].
    """
    following = bootstrap.double().numpy()
    reward = rows.reward.double().numpy()
    episode = rows.episode.numpy()
    last = np.append(episode[1:] != episode[:-1], True)
    tail = np.where(rows.terminated.numpy(), 0.0, following)
    gained = reward + discount * np.where(last, tail, (1 - trace) * following)
    result = np.empty_like(gained)
    ends = np.flatnonzero(last) + 1
    for start, end in zip(np.append(0, ends[:-1]), ends, strict=True):
        # y_t = x_t + γλ y_t+1 is a recursive filter that runs backwards in time.
        backwards = gained[..., start:end][..., ::-1]
        result[..., start:end] = lfilter([1.0], [1.0, -discount * trace], backwards)[..., ::-1]
    return torch.from_numpy(result).float()
