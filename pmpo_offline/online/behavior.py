"""Training of behaviour policies: the learners, the loop around any of them, and the policies that are kept.

```
learner ── advance ── advance ── advance ── … ── until `steps`          training.safetensors, to resume from
    └─ at intervals the mean policy plays full episodes that training does not begin with
         first to return random + 0.4 (target - random)   → medium.safetensors
         ten on the way there, equally far apart          → replay.safetensors
         best                                             → expert.safetensors
```
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import mujoco
import numpy as np

from pmpo_offline.data import check_outside
from pmpo_offline.online.behavior_record import CONFIRMING, EPISODES, BehaviorRecord, within
from pmpo_offline.online.cloning import SCRIPTS, Cloning
from pmpo_offline.online.online_control import ALGORITHMS, OnlineControl, one_run
from pmpo_offline.online.ppo import PPO
from pmpo_offline.policies.behavior import BehaviorPolicy
from pmpo_offline.policies.network import one_thread
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import PmpoOfflineError, refusal, unknown
from pmpo_offline.runtime.hashing import random_words
from pmpo_offline.tasks.control import RULES, Rules, play, rules
from pmpo_offline.tasks.simulated import Array
from pmpo_offline.training.checkpoint import Checkpoint
from pmpo_offline.training.config import training_identity

EVALUATIONS = 50
"""Evaluations of a training."""
CHECKPOINT = "training.safetensors"
LAYOUT = 2
"""Of a checkpoint's tensors: raise it when their names or shapes change."""
TARGETS = {
    "dm_control/cartpole-swingup": 860.0,
    "dm_control/cheetah-run": 750.0,
    "dm_control/walker-walk": 930.0,
    "dm_control/finger-spin": 800.0,
    "dm_control/reacher-easy": 970.0,
    "dm_control/hopper-hop": 100.0,
    "mujoco/halfcheetah": 5000.0,
    "mujoco/hopper": 2500.0,
    "mujoco/walker2d": 3000.0,
}
"""The return that an expert should reach, and by which medium is defined."""
MEDIUM = 0.4
"""Share of the way from random to the target that a medium policy has come."""


Learner = PPO | Cloning | OnlineControl
"""What improves a behaviour policy by acting in a task: a pure function of the task, its seed and its settings.

Each has `planned` and `frames`, the control steps of all episodes together after which it is done (schedules end there)
and those so far; its complete `settings` as JSON values; `advance`, which acts for a while and learns from it once; the
`policy` as it is now; and all that changes (weights, moments, episodes, random state) in its `state_dict`, from which a
learner with the same arguments goes on exactly.
"""
LEARNERS: dict[str, Callable[[Rules, int, int | None], Learner]] = {
    "ppo": PPO,
    "clone": Cloning,
    **{algo: partial(one_run, algo) for algo in ALGORITHMS},
}
"""Learners by algorithm, made of rules, a seed and the planned control steps (None: the learner's own)."""


@dataclass(frozen=True)
class BehaviorResult:
    """The result of a training."""

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
) -> BehaviorResult:
    """Train behaviour policies for a task and write `medium`, `replay` and `expert.safetensors`.

    The three are written once a medium policy exists and again whenever a better one is found. A training that was
    interrupted, or stopped after `minutes`, is resumed by the same call.

    Args:
        task: a control task's id, also without its namespace: `cheetah-run` for `dm_control/cheetah-run`.
        algo: name of a learner; default: `clone` where a script solves the task, else `ppo`.
        seed: of all random numbers.
        steps: control steps; default: the learner's own for the task.
        minutes: of the processor, after which training stops even if steps are left.
        output: directory; default: `behaviors/<task>`.
        fresh: start again instead of resuming.

    Raises:
        UserError: an unknown task or learner, or a directory that holds the checkpoint of another training.
        PmpoOfflineError: the directory cannot be written.
    """
    task = task_id(task)
    algo = algo or ("clone" if task in SCRIPTS else "ppo")
    if algo not in LEARNERS:
        raise unknown("learner of behaviours", algo, LEARNERS)
    output = Path("behaviors") / task if output is None else output
    check_outside(output)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PmpoOfflineError(refusal(output, error, "name another --output")) from None
    with one_thread():
        return _Training(task, algo, seed, steps, output, fresh).run(minutes)


