"""Files that reach outside themselves, declare more than they hold, or break a library are refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.encoded import Store, rewrite

from pmpo_offline import data
from pmpo_offline.data.exchange.readers import open_source
from pmpo_offline.data.opening import open_hdf5, open_parquet
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.runtime.hashing import hash_file

ID = "test/small-v0"


def external(file: h5py.File, other: Path) -> None:
    file.create_dataset("rewards", (8,), "u1", external=[(str(other), 0, 8)])


def virtual(file: h5py.File, other: Path) -> None:
    with h5py.File(other, "w") as source:
        source["x"] = np.arange(8.0)
    layout = h5py.VirtualLayout((8,), "f8")
    layout[:] = h5py.VirtualSource(other, "x", (8,))
    file.create_virtual_dataset("rewards", layout)


def link(file: h5py.File, other: Path) -> None:
    file["rewards"] = h5py.ExternalLink(str(other), "/x")


def soft(file: h5py.File, other: Path) -> None:
    file["elsewhere"] = np.arange(8.0)
    file["rewards"] = h5py.SoftLink("/elsewhere")


@pytest.mark.parametrize("reach", [external, virtual, link, soft])
def test_hdf5_that_reaches_outside_itself_is_refused(tmp_path: Path, reach: Callable[[h5py.File, Path], None]) -> None:
    path, secret = tmp_path / "hopper.hdf5", tmp_path / "secret"
    secret.write_bytes(bytes(64))
    with h5py.File(path, "w") as file:
        for name in ("observations", "actions", "next_observations"):
            file[name] = np.zeros((8, 2))
        file["terminals"] = np.zeros(8, bool)
        reach(file, secret)
    for sha256 in (None, hash_file(path)):
        refused = pytest.raises(ValueError, match=r"/rewards (is a link to another place|lies in another file)")
        with refused, open_hdf5(path, sha256):
            pass
    with pytest.raises(UserError, match="/rewards ") as caught:
        open_source(str(path)).read()
    assert "\n" not in str(caught.value)


def test_a_dataset_that_reaches_outside_itself_is_refused(store: Store, tmp_path: Path) -> None:
    path = store(format="hdf5").path
    with h5py.File(path / "episodes.hdf5", "a") as file:
        count = len(file["return"])
        del file["return"]
        (tmp_path / "secret").write_bytes(bytes(8 * count))
        file.create_dataset("return", (count,), "f8", external=[(str(tmp_path / "secret"), 0, 8 * count)])
    size, sha256 = (path / "episodes.hdf5").stat().st_size, hash_file(path / "episodes.hdf5")
    rewrite(path, lambda content: content["files"]["episodes.hdf5"].update(bytes=size, sha256=sha256))
    with pytest.raises(PmpoOfflineError, match="/return lies in another file"):
        data.load_dataset(ID)


def test_a_circle_of_hard_links_ends(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "circle.hdf5", "w") as file:
        file["a/b/c"] = 1
        file["a/b/a"] = file["a"]
    with open_hdf5(tmp_path / "circle.hdf5") as file:
        assert list(file) == ["a"]


def test_hdf5_of_zeros_is_read_and_one_of_nothing_is_not(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "zeros.hdf5", "w") as file:
        file.create_dataset("x", data=np.zeros(2**22), compression="gzip", compression_opts=9)
    with open_hdf5(tmp_path / "zeros.hdf5") as file:
        assert file["x"].shape == (2**22,)
    with h5py.File(tmp_path / "nothing.hdf5", "w") as file:
        file.create_dataset("x", (2**36,), "f4", chunks=(1024,))
    refused = pytest.raises(ValueError, match=r"/x declares 274,877,906,944 bytes and holds 0")
    with refused, open_hdf5(tmp_path / "nothing.hdf5"):
        pass


def test_a_file_that_keeps_the_library_busy_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(file: h5py.File) -> None:
        while True:
            pass

    monkeypatch.setattr("pmpo_offline.data.opening.examine", busy)
    monkeypatch.setattr("pmpo_offline.data.opening.SECONDS", 1)
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["x"] = 1
    with pytest.raises(ValueError, match="does not survive it"), open_hdf5(tmp_path / "a.hdf5"):
        pass


def test_lengths_that_the_file_is_too_small_for_allocate_nothing(store: Store) -> None:
    path = store(format="hdf5").path
    with h5py.File(path / "episodes.hdf5", "a") as file:
        file["length"][0] = 2_000_000_000
    rewrite(path, lambda content: content["files"]["episodes.hdf5"].update(sha256=hash_file(path / "episodes.hdf5")))
    with pytest.raises(PmpoOfflineError, match=r"lengths of the episodes sum to 2,000,000,\d+, for which"):
        data.load_dataset(ID)


def test_parquet_of_more_rows_than_bytes_allow_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "many.parquet"
    nothing = pa.table({"x": pa.nulls(30_000_000, pa.int32())})
    pq.write_table(nothing, path, row_group_size=2**30, max_rows_per_page=2**30)
    with pytest.raises(ValueError, match=r"it declares 30,000,000 rows in [\d,]+ bytes"), open_parquet(path):
        pass
    pq.write_table(pa.table({"x": np.arange(50_000)}), path)
    with open_parquet(path) as file:
        assert file.metadata.num_rows == 50_000
