"""Labels that a person gave: in a file beside the episodes, by folders, and in columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.aligned import experience
from helpers.foreign import as_d4rl, hdf5, minari_set, npz
from helpers.imports import refused
from helpers.robots import LENGTHS, accepted, frames_of, lerobot, refusal

from pmpo_offline.build.read import import_dataset
from pmpo_offline.data import Dataset, columns
from pmpo_offline.data.exchange.forms.sources import is_text
from pmpo_offline.runtime.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:.*actions reach", "ignore:dropped", "ignore:left out")


def side_file(path: Path, rows: list[tuple[Any, Any]]) -> Path:
    path.write_text("episode,verdict\n" + "".join(f"{episode},{verdict}\n" for episode, verdict in rows))
    return path


def test_labels_of_a_file_beside_the_episodes(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "set.hdf5", as_d4rl(experience(LENGTHS)))
    labels = side_file(tmp_path / "reviewed.csv", [(3, "reject"), ("demo_0", "accept"), (2, "")])
    with pytest.warns(UserWarning, match="has no label for 2 of 4 episodes"):
        dataset = import_dataset(path, labels=labels, home=tmp_path / "home")
    assert (accepted(dataset), dataset.metadata.unit) == ([1, 0, 0, -1], "episode")
    assert dataset.metadata.id == "d4rl/set-labelsreviewed-v0"
    assert labels.name in dataset.metadata.provenance.hashes
    side_file(labels, [(0, 2.5), (1, 4), (2, 1), (3, 5)])
    scored = import_dataset(path, labels=labels, label="column:3", overwrite=True, id="t2/x-v0", home=tmp_path / "home")
    assert accepted(scored) == [-1, 1, -1, 1]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(7, "accept")], "episode 7 in line 2 is not in the source, which has 4 episodes, 0 to 3"),
        (
            [(1, "accept"), ("e1", "reject")],
            "episode 1 has two values, 'accept' in line 2 and 'reject' in line 3: leave at least one",
        ),
        ([("demo_" + "9" * 30, "accept")], "expected an episode's number"),
        (
            [("first", "accept")],
            "reviewed.csv, line 2: expected an episode's number or a name that ends with it, found 'first'",
        ),
        ([(1.5, "accept")], "expected an episode's number or a name that ends with it, found '1.5'"),
        ([(-1, "accept")], "expected an episode's number or a name that ends with it, found '-1'"),
        (
            [(0, "meh")],
            "expected a number or a label such as accept, reject, success or failure, found 'meh' in line 2",
        ),
    ],
    ids=str,
)
def test_files_of_labels_that_cannot_be_read(tmp_path: Path, rows: list[tuple[Any, Any]], message: str) -> None:
    path = hdf5(tmp_path / "set.hdf5", as_d4rl(experience(LENGTHS)))
    with pytest.raises(UserError, match=message):
        import_dataset(path, labels=side_file(tmp_path / "reviewed.csv", rows), home=tmp_path / "home")


def test_a_file_of_labels_that_is_not_there(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "set.hdf5", as_d4rl(experience(LENGTHS)))
    for name, message in (("gone.csv", "there is no such file"), ("set.hdf5", "expected a file that ends in .csv")):
        assert message in refused(import_dataset, path, labels=tmp_path / name, home=tmp_path / "home")


def test_a_file_of_labels_that_is_not_utf8(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "set.hdf5", as_d4rl(experience(LENGTHS)))
    (labels := tmp_path / "reviewed.csv").write_bytes(b"episode,verdict\n0,\xff\xfe\n")
    with pytest.raises(UserError, match="line 2: not valid UTF-8"):
        import_dataset(path, labels=labels, home=tmp_path / "home")


@pytest.mark.parametrize(
    ("name", "content", "right"),
    [
        ("a.csv", "episode;verdict\n0;yes\n1;no\n2;👍🏽\n3;\n", [1, -1, 1, 0]),
        ("a.tsv", "Episode\tverdict\n0\tTrue\n1\tFalse\n2\tTRUE\n3\tn/a\n", [1, -1, 1, 0]),
        ("a.csv", "traj_id,verdict\n0,1\n1,0\n2,-1\n3,+1\n", [1, 0, -1, 1]),
        (
            "a.json",
            '[{"episode": 0, "feedback": {"rating": "up"}}, {"episode": 3, "feedback": {"rating": "down"}}]',
            [1, 0, 0, -1],
        ),
        ("a.csv", "episode,rank\n0,1\n1,2\n2,3\n3,4\n", [1, 1, -1, -1]),
        ("a.csv", "episode,-error\n0,0.1\n1,0.2\n2,0.3\n3,n/a\n", [1, -1, -1, 0]),
        ("a.csv", "episode,+error\n0,0.1\n1,0.2\n2,0.3\n3,0.4\n", [-1, -1, 1, 1]),
        ("a.csv", "episode,error\n0,0.1\n", "column error: if less of it is better, write -error, else +error"),
        ("a.csv", "episode,score\n0,1_000\n", "found '1_000' in line 2"),
        ("a.csv", "episode,score\n0,inf\n", "found 'inf' in line 2"),
        ("a.csv", "episode,score\n0,5\n1,good\n", "found '5' in line 2"),
        (
            "a.csv",
            'episode,comment,label\n0,"two\nlines",yes\n\n1,x,meh\n',
            "found 'meh' in line 5 (empty:",
        ),
        ("a.json", '[{"episode": 0, "label": "yes"}, {"episode": 1, "label": "meh"}]', "found 'meh' in item 2"),
        ("a.csv", "episode,label,comment\n0,1,x\n3,0,y\n", [1, 0, 0, -1]),
        ("a.csv", "episode,thumb,comment\n0,1,x\n", "which column holds the labels? Choose one of thumb, comment with"),
        ("a.csv", "episode,label,labels\n0,1,1\n", "Choose one of label, labels with score"),
        (
            "a.csv",
            "episode,traj_id,label\n0,1,1\n",
            "one column of episodes, called episode, episode_id, episode_index or",
        ),
        ("a.csv", "episode\n0\n", "there is no column beside the episodes': add one of labels or scores"),
        (
            "a.jsonl",
            str({f"e{n}": 1 for n in range(50)}).replace("'", '"'),
            "found e0, e1, e2, e3, e4, e5, e6, e7 and 42",
        ),
        ("a.csv", "episode,label\n0.0,yes\n1.0,no\n2.0,yes\n", [1, -1, 1, 0]),
        ("a.csv", "episode,label\ndemo-0,yes\nrun.1,no\n", [1, -1, 0, 0]),
    ],
)
def test_files_of_labels_as_people_write_them(tmp_path: Path, name: str, content: str, right: list[int] | str) -> None:
    path = hdf5(tmp_path / "set.hdf5", as_d4rl(experience(LENGTHS)))
    (labels := tmp_path / name).write_text(content, encoding="utf-8")
    if isinstance(right, str):
        assert right in refused(import_dataset, path, labels=labels, home=tmp_path / "home")
    else:
        assert accepted(import_dataset(path, labels=labels, home=tmp_path / "home")) == right


def test_a_column_of_a_wide_file_of_labels_is_chosen_and_the_others_are_reported(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "set.hdf5", as_d4rl(experience(LENGTHS)))
    (labels := tmp_path / "a.csv").write_text("episode,thumb,stars,by\n0,up,4,bo\n1,down,1,al\n2,,3,al\n3,up,2,al\n")

    def imported(score: str) -> Dataset:
        return import_dataset(
            path, labels=labels, score=score, label="column:2.5" * ("stars" in score) or None, home=home
        )

    home = tmp_path / "home"
    thumbs, stars, fewest = imported("thumb"), imported("stars"), imported("-stars")
    assert [accepted(each) for each in (thumbs, stars)] == [[1, -1, 0, 1], [1, -1, 1, -1]]
    assert accepted(fewest) == [-1] * 4, "all of -4, -1, -3 and -2 lie below 2.5"
    assert thumbs.metadata.score.settings == {"column": "a.csv: thumb"}
    report = thumbs.metadata.provenance.settings["report"]
    assert report == {"columns_not_used": ["a.csv: stars", "a.csv: by"]}
    assert len({each.metadata.id for each in (thumbs, stars, fewest)}) == 3
    with pytest.raises(UserError, match=r"unknown column of a\.csv for score: 'star': did you mean stars"):
        imported("star")


def test_words_of_ones_own_are_named_as_accepts(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "set.hdf5", as_d4rl(experience(LENGTHS)))
    (labels := tmp_path / "a.csv").write_text("episode,rank,verdict\n0,1,OK\n1,2,meh\n2,3,\n3,1,fine\n")

    def imported(*accept: str, **named: Any) -> list[int]:
        return accepted(import_dataset(path, labels=labels, accept=accept, home=tmp_path / "home", **named))

    assert imported("ok", "fine", score="verdict") == [1, -1, 0, 1]
    assert imported("1", score="rank") == [1, -1, -1, 1], "a value that is named is no rank"
    with pytest.raises(UserError, match=r"^accept good: no row of .*a\.csv holds it, they hold ok, meh, fine"):
        imported("good", score="verdict")
    with pytest.raises(UserError, match=r"^accept is for texts, and for episodes with a file of labels"):
        import_dataset(path, accept=["ok"], home=tmp_path / "home")


def test_numbers_in_a_file_of_labels_are_those_of_the_source(tmp_path: Path) -> None:
    """Also where an episode vanished because it has no step."""
    arrays = as_d4rl(experience(LENGTHS))
    del arrays["next_observations"]
    path = hdf5(tmp_path / "set.hdf5", arrays)
    labels = side_file(tmp_path / "reviewed.csv", [(0, "accept"), (2, "reject"), (3, "accept")])
    assert accepted(import_dataset(path, labels=labels, home=tmp_path / "home")) == [1, -1, 1]


@pytest.mark.parametrize("form", ["hdf5", "lerobot", "files"])
def test_folders_that_a_person_sorted(tmp_path: Path, form: str) -> None:
    root = tmp_path / "reviewed"
    for name, lengths in (("expert-data", [3, 2]), ("failure-data", [4]), ("unlabelled", [2])):
        written = experience(lengths)
        (root / name).mkdir(parents=True)
        if form == "lerobot":
            (root / name).rmdir()
            lerobot(root / name, frames_of(written, {"next.done": at_lasts(lengths)}, padded=True))
        elif form == "hdf5":
            hdf5(root / name / "set.hdf5", as_d4rl(written))
        else:
            for index in range(2 if name == "expert-data" else 1):
                hdf5(root / name / f"{index}.hdf5", as_d4rl(experience(lengths[index : index + 1])))
    dataset = import_dataset(root, home=tmp_path / "home")
    assert (accepted(dataset), dataset.metadata.unit) == ([1, 1, -1, 0], "episode")
    assert columns.vector(dataset.episodes, "length").tolist() == [3, 2, 4, 2]
    folders = dataset.metadata.provenance.settings["folders"]
    assert isinstance(folders, dict)
    assert sorted(str(value).split(",")[0] for value in folders.values()).count("reject") == 1
    assert not is_text(str(root))


def at_lasts(lengths: list[int]) -> np.ndarray:
    steps = np.zeros(sum(lengths), bool)
    steps[np.cumsum(lengths) - 1] = True
    return steps


def test_folders_that_say_neither_or_both_are_refused(tmp_path: Path) -> None:
    for name in ("accepts", "success-or-failure"):
        (tmp_path / "set" / name).mkdir(parents=True)
        hdf5(tmp_path / "set" / name / "a.hdf5", as_d4rl(experience([2])))
    assert "success-or-failure: the name says neither accept nor reject (or both)" in refusal(tmp_path / "set")
    (tmp_path / "set/success-or-failure").rename(tmp_path / "set/right_arm")
    assert "right_arm: the name says neither" in refusal(tmp_path / "set")


def test_columns_of_rlds_and_minari_are_feedback_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))

    def infos(index: int, length: int) -> dict[str, np.ndarray]:
        return {"rating": np.append(np.nan, np.full(length, index + 1.0)), "label": np.arange(length + 1) % 2 * 2 - 1}

    name = minari_set(experience(LENGTHS), infos=infos)
    steps = import_dataset(name, home=tmp_path / "home")
    assert (str(steps.metadata.label), steps.metadata.unit) == ("column:sign", "step")
    assert columns.labels(steps.table).tolist() == [1, -1, 1, 1, 1, -1, 1, -1, 1, -1]
    rated = import_dataset(name, score="rating", label="column:2", home=tmp_path / "home")
    assert (accepted(rated), rated.metadata.unit) == ([-1, -1, 1, 1], "episode")
    with pytest.raises(UserError, match="episode_0 has no info stars: choose another score"):
        import_dataset(name, score="stars", home=tmp_path / "home")
    with pytest.raises(UserError, match=r"label 'success:0\.5' does not use score or labels"):
        import_dataset(name, score="rating", label="success", home=tmp_path / "home")


def unsorted(root: Path, ending: str, names: dict[str, list[int]], **columns: Any) -> Path:
    """A folder of files with episodes of these lengths, and further arrays."""
    root.mkdir()
    for name, lengths in names.items():
        write = {".npz": npz, ".hdf5": hdf5}[ending]
        added = {key: each(name) for key, each in columns.items()}
        write(root / f"{name}{ending}", as_d4rl(experience(lengths)) | added)
    return root


@pytest.mark.parametrize("ending", [".npz", ".hdf5"])
def test_a_folder_of_files_that_nobody_sorted_is_read_in_the_order_of_their_numbers(
    tmp_path: Path, ending: str
) -> None:
    root = unsorted(tmp_path / "set", ending, {"demo_2": [3], "demo_10": [1], "demo_7": [4], "demo_3": [2]})
    dataset = import_dataset(root, home=tmp_path / "home")
    assert columns.vector(dataset.episodes, "length").tolist() == [3, 2, 4, 1]
    assert str(dataset.metadata.label) == "return:q0.5", "they hold rewards, and episodes of different returns"
    named = [(10, "yes"), (f"demo_3{ending}", "no"), ("cam/demo_2.mp4", "yes")]
    labels = side_file(tmp_path / "reviewed.csv", named)
    assert accepted(import_dataset(root, labels=labels, home=tmp_path / "home")) == [1, -1, 0, 1]
    with pytest.raises(UserError, match="episode 0 in line 2 is not in the source"):
        import_dataset(root, labels=side_file(tmp_path / "a.csv", [(0, "yes")]), home=tmp_path / "home")


def test_files_of_several_episodes_count_them_from_0(tmp_path: Path) -> None:
    root = unsorted(tmp_path / "set", ".npz", {"part_5": [3, 1], "part_6": [4, 2]})
    labels = side_file(tmp_path / "reviewed.csv", [(0, "yes"), (3, "no")])
    assert accepted(import_dataset(root, labels=labels, home=tmp_path / "home")) == [1, 0, 0, -1]


def test_columns_of_labels_in_several_files(tmp_path: Path) -> None:
    parts = {"demo_0": [3], "demo_1": [2]}
    steps = {"demo_0": np.array([1, 0, 1]), "demo_1": np.zeros(2, int)}  # of the second, one value an episode
    dataset = import_dataset(unsorted(tmp_path / "a", ".npz", parts, label=steps.get), home=tmp_path / "home")
    assert (columns.labels(dataset.table).tolist(), dataset.metadata.unit) == ([1, -1, 1, -1, -1], "step")
    mixed = {"demo_0": np.array([1, 0, 1]), "demo_1": np.full(2, 0.5)}
    with pytest.raises(UserError, match="column label holds labels in some files and scores in others"):
        import_dataset(unsorted(tmp_path / "b", ".npz", parts, label=mixed.get), home=tmp_path / "home")


def test_a_folder_of_files_without_labels_and_rewards_says_what_to_do(tmp_path: Path) -> None:
    root = unsorted(tmp_path / "set", ".npz", {"demo_0": [3], "demo_1": [2]})
    for path in root.iterdir():
        arrays = dict(np.load(path))
        del arrays["rewards"]
        npz(path, arrays)
    with pytest.warns(UserWarning, match="nothing is labelled; give the episodes' labels in a file with --labels, or"):
        dataset = import_dataset(root, home=tmp_path / "home")
    assert accepted(dataset) == [0, 0]
    npz(root / "demo_0.npz", {"seen": np.zeros(3), "act": np.zeros(3)})
    assert "set is not recognised by its arrays, " in refusal(root)
