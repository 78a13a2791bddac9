"""The page of a benchmark in a real browser."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from helpers.raw_scores import raw_scores

from pmpo_offline.benchmark import episodes
from pmpo_offline.benchmark.html import charts, comparisons
from pmpo_offline.benchmark.html import report_page as module
from pmpo_offline.benchmark.html.report_page import MOST_BYTES, Made, report_page
from pmpo_offline.benchmark.methods import methods
from pmpo_offline.benchmark.results import Results
from pmpo_offline.benchmark.table import table
from pmpo_offline.runtime.hashing import hash_json
from pmpo_offline.tasks.stacking.simulation import StackingSimulation
from pmpo_offline.tasks.stacking.task import held_out_layouts
from pmpo_offline.tasks.trajectories import Recorder

HOSTILE = "</script><img src=x onerror=alert(1)><script>alert(2)</script>"
ALGORITHMS = {"bc": 35.0, "bc-accepted": 45.0, "pmpo": 50.0, "dpo": 30.0}
ANSWER = {"prompt": f"Say {HOSTILE}", "accepted": "<b>yes</b>", "rejected": None, "learned": HOSTILE, "return": 0.25}


def suite() -> pl.DataFrame:
    """Four algorithms and a control at two shares, three runs each; and one whose name is hostile."""
    parts = []
    for share in (0.1, 0.5):
        for name, score in {**ALGORITHMS, HOSTILE: 20.0}.items():
            runs = [[score + run + episode for episode in range(4)] for run in range(3)]
            plain = {} if name == "pmpo" else {"beta": None, "beta_min": None, "settings": "{}"}
            about = {"algo": name, "imbalance": share, "dataset_sha": str(share)[-1] * 64, **plain}
            about |= {"reference": name == "bc", "filtered": name == "bc-accepted"}
            parts.append(raw_scores(f"{name}{share}", runs, **about))
    control = raw_scores("control", [[12.0, 14.0]] * 3, shuffled=True, dataset_sha="1" * 64)
    return pl.concat([*parts, control])


def stacked(folder: Path, raw: pl.DataFrame, keys: Sequence[str]) -> dict[str, pl.DataFrame]:
    """Store and read seven steps of stacking for each episode of these rows."""
    results = Results(folder)
    for key in keys:
        own = raw.filter(pl.col("key") == key).with_row_index("place")
        simulation = StackingSimulation(held_out_layouts(len(own))[0])
        recorder, every = Recorder(len(own), 5, 80), np.arange(len(own))
        for t in range(7):
            action = np.full((len(own), 5), 0.1 * t)
            recorder(every, t, action, simulation.step(action))
        episodes.store(results, key, own, recorder.trajectories, "rgb-stacking/proxy")
    return episodes.load(results, raw)


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    raw = suite()
    rows = table(raw)
    answers = {"dpo0.1": pl.DataFrame([{"seed": seed, **ANSWER} for seed in range(3)])}
    played = stacked(tmp_path_factory.mktemp("results"), raw, ["pmpo0.1", "pmpo0.5"])
    steps = pl.DataFrame({"step": range(25, 525, 25)})
    recorded = steps.with_columns(seed=0, loss=3.0 / pl.col("step"), kl=pl.col("step") / 100.0)
    curves = {row["key"]: recorded for row in rows}
    made = Made(["pmpo-offline bench test"], ["A machine"], answers, played, curves)
    return report_page(f"A title {HOSTILE}", raw, rows, made)


@pytest.fixture(scope="module")
def shared(html, opened_once):
    return opened_once(html)


@pytest.fixture
def page(shared):
    """The page with all rows in their order, no dialog, on a light screen."""
    yield shared
    shared.keyboard.press("Escape")
    shared.evaluate("lines[0].parentNode.append(...lines)")
    shared.evaluate("form = document.querySelector('.filters'), form.reset(), form.dispatchEvent(new Event('input'))")
    shared.emulate_media(media="screen", color_scheme="light")


def test_table_sorts_and_filters(page):
    names, scores = ("#table tbody tr:not([hidden]) " + cell for cell in ("th", "td:nth-child(3)"))
    assert page.locator(names).count() == 11
    page.click("#table thead button:has-text('IQM')")
    falling = [float(text) for text in page.locator(scores).all_inner_texts()]
    assert falling == sorted(falling, reverse=True)
    page.click("#table thead button:has-text('IQM')")
    assert [float(text) for text in page.locator(scores).all_inner_texts()] == falling[::-1]
    page.uncheck("[data-role=control]")
    assert page.locator(names).count() == 10
    page.select_option("[data-filter=labels]", "0.5 accepted")
    assert page.locator(names).count() == 5
    page.fill("[type=search]", "DPO")
    assert page.locator(names).all_inner_texts() == ["dpo"]
    assert page.locator(".filters output").inner_text() == "1 of 11"
    page.fill("[type=search]", "nothing like it")
    assert page.locator(names).count() == 0


def test_a_number_opens_its_runs_and_a_run_its_episodes(page):
    page.click("#table tbody button:text-is('pmpo') >> nth=0")
    dialog = page.locator("dialog")
    assert "rgb" not in dialog.inner_text()
    assert "raw/pmpo0.1.parquet" in dialog.locator(".facts").inner_text()
    # Returns of 10 and 60 score 0 and 100: those of run 0 average 51.5.
    assert dialog.locator(".runs tbody tr").all_inner_texts()[0].split()[:5] == ["seed", "0", "83", "51.5", "0.75"]
    dialog.locator(".runs button").nth(2).click()
    assert dialog.locator(".run").inner_text() == "Episodes of seed 2"
    dialog.locator(".episodes path[aria-roledescription=circle]").first.wait_for(state="attached")
    assert dialog.locator(".episodes path[aria-roledescription=circle]").count() == 4
    titles = dialog.locator(".films h4").all_inner_texts()
    assert [title.partition(":")[0] for title in titles] == ["worst", "median", "best"]
    assert titles[0] == "worst: episode 0, return 52.00, 7 steps"
    strips = dialog.locator(".filmstrip")
    assert strips.count() == 3
    assert strips.first.locator("figcaption").all_inner_texts() == [f"step {step}" for step in range(1, 8)]
    for kind in ("red", "green", "blue", "hand"):
        assert strips.last.locator(f"svg >> nth=0 >> .figure.{kind}").count() >= 1
    box = strips.first.locator("svg >> nth=0").bounding_box()
    assert min(box["width"], box["height"]) > 40
    dialog.locator(".steps select >> nth=0").select_option("best")
    dialog.locator(".steps select >> nth=1").select_option("action")
    page.wait_for_function("document.querySelector('.steps .role-legend').textContent.includes('action 4')")
    page.keyboard.press("Escape")
    assert not dialog.is_visible()


@pytest.mark.parametrize(
    ("success", "shown"),
    [([True, False], ["yes", "no"]), ([True, None], ["yes", "no", "–"]), ([None, None], None)],
)
def test_the_legend_of_success_has_a_dash_only_where_it_is_unknown(
    success: list[bool | None], shown: list[str] | None
) -> None:
    color = module.episode_chart(pl.Series(success, dtype=pl.Boolean))["layer"][0]["encoding"]["color"]
    assert (color["legend"] and color["scale"]["domain"]) == shown


def test_a_run_of_a_language_model_opens_its_answers_beside_the_stored_ones(page):
    page.click("#table tbody button:text-is('dpo') >> nth=0")
    dialog = page.locator("dialog")
    assert dialog.locator(".answers h4").inner_text() == ANSWER["prompt"]
    sides = dialog.locator(".answers .side > div").all_inner_texts()
    assert sides == ["accepted\n<b>yes</b>", "rejected\n–", f"learned, reward 0.250\n{HOSTILE}"]
    assert dialog.locator(".filmstrip, .steps svg").count() == 0


def test_a_run_without_stored_episodes_has_its_scores_alone(page):
    page.click("#table tbody button:text-is('bc') >> nth=0")
    dialog = page.locator("dialog")
    assert dialog.locator(".runs tbody tr").count() == 3
    assert dialog.locator(".omitted").inner_text() == ""
    assert dialog.locator(".filmstrip, .steps svg, .answers article").count() == 0


def test_a_small_page_shows_episodes_of_fewer_runs_and_says_so(html, opened, tmp_path, monkeypatch):
    raw = suite().filter(pl.col("key") == "pmpo0.1")
    made = Made(episodes=stacked(tmp_path, raw, ["pmpo0.1"]))
    rows = table(raw)
    monkeypatch.setattr(module, "MOST_RUNS", 2)
    page = opened(report_page("T", raw, rows, made))
    page.locator("#table tbody button").first.click()
    assert page.locator("dialog .filmstrip").count() == 3
    page.locator("dialog .runs button").nth(2).click()
    assert "2 of these 3 runs" in page.locator(".omitted").inner_text()
    assert page.locator("dialog .filmstrip").count() == 0
    whole = len(report_page("T", raw, rows))
    monkeypatch.setattr(module, "MOST_BYTES", whole + 1_000)
    assert len(report_page("T", raw, rows, made)) <= whole + 1_000


def test_an_algorithm_has_one_colour_in_the_table_and_in_all_charts():
    raw = suite()
    rows = table(raw)
    colours: dict[str, set[str]] = {}
    for section in (charts.SCORES, comparisons.AGGREGATES):
        for drawing in section.draw(raw, rows):
            for layer in drawing.get("layer", [drawing]):
                scale = layer["encoding"].get("color", {}).get("scale", {"domain": [], "range": []})
                for name, colour in zip(scale["domain"], scale["range"], strict=True):
                    colours.setdefault(name, set()).add(colour)
    assert {*ALGORITHMS, "pmpo (shuffled)"} <= {*colours}
    shown = re.findall(r'<tr [^>]*style="--method: (#\w+)"', report_page("T", raw, rows))
    for name, colour in zip(methods(rows), shown, strict=True):
        colours[name].add(colour)
    assert all(len(each) == 1 for each in colours.values())
    assert len({colour for name, (colour,) in colours.items()}) == len(colours)


def test_a_mark_of_a_chart_opens_its_row(page):
    page.locator("#scores path[aria-roledescription=tick]").first.click()
    assert page.locator("#row-title").inner_text() == "pmpo"


def test_curves_of_another_metric_are_drawn_when_it_is_chosen(page):
    figure = page.locator("#curves figure")
    before = figure.locator("svg.marks").inner_html()
    figure.locator("select").nth(1).select_option("kl")
    page.wait_for_function("before => document.querySelector('#curves svg.marks').innerHTML !== before", arg=before)
    figure.locator("select").nth(1).select_option("loss")


def test_hostile_names_and_answers_stay_text(html, page):
    page.locator("#table tbody button").nth(4).click()
    assert page.locator("h1").inner_text() == f"A title {HOSTILE}"
    assert page.locator("img").count() == 0
    assert HOSTILE in page.locator("#table tbody").inner_text()
    assert page.locator("script").count() == html.count("<script nonce=") + 1  # Vega's, which the page's own adds


def test_readable_on_a_telephone_and_in_the_dark(html, opened, page):
    telephone = opened(html, width=400, color_scheme="dark")
    assert telephone.evaluate("document.documentElement.scrollWidth") == 400
    telephone.locator("#table tbody button").first.click()
    assert telephone.evaluate("document.querySelector('dialog').scrollWidth") <= 400
    for shown, is_dark in ((telephone, True), (page, False)):
        ink, paper = (
            shown.evaluate(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor")
        )
        brightness = [sum(map(int, re.findall(r"\d+", each))) for each in (ink, paper)]
        assert (brightness[0] > brightness[1]) == is_dark
        assert abs(brightness[0] - brightness[1]) > 450
        # Axes and their labels take the page's colour.
        assert shown.evaluate("getComputedStyle(document.querySelector('#scores .role-axis-label text')).fill") == ink


def test_prints_what_the_screen_shows_without_its_controls(page):
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator(".filters").is_visible()
    assert not page.locator("nav").is_visible()
    assert page.locator("#table tbody tr").count() == 11
    assert page.pdf()[:5] == b"%PDF-"


def test_sections_are_those_of_the_results(page):
    assert page.locator("main section").evaluate_all("all => all.map(each => each.id)") == [
        *("table", "scores", "aggregates", "improvement", "ranks", "grid", "curves", "made")
    ]
    for section in page.locator("section:has(figure)").all():
        assert section.locator("svg.marks").count() == section.locator("figure").count()
    made = page.locator("#made").inner_text()
    assert "pmpo-offline bench test" in made
    assert "A machine" in made
    assert "1" * 64 in made


def test_a_thousand_rows_are_below_the_limit_and_still_sort(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_RUNS", 5)  # drawing an episode takes 30 ms
    four = suite().filter(~pl.col("shuffled"), pl.col("imbalance") == 0.1, pl.col("algo") != HOSTILE)
    raw = four.join(
        pl.DataFrame({"number": range(250), "dataset": [f"test/line{n}-v0" for n in range(250)]}), how="cross"
    )
    noise = pl.int_range(pl.len()).hash(seed=1) % 10_000 / 1_000
    raw = raw.with_columns(
        pl.col("return") + noise, pl.col("dataset_right").alias("dataset"), key=pl.format("{}-{}", "key", "number")
    ).drop("number", "dataset_right")
    own = {row["key"]: row for row in table(four)}
    rows = [
        own[key.rpartition("-")[0]] | {"dataset": dataset, "key": key}
        for key, dataset in raw.select("key", "dataset").unique(maintain_order=True).rows()
    ]
    steps = pl.DataFrame({"step": range(25, 2525, 25)})
    losses = steps.with_columns(
        seed=pl.int_range(pl.len()) % 5, loss=pl.col("step").hash(seed=2) % 10_000 / 1e3, kl=0.1
    )
    (played,) = stacked(tmp_path, four, ["pmpo0.1"]).values()
    made = Made(episodes={row["key"]: played for row in rows}, curves={row["key"]: losses for row in rows})
    text = report_page("Many", raw, rows, made)
    assert len(rows) == 1000
    assert len(text.encode()) <= MOST_BYTES
    page = opened(text)
    page.click("#table thead button:has-text('IQM')")
    assert page.locator("#table tbody tr").count() == 1000
    shown = []
    for number in (0, len(rows) - 1):
        page.evaluate(f"lines[{number}].querySelector('button').click()")
        assert rows[number]["key"] in page.locator(".facts").inner_text()
        assert page.locator(".listed").inner_text().startswith("4 episodes")
        shown.append((page.locator("dialog .filmstrip").count(), page.locator(".omitted").inner_text()[:24]))
        page.keyboard.press("Escape")
    assert shown == [(3, ""), (0, "To keep the page small, ")]


def test_above_the_limit_fewer_episodes_are_listed_and_the_page_says_so(opened, monkeypatch):
    returns = [[float(int(hash_json([run, episode])[:6], 16)) for episode in range(3000)] for run in range(9)]
    raw = raw_scores("pmpo", returns)
    rows = table(raw)
    most = len(report_page("T", raw, rows)) - 20_000
    monkeypatch.setattr(module, "MOST_BYTES", most)
    text = report_page("T", raw, rows)
    assert len(text) <= most
    page = opened(text)
    page.locator("#table tbody button").first.click()
    (listed,) = re.findall(r"The first (\d+) of 3000 episodes", page.locator(".listed").inner_text())
    assert page.locator(".episodes path[aria-roledescription=circle]").count() == int(listed)
