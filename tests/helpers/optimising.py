"""Minimise a loss to the last digit, so that its minimum can be compared with a closed form."""

import torch
from torch import Tensor


def optimise(loss, *parameters: Tensor) -> None:
    """Move the parameters in place to where `loss()` is least."""
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=300, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)
