"""An executor that runs the cells in reverse order, on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pmpo_offline.benchmark import Local, Outcome, Unit


class Reversed(Local):
    """Runs the last cell first."""

    def run(self, units: Sequence[Unit]) -> Iterator[Outcome]:
        """Run the units, as `Executor.run`."""
        return super().run(units[::-1])
