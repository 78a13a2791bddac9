"""Ray Core tasks of one core, on the cluster of $RAY_ADDRESS or on one that is started on this machine.

What a task had finished when it died is in the store and is not repeated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pmpo_offline.benchmark.executors.executor import Outcome, bundles, run_on_node
from pmpo_offline.benchmark.plan import Plan, Unit
from pmpo_offline.runtime import ray_tasks


class RayTasks:
    """Runs bundles of units as Ray tasks of one core, and one GPU for a language model where the cluster has any."""

    def __init__(self, plan: Plan) -> None:
        ray_tasks.require_ray()
        self.workers = plan.workers

    def run(self, units: Sequence[Unit]) -> Iterator[Outcome]:
        """Run the units as tasks, as `Executor.run`."""
        with ray_tasks.cluster(self.workers) as resources:
            has_gpu = resources.get("GPU", 0) >= 1
            tasks = [(bundle,) for bundle in bundles(units, max(1, int(resources.get("CPU", 1))))]
            ended = ray_tasks.call(run_on_node, tasks, lambda task: int(has_gpu and task[0][0].is_language))
            for (bundle,), outcome, lost in ended:
                yield outcome if lost is None else Outcome(bundle, lost=lost)
