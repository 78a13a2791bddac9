"""Retrace: by hand, and in the cases where everyone knows what it is."""

from __future__ import annotations

import torch

from pmpo_offline.online.replay import retrace


def test_by_hand() -> None:
    reward, value, action_value = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [0.5, 0.25, -9.0]])
    trace = torch.tensor([0.5, 0.8, -9.0])
    last = 3 + 0.9 * 6
    middle = 2 + 0.9 * (5 + 0.8 * (last - 0.25))
    first = 1 + 0.9 * (4 + 0.5 * (middle - 0.5))
    target = retrace(reward, 0.9 * torch.ones(3), value, action_value, trace)
    torch.testing.assert_close(target, torch.tensor([first, middle, last]))
    # The task has ended after the second step: what its state is worth, and all that follows, is nothing.
    ended = retrace(reward, torch.tensor([0.9, 0.0, 0.9]), value, action_value, trace)
    torch.testing.assert_close(ended, torch.tensor([1 + 0.9 * (4 + 0.5 * (2 - 0.5)), 2.0, last]))
    # The episode was cut off there instead: its state keeps its value, what follows belongs to another episode.
    cut = retrace(reward, 0.9 * torch.ones(3), value, action_value, torch.tensor([0.5, 0.0, 0.0]))
    torch.testing.assert_close(cut, torch.tensor([1 + 0.9 * (4 + 0.5 * (2 + 0.9 * 5 - 0.5)), 2 + 0.9 * 5, last]))


def test_without_a_trace_it_is_one_step_and_with_all_of_it_and_values_of_actions_it_is_the_whole_return() -> None:
    generator = torch.Generator().manual_seed(0)
    reward, value = torch.randn(2, 3, 5, 8, generator=generator, dtype=torch.float64)
    one, none = torch.ones(3, 5, 8, dtype=torch.float64), torch.zeros(3, 5, 8, dtype=torch.float64)
    torch.testing.assert_close(retrace(reward, 0.9 * one, value, value, none), reward + 0.9 * value)
    whole = retrace(reward, 0.9 * one, value, value, one)
    for t in range(8):
        following = sum(0.9 ** (k - t) * reward[..., k] for k in range(t, 8)) + 0.9 ** (8 - t) * value[..., -1]
        torch.testing.assert_close(whole[..., t], following)
