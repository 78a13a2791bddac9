"""The page of a dataset in a real browser."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from helpers.aligned import experience
from helpers.encoded import make
from helpers.foreign import as_d4rl, npz
from helpers.labelled import saved

from pmpo_offline import data
from pmpo_offline.benchmark.html.dataset_charts import behaviors, episodes, scores
from pmpo_offline.benchmark.html.dataset_page import MOST_RESPONSES, dataset_page, diagnoses
from pmpo_offline.benchmark.html.steps import FRAMES
from pmpo_offline.build import import_dataset
from pmpo_offline.training.config import algorithm_for
from pmpo_offline.training.doctor import doctor

HOSTILE = "</script><img src=x onerror=alert(1)>"


CHANGED = "before => [...document.querySelectorAll('#episodes .role-mark text')].at(-1).textContent != before"


def stored(folder: Path, *lengths: int) -> data.Dataset:
    """Store and open episodes of these lengths."""
    data.write(folder / "steps", *make(lengths, "return:q0.5"))
    return data.open_dataset(folder / "steps")


@pytest.fixture
def answers(tmp_path: Path) -> data.Dataset:
    count = 3 * MOST_RESPONSES
    table = pa.table(
        {
            "prompt": [f"Say {HOSTILE} {i}" for i in range(count)],
            "completion": [f"<b>{i}</b> {HOSTILE}" for i in range(count)],
            "score": pa.array([float(i % 4) for i in range(count)], pa.float32()),
            "label": pa.nulls(count, pa.bool_()),
            "prompt_id": pa.array(range(count), pa.int32()),
            "response_id": pa.array([0] * count, pa.int32()),
            "source": ["made up"] * count,
            "split": ["train"] * count,
        }
    ).cast(data.responses_schema())
    return saved(tmp_path / "answers", table, None, "reward:1.5", task="language/tiny")


def test_responses_are_filtered_and_stay_text(answers, opened):
    page = opened(dataset_page(answers), width=400)
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    assert page.locator("img").count() == 0
    shown = page.locator(".responses article:not([hidden])")
    assert shown.count() == MOST_RESPONSES
    assert HOSTILE in shown.first.inner_text()
    page.select_option("[data-filter=label]", "rejected")
    assert {text.split()[0] for text in page.locator(".responses article:not([hidden]) b").all_inner_texts()} == {
        "rejected"
    }
    page.fill("[type=search]", "<b>0</b>")
    assert shown.count() == 1
    rows = page.locator("#doctor tbody tr").all_inner_texts()
    assert any("bounded" in row for row in rows)
    assert [row for row in rows if row.split()[1:] == ["ready", *"––––"]] == []
    named = page.locator("#doctor p").last.inner_text().partition(": ")[2].removesuffix(".").split(", ")
    assert sorted([*named, *(row.split()[0] for row in rows)]) == sorted(each.algorithm for each in diagnoses(answers))
    assert "sha256" in page.locator("#files").inner_text()


def test_episodes_can_be_stepped_through(tmp_path, opened):
    dataset = stored(tmp_path, 40, 30, 50)
    page = opened(dataset_page(dataset), color_scheme="dark")
    assert page.locator("section:has(figure)").evaluate_all("all => all.map(each => each.id)") == [
        *("scores", "behaviors", "episodes")
    ]
    slider, value = page.locator("#episodes input[type=range]"), page.locator("#episodes .role-mark text").last
    assert slider.get_attribute("max") == "49"
    before = value.text_content()
    slider.fill("20")
    page.wait_for_function(CHANGED, arg=before)
    assert page.locator("#episodes .role-mark text").count() == 1, "the value at this step alone"
    page.select_option("#episodes select >> nth=1", "action")
    page.wait_for_function("document.querySelector('#episodes .role-legend').textContent.includes('action 0')")


def test_stacking_episodes_are_filmstrips_to_their_end(stacking, opened):
    page = opened(dataset_page(stacking), width=400)
    strip = page.locator("#episodes .filmstrip")
    chosen = page.locator("#episodes select").first
    for name in chosen.locator("option").all_inner_texts()[:2]:
        chosen.select_option(name)
        last = re.search(r"(\d+) steps", name)[1]
        assert strip.locator("figcaption").all_inner_texts()[:: FRAMES - 1] == ["step 0", f"step {last}"]
        assert strip.locator(".figure.red").count() == FRAMES
    assert page.evaluate("document.documentElement.scrollWidth") == 400


@pytest.mark.parametrize(("label", "by_step"), [("return:q0.5", False), ("advantage:sign", True)])
def test_diagnoses_are_those_of_the_hyperparameters_that_train_takes(tmp_path, label, by_step):
    data.write(tmp_path / "steps", *make((4, 3, 5), label))
    dataset = data.open_dataset(tmp_path / "steps")
    assert dataset.metadata.label.by_step == by_step
    shown = {diagnosis.algorithm: diagnosis for diagnosis in diagnoses(dataset)}
    for name in ("pmpo", "kto"):
        assert shown[name] == doctor(dataset, algorithm_for(name, dataset))


def test_charts_count_every_unit(tmp_path):
    dataset = stored(tmp_path, 4, 3, 5)
    histogram, bars = scores(dataset)
    counts = dataset.metadata.counts
    assert sum(each["count"] for each in histogram["datasets"]["values"]) == 3
    assert {each["label"]: each["count"] for each in bars["datasets"]["counts"]} == {
        **{"accepted": counts.accepted, "rejected": counts.rejected}
    }
    returns = behaviors(dataset)[0]["datasets"]["values"]
    assert [each["length"] for each in returns] == [4, 3, 5]
    (steps,) = episodes(dataset)
    rewards = [each for each in steps["datasets"]["values"] if each["series"] == "reward"]
    assert len(rewards) == len(dataset)


def imported(folder: Path, **columns: np.ndarray) -> data.Dataset:
    """Import episodes of a robot, whose rewards are all 0, with these columns of labels."""
    arrays = as_d4rl(experience([4, 3, 5])) | {"rewards": np.zeros(12)} | columns
    return import_dataset(npz(folder / "log.npz", arrays), score=next(iter(columns)), home=folder / "home")


def test_without_rewards_the_page_opens_on_what_the_labels_came_from(tmp_path):
    by_step = imported(tmp_path, adv=np.linspace(-1, 1, 12))
    (steps,) = episodes(by_step)
    chosen = next(each for each in steps["params"] if each["name"] == "series")
    assert chosen["bind"]["options"] == ["score", "action", "observation", "reward"]
    assert chosen["value"] == "score"
    drawn = [each["value"] for each in steps["datasets"]["values"] if each["series"] == "score"]
    assert drawn == pytest.approx(np.linspace(-1, 1, 12), abs=1e-3)
    histogram, _ = scores(by_step)
    assert histogram["layer"][0]["encoding"]["x"]["title"] == "score: column adv"
    assert "by the rule column:q0.5, of column adv." in dataset_page(by_step)


def test_equal_returns_give_way_to_the_scores_of_episodes(tmp_path):
    stars = imported(tmp_path, stars=np.repeat([2.0, 5.0, 3.0], [4, 3, 5]))
    ticks = behaviors(stars)[0]
    assert ticks["encoding"]["x"] == {**ticks["encoding"]["x"], "field": "score", "title": "column stars"}
    assert [each["score"] for each in ticks["datasets"]["values"]] == [2.0, 5.0, 3.0]
    (steps,) = episodes(stars)
    assert next(each for each in steps["params"] if each["name"] == "series")["value"] == "action"
