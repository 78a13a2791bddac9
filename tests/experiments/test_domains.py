"""The sweeps on other domains: thresholds by state, what is read off a curve, settings in minibatches."""

from __future__ import annotations

import json

import polars as pl
import pytest
import torch

from benchmarks.experiments.arms import Arm
from benchmarks.experiments.domains import report
from benchmarks.experiments.domains.curves import ROWS, Curve
from benchmarks.experiments.labellings import Labelled


def scored(score: dict[float, list[float]]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {"multiple": multiple, "seed": seed, "score": value}
            for multiple, values in score.items()
            for seed, value in enumerate(values)
        ]
    )


def test_gain_is_lost_below_the_best_and_not_where_imitation_dilutes_it():
    runs = scored({0.1: [0, 1], 0.5: [20, 21], 0.8: [60, 61], 1.0: [80, 81], 2.0: [20, 21], 10.0: [20, 21]})
    assert Curve("cheetah", ROWS[0], runs, 0.4).lost() == (0.5, 0.8)
    kept = runs.filter(pl.col("multiple") >= 0.8)
    assert Curve("cheetah", ROWS[0], kept, 0.0).lost() == (None, None)


def test_beta_is_a_multiple_of_the_bound_in_minibatches_and_over_the_labelled_rows():
    label = torch.zeros(1000)
    label[:6], label[6:10] = -1, 1
    labels, arm = Labelled(label), Arm("pmpo")
    one = arm.run("control", labels, 0, {"multiple": 1.0}).settings["beta"]
    assert one == pytest.approx(0.5 * 0.6 / 0.006)
    rare = arm.run("control", labels, 0, {"multiple": 1.0}, 64).settings["beta"]
    assert rare == pytest.approx(one * (1 - 0.99**64))
    over = arm.run("control", labels, 0, {"multiple": 1.0, "over": "labelled"}, 64).settings["beta"]
    assert over == pytest.approx(0.5)


def test_half_of_the_labels_is_compared_within_runs():
    rows = [
        {
            "function": "cheetah",
            "arm": arm,
            "coverage": coverage,
            "seed": seed,
            "score": base + 10 * seed - 4 * (coverage < 1),
        }
        for arm, base in (("bc-accepted", 40), ("bc-unrejected", 10), ("KTO", 60))
        for coverage in (0.5, 1.0)
        for seed in range(3)
    ]
    lines = report.half_table(pl.DataFrame(rows))
    assert lines[-1] == "| cheetah, KTO | -4 (-4 – -4) | +16 (+16 – +16) |"


def test_flips_at_rare_accepts_are_rows_of_their_own():
    plain = {"multiple": 1.05, "normalize": "joint"}
    rows = [
        {"function": "stacking", "arm": arm, "share": share, "flips": flips, "setting": json.dumps(setting)}
        | {"seed": seed, "score": score + seed}
        for arm, share, flips, setting, score in (
            *(("PMPO AR", None, 0.0, plain, 50), ("PMPO AR", None, 0.3, plain, 30)),
            ("PMPO AR", None, 0.3, {**plain, "flip_rate": 0.3}, 45),
            *(("bc-unrejected", 0.1, 0.05, {}, 56), ("PMPO AR", 0.1, 0.05, plain, 40)),
        )
        for seed in (-1, 0, 1)
    ]
    lines = report.flips_table(pl.DataFrame(rows, schema_overrides={"share": pl.Float64}))
    cells = {line.split(" | ")[0].removeprefix("| "): line.split(" | ")[1:] for line in lines[2:]}
    assert [cell.split(" (")[0] for cell in cells["stacking, PMPO, joint, 1.05 × bound"][:5]] == ["50", *"–––", "30"]
    assert cells["stacking, PMPO, joint, 1.05 × bound, de-biased"][5].startswith("+15")
    assert [cell.split(" (")[0] for cell in cells["stacking, 10 % accepted, PMPO AR"][:3]] == ["–", "40", "–"]
    assert cells["stacking, 10 % accepted, bc-unrejected"][1].startswith("56 (")