@dataclass
class _Training:
    task: str
    algo: str
    seed: int
    steps: int | None
    output: Path
    fresh: bool

    def __post_init__(self) -> None:
        self._began = time.process_time()
        self._rules = rules(self.task)
        self._learner = LEARNERS[self.algo](self._rules, self.seed, self.steps)
        self._random = float(random_returns(self._rules, _seeds("random", self.seed, EPISODES)).mean())
        self._facts = {"task": self.task, "algo": self.algo, "seed": str(self.seed)}
        self._facts["planned"] = str(self._learner.planned)
        medium_from = self._random + MEDIUM * (TARGETS[self.task] - self._random)
        settings = {
            **self._learner.settings,
            "medium": medium_from,
            "evaluations": [EVALUATIONS, EPISODES, CONFIRMING],
            "layout": LAYOUT,
        }
        identity = training_identity("mujoco", **self._facts, settings=settings)
        self._checkpoint = Checkpoint(
            self.output / CHECKPOINT, identity, "name another --output, or start with --fresh"
        )
        saved = None if self.fresh else self._checkpoint.load()
        if saved:
            tensors, facts = saved
            self._learner.load_state_dict(within(tensors, "learner/"))
            self._record = BehaviorRecord.restored(within(tensors, "record/"), facts["record"])
        else:
            self._record = BehaviorRecord(medium_from)
            self._record.improved(self._learner.policy(), 0)
        self._spent_before = self._record.cpu_seconds

    def run(self, minutes: float | None) -> BehaviorResult:
        learner, record = self._learner, self._record
        stage = f"{self.algo} on {self.task}"
        interval = learner.planned / EVALUATIONS
        end = math.inf if minutes is None else self._began + 60 * minutes
        while learner.frames < learner.planned and time.process_time() <= end:
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

    def _evaluate(self) -> None:
        learner, record = self._learner, self._record

        def score(policy: BehaviorPolicy, episodes: int) -> float:
            return float(returns(policy, self._rules, _seeds("choosing", self.seed, episodes)).mean())

        changed = record.evaluated(learner.policy(), learner.frames, score)
        if changed and record.medium is not None:
            self._write({})

    def _save(self) -> None:
        self._record.cpu_seconds = self._spent_before + time.process_time() - self._began
        kept, line = self._record.state()
        parts = {"record": kept, "learner": self._learner.state_dict()}
        tensors = {f"{part}/{name}": tensor for part, own in parts.items() for name, tensor in own.items()}
        self._checkpoint.save(tensors, record=line)

    def _finish(self) -> BehaviorResult:
        """Measure the kept policies on new episodes and write them once more; return the result."""
        seeds, kept = _seeds("confirming", self.seed, CONFIRMING), self._record.kept
        measured = {}
        for number, (name, policy) in enumerate(kept.items()):
            progress.report("measuring medium and expert", number, len(kept))
            measured[name] = returns(policy, self._rules, seeds)
        progress.report("measuring medium and expert", len(kept), len(kept))
        if "medium" in kept:
            self._write(measured)
        return BehaviorResult(
            task=self.task,
            algo=self.algo,
            seed=self.seed,
            steps=self._learner.frames,
            planned=self._learner.planned,
            finished=self._learner.frames >= self._learner.planned,
            random=self._random,
            target=TARGETS[self.task],
            medium=float(measured["medium"].mean()) if "medium" in measured else None,
            expert=float(measured["expert"].mean()) if "expert" in measured else None,
            expert_std=float(measured["expert"].std()) if "expert" in measured else None,
            cpu_seconds=self._spent_before + time.process_time() - self._began,
            path=str(self.output),
        )

    def _write(self, measured: Mapping[str, Array]) -> None:
        record = self._record
        common = {
            **self._facts,
            "steps": str(self._learner.frames),
            "random": repr(self._random),
            "target": repr(TARGETS[self.task]),
            "mujoco": mujoco.__version__,
            "cpu_seconds": f"{record.cpu_seconds:.0f}",
        }
        for name, policy in record.kept.items():
            facts = {**common, **policy.facts}
            if (played := measured.get(name)) is not None:
                facts |= {"return": repr(float(played.mean())), "return_std": repr(float(played.std()))}
                facts["episodes"] = str(len(played))
            replace(policy, facts=facts).save(self.output / f"{name}.safetensors")
        BehaviorPolicy.save_ladder(self.output / "replay.safetensors", record.ladder(), common)


def task_id(name: str) -> str:
    """Return the id of the control task `name`, given with or without its namespace.

    Raises:
        UserError: there is none; with the near misses.
    """
    for known in RULES:
        if name in (known, known.partition("/")[2]):
            return known
    raise unknown("control task", name, RULES if "/" in name else [known.partition("/")[2] for known in RULES])


def returns(policy: BehaviorPolicy, rules: Rules, seeds: list[int]) -> Array:
    """Return the undiscounted return of the mean policy in every episode, one a seed, (m,); reports no progress."""
    with progress.on_progress(None):
        return play(rules, seeds, lambda observation, _: policy.mean(observation)).returns


def random_returns(rules: Rules, seeds: list[int]) -> Array:
    """Return the returns of uniformly random actions, one a seed, (m,); reports no progress."""
    chance, shape = np.random.default_rng(seeds), (len(seeds), rules.action_dim)
    with progress.on_progress(None):
        return play(rules, seeds, lambda *_: chance.uniform(-1, 1, shape)).returns


def _seeds(purpose: str, seed: int, count: int) -> list[int]:
    """Return seeds of beginnings for one purpose: policies are chosen, and measured, where they were not trained."""
    return [int(word >> 32) for word in random_words(count, "behavior", purpose, seed)]
