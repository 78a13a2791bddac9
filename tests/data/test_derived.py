"""Datasets made of others in memory: which rows they hold, and labels that keep their meaning."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import torch
from helpers.encoded import Store, observed
from helpers.labelled import labelled
from torch.utils.data import DataLoader

from pmpo_offline import data
from pmpo_offline.data import columns
from pmpo_offline.data.derived import HISTORY, combined
from pmpo_offline.runtime.errors import UserError

LENGTHS = [3, 1, 4, 2, 5, 2, 6, 1, 3, 4]


def origin(dataset: data.Dataset) -> np.ndarray:
    """The numbers that the episodes had in the tables of `encoded`."""
    return np.array(dataset.episodes["seed"].to_pylist()) - 1000


def assert_aligned(dataset: data.Dataset) -> None:
    """Every value still says which episode and step it was recorded in."""
    episode, step = (columns.vector(dataset.table, name) for name in ("episode", "step"))
    assert (columns.matrix(dataset.table, "observation") == observed(origin(dataset)[episode], step)).all()
    assert data.problems(dataset.metadata, dataset.tables) == []
    assert list(data.derived_problems(dataset.metadata, dataset.tables)) == []


def responses(prompts: list[str], split: str = "train", id: str = "test/texts-v0") -> data.Dataset:
    n = len(prompts)
    rows = {
        "prompt": prompts,
        "completion": [f"{prompt} {i}" for i, prompt in enumerate(prompts)],
        "score": pa.array(np.arange(n) - n // 2, pa.float32()),
        "label": pa.nulls(n, pa.bool_()),
        "prompt_id": pa.array(range(n), pa.int32()),
        "response_id": pa.array([0] * n, pa.int32()),
        "source": ["s"] * n,
        "split": [split] * n,
    }
    metadata, tables = labelled(pa.table(rows, data.responses_schema()), None, "column", id=id)
    return data.Dataset(metadata, None, tables["responses"])  # type: ignore[arg-type]


@pytest.mark.parametrize("label", ["return", "success", "advantage", "q_rank:top_bottom:1"])
def test_a_filter_keeps_the_episodes_that_match_and_the_meaning_of_labels(store: Store, label: str) -> None:
    whole = store(LENGTHS, label, candidates=4)
    part = whole.filter("behavior = 'expert' and length > 2")
    assert origin(part).tolist() == [0, 2, 4, 6, 8]
    assert_aligned(part)
    rows = np.isin(columns.vector(whole.table, "episode"), [0, 2, 4, 6, 8])
    assert (columns.labels(part.table) == columns.labels(whole.table)[rows]).all()
    assert part.metadata.threshold == whole.metadata.threshold  # the median is that of all episodes
    history = part.metadata.provenance.settings[HISTORY]
    assert history["where"] == "behavior = 'expert' and length > 2"
    assert history["parents"] == [{"id": "test/small-v0", "hash": whole.fingerprint, HISTORY: None}]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("retrun > 3", "column in where .*: did you mean return"),
        ("return >", "unable to parse"),
        ("length", "write a condition"),
        ("sum(length) > 2", "write a condition"),
        ("behavior > 3", "cannot compare string with numeric"),
        ("length > 100", "nothing of the 10 in test/small-v0 matches"),
        ("read_csv('/etc/passwd')", "unsupported function"),
    ],
)
def test_conditions_that_mean_nothing_are_refused_in_one_line(store: Store, where: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        store(LENGTHS).filter(where)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("settings", [{"noise": 0.5, "seed": 1}, {"imbalance": 0.2}])
def test_labels_that_do_not_follow_from_the_scores_are_refused(store: Store, settings: dict[str, float]) -> None:
    flipped = store([2] * 40, **settings)
    with pytest.raises(UserError, match="do not follow from the scores alone"):
        flipped.filter("length > 1")


def test_the_parts_of_a_split_are_disjoint_and_of_the_shares(store: Store) -> None:
    whole = store([2] * 50)
    parts = whole.split({"train": 0.8, "test": 0.1}, seed=3)
    numbers = [set(origin(part)) for part in parts.values()]
    assert [len(part) for part in numbers] == [40, 5]
    assert not numbers[0] & numbers[1]
    for part in parts.values():
        assert_aligned(part)
    again, other = (whole.split({"train": 0.8}, seed=seed)["train"] for seed in (3, 4))
    assert set(origin(again)) == numbers[0] != set(origin(other))
    for shares in ({"a": 0.9, "b": 0.2}, {"a": 0.0}, {"a": float("nan")}, {"a": 0.001}, {}):
        with pytest.raises(UserError, match=r"shares|split a="):
            whole.split(shares)


def test_responses_to_one_prompt_stay_in_one_part() -> None:
    whole = responses([f"p{i % 10}" for i in range(40)])
    parts = whole.split({"a": 0.5, "b": 0.5})
    prompts = [set(part.table["prompt"].to_pylist()) for part in parts.values()]
    assert [len(part) for part in prompts] == [5, 5]
    assert not prompts[0] & prompts[1]


def test_parts_combined_are_the_whole(store: Store) -> None:
    whole = store([1 + i % 5 for i in range(60)], "return", candidates=4)
    parts = whole.split({"a": 0.3, "b": 0.7})
    again = combined(list(parts.values()))
    assert_aligned(again)
    order = np.concatenate([origin(part) for part in parts.values()])
    assert sorted(origin(again)) == list(range(60))
    assert origin(again).tolist() == order.tolist()
    for name in ("counts", "threshold", "reject_share", "reject_mass", "imbalance", "candidates"):
        assert getattr(again.metadata, name) == getattr(whole.metadata, name), name
    row = columns.vector(again.candidates, "row")  # a candidate's action names the row of the whole
    states = columns.matrix(again.table, "observation")[row]
    named = columns.matrix(again.candidates, "action")[:, 0].astype(int)
    assert (states == columns.matrix(whole.table, "observation")[named]).all()


def test_datasets_of_other_meaning_are_not_combined(store: Store) -> None:
    one = store(LENGTHS, "return:0", id="test/one-v0")
    for other, message in (
        (store(LENGTHS, "return:1", id="test/two-v0"), "label rule is return:1, not return:0; relabel them"),
        (store(LENGTHS, "success", id="test/two-v0", overwrite=True), "its score is success, not return"),
        (store(LENGTHS, "return:0", candidates=4, id="test/two-v0", overwrite=True), "candidates is there"),
        (responses(["p"]), "kind is responses, not transitions"),
    ):
        with pytest.raises(UserError, match=message):
            combined([one, other])
    with pytest.raises(UserError, match="two or more"):
        combined([one])
    with pytest.raises(UserError, match="give each dataset once"):
        combined([one, one])


def test_equal_prompts_get_one_id_and_held_out_ones_stay_held_out() -> None:
    one, two = responses(["a", "b"]), responses(["b", "c", "b"])
    table = combined([one, two]).table
    assert table["prompt_id"].to_pylist() == [0, 1, 1, 2, 1]
    assert table["response_id"].to_pylist() == [0, 0, 1, 0, 2]
    with pytest.raises(UserError, match="1 prompts are held out in one dataset"):
        combined([one, responses(["b", "c"], "test")])


def test_episodes_have_the_values_of_their_rows(store: Store) -> None:
    dataset = store(LENGTHS)
    episodes = list(dataset.episodes_iter())
    assert [len(episode) for episode in episodes] == LENGTHS
    for number, episode in enumerate(episodes):
        steps = np.arange(LENGTHS[number] + 1)
        assert episode.id == number
        assert (episode.observations == observed(np.full_like(steps, number), steps)).all()
        assert episode.about["seed"] == 1000 + number
        assert episode.rewards.sum(dtype=np.float64) == pytest.approx(episode.about["return"])
        assert (episode.terminations | episode.truncations).tolist() == [False] * (len(episode) - 1) + [True]
        assert set(episode.labels) == {1 if episode.about["label"] else -1}


def test_a_loader_gives_batches_with_what_followed(store: Store) -> None:
    dataset = store(LENGTHS, "advantage")
    loader = DataLoader(dataset.to_torch(), batch_size=8, shuffle=True, generator=torch.Generator().manual_seed(0))
    rows = 0
    for batch in loader:
        episode, step = batch["episode"].numpy(), batch["step"].numpy()
        assert (batch["observation"].numpy() == observed(episode, step)).all()
        assert (batch["next_observation"].numpy() == observed(episode, step + 1)).all()
        rows += len(episode)
    assert rows == len(dataset)
    assert dataset.to_torch()[-1]["episode"] == len(LENGTHS) - 1
    with pytest.raises(IndexError):
        dataset.to_torch()[len(dataset)]
    texts = next(iter(DataLoader(responses(["a", "b"]).to_torch(), batch_size=2)))
    assert texts["prompt"] == ["a", "b"]
    assert texts["label"].tolist() == [-1, 0]


def test_rows_as_polars(store: Store) -> None:
    dataset = store(LENGTHS)
    frame = dataset.to_polars()
    assert frame.height == len(dataset)
    assert frame.filter(pl.col("label"))["step"].len() == dataset.filter("label").metadata.counts.rows


def saying(dataset: data.Dataset, **settings: bool) -> data.Dataset:
    """The dataset as an import of a source that does, or does not, tell success or rewards."""
    provenance = dataset.metadata.provenance.model_copy(update={"settings": settings})
    metadata = dataset.metadata.model_copy(update={"provenance": provenance})
    return data.Dataset(metadata, dataset.path, dataset.table, dataset.episodes)


def test_what_a_source_does_not_say_stays_unknown(store: Store) -> None:
    told = saying(store(LENGTHS, "advantage", id="test/told-v0"), success=True, rewards=True)
    silent = saying(store(LENGTHS, "advantage", id="test/silent-v0"), success=False, rewards=False)
    for name, use in {"success": "not success", "return": '"return" > 0'}.items():
        with pytest.raises(UserError, match=rf"where .*: the source of test/silent-v0 .*: {name} is unknown"):
            silent.filter(use)
    for label in ("success", "return:q0.5", "return_to_go:q0.5", "reward:q0.5"):
        with pytest.raises(UserError, match=f"label '{label}.*': the source of test/silent-v0 .* is unknown"):
            silent.relabelled(label)
    about = next(iter(silent.episodes_iter())).about
    assert (about["success"], about["return"]) == (None, None)
    assert silent.filter("length > 1").metadata.provenance.settings["success"] is False
    other = saying(store(LENGTHS[::-1], "advantage", id="test/other-v0"), success=True, rewards=True)
    for first, second in ((other, silent), (silent, other)):
        settings = combined([first, second]).metadata.provenance.settings
        assert (settings["success"], settings["rewards"]) == (False, False)
    assert combined([told, other]).metadata.provenance.settings["success"] is True
