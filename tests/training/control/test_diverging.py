"""A β below its bound, losses and weights that are not finite, actions out of all bounds: each is said."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.quick_training import QUICK, weights

from pmpo_offline.data import Dataset, columns
from pmpo_offline.runtime.errors import PmpoOfflineError
from pmpo_offline.training import train
from pmpo_offline.training.control.batches import Learner
from pmpo_offline.training.control.config import FARTHEST
from pmpo_offline.training.control.sampler import Sampler
from pmpo_offline.training.run import Run, train_run


def test_beta_below_its_bound_warns_once_with_the_numbers(stacking: Dataset) -> None:
    with pytest.warns(UserWarning, match="below its bound") as caught:
        trained = train(
            stacking, "pmpo", seeds=(0, 1), settings=[{"beta": 0.01}, {"beta": 5.0}], overrides=QUICK, device="cpu"
        )
    assert len(caught) == 1
    assert trained.bounds[0] is not None
    assert f"pmpo: β = 0.01 < {trained.bounds[0]:.3g}: below its bound" in str(caught[0].message)
    assert caught[0].filename == __file__, "it points at the caller"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(stacking, "pmpo", settings=[{"beta": "1.05x"}], overrides=QUICK, device="cpu")


OVERFLOWS = 1e-30  # the squared target of sppo, 1 / (2 β), is infinite in single precision


def test_a_run_that_diverges_is_marked_and_leaves_the_others_alone(stacking: Dataset) -> None:
    broken = [{"beta": beta} for beta in (0.1, OVERFLOWS)]
    with pytest.warns(UserWarning, match=r"sppo: seed 0, .*beta 1e-30.* of 2 runs diverged"):
        trained = train(stacking, "sppo", settings=broken, overrides=QUICK, device="cpu")
    assert trained.diverged == [False, True]
    alone = train(stacking, "sppo", settings=broken[:1], overrides=QUICK, device="cpu")
    torch.testing.assert_close(weights(trained.policy, 0), weights(alone.policy, 0), atol=1e-5, rtol=1e-4)


def test_a_training_whose_runs_all_diverge_stops(stacking: Dataset, tmp_path: Path) -> None:
    broken = {"settings": [{"beta": OVERFLOWS}], "overrides": {**QUICK, "updates": 60, "checkpoint_every": 5}}
    with pytest.raises(PmpoOfflineError, match=r"sppo diverged: .*seed 0, .*not finite after 25 of 60 updates: lower"):
        train(stacking, "sppo", **broken, checkpoint=tmp_path / "progress", device="cpu")
    run = Run(stacking, "sppo", {"beta": OVERFLOWS, **QUICK})
    with pytest.raises(PmpoOfflineError, match="sppo diverged"):
        train_run(run, tmp_path / "run")
    assert not (tmp_path / "run" / "run.json").exists()


def test_weights_that_are_not_finite_are_noticed_at_the_end(stacking: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(self: Sampler, step: int, size: int, learner: Learner) -> Any:
        batch = draw(self, step, size, learner)
        if step == QUICK["updates"] - 1:  # after its loss was computed, when its gradient is
            batch._distribution.mean.register_hook(lambda gradient: gradient * torch.nan)  # type: ignore[union-attr]
        return batch

    draw = Sampler.batch
    monkeypatch.setattr(Sampler, "batch", spoil)
    with pytest.raises(PmpoOfflineError, match=r"pmpo diverged \(seed 0, .*\): its weights are not finite"):
        train(stacking, "pmpo", overrides=QUICK, device="cpu")


def test_a_run_whose_actions_leave_all_bounds_is_marked_and_said(stacking: Dataset) -> None:
    """Without a divergence rejects push the means away without end; the other run stays among the data."""
    settings = [{"alpha": 0.0, "beta": 0.0}, {"alpha": 0.0, "beta": 2.0}]
    quick = QUICK | {"components": 1, "updates": 150, "learning_rate": 0.02}
    with pytest.warns(UserWarning, match=r"pmpo diverged: 1 of 2 runs left all bounds \(seed 0, .*raise β") as caught:
        trained = train(stacking, "pmpo", settings=settings, overrides=quick, device="cpu")
    assert len([w for w in caught if "left all bounds" in str(w.message)]) == 1
    assert (trained.diverged, trained.strayed) == ([False, False], [True, False])
    reach = trained.metrics["reach"]
    assert reach[0] > FARTHEST > 2 > reach[1]
    observation = columns.matrix(stacking.table, "observation")[:64]
    played = trained.policy(torch.tensor(observation).expand(2, -1, -1)).mode().abs().amax((1, 2))
    assert played[0] > FARTHEST
