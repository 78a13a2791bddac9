from pathlib import Path

import numpy as np
import polars as pl
import pytest
from helpers.raw_scores import raw_scores

from pmpo_offline.benchmark.results import DRIFT, Results, read_scores, read_sealed, write_sealed
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError


def test_raw_scores_come_back_as_they_were_written(tmp_path, scores):
    results = Results(tmp_path)
    frame = scores("k", [[1.0, 2.0], [3.0, 4.0]])
    assert not results.path("k").exists()
    results.write("k", frame.drop("key"))
    assert results.path("k").exists()
    assert results.read(["k"]).equals(frame)
    assert results.read(["k", "k"]).equals(frame)
    assert results.read().equals(frame)
    assert [path.name for path in results.raw.iterdir()] == ["k.parquet"]


def test_scores_of_earlier_versions_still_read(tmp_path, scores):
    results = Results(tmp_path)
    frame = scores("k", [[1.0, 2.0]])
    results.raw.mkdir()
    frame.drop(*DRIFT, "balance", "filtered").write_parquet(results.path("k"))
    assert results.read(["k"]).equals(frame)


def test_drift_is_kept_where_it_was_measured_and_null_elsewhere(tmp_path, scores):
    results = Results(tmp_path)
    measured = scores("a", [[1.0]]).with_columns(pl.lit(0.5).alias(name) for name in DRIFT)
    results.write("a", measured.drop("key"))
    results.write("b", scores("b", [[1.0]]).drop("key", *DRIFT))
    assert results.read(["a", "b"])["kl"].to_list() == [0.5, None]


def test_scores_that_cannot_be_written_leave_nothing(tmp_path, scores):
    results = Results(tmp_path)
    with pytest.raises(Exception, match="beta_min"):
        results.write("k", scores("k", [[1.0]]).drop("key", "beta_min"))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_directory_without_scores_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match="no raw scores here"):
        Results(tmp_path).read()


@pytest.mark.parametrize("value", [{"a": 1}, [{"a": 1}], [[1]], b"a", [True], None])
def test_tables_of_other_kinds_are_named_in_one_line(tmp_path, value):
    pl.DataFrame({"key": [value]}).write_parquet(tmp_path / "scores.parquet")
    with pytest.raises(PmpoOfflineError, match=r"scores\.parquet: not readable as raw scores \("):
        read_scores(tmp_path / "scores.parquet")


def test_damaged_scores_are_named_in_one_line(tmp_path, scores):
    results = Results(tmp_path)
    results.write("k", scores("k", [[1.0]]).drop("key"))
    content = results.path("k").read_bytes()
    results.path("k").write_bytes(content[: len(content) // 2])
    for reading in (results.read, results.machines):
        with pytest.raises(PmpoOfflineError, match=r"k\.parquet: not readable") as error:
            reading()
        assert "\n" not in str(error.value)


def test_a_flipped_byte_in_scores_is_noticed_or_changes_nothing(tmp_path, scores):
    results = Results(tmp_path)
    results.write("k", scores("k", [[1.0, 2.0], [3.0, 4.0]]).drop("key"))
    content, frame, noticed = results.path("k").read_bytes(), results.read(), 0
    for place in range(4, len(content), 61):
        flipped = bytearray(content)
        flipped[place] ^= 1
        results.path("k").write_bytes(flipped)
        try:
            assert results.read().equals(frame)
        except PmpoOfflineError:
            noticed += 1
    assert noticed


def test_checkpoints_are_discarded_in_whatever_files_they_lie(tmp_path):
    results = Results(tmp_path)
    results.checkpoint("a").mkdir()
    results.checkpoint("a").joinpath("weights").touch()
    results.checkpoint("a").with_suffix(".json").touch()
    results.checkpoint("b").touch()
    results.discard_checkpoint("a")
    assert list(results.checkpoint("a").parent.iterdir()) == [results.checkpoint("b")]


def test_scores_record_the_model_that_they_started_from(tmp_path, scores):
    results = Results(tmp_path)
    frame = scores("k", [[1.0]])
    assert results.model("k") is None
    results.write("k", frame.drop("key"))
    assert results.model("k") is None
    results.write("k", frame.drop("key"), model="abc")
    assert results.model("k") == "abc"
    assert results.read().equals(frame)


def test_scores_of_a_single_run_have_a_checksum(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    write_sealed(path, pl.DataFrame({"return": [1.5, 2.5], "prompt": ["a", "b"]}), {})
    assert read_sealed(path)["return"].to_list() == [1.5, 2.5]
    content, flipped = path.read_bytes(), np.float64(1.75).tobytes()
    assert np.float64(1.5).tobytes() in content
    path.write_bytes(content.replace(np.float64(1.5).tobytes(), flipped))
    with pytest.raises(PmpoOfflineError, match=r"scores\.parquet: not readable as raw scores"):
        read_sealed(path)


def test_settings_that_are_no_json_are_named(tmp_path: Path) -> None:
    results = Results(tmp_path)
    raw_scores("a" * 16, [[1.0]], settings="{").write_parquet(tmp_path / "x.parquet")
    results.raw.mkdir()
    (tmp_path / "x.parquet").rename(results.path("a" * 16))
    with pytest.raises(PmpoOfflineError, match="not readable as raw scores"):
        results.read()
