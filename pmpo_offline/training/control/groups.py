"""Minibatches of scored candidate actions: groups of one state, and pairs of an accepted and a rejected one."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from pmpo_offline.data import Candidates, Rows
from pmpo_offline.policies import Mixture, MixturePolicy
from pmpo_offline.runtime.errors import UserError


class CandidateBatch:
    """Scored candidate actions: R runs of B states with K candidates each."""

    def __init__(self, rows: Rows, index: Tensor, policy: MixturePolicy) -> None:
        self._rows, self._index, self._policy = rows, index, policy

    @cached_property
    def group_logp(self) -> Tensor:
        """(R, B, K)."""
        found = candidates(self._rows)
        distribution: Mixture = self._policy(self._rows.observation[found.state_row[self._index]])
        return distribution.log_prob(found.action[self._index])

    @property
    def group_score(self) -> Tensor:
        """(R, B, K)."""
        return candidates(self._rows).score[self._index]


class PairBatch:
    """Accepted beside rejected candidates of one state: R runs of P pairs.

    Args:
        pair: (3, R, P): state, accepted and rejected candidate.
    """

    def __init__(self, rows: Rows, pair: Tensor, policy: MixturePolicy, reference: MixturePolicy | None) -> None:
        found = candidates(rows)
        state, chosen, rejected = pair
        self._observation = rows.observation[found.state_row[state]]
        self._actions = torch.stack([found.action[state, chosen], found.action[state, rejected]], dim=2)
        self._policy, self._reference = policy, reference

    @cached_property
    def _logp(self) -> Tensor:
        return self._policy(self._observation).log_prob(self._actions)  # type: ignore[no-any-return]

    @cached_property
    def _ref(self) -> Tensor:
        with torch.no_grad():
            return needed(self._reference)(self._observation).log_prob(self._actions)  # type: ignore[no-any-return]

    @property
    def logp_chosen(self) -> Tensor:
        """(R, P)."""
        return self._logp[..., 0]

    @property
    def logp_rejected(self) -> Tensor:
        """(R, P)."""
        return self._logp[..., 1]

    @property
    def ref_chosen(self) -> Tensor:
        """(R, P)."""
        return self._ref[..., 0]

    @property
    def ref_rejected(self) -> Tensor:
        """(R, P)."""
        return self._ref[..., 1]


def candidates(rows: Rows) -> Candidates:
    """Return the scored candidates; `UserError` where the dataset has none."""
    if rows.candidates is None:
        raise UserError("this algorithm learns from scored candidate actions and the dataset has none")
    return rows.candidates


def needed(reference: MixturePolicy | None) -> MixturePolicy:
    """Return the reference policy; `UserError` where the algorithm was declared without."""
    if reference is None:
        raise UserError('this objective compares with a reference policy: set start = "reference" in its TOML')
    return reference
