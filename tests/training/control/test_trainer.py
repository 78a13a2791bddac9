"""One trainer for every objective: stacked runs equal runs alone, an interrupted training ends bit for bit alike."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from pmpo_offline import data, on_progress
from pmpo_offline.data import Dataset, Rows, columns, gathering, parts
from pmpo_offline.declarations import catalog
from pmpo_offline.declarations.catalog import AlgorithmDeclaration
from pmpo_offline.objectives import OBJECTIVES
from pmpo_offline.policies import MixturePolicy
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.training import Setup, Trained, config, train
from pmpo_offline.training.control.batches import Learner, Sampler
from pmpo_offline.training.control.config import FARTHEST
from pmpo_offline.training.run import Run, train_run

QUICK: dict[str, Any] = {"updates": 12, "batch": 32, "hidden": [16], "components": 3}
LEARNERS = ["pmpo", "dpo", "kto", "mpo", "bco", "dro", "conditional"]


@pytest.fixture(scope="session")
def references(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clones that the tests share."""
    return tmp_path_factory.mktemp("references")


def weights(policy: MixturePolicy, run: int | slice = slice(None)) -> torch.Tensor:
    """All parameters of some runs, side by side."""
    return torch.cat([weight[run].flatten() for weight in policy.parameters()])


def quick(
    dataset: Dataset, name: str, references: Path, seeds: Sequence[int], settings: Sequence[Mapping[str, Any]] = ({},)
) -> Trained:
    return train(dataset, name, seeds=seeds, settings=settings, overrides=QUICK, references=references, device="cpu")


@pytest.mark.parametrize("name", [each.name for each in catalog.algorithms("rgb-stacking")])
def test_every_declared_algorithm_learns(stacking: Dataset, advantage: Dataset, references: Path, name: str) -> None:
    algorithm = catalog.algorithm(name, "rgb-stacking")
    if "advantage" in OBJECTIVES[algorithm.objective].inputs.values():
        stacking = advantage
    trained = quick(stacking, name, references, (0, 1))
    complete = Setup(algorithm, {}, stacking).settled().settings
    assert trained.runs == [(complete, 0), (complete, 1)]
    assert trained.bounds == [Setup(algorithm, complete, stacking).bound]
    assert trained.policy.runs == 2
    assert not trained.policy.training
    assert torch.isfinite(weights(trained.policy)).all()
    assert not weights(trained.policy, 0).equal(weights(trained.policy, 1))
    if name != "bc":  # the clone itself comes out of the references' folder, where no metrics are kept
        assert torch.isfinite(trained.metrics["loss"]).all()
        assert trained.metrics["loss"].shape == (2,)
        clone = quick(stacking, "bc", references, (0, 1))
        assert not weights(trained.policy).equal(weights(clone.policy))


def test_filtered_clones_are_one_where_all_is_labelled(advantage: Dataset, references: Path) -> None:
    everything = advantage.relabelled(imbalance="collected")
    assert not everything.metadata.counts.unlabelled
    accepted, unrejected = (quick(everything, name, references, (0, 1)) for name in ("bc-accepted", "bc-unrejected"))
    assert weights(accepted.policy).equal(weights(unrejected.policy))


@pytest.mark.parametrize("divergence", ["forward", "reverse", "alpha", "renyi"])
def test_pmpo_may_keep_to_a_reference_policy(stacking: Dataset, references: Path, divergence: str) -> None:
    settings: list[dict[str, Any]] = [
        {"divergence": divergence, "beta": 5.0, "order": order, "floor": 1e-9} for order in (0.3, 0.7)
    ]
    trained = quick(stacking, "pmpo", references, (0, 1), settings)
    assert trained.metrics["kl"].shape == (4,)
    assert torch.isfinite(trained.metrics["loss"]).all()
    alone = quick(stacking, "pmpo", references, (1,), settings[1:])
    torch.testing.assert_close(weights(trained.policy, 3), weights(alone.policy), atol=1e-5, rtol=1e-4)
    ordered = divergence in ("alpha", "renyi")
    assert weights(trained.policy, 0).equal(weights(trained.policy, 2)) != ordered, "order is theirs alone"


