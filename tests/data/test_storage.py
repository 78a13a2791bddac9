"""A dataset is whole or absent, whatever happens to its writer."""

from __future__ import annotations

import errno
import os
import select
import stat
import textwrap
from collections.abc import Callable
from multiprocessing.context import BaseContext
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from helpers.encoded import Make, Store
from helpers.forked import Forked

from pmpo_offline import data
from pmpo_offline.data import columns, storage
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError

ID = "test/small-v0"


HEAD = """
import resource, sys
from pathlib import Path
from helpers.encoded import make
from pmpo_offline import data
from pmpo_offline.data import hdf5, storage
metadata, tables = make([50] * 40, "advantage", candidates=4)
target = Path(sys.argv[1])
"""


@pytest.fixture
def store(write_anew: Store) -> Store:
    """The writer itself is tested here."""
    return write_anew


@pytest.fixture
def run(forkserver: BaseContext) -> Callable[..., Forked]:
    """Start a writer in a process of its own, with `make` at hand."""
    return lambda script, *arguments: Forked(forkserver, HEAD + textwrap.dedent(script), *arguments)


def test_an_empty_name_is_not_the_current_folder() -> None:
    with pytest.raises(UserError, match="home: the folder's name is empty"):
        data.home("")


def everything_in(home: Path) -> list[str]:
    return sorted(path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file())


@pytest.mark.parametrize("form", ["arrow", "hdf5"])
def test_full_disk_leaves_nothing_and_is_one_line(
    home: Path, store: Store, run: Callable[..., Forked], form: data.Format
) -> None:
    writer = run(
        """
        import gymnasium, minari  # what the HDF5 form imports, before no file may grow
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
        try:
            data.write(target, metadata, tables, form=sys.argv[2])
        except storage.PmpoOfflineError as error:
            print(error)
        """,
        home / ID,
        form,
    )
    message, errors = writer.communicate()
    assert errors == ""
    assert writer.returncode == 0
    assert message == (
        f"cannot write {home / ID}: File too large; free some space or set PMPO_OFFLINE_DATASETS to another folder\n"
    )
    assert everything_in(home) == []
    assert len(store(format=form)) == 17  # the next write succeeds


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_killed_writer_leaves_nothing_visible_and_the_next_one_tidies(
    home: Path, store: Store, run: Callable[..., Forked], overwrite: bool
) -> None:
    if overwrite:
        store()
    writer = run(
        """
        def stall(*_):  # the tables are written by then
            import time
            print("writing", flush=True)
            time.sleep(600)
        storage.card = stall
        data.write(target, metadata, tables, overwrite=True)
        """,
        home / ID,
    )
    assert writer.stdout.readline() == "writing\n"
    writer.kill()
    assert data.stored_ids() == ([ID] if overwrite else [])
    if overwrite:
        assert data.verify(ID) == []  # the old one, untouched
    else:
        with pytest.raises(UserError, match="unknown dataset"):
            data.load_dataset(ID)
    assert any(".partial" in name for name in everything_in(home))
    store(overwrite=overwrite)
    assert data.verify(ID) == []
    assert not any(".partial" in name for name in everything_in(home))


def test_a_writer_killed_between_the_two_renames_of_an_overwrite_loses_nothing(home: Path, store: Store) -> None:
    path = store().path
    for came_back in (data.stored_ids, lambda: data.load_dataset(ID), lambda: data.load_dataset(path)):
        path.rename(path.with_name(".small-v0.replaced"))
        assert came_back()
        assert path.is_dir()
    path.rename(path.with_name(".small-v0.replaced"))
    with pytest.raises(UserError, match="exists already"):
        store()
    assert data.verify(ID) == []
    assert len(store([1, 2], overwrite=True)) == 3


def fail(error: BaseException) -> Callable[..., str]:
    """A card whose writing fails: the tables are written by then."""

    def card(*_: object) -> str:
        raise error

    return card


