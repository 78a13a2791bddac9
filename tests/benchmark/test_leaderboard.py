"""Submissions: what is checked, and how several are read as one table."""

import json
from pathlib import Path

import polars as pl
import pytest
from helpers.encoded import make
from helpers.raw_scores import raw_scores

from pmpo_offline import data
from pmpo_offline.benchmark.exports import FORMS, listed
from pmpo_offline.benchmark.leaderboard import Leaderboard, problems, results_in, submit
from pmpo_offline.benchmark.report import report_on
from pmpo_offline.benchmark.results import Results
from pmpo_offline.benchmark.table import table
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError

ABOUT = {"by": "A. Person", "link": "https://example.org/paper"}


@pytest.fixture
def dataset(tmp_path: Path) -> data.Dataset:
    """A stored dataset, whose hash submissions must have."""
    data.write(tmp_path / "home" / "test" / "line-v0", *make((3, 1, 4, 2, 5, 2), "return:q0.5", id="test/line-v0"))
    return data.load_dataset("test/line-v0", home=tmp_path / "home")


@pytest.fixture
def folder(tmp_path: Path, dataset: data.Dataset):
    """Fill a results folder with a method, the reference and the control, as a benchmark leaves them."""

    def fill(name: str, method: str, score: float, seeds: int = 5, **changes: object) -> Path:
        results, about = Results(tmp_path / name), {"dataset_sha": dataset.fingerprint, "imbalance": None, **changes}
        rows = {"bc": {"algo": "bc", "reference": True}, method: {"algo": method}, "control": {"shuffled": True}}
        for key, columns in rows.items():
            start = score if key == method else 20.0
            returns = [[start + seed, start] for seed in range(seeds)]
            results.write(f"{key}-{name}" if key == method else key, raw_scores(key, returns, **(about | columns)))
        return results.output

    return fill


def test_submissions_become_one_table_and_one_page(tmp_path, folder):
    board, home = tmp_path / "board", tmp_path / "home"
    first = submit(folder("one", "pmpo", 40.0), board, "first", ABOUT, home)
    assert sorted(path.name for path in first.iterdir()) == ["entry.json", "scores.parquet"]
    assert json.loads((first / "entry.json").read_text())["algorithms"] == ["bc", "pmpo"]
    with pytest.raises(UserError, match=r"-first exists already: choose another --name, or delete it$"):
        submit(folder("one", "pmpo", 40.0), board, "first", ABOUT, home)
    # The second is checked against the first: no dataset is needed any more.
    second = submit(folder("two", "pmpo", 50.0), board, "second", {"by": "", "link": ""}, tmp_path / "empty")
    assert second.name.endswith("-second")
    again = Results(folder("one", "pmpo", 40.0))  # as another version finds the same scores
    for path in again.raw.glob("*.parquet"):
        path.rename(path.with_stem(f"{path.stem}-again"))
    rows = again.read().with_columns(key=pl.col("key") + "-again")
    for (key,), own in rows.group_by("key"):
        again.write(key, own)
    submit(again.output, board, "third", ABOUT, home)
    done = report_on(board)
    assert [row["algo"] for row in done.rows] == ["bc", "pmpo", f"pmpo ({second.name})", "pmpo (shuffled)"]
    assert done.rows == table(results_in(board).read())
    html = FORMS["html"](done, results_in(board).read())
    assert "A. Person" in html
    assert 'href="https://example.org/paper"' in html


def test_other_estimates_of_a_critic_are_accepted_with_the_same_rows_and_labels(tmp_path, folder, dataset):
    elsewhere = {"dataset_sha": "f" * 64, "labels_sha": dataset.labels_hash}
    made = submit(folder("one", "pmpo", 40.0, **elsewhere), tmp_path / "board", "first", ABOUT, tmp_path / "home")
    (entry,) = {each["labels_sha"] for each in json.loads((made / "entry.json").read_text())["datasets"]}
    assert entry == dataset.labels_hash
    assert dataset.relabelled(noise=0.5).labels_hash != entry


