"""The names of objectives' inputs: what a batch has to provide, and along which dimension its rows lie.

`(*runs, B)` unless said otherwise: B rows, P pairs, K candidates a state.

- `logp`, `ref_logp`: log-probability of each row's outcome under the policy and under the reference, which
  gets no gradient
- `label`: +1 accept, -1 reject, 0 unlabelled
- `conditional_logp`: log-probability of each row's outcome under a policy that is given the row's label, if it has one
- `accept_rate`: the share of accepts among the labelled rows of each row's context, in [0, 1]
- `state_value`: what a learned value makes of each row's context, detached
- `own_logp`, `own_ref_logp`: `(*runs, B, K)`, of K outcomes that the policy itself has drawn in each row's context
- `advantage`: how much better the row's outcome was than the policy's average one, in the reward's units
- `divergence`: `(*runs,)`, how far the policy is from its reference, as the caller's settings say
- `policy_value`: what a critic makes of the policy's own action, with its gradient; `distance`: the mean squared
  difference of that action from the recorded one
- `policy_kl`: `(*runs,)`, KL(pi || pi_ref), detached and at least 0
- `group_logp`, `group_score`: `(*runs, B, K)`, of the candidates of each state
- `logp_chosen`, `logp_rejected`, `ref_chosen`, `ref_rejected`: `(*runs, P)`, of each pair's two outcomes
- `length_chosen`, `length_rejected`: `(*runs, P)`, how many tokens or steps each pair's two outcomes have, from 1
- `reward_shift`: `(*runs,)`, between the rewards of both classes, detached: of these rows (`bco_shift`), or a running
  mean (`Objective.running`)
"""

from __future__ import annotations

_PER_RUN = {"divergence", "policy_kl", "reward_shift"}
_PER_CANDIDATE = {"group_logp", "group_score", "own_logp", "own_ref_logp"}


def row_dimension(name: str) -> int | None:
    """Return the dimension of an input's rows, counted from the end; None for inputs with one value a run."""
    if name in _PER_RUN:
        return None
    return -2 if name in _PER_CANDIDATE else -1
