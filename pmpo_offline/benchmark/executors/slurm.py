"""Slurm jobs by submitit, or processes of this machine where there is no Slurm.

Partition, account, memory, time and GPUs are what sbatch reads from the environment: SBATCH_PARTITION, SBATCH_ACCOUNT,
SBATCH_MEM_PER_CPU, SBATCH_TIMELIMIT, SBATCH_GPUS. The folder of results must be shared.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pmpo_offline.benchmark.executors.executor import Outcome, bundles, run_on_node
from pmpo_offline.benchmark.plan import Plan, Unit
from pmpo_offline.runtime.errors import UserError, reason_of

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

AT_ONCE = 256
"""Jobs of an array at once by default."""
HOURS = 4
"""Time limit of a job, unless SBATCH_TIMELIMIT is set."""


class OnNode:
    """What a job runs; one that is preempted or out of time is submitted again and continues from the store."""

    def __call__(self, units: Sequence[Unit]) -> Outcome:
        """Run the units."""
        return run_on_node(units)

    def checkpoint(self, units: Sequence[Unit]) -> DelayedSubmission:
        """Return what submitit submits in place of this job."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, units)


class Submitit:
    """Runs bundles of units as a job array of one core each."""

    def __init__(self, plan: Plan) -> None:
        try:
            import submitit  # noqa: F401
        except ImportError:
            raise UserError("--executor submitit needs submitit: pip install 'pmpo-offline[slurm]'") from None
        self.workers = plan.workers

    def run(self, units: Sequence[Unit]) -> Iterator[Outcome]:
        """Run the units as jobs, as `Executor.run`; logs are in `slurm/` of the results, and kept if a job is lost."""
        import submitit
        from submitit.core.utils import FailedJobError, UncompletedJobError

        folder = units[0].output / "slurm"
        executor = submitit.AutoExecutor(folder)
        has_slurm = executor.cluster == "slurm"
        slots = self.workers or (AT_ONCE if has_slurm else os.cpu_count() or 1)
        executor.update_parameters(
            name="pmpo-offline", cpus_per_task=1, timeout_min=60 * HOURS, slurm_array_parallelism=slots
        )
        # Without Slurm all jobs start at once.
        tasks = bundles(units, slots) if has_slurm else [units[i::slots] for i in range(min(slots, len(units)))]
        jobs = executor.map_array(OnNode(), tasks)
        bundle_of = dict(zip(map(id, jobs), tasks, strict=True))
        lost = False
        try:
            for job in submitit.helpers.as_completed(jobs, poll_frequency=10 if has_slurm else 0.5):
                try:
                    yield job.result()
                except (FailedJobError, UncompletedJobError) as error:
                    lost = True
                    yield Outcome(bundle_of[id(job)], lost=reason_of(error))
        finally:
            for job in jobs:
                if not job.done():
                    job.cancel()
        if not lost:
            shutil.rmtree(folder)
