"""The package as a notebook meets it: names, help, short representations, and what functions take."""

from __future__ import annotations

import pydoc
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import pmpo_offline
from pmpo_offline import (
    Dataset,
    bench,
    build_dataset,
    data,
    doctor,
    evaluate,
    import_dataset,
    list_datasets,
    load_policy,
    show,
    train,
    verify,
)
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.training.run import Run, train_run

QUICK = {"updates": 20, "hidden": [8], "components": 1, "batch": 32}
ID = "bandit/sphere-v0"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def sphere(home: str) -> Dataset:
    return build_dataset(ID, episodes=200, seed=0, home=home, workers=1)


def test_completion_and_help_show_every_name() -> None:
    names = set(dir(pmpo_offline))
    assert {"bench", "build_dataset", "doctor", "evaluate", "list_datasets", "load_policy", "show", "train"} <= names
    page = pydoc.plain(pydoc.render_doc(pmpo_offline))
    for name in ("build_dataset(", "evaluate(", "load_policy(", "train(", "class Dataset"):
        assert name in page
    assert "Score a policy on held-out episodes" in page


def test_importing_and_listing_names_imports_no_torch() -> None:
    code = "import sys, pmpo_offline; dir(pmpo_offline); sys.exit('torch' in sys.modules or 'pyarrow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_datasets_are_listed_shown_and_verified(sphere: Dataset, home: str) -> None:
    listed = list_datasets(home)
    assert listed.filter(pl.col("built"))["id"].to_list() == [sphere.metadata.id]
    assert listed.filter(pl.col("id") == ID)["built"].to_list() == [False]
    facts = show(sphere.metadata.id, home)
    assert facts == show(sphere)
    assert (facts["rows"], facts["accepted"] + facts["rejected"]) == (200, 200)
    assert show(ID, home)["built"] is False
    assert verify(sphere.metadata.id, home) == []


def test_results_are_one_line_and_html(sphere: Dataset) -> None:
    trained = train(sphere, "pmpo", seeds=[0, 1], settings=[{"beta": 1.5}, {"beta": 2.0}], overrides=QUICK)
    for result in (sphere, sphere.metadata, trained, doctor(sphere), show(sphere)):
        html = result._repr_html_()
        assert html.startswith("<p><b>")
        assert html.count("<table>") == html.count("</table>") >= 1
        if not isinstance(result, dict):
            assert len(repr(result)) < 160
            assert "\n" not in repr(result)
    assert repr(trained) == "Trained(4 runs: settings 2, seeds 2, diverged 0)"
    assert "1.5" in trained._repr_html_()


def test_text_of_a_dataset_is_no_markup(sphere: Dataset) -> None:
    metadata = sphere.metadata.model_copy(update={"task": "<script>alert(1)</script>"})
    assert "<script>" not in metadata._repr_html_()


def test_ids_paths_and_one_settings_mapping_are_taken(sphere: Dataset, home: str, tmp_path: Path) -> None:
    by_path = train(str(sphere.path), "pmpo", seeds=3, settings={"beta": 1.5}, overrides=QUICK)
    same = train(sphere, "pmpo", seeds=[3], settings=[{"beta": 1.5}], overrides=QUICK, checkpoint=str(tmp_path / "c"))
    assert by_path.runs == same.runs == [(by_path.runs[0][0], 3)]
    assert np.array_equal(by_path.policy.predict([0.0]), same.policy.predict([0.0]))
    assert repr(doctor(str(sphere.path), "pmpo", {"beta": 1.5})) == repr(doctor(sphere, "pmpo", {"beta": 1.5}))


def test_an_import_takes_paths_as_text(tmp_path: Path, home: str) -> None:
    steps = {"observations": np.zeros((6, 2), np.float32), "actions": np.zeros((6, 1), np.float32)}
    ends = np.array([0, 0, 1] * 2, bool)
    np.savez(tmp_path / "log.npz", **steps, rewards=np.ones(6, np.float32), terminals=ends, timeouts=~ends & False)
    (tmp_path / "thumbs.csv").write_text("episode,thumb\n0,accept\n1,reject\n")
    files = {"labels": str(tmp_path / "thumbs.csv"), "home": home, "id": "mine/log-v0"}
    counts = import_dataset(str(tmp_path / "log.npz"), **files).metadata.counts
    assert (counts.rows, counts.accepted, counts.rejected) == (6, 1, 1)


