"""Jobs by submitit, whose own local executor takes the place of Slurm here."""

from __future__ import annotations

from pathlib import Path


def test_jobs_give_the_table_of_one_process(tmp_path: Path, small) -> None:
    done = small.bench(tmp_path / "out", executor="submitit", workers=2)
    assert not done.failures
    assert done.rows == small.whole.rows
    assert not (tmp_path / "out" / "slurm").exists()