def test_what_is_not_the_submitted_file_is_refused(tmp_path, folder):
    board = tmp_path / "board"
    made = submit(folder("one", "pmpo", 40.0), board, "first", ABOUT, tmp_path / "home")
    other = folder("other", "pmpo", 99.0) / "raw" / "pmpo-other.parquet"
    (made / "scores.parquet").write_bytes(other.read_bytes())
    with pytest.raises(PmpoOfflineError, match="is not the file that was submitted"):
        Leaderboard(board).read()


def test_an_entry_that_was_damaged_is_refused(tmp_path, folder):
    board = tmp_path / "board"
    path = submit(folder("one", "pmpo", 40.0), board, "first", ABOUT, tmp_path / "home") / "entry.json"
    entry = json.loads(path.read_text())
    path.write_text(json.dumps(entry | {"algorithms": "pmpo"}))
    with pytest.raises(PmpoOfflineError, match=r"entry.json: algorithms: .* list, not 'pmpo': take it from"):
        listed(Leaderboard(board))
    for data_sets in ([{}], [1], None):
        path.write_text(json.dumps(entry | {"datasets": data_sets}))
        with pytest.raises(PmpoOfflineError, match=r"entry.json: datasets.*: take it from"):
            submit(folder("two", "dpo", 30.0), board, "second", ABOUT, tmp_path / "home")


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"dataset_sha": "f" * 64}, "its data of test/line-v0 are others"),
        ({"dataset": "bandit/sphere-v0"}, "bandit/sphere-v0 is not here to compare its hash with"),
        ({"seeds": 4}, "pmpo on test/line-v0 has 4 runs, and 5 are needed"),
        ({"score": float("nan")}, "returns of pmpo are not numbers"),
    ],
)
def test_what_cannot_be_compared_is_not_submitted(tmp_path, folder, changes, found):
    arguments = {"score": 40.0, **changes}
    output = folder("one", "pmpo", **arguments)
    with pytest.raises(UserError, match=found):
        submit(output, tmp_path / "board", "first", ABOUT, tmp_path / "home")
    assert not (tmp_path / "board").exists()


def test_control_reference_versions_and_equal_runs_are_needed(tmp_path, folder):
    scores = Results(folder("one", "pmpo", 40.0)).read()

    def found(changed: pl.DataFrame) -> str:
        return "; ".join(problems(changed, Leaderboard(tmp_path / "board"), tmp_path / "home"))

    assert found(scores) == ""
    assert "no control on shuffled labels" in found(scores.filter(~pl.col("shuffled")))
    assert "no row of the suite's reference" in found(scores.filter(pl.col("algo") != "bc"))
    gap = (pl.col("seed") == 2) & (pl.col("algo") == "bc")
    assert "lacks some of its seeds" in found(scores.with_columns(seed=pl.when(gap).then(7).otherwise("seed")))
    assert "fewer episodes" in found(scores.filter(~(gap & (pl.col("episode") == 1))))
    for other, expected in ('{"peft": "0.1"}', ""), ('{"torch": "1"}', "made by torch 1 and 2: run them again"):
        mixed = pl.when(pl.col("algo") == "bc").then(pl.lit(other)).otherwise(pl.lit('{"torch": "2"}'))
        assert expected in found(scores.with_columns(versions=mixed))


@pytest.mark.parametrize("name", ["", "../up", "Upper", "a/b", ".hidden"])
def test_names_are_those_of_folders(tmp_path, folder, name):
    with pytest.raises(UserError, match="lower-case"):
        submit(folder("one", "pmpo", 40.0), tmp_path / "board", name, ABOUT, tmp_path / "home")


def test_texts_of_submissions_cannot_break_the_list(tmp_path, folder):
    hostile = {"by": "a | b\n<img src=x>", "link": "javascript:alert(1)"}
    submit(folder("one", "pmpo", 40.0), tmp_path / "board", "first", hostile, tmp_path / "home")
    assert len(listed(Leaderboard(tmp_path / "board")).splitlines()) == 3
    html = FORMS["html"](report_on(tmp_path / "board"), Leaderboard(tmp_path / "board").read())
    assert "<img" not in html
    assert 'href="javascript' not in html