def test_a_refreshed_reference_follows_the_policy(stacking: Dataset, references: Path) -> None:
    def kl(refresh: float) -> float:
        overrides = {**QUICK, "refresh": refresh, "updates": 40, "components": 1}  # a closed form, no noise
        trained = train(stacking, "kto", overrides=overrides, references=references, device="cpu")
        return float(trained.metrics["kl"])

    assert 0 <= kl(0.5) < kl(0.0)
    with pytest.raises(UserError, match="refresh moves a reference policy and there is none"):
        train(stacking, "pmpo", overrides={**QUICK, "refresh": 0.1}, device="cpu")


@pytest.mark.parametrize("name", LEARNERS)
def test_stacked_seeds_equal_seeds_alone(stacking: Dataset, references: Path, name: str) -> None:
    together = quick(stacking, name, references, (3, 5)).policy
    for run, seed in enumerate((3, 5)):
        alone = quick(stacking, name, references, (seed,)).policy
        torch.testing.assert_close(weights(together, run), weights(alone), atol=1e-5, rtol=1e-4)


def test_stacked_settings_equal_settings_alone(stacking: Dataset, references: Path) -> None:
    sweep: list[dict[str, Any]] = [{"alpha": 0.3, "beta": "1.05x"}, {"alpha": 0.9, "beta": 2.0}]
    together = quick(stacking, "pmpo", references, (0, 1), sweep)
    assert [(each["alpha"], seed) for each, seed in together.runs] == [(0.3, 0), (0.3, 1), (0.9, 0), (0.9, 1)]
    assert len(together.bounds) == 2
    for place, settings in enumerate(sweep):
        alone = quick(stacking, "pmpo", references, (0, 1), [settings])
        assert alone.bounds == [together.bounds[place]]
        for run in range(2):
            torch.testing.assert_close(
                weights(together.policy, 2 * place + run), weights(alone.policy, run), atol=1e-5, rtol=1e-4
            )
    assert (weights(together.policy, 0) - weights(together.policy, 2)).abs().max() > 1e-3, "the settings do matter"


def test_shuffled_stack_equals_shuffled_alone(stacking: Dataset) -> None:
    def shuffled(seeds: Sequence[int]) -> MixturePolicy:
        return train(stacking, "pmpo", seeds=seeds, overrides=QUICK, shuffle_labels=True, device="cpu").policy

    together = shuffled((0, 1))
    torch.testing.assert_close(weights(together, 1), weights(shuffled((1,))), atol=1e-5, rtol=1e-4)
    honest = train(stacking, "pmpo", seeds=(0, 1), overrides=QUICK, device="cpu").policy
    assert not weights(together).equal(weights(honest))


class Interrupted(Exception):
    """What Ctrl-C is here."""


class Stop:
    """Progress that interrupts one stage when it is so far, and remembers the reports."""

    def __init__(self, stage: str = "", at: int = 0) -> None:
        self.stage, self.at, self.reports = stage, at, list[tuple[str, int]]()

    def __call__(self, stage: str, done: int, total: int) -> None:
        self.reports.append((stage, done))
        if stage == self.stage and done >= self.at:
            raise Interrupted


LONGER = {**QUICK, "updates": 75, "checkpoint_every": 20}


@pytest.mark.parametrize(
    ("name", "refresh"), [*((name, 0.0) for name in LEARNERS), ("kto", 0.01), ("mpo-trust-region", 0.01)]
)
def test_interrupted_training_ends_bit_for_bit_alike(
    stacking: Dataset, tmp_path: Path, name: str, refresh: float
) -> None:
    def run(folder: str, progress: Stop) -> Trained:
        place = tmp_path / folder
        overrides = {**LONGER, "refresh": refresh}
        with on_progress(progress):
            return train(
                stacking,
                name,
                seeds=(0, 1),
                overrides=overrides,
                checkpoint=place / "progress",
                references=place,
                device="cpu",
            )

    whole = run("whole", Stop())
    with pytest.raises(Interrupted):
        run("cut", Stop(f"train {name}", 50))
    assert (tmp_path / "cut" / "progress").is_file()
    second = Stop()
    resumed = run("cut", second)
    assert second.reports == [(f"train {name}", 50), (f"train {name}", 75)], "from update 40 on, and no second clone"
    assert weights(resumed.policy).equal(weights(whole.policy))
    assert all(resumed.metrics[key].equal(value) for key, value in whole.metrics.items())


