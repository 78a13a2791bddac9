"""The policies kept from a training: those on the way to medium, the medium one, and the best."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from pmpo_offline.policies.behavior import BehaviorPolicy

RUNGS = 10
"""Policies of a replay."""
EPISODES, CONFIRMING = 16, 100
"""Episodes of an evaluation on the way, and of one that decides."""
_KEPT = 64
"""Policies that are remembered at most, at equal distances that double during the training."""


@dataclass
class BehaviorRecord:
    """The kept policies, with the facts `frames` and, of those that were evaluated, `return`."""

    medium_from: float
    """Return from which on a policy is medium."""
    snapshots: list[BehaviorPolicy] = field(default_factory=list)
    """Up to the medium one, earliest first."""
    medium: BehaviorPolicy | None = None
    """The first that was good enough."""
    best: BehaviorPolicy | None = None
    curve: list[tuple[int, float]] = field(default_factory=list)
    """Frames and return of every evaluation."""
    cpu_seconds: float = 0.0
    """Of the training and its evaluations."""
    stride: int = 1
    """Improvements between two snapshots."""
    improvements: int = 0

    @property
    def kept(self) -> dict[str, BehaviorPolicy]:
        """The medium and the best policy as `medium` and `expert`, without one that there is not yet."""
        named = {"medium": self.medium, "expert": self.best}
        return {name: policy for name, policy in named.items() if policy is not None}

    def improved(self, policy: BehaviorPolicy, frames: int) -> None:
        """Remember the policy after one improvement, or the untrained one."""
        if self.medium is None and self.improvements % self.stride == 0:
            self.snapshots.append(replace(policy, facts={"frames": str(frames)}))
            if len(self.snapshots) > _KEPT:
                self.snapshots, self.stride = self.snapshots[::2], 2 * self.stride
        self.improvements += 1

    def evaluated(self, policy: BehaviorPolicy, frames: int, score: Callable[[BehaviorPolicy, int], float]) -> bool:
        """Score a policy and return whether the kept policies have changed.

        If it seems medium and none was before, those since the last evaluation are searched for the first that is.

        Args:
            policy: as it is now.
            frames: control steps it has learned from.
            score: mean return of a policy over a number of episodes.
        """
        policy, medium, best = replace(policy, facts={"frames": str(frames)}), self.medium, self.best
        returned = score(policy, EPISODES)
        if medium is None and returned >= self.medium_from:
            self.medium = self._first_medium(policy, score)
        if best is None or returned > float(best.facts["return"]):
            self.best = _with(policy, returned)
        self.curve.append((frames, returned))
        return self.medium is not medium or self.best is not best

    def _first_medium(
        self, policy: BehaviorPolicy, score: Callable[[BehaviorPolicy, int], float]
    ) -> BehaviorPolicy | None:
        """Return the first medium policy since the last evaluation, by bisection; None if not even the last one is."""
        frames, last = int(policy.facts["frames"]), self.curve[-1][0] if self.curve else -1
        since = [passed for passed in self.snapshots if last < int(passed.facts["frames"]) < frames] + [policy]
        returned = {}

        def scores(index: int) -> float:
            returned[index] = score(since[index], CONFIRMING)
            return returned[index]

        first = bisect_left(range(len(since)), self.medium_from, key=scores)
        return _with(since[first], returned[first]) if first < len(since) else None

    def ladder(self) -> list[BehaviorPolicy]:
        """Return `RUNGS` policies at equal distances in frames, from the untrained to the medium one.

        Raises:
            ValueError: no policy was medium yet.
        """
        if self.medium is None:
            raise ValueError("there is no medium policy yet, and so no ladder to it")
        last = int(self.medium.facts["frames"])
        before = [policy for policy in self.snapshots if int(policy.facts["frames"]) <= last]
        passed = np.array([int(policy.facts["frames"]) for policy in before])
        wanted = np.linspace(0, last, RUNGS)[:-1]
        return [before[int(np.abs(passed - frames).argmin())] for frames in wanted] + [self.medium]

    def state(self) -> tuple[dict[str, Tensor], str]:
        """Return all of it as tensors and one line of JSON."""
        named = {f"snapshot{i}": policy for i, policy in enumerate(self.snapshots)} | self.kept
        tensors = {
            f"{owner}/{name}": torch.from_numpy(values.copy())
            for owner, policy in named.items()
            for name, values in policy.arrays().items()
        }
        numbers = {name: getattr(self, name) for name in _NUMBERS}
        return tensors, json.dumps({**numbers, "facts": {name: dict(policy.facts) for name, policy in named.items()}})

    @classmethod
    def restored(cls, tensors: Mapping[str, Tensor], line: str) -> BehaviorRecord:
        """Return the record of a `state`."""
        content = json.loads(line)
        policies = {
            owner: BehaviorPolicy.of({name: own.numpy() for name, own in within(tensors, f"{owner}/").items()}, facts)
            for owner, facts in content["facts"].items()
        }
        record = cls(**{name: content[name] for name in _NUMBERS})
        record.curve = [(int(frames), float(returned)) for frames, returned in record.curve]
        record.medium, record.best = policies.pop("medium", None), policies.pop("expert", None)
        record.snapshots = list(policies.values())
        return record


_NUMBERS = ("medium_from", "curve", "cpu_seconds", "stride", "improvements")


def _with(policy: BehaviorPolicy, returned: float) -> BehaviorPolicy:
    return replace(policy, facts={**policy.facts, "return": repr(returned)})


def within(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the part of a checkpoint whose names begin with `prefix`, by what follows it."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
