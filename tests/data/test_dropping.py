"""A share reached by dropping rows: what remains is what a collection without them would have been."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from helpers.encoded import Store, observed, raw_tables

from pmpo_offline import data
from pmpo_offline.data import columns
from pmpo_offline.runtime.errors import UserError

LENGTHS = [3, 1, 4, 2, 5, 2, 6, 1, 3, 4] * 6


def dropped(
    rule: str = "return", share: float = 0.2, **changes: object
) -> tuple[data.LabelledTables, data.LabelledTables]:
    """The same tables at one share, with labels dropped and with rows dropped."""
    tables = raw_tables(LENGTHS, candidates=4)

    def at(balance: data.Balance) -> data.LabelledTables:
        labelling = data.Labelling(data.LabelRule.parse(rule), share, balance=balance, **changes)  # type: ignore[arg-type]
        return data.label_tables(tables["transitions"], tables["episodes"], labelling, tables["candidates"])

    return at("labels"), at("rows")


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5, 0.8])
def test_what_one_leaves_unlabelled_the_other_leaves_out(share: float) -> None:
    labels, rows = dropped(share=share)
    stay = columns.labels(labels.episodes) != 0  # every return is above or below the median
    assert rows.episodes["seed"].to_pylist() == labels.episodes["seed"].filter(pa.array(stay)).to_pylist()
    assert (columns.labels(rows.episodes) == columns.labels(labels.episodes)[stay]).all()
    for name in ("accepted", "rejected"):
        assert getattr(rows.described["counts"], name) == getattr(labels.described["counts"], name)
    assert rows.described["counts"].unlabelled == 0
    assert rows.described["counts"].rows == sum(np.array(LENGTHS)[stay])
    assert rows.described["imbalance"] == labels.described["imbalance"].model_copy(update={"balance": "rows"})


def test_episodes_vanish_whole_and_rows_stay_aligned() -> None:
    _, done = dropped()
    seeds, episode = columns.vector(done.episodes, "seed"), columns.vector(done.table, "episode")
    origin = (seeds - 1000)[episode]  # every value says which episode and step it was recorded in
    step = columns.vector(done.table, "step")
    assert (columns.matrix(done.table, "observation") == observed(origin, step)).all()
    length = columns.vector(done.episodes, "length")
    assert (length == np.array(LENGTHS)[seeds - 1000]).all()
    assert (columns.vector(done.episodes, "start") == np.cumsum(length) - length).all()
    at = columns.vector(done.candidates, "row")
    assert (
        columns.matrix(done.candidates, "action")[:, 0]
        == np.flatnonzero(np.isin(np.repeat(np.arange(60), LENGTHS), seeds - 1000))[at]
    ).all()


def test_the_reject_mass_is_that_of_what_remains() -> None:
    labels, rows = dropped()
    share = np.average(columns.labels(rows.table) < 0)
    assert rows.described["reject_mass"] == rows.described["labelled_reject_mass"] == pytest.approx(share)
    assert rows.described["reject_share"] == pytest.approx(labels.described["reject_share"])
    assert rows.described["reject_mass"] > labels.described["reject_mass"]


def test_shares_are_nested() -> None:
    few, many = (set(dropped(share=share)[1].episodes["seed"].to_pylist()) for share in (0.1, 0.3))
    assert few < many


def test_units_that_no_share_asked_away_stay() -> None:
    """Only what balancing dropped goes: the dead zone's units stay, unlabelled."""
    _, done = dropped("return:0:0.5")
    assert done.described["counts"].unlabelled == (columns.labels(done.episodes) == 0).sum() > 0


def test_held_out_responses_lose_their_labels_only() -> None:
    n = 400
    table = pa.table(
        {
            "prompt": [f"p{i // 4}" for i in range(n)],
            "completion": [f"c{i}" for i in range(n)],
            "score": pa.array(np.random.default_rng(0).normal(size=n), pa.float32()),
            "label": pa.nulls(n, pa.bool_()),
            "prompt_id": pa.array([i // 4 for i in range(n)], pa.int32()),
            "response_id": pa.array([i % 4 for i in range(n)], pa.int32()),
            "source": ["s"] * n,
            "split": ["test" if i // 4 % 5 == 0 else "train" for i in range(n)],
        },
        data.responses_schema(),
    )
    labelling = data.Labelling(data.LabelRule.parse("reward:0"), 0.1, balance="rows")
    done = data.label_tables(table, None, labelling)
    split = np.array(done.table["split"].to_pylist())
    assert (split == "test").sum() == n // 5
    assert (columns.labels(done.table)[split == "train"] != 0).all()
    assert done.described["counts"].unlabelled == (columns.labels(done.table) == 0).sum() > 0
    assert done.described["imbalance"].achieved == pytest.approx(0.1, abs=0.002)


@pytest.mark.parametrize(
    ("rule", "message"),
    [("advantage", "an episode falls into pieces"), ("q_rank:top_bottom:1", "every state needs all")],
)
def test_labels_whose_rows_cannot_go_alone_are_refused(rule: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        dropped(rule)


def test_rows_are_dropped_for_a_share() -> None:
    with pytest.raises(UserError, match="balance rows: no accepted share"):
        data.Labelling(data.LabelRule.parse("return"), balance="rows")


def test_single_labelled_steps_are_episodes_of_their_own() -> None:
    tables = raw_tables([1] * 50)
    labelling = data.Labelling(data.LabelRule.parse("reward:0"), 0.2, balance="rows")
    done = data.label_tables(tables["transitions"], tables["episodes"], labelling)
    assert done.table.num_rows == done.episodes.num_rows == done.described["counts"].rows < 50
    assert (columns.labels(done.table) != 0).all()


@pytest.mark.parametrize("form", ["arrow", "hdf5"])
def test_in_memory_and_stored_are_the_same_and_other_labels_are_refused(store: Store, form: data.Format) -> None:
    whole = store(LENGTHS, candidates=4)
    view = whole.relabelled(imbalance=0.2, balance="rows")
    path = whole.path.parent / "rows-v0"
    metadata = view.metadata.model_copy(update={"id": "test/rows-v0"})
    data.write(path, metadata, view.tables, form=form)
    assert data.verify("test/rows-v0", path.parent.parent) == []
    stored = data.load_dataset(path)
    assert stored.fingerprint == view.fingerprint != whole.fingerprint
    assert stored.metadata.imbalance == view.metadata.imbalance
    assert stored.metadata.imbalance.drops_rows
    assert "dropped with their rows" in (path / "README.md").read_text()
    assert stored.relabelled(imbalance=0.2).fingerprint == stored.fingerprint
    for change in ({"imbalance": 0.5}, {"imbalance": "collected"}, {"noise": 0.1}, {"balance": "labels"}):
        with pytest.raises(UserError, match="lacks the rows that were dropped"):
            stored.relabelled(**change)
    with pytest.raises(UserError, match="expected 'labels' or 'rows' or None for balance, not 'row'"):
        whole.relabelled(imbalance=0.2, balance="row")  # type: ignore[arg-type]


def test_dropping_labels_leaves_dataset_json_as_it_was(store: Store) -> None:
    assert '"balance"' not in (store(LENGTHS, imbalance=0.2).path / "dataset.json").read_text()
