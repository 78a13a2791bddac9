"""Responses in other libraries, and around every path and back: not a letter, label or split is lost."""

from __future__ import annotations

import itertools
import json
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import polars as pl
import pytest
from helpers.encoded import Store
from helpers.imports import frame
from helpers.imports import imported as quietly
from helpers.texts import completion, jsonl, prompt, save, ultrafeedback, unpaired

from pmpo_offline import data
from pmpo_offline.data import Dataset, columns
from pmpo_offline.data.exchange import export_dataset, left_out
from pmpo_offline.data.exchange.exported import MARKER
from pmpo_offline.data.exchange.writers import WRITERS
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError

FORMS: tuple[data.Format, ...] = ("arrow", "hdf5")
KEYS = ["prompt_id", "response_id"]

TEXT_FORMATS = ["trl", "huggingface", "parquet"]


imported = partial(quietly, overwrite=True)


@pytest.fixture
def scored(home: Path, tmp_path: Path) -> Dataset:
    """Sixty prompts of four scored responses, a third of them unlabelled, half of the prompts held out."""
    rows = [ultrafeedback(i, np.random.default_rng(i).integers(1, 10, 4).tolist()) for i in range(60)]
    return imported(jsonl(tmp_path / "uf.jsonl", rows), threshold="5", margin=1.0, test_share=0.5)


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet", "arrow"])
@pytest.mark.parametrize("format", FORMS)
def test_texts_survive_every_path(home: Path, tmp_path: Path, suffix: str, format: data.Format) -> None:
    """In as each kind of file, stored in each form, out in each format, and in again."""
    first = imported(save(tmp_path / f"rows.{suffix}", unpaired(40, 3)), format=format, test_share=0.4)
    expected = frame(first)
    assert expected["prompt"].to_list() == [prompt(i) for i in range(40) for _ in range(3)]
    assert expected["completion"].to_list() == [completion(i, k) for i in range(40) for k in range(3)]
    for to in TEXT_FORMATS:
        folder = export_dataset(first, to, tmp_path / to)
        back = imported(folder / "kto" if to == "trl" else folder, id="test/back-v0", format=format)
        assert frame(back).equals(expected)
        assert back.metadata.task == first.metadata.task
        assert data.verify("test/back-v0") == []
        if to == "trl":
            pairs = imported(folder / "dpo", id="test/pairs-v0", format=format)
            texts = frame(pairs).select("prompt", "completion", "label", "split").unique()
            assert texts.sort(texts.columns).equals(expected.select(texts.columns).sort(texts.columns))


def test_what_the_build_recorded_comes_back_with_an_export(scored: Dataset, tmp_path: Path, home: Path) -> None:
    settings = {"model": "tiny", "ends": False, "tokens": 24}
    provenance = scored.metadata.provenance.model_copy(update={"settings": settings})
    references = data.References(min=1.0, max=2.0, how="by hand")
    changed = scored.metadata.model_copy(
        update={"provenance": provenance, "references": references, "task": "language/sentiment"}
    )
    data.write(home / "test/own-v0", changed.model_copy(update={"id": "test/own-v0"}), {"responses": scored.table})
    for to in TEXT_FORMATS:
        folder = export_dataset("test/own-v0", to, tmp_path / to)
        back = imported(folder / "kto" if to == "trl" else folder, id="test/back-v0").metadata
        assert (back.task, back.references) == ("language/sentiment", references)
        assert {name: back.provenance.settings[name] for name in settings} == settings
    scores = imported(tmp_path / "parquet", id="test/scores-v0", score="score", threshold="5", margin=1.0)
    assert frame(scores).equals(frame(scored))


LABELLINGS: dict[str, dict[str, Any]] = {
    "labels of the source": {},
    "half of the scores": {"threshold": "q0.5"},
    "a dead zone": {"threshold": "5", "margin": 1.0},
    "a share of labels": {"threshold": "5", "imbalance": 0.2},
    "a share of rows": {"threshold": "5", "imbalance": 0.2, "balance": "rows"},
    "noise": {"threshold": "5", "noise": 0.3, "seed": 7},
}