def test_interrupted_clone_goes_on_too(stacking: Dataset, tmp_path: Path) -> None:
    def run(folder: str, progress: Stop) -> MixturePolicy:
        with on_progress(progress):
            return train(stacking, "bc", overrides=LONGER, references=tmp_path / folder, device="cpu").policy

    whole = run("whole", Stop())
    with pytest.raises(Interrupted):
        run("cut", Stop("clone the behaviour", 50))
    second = Stop()
    assert weights(run("cut", second)).equal(weights(whole))
    assert second.reports == [("clone the behaviour", 50), ("clone the behaviour", 75)]
    assert {path.suffix for path in (tmp_path / "cut").iterdir()} == {".safetensors", ".csv"}, "no leftovers"


def test_damaged_checkpoint_is_refused(stacking: Dataset, tmp_path: Path) -> None:
    (tmp_path / "progress").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}")
    with pytest.raises(PmpoOfflineError, match=r"progress is damaged .*: delete it and run the same command again"):
        train(stacking, "pmpo", overrides=QUICK, checkpoint=tmp_path / "progress", device="cpu")


def test_labels_share_one_clone(stacking: Dataset, tmp_path: Path) -> None:
    clone = quick(stacking, "bc", tmp_path, (0, 1))
    [file] = tmp_path.glob("*.safetensors")
    stamp = file.stat().st_mtime_ns
    other = stacking.relabelled("return:q0.7", imbalance=0.3, noise=0.1)
    assert weights(quick(other, "bc", tmp_path, (0, 1)).policy).equal(weights(clone.policy))
    for name in ("dpo", "kto"):
        quick(other, name, tmp_path, (0, 1))
    assert [path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")] == [stamp]
    quick(stacking, "bc", tmp_path, (1, 0))  # other runs are other clones
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_learner_from_a_reference_starts_there(stacking: Dataset, references: Path) -> None:
    clone = weights(quick(stacking, "bc", references, (0,)).policy)
    still = train(
        stacking,
        "kto",
        seeds=(0,),
        overrides={**QUICK, "learning_rate": 1e-12, "weight_decay": 0},
        references=None,
        device="cpu",
    )
    unlearned = weights(still.policy)
    # Its clone was trained at that rate too, so it is the fresh policy; a rate that moves does move both.
    assert not unlearned.equal(clone)
    moved = weights(quick(stacking, "kto", references, (0,)).policy)
    assert (moved - clone).norm() < (unlearned - clone).norm()


def mean_logp(policy: MixturePolicy, rows: Rows, mask: torch.Tensor) -> float:
    with torch.no_grad():
        return float(policy(rows.observation[mask].unsqueeze(0)).log_prob(rows.action[mask].unsqueeze(0)).mean())


def test_feedback_moves_the_policy_the_way_it_says(stacking: Dataset) -> None:
    rows = Rows.of(stacking)
    accepted, rejected = rows.label > 0, rows.label < 0
    overrides = {**QUICK, "updates": 150, "hidden": [32], "averaging": 0.9}

    def gap(name: str, settings: dict[str, Any]) -> tuple[float, float]:
        policy = train(stacking, name, settings=[settings], overrides=overrides, device="cpu").policy
        return mean_logp(policy, rows, accepted), mean_logp(policy, rows, rejected)

    clone, only = gap("bc", {}), gap("bc-accepted", {})
    accepts = gap("pmpo", {"alpha": 1.0, "beta": 0.0})
    both = gap("pmpo", {"alpha": 0.5, "beta": "1.05x"})
    # All of them prefer the accepted steps to the rejected ones by more than cloning everything does.
    assert accepts[0] - accepts[1] > clone[0] - clone[1]
    assert only[0] - only[1] > clone[0] - clone[1]
    assert both[0] - both[1] > clone[0] - clone[1]


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


def test_mistakes_are_the_users(stacking: Dataset) -> None:
    with pytest.raises(UserError, match="unknown algorithm 'pmop': did you mean pmpo"):
        train(stacking, "pmop")
    with pytest.raises(UserError, match="training of pmpo: unknown setting 'update': did you mean updates"):
        train(stacking, "pmpo", overrides={"update": 3})
    with pytest.raises(UserError, match="unknown setting of dpo 'betta': did you mean beta"):
        train(stacking, "dpo", settings=[{"betta": 3}])
    rejects = stacking.relabelled(imbalance=0.0)
    for name in ("dpo", "kto", "bc-accepted"):
        with pytest.raises(UserError, match="the labels leave this algorithm nothing to learn from"):
            train(rejects, name, overrides=QUICK, device="cpu")
    with pytest.raises(UserError, match="pmpo learns from labelled rows and test/stacking-v0 has none"):
        train(stacking.relabelled("q_rank"), "pmpo", overrides=QUICK, device="cpu")
    with pytest.raises(UserError, match="the dataset has none"):
        train(replace(stacking, candidates=None), "mpo", overrides=QUICK, device="cpu")


def declared(**changes: Any) -> AlgorithmDeclaration:
    return AlgorithmDeclaration.model_validate(
        {**catalog.algorithm("pmpo", "rgb-stacking").model_dump(), "name": "own", **changes}
    )


def test_algorithm_of_ones_own(stacking: Dataset) -> None:
    trained = train(stacking, declared(settings={"alpha": 0.0, "beta": 3.0}), overrides=QUICK, device="cpu")
    assert trained.runs[0][0]["alpha"] == 0.0
    with pytest.raises(UserError, match="all rows have no logp_chosen, an input of dpo: set `rows` in the algorithm's"):
        train(stacking, declared(objective="dpo", settings={}), overrides=QUICK, device="cpu")


def test_inputs_that_control_cannot_give_are_refused_before_anything_is_trained(
    stacking: Dataset, tmp_path: Path
) -> None:
    lengths = declared(objective="ipo_length_normalized", rows="pairs", start="reference", settings={})
    with pytest.raises(UserError, match="length_rejected, which test/stacking-v0 cannot give: it is for language"):
        train(stacking, lengths, overrides=QUICK, references=tmp_path, device="cpu")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_one_class_is_enough_for_pmpo(stacking: Dataset, share: float) -> None:
    trained = train(stacking.relabelled(imbalance=share), "pmpo", overrides=QUICK, device="cpu")
    assert torch.isfinite(trained.metrics["loss"]).all()
    assert torch.isfinite(weights(trained.policy)).all()


ALONE: dict[str, Any] = {"algorithm": "pmpo", "seeds": (0, 1), "settings": ({},), "shuffle_labels": False}
SHORT = {**QUICK, "updates": 60, "checkpoint_every": 20}


def half_way(stacking: Dataset, path: Path) -> None:
    """Stop a training after its checkpoint at update 40."""
    with pytest.raises(Interrupted), on_progress(Stop("train pmpo", 50)):
        train(stacking, **ALONE, overrides=SHORT, checkpoint=path, device="cpu")


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": "other actions"},
        {"dataset": "other labels"},
        {"seeds": (0, 2)},
        {"seeds": (1, 0)},
        {"seeds": (0,)},
        {"settings": ({"alpha": 0.4},)},
        {"settings": ({"divergence": "forward"},)},
        {"shuffle_labels": True},
        {"overrides": {**SHORT, "batch": 31}},
        {"algorithm": "declared otherwise"},
        {"version": "9.9.9"},
        {"revision": 2},
    ],
    ids=str,
)
def test_a_checkpoint_serves_its_own_training_alone(
    stacking: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    path = tmp_path / "progress"
    half_way(stacking, path)
    asked = {"dataset": stacking, **ALONE, "overrides": SHORT} | change
    if change.get("dataset") == "other labels":
        asked["dataset"] = stacking.relabelled(noise=0.1)
    elif "dataset" in change:
        asked["dataset"] = replace(stacking, table=with_action(stacking.table, 0.5))
    if "algorithm" in change:
        asked["algorithm"] = declared(name="pmpo", description="another declaration")
    if version := asked.pop("version", None):
        monkeypatch.setattr(config, "__version__", version)
    if revision := asked.pop("revision", None):
        monkeypatch.setattr(config, "REVISION", revision)
    with pytest.raises(UserError, match="progress is the checkpoint of another training: name another path, or delete"):
        train(**asked, checkpoint=path, device="cpu")


def with_action(table: pa.Table, first: float) -> pa.Table:
    """Replace the first number of the first action."""
    action = columns.matrix(table, "action").copy()
    action[0, 0] = first
    return table.set_column(table.schema.get_field_index("action"), "action", columns.list_array(action))


def test_a_finished_training_is_not_repeated_and_gives_way_to_another(stacking: Dataset, tmp_path: Path) -> None:
    path, listener = tmp_path / "progress", Stop()
    first = train(stacking, **ALONE, overrides=SHORT, checkpoint=path, device="cpu")
    with on_progress(listener):
        again = train(stacking, **ALONE, overrides=SHORT, checkpoint=path, device="cpu")
    assert not listener.reports
    assert weights(again.policy).equal(weights(first.policy))
    assert all(again.metrics[name].equal(value) for name, value in first.metrics.items())
    other = stacking.relabelled(noise=0.1)
    replaced = train(other, **ALONE, overrides=SHORT, checkpoint=path, device="cpu").policy
    assert weights(replaced).equal(weights(train(other, **ALONE, overrides=SHORT, device="cpu").policy))


def test_clones_of_other_content_or_settings_are_other_clones(stacking: Dataset, tmp_path: Path) -> None:
    quick(stacking, "bc", tmp_path, (0,))
    other = replace(stacking, table=with_action(stacking.table, 0.5))
    clone = quick(other, "bc", tmp_path, (0,)).policy
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    assert weights(clone).equal(weights(train(other, "bc", overrides=QUICK, device="cpu").policy))
    train(stacking, "bc", overrides={**QUICK, "batch": 31}, references=tmp_path, device="cpu")
    assert len(list(tmp_path.glob("*.safetensors"))) == 3


@pytest.mark.parametrize("place", ["references", "checkpoint"])
def test_a_flipped_bit_is_noticed(stacking: Dataset, tmp_path: Path, place: str) -> None:
    if place == "references":
        quick(stacking, "bc", tmp_path, (0,))
        (path,) = tmp_path.glob("*.safetensors")
    else:
        path = tmp_path / "progress"
        half_way(stacking, path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    again = {
        "references": {"algorithm": "kto", "overrides": QUICK, "references": tmp_path},
        "checkpoint": {**ALONE, "overrides": SHORT, "checkpoint": path},
    }[place]
    with pytest.raises(PmpoOfflineError, match=r"damaged \(its checksum is wrong\): delete it"):
        train(stacking, **again, device="cpu")


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


@pytest.mark.parametrize(("old", "new"), [(b'"step":"', b'"stfp":"'), (b'"finished":"False"', b'"finished":"Galse"')])
def test_damaged_facts_of_a_checkpoint_are_noticed(stacking: Dataset, tmp_path: Path, old: bytes, new: bytes) -> None:
    path = tmp_path / "progress"
    half_way(stacking, path)
    path.write_bytes(path.read_bytes().replace(old, new))
    with pytest.raises(PmpoOfflineError, match=r"damaged \(its checksum is wrong\): delete it"):
        train(stacking, **ALONE, overrides=SHORT, checkpoint=path, device="cpu")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": []}, "seeds are empty"),
        ({"settings": []}, "settings are empty"),
        ({"seeds": [0.5]}, "for seeds, not"),
        ({"seeds": [-1]}, "seeds are integers from 0"),
        ({"seeds": [2**70]}, "seeds are integers from 0"),
    ],
)
def test_seeds_and_settings_are_checked(stacking: Dataset, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        train(stacking, "pmpo", **arguments)


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


@pytest.mark.parametrize("name", ["pmpo", "dpo", "dro"])
def test_training_from_mapped_parts_is_bit_for_bit_that_from_packed_memory(
    stacking: Dataset, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = train(stacking, name, seeds=(0, 1), overrides=QUICK, device="cpu")
    monkeypatch.setattr(parts, "PART_BYTES", 100_000)
    data.write(tmp_path / "d", stacking.metadata, stacking.stored)
    monkeypatch.setattr(gathering, "PACKED_BYTES", 0)
    split = data.load_dataset(tmp_path / "d")
    assert split.table.column("action").num_chunks > 3
    mapped = train(split, name, seeds=(0, 1), overrides=QUICK, device="cpu")
    for one, other in zip(packed.policy.parameters(), mapped.policy.parameters(), strict=True):
        assert one.equal(other)
    for metric, value in packed.metrics.items():
        assert value.equal(mapped.metrics[metric])