def test_what_is_wrong_names_what_to_pass(sphere: Dataset, monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    monkeypatch.setenv("PMPO_OFFLINE_DATASETS", home)
    with pytest.raises(UserError, match=r"declared but not built: build_dataset\('bandit/gmm-v0'\)"):
        train("bandit/gmm-v0", "pmpo")
    with pytest.raises(UserError, match="expected a Dataset, a text or a path for dataset, not array"):
        train(np.zeros(3), "pmpo")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"expected a MixturePolicy.*a function or a Trained for policy, not 3"):
        evaluate(3, "bandit/sphere")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"unknown task 'sphere'.*or pass a Gymnasium environment"):
        evaluate(lambda seen: seen, "sphere")
    with pytest.raises(UserError, match=r"shape \(100, 1\) for observations \(100, 1\): expected \(100, 10\)"):
        evaluate(lambda seen: seen, "bandit/sphere")
    with pytest.raises(UserError, match=r"observations have shape \(3, 7\): expected \(1,\) for one or \(n, 1\)"):
        train(sphere, "bc", overrides=QUICK).policy.predict(np.zeros((3, 7)))
    with pytest.raises(UserError, match="no such directory; give the output directory of a finished training"):
        load_policy(Path(home) / "nothing")


def test_a_function_is_scored_as_what_it_does() -> None:
    best, zero = (evaluate(lambda seen, at=at: np.full((len(seen), 10), at), "bandit/sphere") for at in (0.5, 0.0))
    assert best["return"].to_list() == [0.0] * 100
    # E|a - 1/2|² of uniform a is D (1/3 + 1/4), at 0 it is D / 4.
    assert zero["return"].to_list() == pytest.approx([-(1 / 4) / (1 / 3 + 1 / 4)] * 100)


def test_a_policy_is_loaded_predicts_one_or_many_and_is_saved(sphere: Dataset, tmp_path: Path) -> None:
    train_run(Run(sphere, "bc", {**QUICK}), tmp_path / "run")
    policy = load_policy(str(tmp_path / "run"))
    one, many = policy.predict([0.0]), policy.predict(np.zeros((3, 1)))
    assert (one.shape, many.shape) == ((10,), (3, 10))
    assert np.allclose(many, one)
    policy.save(str(tmp_path / "copy.safetensors"))
    assert np.array_equal(load_policy(tmp_path / "copy.safetensors").predict([0.0]), one)


def test_one_of_several_runs_is_selected(sphere: Dataset) -> None:
    policy = train(sphere, "bc", seeds=range(3), overrides=QUICK).policy
    assert policy.predict([0.0]).shape == (3, 10)
    assert policy.predict(np.zeros((2, 1))).shape == (3, 2, 10)
    assert np.allclose(policy.select(-1).predict([0.0]), policy.predict([0.0])[2], atol=1e-6)
    with pytest.raises(UserError, match="there is no run 3: the policy holds runs 0 to 2"):
        policy.select(3)


def test_a_dataset_that_was_changed_in_memory_is_benched(sphere: Dataset, home: str, tmp_path: Path) -> None:
    changed = sphere.filter("seed >= 0").relabelled(imbalance=0.5, noise=0.2)
    grid = {"algos": "bc", "seeds": 1, "updates": 2, "episodes": 2, "imbalance": ["collected"], "workers": 1}
    done = bench("bandit", datasets=[changed, sphere], output=tmp_path / "out", home=home, **grid)
    stored = tmp_path / "out/datasets" / changed.metadata.id
    assert {row["dataset"] for row in done.rows} == {str(stored), sphere.metadata.id}
    assert data.load_dataset(stored).table.equals(changed.table)
