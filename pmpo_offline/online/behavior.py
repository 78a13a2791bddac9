"""Training of behaviour policies: the loop around any learner, and which of its policies are kept.

```
learner ── advance ── advance ── advance ── … ── until `steps`          training.safetensors, to go on from
    └─ now and then the mean policy plays full episodes that training does not begin with
         first to return random + 0.4 (target - random)   → medium.safetensors
         ten on the way there, equally far apart          → replay.safetensors
         best                                             → expert.safetensors
```
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pmpo_offline.online.behavior_record import CONFIRMING, EPISODES, Record
from pmpo_offline.online.behavior_targets import MEDIUM, TARGETS, task_id
from pmpo_offline.online.cloning import SCRIPTS
from pmpo_offline.online.registry import LEARNERS
from pmpo_offline.policies.behavior import BehaviorPolicy
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import PmpoOfflineError, unknown
from pmpo_offline.runtime.random_words import random_words
from pmpo_offline.tasks.control import Rules, play, rules
from pmpo_offline.training.checkpoint import Checkpoint, training_identity

Array = NDArray[np.float64]

EVALUATIONS = 50
"""How often a training is evaluated."""
CHECKPOINT = "training.safetensors"


@dataclass(frozen=True)
class Outcome:
    """What a training has come to."""

    task: str
    algo: str
    seed: int
    steps: int
    planned: int
    finished: bool
    """Whether the planned steps were taken."""
    random: float
    """Return of uniformly random actions."""
    target: float
    medium: float | None
    """Return of the medium policy; None if none was good enough yet."""
    expert: float | None
    """Return of the best policy; None before the first evaluation."""
    expert_std: float | None
    """Deviation between its episodes."""
    cpu_seconds: float
    path: str
    """The directory."""


def train_behavior(
    task: str,
    algo: str | None = None,
    *,
    seed: int = 0,
    steps: int | None = None,
    minutes: float | None = None,
    output: Path | None = None,
    fresh: bool = False,
) -> Outcome:
    """Train behaviour policies for a task and write `medium`, `replay` and `expert.safetensors`.

    The three are written once a medium policy exists and again whenever a better one is found. A training that was
    interrupted, or stopped after `minutes`, goes on where it was when it is asked for again.

    Args:
        task: a control task's id; `cheetah-run` will do for `dm_control/cheetah-run`.
        algo: name of a learner; default: `clone` where a script solves the task, else `ppo`.
        seed: of all chance.
        steps: control steps; default: as many as the learner plans for the task.
        minutes: of the processor, after which training stops even if steps are left.
        output: directory; default: `behaviors/<task>`.
        fresh: begin anew, whatever stands there.

    Raises:
        UserError: an unknown task or learner, or a directory that holds another training.
        PmpoOfflineError: the directory cannot be written.
    """
    task = task_id(task)
    algo = algo or ("clone" if task in SCRIPTS else "ppo")
    if algo not in LEARNERS:
        raise unknown("learner of behaviours", algo, LEARNERS)
    output = Path("behaviors") / task if output is None else output
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PmpoOfflineError(f"cannot write into {output}: {error.strerror}") from None
    with _one_thread():
        return _Training(task, algo, seed, steps, output, fresh).run(minutes)


class _Training:
    def __init__(self, task: str, algo: str, seed: int, steps: int | None, output: Path, fresh: bool) -> None:
        self._began = time.process_time()
        self._rules, self._output = rules(task), output
        self._learner = LEARNERS[algo](self._rules, seed, steps)
        self._seed, self._random = seed, float(random_returns(self._rules, _seeds("random", seed, EPISODES)).mean())
        self._facts = {"task": task, "algo": algo, "seed": str(seed), "planned": str(self._learner.planned)}
        remedy = "name another --output, or start with --fresh"
        self._checkpoint = Checkpoint(output / CHECKPOINT, training_identity("mujoco", **self._facts), remedy)
        saved = None if fresh else self._checkpoint.load()
        if saved:
            self._record = self._restored(*saved)
        else:
            self._record = Record(self._random + MEDIUM * (TARGETS[task] - self._random))
            self._record.improved(self._learner.policy(), 0)
        self._spent_before = self._record.cpu_seconds

    def run(self, minutes: float | None) -> Outcome:
        learner, record = self._learner, self._record
        stage = f"{self._facts['algo']} on {self._facts['task']}"
        interval = learner.planned / EVALUATIONS
        while learner.frames < learner.planned and not self._late(minutes):
            before = learner.frames
            learner.advance()
            record.improved(learner.policy(), learner.frames)
            if learner.frames // interval > before // interval or learner.frames >= learner.planned:
                self._evaluate()
                self._save()
            best = float(record.best.facts["return"]) if record.best else self._random
            progress.report(f"{stage}, best {best:.0f}", min(learner.frames, learner.planned), learner.planned)
        self._save()
        return self._finish()

    def _late(self, minutes: float | None) -> bool:
        return minutes is not None and time.process_time() - self._began > 60 * minutes

    def _evaluate(self) -> None:
        learner, record = self._learner, self._record

        def score(policy: BehaviorPolicy, episodes: int) -> float:
            return float(returns(policy, self._rules, _seeds("choosing", self._seed, episodes)).mean())

        changed = record.evaluated(learner.policy(), learner.frames, score)
        if changed and record.medium is not None:
            self._write({})

    def _save(self) -> None:
        self._record.cpu_seconds = self._spent_before + time.process_time() - self._began
        tensors, line = self._record.state()
        tensors |= {f"learner/{name}": tensor for name, tensor in self._learner.state().items()}
        self._checkpoint.save(tensors, record=line)

    def _restored(self, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> Record:
        prefix = "learner/"
        self._learner.restore({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
        return Record.restored({n: t for n, t in tensors.items() if not n.startswith(prefix)}, facts["record"])

    def _finish(self) -> Outcome:
        """Measure the kept policies on new episodes, write them once more and say what came out."""
        record = self._record
        seeds = _seeds("confirming", self._seed, CONFIRMING)
        kept = {"medium": record.medium, "expert": record.best}
        measured = {}
        for number, (name, policy) in enumerate(kept.items()):
            progress.report("measuring medium and expert", number, len(kept))
            if policy is not None:
                measured[name] = returns(policy, self._rules, seeds)
        progress.report("measuring medium and expert", len(kept), len(kept))
        if record.medium is not None:
            self._write(measured)
        return Outcome(
            task=self._facts["task"],
            algo=self._facts["algo"],
            seed=self._seed,
            steps=self._learner.frames,
            planned=self._learner.planned,
            finished=self._learner.frames >= self._learner.planned,
            random=self._random,
            target=TARGETS[self._facts["task"]],
            medium=float(measured["medium"].mean()) if "medium" in measured else None,
            expert=float(measured["expert"].mean()) if "expert" in measured else None,
            expert_std=float(measured["expert"].std()) if "expert" in measured else None,
            cpu_seconds=self._spent_before + time.process_time() - self._began,
            path=str(self._output),
        )

    def _write(self, measured: Mapping[str, Array]) -> None:
        record = self._record
        common = {
            **self._facts,
            "steps": str(self._learner.frames),
            "random": repr(self._random),
            "target": repr(TARGETS[self._facts["task"]]),
            "mujoco": mujoco.__version__,
            "cpu_seconds": f"{record.cpu_seconds:.0f}",
        }
        for name, policy in (("medium", record.medium), ("expert", record.best)):
            if policy is None:
                continue
            facts = {**common, **policy.facts}
            if name in measured:
                played = measured[name]
                facts |= {"return": repr(float(played.mean())), "return_std": repr(float(played.std()))}
                facts["episodes"] = str(len(played))
            replace(policy, facts=facts).save(self._output / f"{name}.safetensors")
        BehaviorPolicy.save_ladder(self._output / "replay.safetensors", record.ladder(), common)


def returns(policy: BehaviorPolicy, rules: Rules, seeds: list[int]) -> Array:
    """Return the undiscounted return of the mean policy in every episode, one a seed, (m,)."""
    return play(rules, seeds, lambda observation, _: policy.mean(observation)).returns


def random_returns(rules: Rules, seeds: list[int]) -> Array:
    """Return the returns of uniformly random actions, one a seed, (m,)."""
    chance, shape = np.random.default_rng(seeds), (len(seeds), rules.action_dim)
    return play(rules, seeds, lambda *_: chance.uniform(-1, 1, shape)).returns


def _seeds(purpose: str, seed: int, count: int) -> list[int]:
    """Return seeds of beginnings for one purpose: policies are chosen, and measured, where they were not trained."""
    return [int(word >> 32) for word in random_words(count, "behavior", purpose, seed)]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Such small matrices take longer on several threads, and other numbers come out."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