def test_ctrl_c_leaves_nothing(home: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(storage, "card", fail(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            store()
    assert everything_in(home) == []
    store()


def test_a_failed_overwrite_keeps_the_old_dataset(home: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    old = store().metadata
    refused = pytest.raises(PmpoOfflineError, match=f"cannot write {home / ID}: No such file or directory")
    with monkeypatch.context() as patch, refused:
        patch.setattr(storage, "card", fail(FileNotFoundError(errno.ENOENT, "")))
        store([9, 9], overwrite=True)
    assert data.load_dataset(ID).metadata == old
    assert data.verify(ID) == []
    assert not any(".partial" in name for name in everything_in(home))
    assert len(store([9, 9], overwrite=True)) == 18


def test_writers_of_one_namespace_wait_for_each_other(home: Path, tmp_path: Path, run: Callable[..., Forked]) -> None:
    script = """
    print("begins", flush=True)
    data.write(target, metadata, tables, overwrite=True)
    print(data.verify(target))
    """
    stalled = """
    card = storage.card
    def wait(*arguments):  # the tables are written by then
        import time
        print("writing", flush=True)
        while not Path(sys.argv[2]).exists():
            time.sleep(0.01)
        return card(*arguments)
    storage.card = wait
    """
    first = run(textwrap.dedent(stalled) + textwrap.dedent(script), home / ID, tmp_path / "gate")
    assert [first.stdout.readline() for _ in range(2)] == ["begins\n", "writing\n"]
    second = run(script, home / ID)
    assert second.stdout.readline() == "begins\n"
    assert select.select([second.stdout], [], [], 0.5)[0] == [], "it waits"
    (tmp_path / "gate").touch()
    assert [writer.communicate() for writer in (first, second)] == [("[]\n", "")] * 2
    assert not any(".partial" in name or ".replaced" in name for name in everything_in(home))


def test_a_reader_keeps_what_it_opened_while_it_is_overwritten(store: Store) -> None:
    old = store([5, 5])
    before = columns.matrix(old.table, "observation").copy()
    store([7, 7, 7], overwrite=True)
    assert (columns.matrix(old.table, "observation") == before).all()


def test_stored_dataset_is_replaced_only_with_overwrite(store: Store) -> None:
    store()
    with pytest.raises(UserError, match="exists already: use --overwrite"):
        store()


def test_files_have_the_permissions_that_the_umask_gives(home: Path, store: Store) -> None:
    before = os.umask(0o002)
    try:
        path = store(format="hdf5").path
    finally:
        os.umask(before)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.rglob("*") if file.is_file()}
    assert set(modes.values()) == {0o664}, modes


def test_what_is_no_dataset_is_never_overwritten(home: Path, make: Make) -> None:
    treasure = home / "test/small-v0/thesis.tex"
    treasure.parent.mkdir(parents=True)
    treasure.write_text("years of work")
    with pytest.raises(UserError, match="is no dataset: move it away"):
        data.write(treasure.parent, *make(), overwrite=True)
    assert treasure.read_text() == "years of work"


def test_a_home_without_permission_is_one_line(home: Path, run: Callable[..., Forked]) -> None:
    home.mkdir()
    home.chmod(stat.S_IRUSR | stat.S_IXUSR)
    writer = run(
        """
        import os
        if os.geteuid() == 0:
            os.seteuid(65534)  # nothing is unwritable to root
        try:
            data.write(target, metadata, tables)
        except storage.PmpoOfflineError as error:
            print(error)
        """,
        home / ID,
    )
    assert writer.communicate() == (
        f"cannot write {home / ID}: Permission denied; "
        "check the permissions or set PMPO_OFFLINE_DATASETS to another folder\n",
        "",
    )


@pytest.mark.parametrize("blocked", ["home", "home/test"])
def test_a_home_that_is_a_file_is_one_line(home: Path, make: Make, blocked: str) -> None:
    path = home.parent / blocked
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
    with pytest.raises(PmpoOfflineError, match=r"cannot write .*; check the permissions or set PMPO_OFFLINE_DATASETS"):
        data.write(home / ID, *make())


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a file system that refuses new folders")
def test_a_home_that_refuses_folders_is_one_line(make: Make) -> None:
    with pytest.raises(PmpoOfflineError, match="cannot write /proc/self/home/test/small-v0") as error:
        data.write(Path("/proc/self/home") / ID, *make())
    assert "\n" not in str(error.value)


def test_inconsistent_tables_are_not_written(home: Path, make: Make) -> None:
    metadata, tables = make([3, 1, 4])
    steps = tables["transitions"]
    nan = np.full((8, 2), np.nan, np.float32)
    cases = {
        "tile": tables | {"transitions": steps.slice(0, 7)},
        "step": tables | {"transitions": columns.replace(steps, step=pa.array([0] * 8, pa.int32()))},
        "nulls": tables | {"transitions": columns.replace(steps, reward=pa.nulls(8, pa.float32()))},
        "NaN": tables | {"transitions": columns.replace(steps, action=columns.list_array(nan))},
        "reward: holds NaN or inf": tables | {"transitions": columns.replace(steps, reward=nan[:, 0])},
        "before the end": tables | {"transitions": columns.replace(steps, terminated=pa.array([True] * 8))},
        "accepted": tables | {"episodes": columns.replace(tables["episodes"], label=pa.nulls(3, pa.bool_()))},
        "schema": tables | {"transitions": steps.drop_columns("reward")},
        "lacks the table episodes": {"transitions": steps},
        "has no table films": tables | {"films": steps},
    }  # fmt: skip
    for message, broken in cases.items():
        with pytest.raises(PmpoOfflineError, match=message) as error:
            data.write(home / ID, metadata, broken)
        assert "\n" not in str(error.value)
    assert not home.exists()


def test_two_thousand_episodes_open_as_a_map(store: Store) -> None:
    store([150] * 2000, "advantage")
    before = pa.total_allocated_bytes()
    dataset = data.load_dataset(ID)
    observation = columns.matrix(dataset.table, "observation")
    assert pa.total_allocated_bytes() - before < 2**20  # a view of the file: nothing was read or copied
    assert not observation.flags.owndata
    assert not observation.flags.writeable