@pytest.mark.parametrize("labelling", LABELLINGS)
def test_exports_come_back_whole(home: Path, tmp_path: Path, labelling: str) -> None:
    """With labels that no score tells any more, with scores that no label tells, and with all that was recorded."""
    scores = [np.random.default_rng(i).integers(1, 10, 4).tolist() for i in range(30)]
    rows = unpaired(30, 4) if labelling == "labels of the source" else list(map(ultrafeedback, range(30), scores))
    first = imported(jsonl(tmp_path / "rows.jsonl", rows), test_share=0.5, **LABELLINGS[labelling])
    everything, was = frame(first), first.metadata
    labelled = everything.filter(pl.col("label").is_not_null())
    for to, part, expected in (
        ("parquet", "", everything),
        ("huggingface", "", everything),
        ("trl", "", labelled),
        ("trl", "kto", labelled),
        ("trl", "dpo", None),
    ):
        folder = export_dataset(first, to, tmp_path / to, overwrite=True)
        back = imported(folder / part, id="test/back-v0")
        found = frame(back)
        if expected is None:  # the responses that have a rival
            expected = labelled.join(found, on=KEYS, how="semi")
            sides = labelled.group_by("prompt_id").agg(pl.col("label").n_unique().alias("sides"))
            assert expected.height == labelled.join(sides.filter(pl.col("sides") == 2), on="prompt_id").height > 0
        assert found.equals(expected)
        now = back.metadata
        assert data.verify("test/back-v0") == []
        assert (now.label, now.threshold, now.noise, now.seed) == (was.label, was.threshold, was.noise, was.seed)
        assert (now.score, now.task, now.references) == (was.score, was.task, was.references)
        assert now.provenance.sources[:-1] == was.provenance.sources
        assert (
            was.provenance.hashes.items() - {("recipe", was.provenance.hashes["recipe"])}
            <= now.provenance.hashes.items()
        )
        assert now.imbalance.asked == was.imbalance.asked
        if len(found) == len(everything):
            own = {"id", "provenance", "files"}
            assert now.model_dump(exclude=own) == was.model_dump(exclude=own)
            assert to != "parquet" or back.table.equals(first.table)
        else:
            assert now.counts.accepted == int(found["label"].sum())
            assert now.reject_share == pytest.approx(1 - float(found["label"].mean()))


def test_an_export_that_was_edited_is_not_taken_for_the_dataset(scored: Dataset, tmp_path: Path) -> None:
    folder = export_dataset(scored, "parquet", tmp_path / "out")
    edited = pl.read_parquet(folder / "responses.parquet").with_columns(label=~pl.col("label"))
    edited.write_parquet(folder / "responses.parquet")
    with pytest.raises(UserError, match=r"was changed after its export: .*; label it again with label"):
        imported(folder, id="test/back-v0")
    again = imported(folder, id="test/back-v0", label="column")
    assert again.metadata.counts.accepted == int(edited["label"].sum())


def test_trl_gets_labelled_rows_and_all_pairs(scored: Dataset, tmp_path: Path) -> None:
    folder = export_dataset(scored, "trl", tmp_path / "out")
    rows = frame(scored)
    assert left_out(scored, "trl") == [f"{rows['label'].null_count()} unlabelled responses"]
    for split in ("train", "test"):
        of_split = rows.filter((pl.col("split") == split) & pl.col("label").is_not_null())
        assert of_split.height > 20
        kto = pl.read_parquet(folder / f"kto/{split}.parquet")
        assert kto.columns[:2] == ["prompt", "completion"]
        assert kto.sort(KEYS).equals(of_split)
        expected = {
            (accepted["prompt"], accepted["completion"], rejected["completion"])
            for _, same in of_split.group_by("prompt_id")
            for accepted, rejected in itertools.product(
                same.filter(pl.col("label")).to_dicts(), same.filter(~pl.col("label")).to_dicts()
            )
        }
        dpo = pl.read_parquet(folder / f"dpo/{split}.parquet")
        assert len(expected) == dpo.height > 20
        assert set(dpo.select("prompt", "chosen", "rejected").iter_rows()) == expected
        assert (dpo["score_chosen"] > dpo["score_rejected"]).all()


