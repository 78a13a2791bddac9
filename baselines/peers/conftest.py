"""One thread, no network, and a table of how far ours and theirs lie apart, printed at the end."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

import pytest
import torch
from torch import Tensor

TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-5}
"""Of values and gradients, relative to the largest of its tensor where that is above 1; by the dtype of their loss."""

_apart: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
"""For each comparison: the largest absolute difference in value and in gradient, and the number of comparisons."""

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def agree() -> Callable[[str, tuple[Tensor, Tensor], tuple[Tensor, Tensor]], None]:
    """Assert that two (loss, gradient) are equal, and keep the largest difference under a name."""

    def compare(name: str, ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> None:
        precision = theirs[0].dtype
        kept = _apart[f"{name}, {str(precision).removeprefix('torch.')}"]
        for i, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            assert mine.shape == other.shape
            assert mine.isfinite().all()
            kept[i] = max(kept[i], float((mine - other).abs().max()))
            scale = max(1.0, float(other.abs().max()))
            torch.testing.assert_close(mine / scale, other.double() / scale, rtol=0, atol=TOLERANCE[precision])
        kept[2] += 1

    return compare


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table that README.md keeps."""
    terminalreporter.section("largest absolute difference between ours and theirs")
    rows = [("comparison", "value", "gradient", "inputs")]
    for name, (value, gradient, count) in sorted(_apart.items()):
        rows.append((name, f"{value:.1e}", f"{gradient:.1e}", f"{count:.0f}"))
    for row in rows:
        terminalreporter.write_line("| " + " | ".join(row) + " |")
