"""From tables to labelled tables: which score, which unit, what is counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from helpers.encoded import Make, raw_tables

from pmpo_offline import data
from pmpo_offline.data import columns
from pmpo_offline.runtime.errors import UserError


def apply(
    tables: dict[str, pa.Table], rule: str, candidates: pa.Table | None = None, **changes: Any
) -> data.LabelledTables:
    labelling = data.Labelling(data.LabelRule.parse(rule), **changes)
    return data.label_tables(tables["transitions"], tables["episodes"], labelling, candidates)


def test_an_episodes_label_is_that_of_all_its_rows() -> None:
    tables = raw_tables([3, 1, 4])
    success = tables["episodes"]["success"].to_numpy()
    done = apply(tables, "success")
    assert done.episodes["label"].to_pylist() == success.tolist()
    assert done.table["label"].to_pylist() == np.repeat(success, [3, 1, 4]).tolist()
    assert done.table["score"].to_pylist() == np.repeat(success.astype(float), [3, 1, 4]).tolist()
    assert done.described["unit"] == "episode"
    assert done.described["threshold"] == 0.5
    assert done.described["counts"].accepted == success.sum()
    # Units are counted in episodes, the reject mass in rows.
    assert done.described["reject_mass"] == np.array([3, 1, 4])[~success].sum() / 8


def test_a_steps_label_leaves_episodes_without() -> None:
    tables = raw_tables([30, 1, 40])
    score = columns.vector(tables["transitions"], "score")
    done = apply(tables, "advantage")
    assert columns.labels(done.table).tolist() == np.where(np.isnan(score), 0, np.sign(score)).tolist()
    assert done.table["score"].null_count == np.isnan(score).sum() > 0
    assert done.episodes["label"].null_count == done.episodes["score"].null_count == 3
    assert done.described["counts"] == data.Counts(
        rows=71, episodes=3, accepted=(score > 0).sum(), rejected=(score < 0).sum(), unlabelled=np.isnan(score).sum()
    )
    assert done.described["reject_mass"] == (score < 0).sum() / 71
    assert done.described["reject_share"] == (score < 0).sum() / (~np.isnan(score)).sum()


def test_a_return_to_go_does_not_run_into_the_next_episode() -> None:
    tables = raw_tables([2, 1, 3])
    reward = columns.vector(tables["transitions"], "reward").astype(np.float64)
    by_hand = [reward[0] + reward[1], reward[1], reward[2], reward[3:].sum(), reward[4] + reward[5], reward[5]]
    done = apply(tables, "return_to_go:sign")
    np.testing.assert_allclose(columns.vector(done.table, "score"), by_hand, rtol=1e-6)


def test_a_return_is_as_exact_as_its_rewards() -> None:
    tables = raw_tables([3, 1, 1])
    reward = np.array([0.1, 0.1, 0.1, 0.3, 0.31], np.float32)
    tables["transitions"] = columns.replace(tables["transitions"], reward=reward)
    sums = [float(part.astype(np.float64).sum()) for part in (reward[:3], reward[3:4], reward[4:])]
    tables["episodes"] = columns.replace(tables["episodes"], **{"return": np.array(sums)})
    assert sums[0] > 0.3  # in float64, as 0.1 of float32 is above 0.1
    assert apply(tables, "return:0.3").episodes["label"].to_pylist() == [False, False, True]
    assert apply(tables, "return_to_go:0.3").table["label"].to_pylist() == [False, False, False, False, True]


def test_rewards_label_steps() -> None:
    tables = raw_tables([5, 5])
    done = apply(tables, "reward:0.1")
    assert done.table["label"].to_pylist() == (columns.vector(tables["transitions"], "reward") > 0.1).tolist()


def test_noise_comes_before_the_share() -> None:
    tables = raw_tables([1] * 400)
    plain, noisy = apply(tables, "return"), apply(tables, "return", noise=0.3, imbalance=0.2)
    wrong = columns.labels(noisy.table) == -columns.labels(plain.table)
    assert (wrong & (columns.labels(noisy.table) != 0)).sum() > 0
    counts = noisy.described["counts"]
    assert counts.accepted / (counts.accepted + counts.rejected) == pytest.approx(0.2, abs=0.002)
    # P_r is that of the noisy labels before balancing, the share that of after.
    assert noisy.described["reject_mass"] == pytest.approx(0.5, abs=0.08)
    assert noisy.described["reject_share"] == pytest.approx(0.8, abs=0.002)
    assert noisy.described["imbalance"].dropped_rejected == 0
    assert noisy.described["imbalance"].dropped_accepted == counts.unlabelled


def test_candidates_are_ranked_and_balanced_like_rows() -> None:
    tables = raw_tables([50], candidates=4)
    done = apply(tables, "advantage", candidates=tables["candidates"], imbalance=0.25)
    score = columns.vector(tables["candidates"], "score").reshape(-1, 4)
    signs = columns.labels(done.candidates).reshape(-1, 4)
    best = np.argsort(np.argsort(-score, axis=1), axis=1) < 2
    assert (best[signs > 0]).all()
    assert (~best[signs < 0]).all()
    summary = done.described["candidates"]
    assert (summary.states, summary.per_state, summary.rejected, summary.accepted) == (25, 4, 50, 17)
    assert (summary.reject_mass, summary.reject_share) == (0.5, 50 / 67)
    assert summary.labelled_reject_mass == summary.rejected / (summary.states * summary.per_state)
    assert summary.imbalance.achieved == 17 / 67
    assert done.described["imbalance"].achieved == pytest.approx(0.25, abs=0.02)


def test_q_rank_labels_candidates_only() -> None:
    tables = raw_tables([20], candidates=4)
    done = apply(tables, "q_rank:top_bottom:1", candidates=tables["candidates"])
    assert (done.described["kind"], done.described["unit"]) == ("candidates", "response")
    assert done.table["label"].null_count == 20
    assert done.described["counts"] == data.Counts(rows=20, episodes=1, accepted=10, rejected=10, unlabelled=20)
    assert done.described["reject_mass"] == 0.25
    with pytest.raises(UserError, match=r"declare \[candidates\] in the recipe"):
        apply(tables, "q_rank")


def test_candidates_that_are_no_groups_are_refused(make: Make) -> None:
    tables = raw_tables([20], candidates=4)
    for broken in (tables["candidates"].slice(0, 39), tables["candidates"].take(list(range(39, -1, -1)))):
        with pytest.raises(UserError, match="candidates"):
            apply(tables, "advantage", candidates=broken)


def test_responses_are_labelled_by_their_stored_score() -> None:
    table = pa.table(
        {
            "prompt": ["a", "a", "b"],
            "completion": ["x", "y", "é"],
            "score": pa.array([0.5, -1.0, None], pa.float32()),
            "label": pa.nulls(3, pa.bool_()),
            "prompt_id": pa.array([0, 0, 1], pa.int32()),
            "response_id": pa.array([0, 1, 0], pa.int32()),
            "source": ["s"] * 3,
            "split": ["train"] * 3,
        },
        data.responses_schema(),
    )
    done = data.label_tables(table, None, data.Labelling(data.LabelRule.parse("reward")))
    assert done.described["unit"] == "response"
    assert done.table["label"].to_pylist() == [True, False, None]
    with pytest.raises(UserError, match="responses are scored by"):
        data.label_tables(table, None, data.Labelling(data.LabelRule.parse("return")))


def test_nothing_labelled_divides_by_nothing() -> None:
    tables = raw_tables([3, 3])
    done = apply(tables, "return:0:1e9")
    assert done.described["imbalance"].achieved is None
    assert (done.described["reject_mass"], done.described["reject_share"], done.described["counts"].unlabelled) == (
        0.0,
        0.0,
        2,
    )
    unscored = tables["transitions"].set_column(7, "score", pa.nulls(6, pa.float32()))
    assert apply(tables | {"transitions": unscored}, "advantage:q0.5").described["threshold"] is None


def responses(scores: list[float | None]) -> pa.Table:
    n = len(scores)
    columns = {"prompt": ["a"] * n, "completion": [str(i) for i in range(n)], "score": scores, "label": [None] * n}
    ids = {"prompt_id": [0] * n, "response_id": list(range(n)), "source": ["s"] * n, "split": ["train"] * n}
    return pa.table(columns | ids, data.responses_schema())


@pytest.mark.parametrize(
    ("rule", "scores", "notes"),
    [
        ("column:q0.5", [1, 1, 1], ["nothing is accepted, every score is 1: choose another threshold"]),
        ("column:sign", [-1, -1], ["nothing is accepted, every score is -1: choose another threshold or score unless"]),
        ("column", [1, 2, None], ["nothing is rejected, the scores lie between 1 and 2: choose another threshold"]),
        ("column:sign", [0, 0], ["nothing is accepted or rejected, every score is 0: choose another"]),
        ("column:q0.5", [1, 2, 2, 3], ["2 scores equal the threshold 2 and are rejected: choose a lower threshold"]),
        ("column:q0.5:0.1", [1, 2, 2, 3], []),  # in the dead zone
        ("column:q0.5", [1, 2, 3, None], []),
        ("column:q0.5", [None, None], []),
    ],
)
def test_empty_classes_and_ties_are_noted(rule: str, scores: list[float | None], notes: list[str]) -> None:
    parsed = data.LabelRule.parse(rule)
    found = data.label_tables(responses(scores), None, data.Labelling(parsed)).notes
    assert all(note.startswith(f"label '{parsed}': {expected}") for note, expected in zip(found, notes, strict=True))


def test_candidates_that_cannot_be_ranked_are_noted() -> None:
    tables = raw_tables([20], candidates=4)
    equal = columns.replace(tables["candidates"], score=np.zeros(len(tables["candidates"]), np.float32))
    note = "no candidate is labelled: nowhere do the best 2 scores of a state exceed the worst 2"
    assert apply(tables, "advantage", candidates=equal).notes == [note]