def test_trl_where_there_are_no_pairs_and_no_labels(home: Path, tmp_path: Path) -> None:
    rejects = imported(jsonl(tmp_path / "no.jsonl", [row | {"label": 0} for row in unpaired(20)]))
    folder = export_dataset(rejects, "trl", tmp_path / "out")
    assert not (folder / "dpo").exists()
    assert left_out(rejects, "trl") == ["pairs (no prompt has both an accepted and a rejected response)"]
    nothing = imported(jsonl(tmp_path / "none.jsonl", [row | {"label": None} for row in unpaired(20)]))
    with pytest.raises(UserError, match="no response of trl/none-v0 is labelled"):
        export_dataset(nothing, "trl", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_response_is_not_preferred_to_itself(home: Path, tmp_path: Path) -> None:
    responses = [("yes", 1), ("yes", 0), ("no", 0)]
    rows = [{"prompt": "p", "completion": completion, "label": label} for completion, label in responses]
    folder = export_dataset(imported(jsonl(tmp_path / "rows.jsonl", rows), test_share=0.0), "trl", tmp_path / "out")
    pairs = pl.read_parquet(folder / "dpo/train.parquet").select("prompt", "chosen", "rejected").rows()
    assert pairs == [("p", "yes", "no")]


def test_exported_rows_are_shuffled(home: Path, tmp_path: Path) -> None:
    """Whatever the order in the dataset: here all accepts come first."""
    source = imported(jsonl(tmp_path / "rows.jsonl", unpaired(300)), test_share=0.0)
    ordered = pl.DataFrame(pl.from_arrow(source.table)).sort("label").to_arrow().cast(source.table.schema)
    data.write(
        home / "test/sorted-v0", source.metadata.model_copy(update={"id": "test/sorted-v0"}), {"responses": ordered}
    )
    folder = export_dataset("test/sorted-v0", "trl", tmp_path / "out")
    labels = pl.read_parquet(folder / "kto/train.parquet")["label"].cast(pl.Int8).to_numpy()
    changes = np.flatnonzero(np.diff(labels)) + 1
    assert np.diff([0, *changes, len(labels)]).max() <= 20
    prompts = pl.read_parquet(folder / "dpo/train.parquet")["prompt_id"].to_list()
    assert prompts != sorted(prompts)
    again = export_dataset("test/sorted-v0", "trl", tmp_path / "again")
    assert (again / "kto/train.parquet").read_bytes() == (folder / "kto/train.parquet").read_bytes()


def test_hugging_face_opens_what_is_stored_and_every_export(scored: Dataset, tmp_path: Path, hugging_face: Any) -> None:
    stored = hugging_face(scored.path)["train"]
    assert stored[:] == scored.table.to_pydict()
    assert (stored.features["label"].dtype, stored.features["score"].dtype) == ("bool", "float32")
    train = stored.filter(lambda row: row["split"] == "train" and row["label"] is not None)  # as the card says
    rows = frame(scored)
    kto = hugging_face(export_dataset(scored, "trl", tmp_path / "trl"), "kto")
    assert set(kto) == {"train", "test"}
    assert sorted(kto["train"]["completion"]) == sorted(train["completion"])
    assert kto["train"].features["prompt"].dtype == "string"
    dpo = hugging_face(tmp_path / "trl", "dpo")
    assert dpo["test"].column_names[:3] == ["prompt", "chosen", "rejected"]
    whole = hugging_face(export_dataset(scored, "huggingface", tmp_path / "out"))
    assert whole["train"].features == stored.features
    for split in ("train", "test"):
        theirs = pl.DataFrame(whole[split].to_dict(), schema=rows.schema).sort(KEYS)
        assert theirs.equals(rows.filter(pl.col("split") == split))
    plain = pl.read_parquet(export_dataset(scored, "parquet", tmp_path / "pq") / "responses.parquet")
    assert plain.sort(KEYS).equals(rows)


def test_flat_hdf5_opens_with_h5py_and_hugging_face(home: Path, tmp_path: Path, hugging_face: Any) -> None:
    dataset = imported(jsonl(tmp_path / "rows.jsonl", unpaired(10)), format="hdf5")
    with h5py.File(dataset.path / "responses.hdf5") as file:
        assert set(file) == set(dataset.table.column_names)
        assert file["prompt"].asstr()[()].tolist() == dataset.table["prompt"].to_pylist()
        assert (file["label"][()] == columns.labels(dataset.table)).all()
    rows = hugging_face(dataset.path)["train"]
    for name in ("prompt", "completion", "source", "split", "prompt_id", "score"):
        assert rows[name][:] == dataset.table[name].to_pylist()
    assert rows["label"][:] == columns.labels(dataset.table).tolist()


def test_polars_opens_the_arrow_form(scored: Dataset) -> None:
    opened = pl.scan_ipc(scored.path / "responses.arrow").collect()
    assert opened.sort(KEYS).equals(frame(scored))


@pytest.mark.parametrize("to", sorted(WRITERS))
def test_formats_are_for_texts_or_for_steps_or_both(scored: Dataset, store: Store, tmp_path: Path, to: str) -> None:
    for dataset in (scored, store([3, 1], "success")):
        if dataset.metadata.kind in WRITERS[to].kinds:
            folder = export_dataset(dataset, to, tmp_path / f"{to}-{dataset.metadata.kind}")
            about = json.loads((folder / MARKER).read_text())
            assert about["dataset"]["id"] == dataset.metadata.id
            assert about["left_out"] == left_out(dataset, to)
        else:
            with pytest.raises(UserError, match=f"holds {dataset.metadata.kind}: choose .*, not {to}"):
                export_dataset(dataset, to, tmp_path / "out")


def test_a_full_disk_leaves_nothing(scored: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for to in TEXT_FORMATS:
        with pytest.raises(PmpoOfflineError, match="cannot write"):
            export_dataset(scored, to, tmp_path / "file/out")
