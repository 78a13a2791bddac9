"""The bandit of four islands: what its docstring claims, and that one Gaussian fails where a mixture does not."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.experiments.mixture.em import fit_mixture, start_mixture
from pmpo_offline import tasks
from pmpo_offline.build import build_dataset
from pmpo_offline.data import columns
from pmpo_offline.declarations import catalog
from pmpo_offline.policies import Mixture
from pmpo_offline.tasks.bandit import BAD, GMM, GOOD


def test_the_discs_are_disjoint_and_inside_the_square():
    for (x, y, r), (u, v, s) in itertools.combinations(GOOD + BAD, 2):
        assert math.hypot(x - u, y - v) > r + s
    assert all(max(abs(x), abs(y)) + r < 1 for x, y, r in GOOD + BAD)


def test_the_regret_at_the_places_that_the_docstring_names():
    good, bad = (torch.tensor(discs)[:, :2] for discs in (GOOD, BAD))
    torch.testing.assert_close(GMM.regret(good), torch.zeros(4), atol=1e-6, rtol=0)
    torch.testing.assert_close(GMM.regret(bad), torch.full((4,), 2.0))
    assert GMM.regret(torch.tensor([[1.0, 1.0], [-0.3, -0.3], [0.3, 0.9]])).tolist() == [1.0, 1.0, 1.0]
    halfway = torch.tensor([[0.6 + 0.125, 0.6]])  # half a radius away a bump is at three quarters
    torch.testing.assert_close(GMM.regret(halfway), torch.tensor([0.25]))
    assert GMM.regret(torch.full((1, 2), GMM.best)).item() == pytest.approx(0, abs=1e-6)


def test_a_random_agent_has_regret_one():
    line = (torch.arange(400, dtype=torch.float64) + 0.5) / 200 - 1
    square = torch.cartesian_prod(line, line)
    assert GMM.regret(square).mean().item() == pytest.approx(1, abs=1e-4)
    # Exactly the good discs are better than that, and their mean is in the bad disc in the middle.
    accepted = square[GMM.reward(square) > -1]
    centre = torch.tensor(GOOD, dtype=torch.float64)
    inside = ((accepted.unsqueeze(1) - centre[:, :2]).norm(dim=-1) < centre[:, 2]).any(1)
    assert inside.all()
    area = math.pi * sum(radius**2 for _, _, radius in GOOD)
    assert len(accepted) / len(square) == pytest.approx(area / 4, abs=1e-3)
    assert GMM.regret(accepted.mean(0)).item() > 1.5


def test_it_is_a_plane():
    with pytest.raises(ValueError, match="2 dimensions"):
        GMM.regret(torch.zeros(1, 3))
    task = tasks.get("bandit/gmm")
    assert (task.id, task.action_dim) == ("bandit/gmm", 2)
    low, high = task.references(20_000, seed=0, threads=1)
    assert low.returns.mean() == pytest.approx(-1, abs=0.02)
    assert high.returns.mean() == pytest.approx(0, abs=1e-6)


def test_one_gaussian_fails_where_a_mixture_does_not(tmp_path: Path):
    assert catalog.dataset("bandit/gmm-v0").episodes == 10_000
    dataset = build_dataset("bandit/gmm-v0", episodes=4000, home=tmp_path, workers=1)
    action = torch.from_numpy(np.array(columns.matrix(dataset.table, "action"))).double()[None]
    label = torch.from_numpy(np.array(columns.labels(dataset.table)))[None]
    reward = torch.from_numpy(np.array(columns.vector(dataset.table, "reward")))[None]
    assert torch.equal(label > 0, reward > -1)
    assert (label != 0).all()

    def accepted_share(components: int) -> float:
        weight = (label > 0).double()
        start = start_mixture(action, weight, components, [0])
        mixture, _ = fit_mixture(start, action, weight)
        n, generator = 20_000, torch.Generator().manual_seed(0)
        wide = Mixture(
            *(part.expand(1, n, *part.shape[2:]) for part in (mixture.log_weight, mixture.mean, mixture.log_std))
        )
        normal = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        drawn = wide.sample(torch.rand(n, generator=generator, dtype=torch.float64), normal)
        return float((GMM.reward(drawn) > -1).double().mean())

    assert 0.05 < float((label > 0).double().mean()) < 0.2
    assert accepted_share(1) < 0.2
    assert accepted_share(8) > 0.75
