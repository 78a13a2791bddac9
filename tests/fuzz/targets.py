"""Everything that is read: sound files of each kind, and the call that reads them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import torch
from helpers.aligned import experience
from helpers.encoded import make, rewrite

from fuzz.benchmarks import BENCHMARKS
from fuzz.declarations import DECLARATIONS
from fuzz.imports import IMPORTS, LENGTHS, Target
from fuzz.language import LANGUAGE
from pmpo_offline import data
from pmpo_offline.build import shipped
from pmpo_offline.build.pipeline import load_notes, save_notes
from pmpo_offline.build.read_text import import_text
from pmpo_offline.data import Experience, mapping
from pmpo_offline.data.exchange import export_dataset
from pmpo_offline.data.exchange.exported import origin
from pmpo_offline.data.exchange.readers import open_source
from pmpo_offline.declarations import catalog
from pmpo_offline.policies import MixturePolicy
from pmpo_offline.policies.behavior import BehaviorPolicy
from pmpo_offline.runtime.arrays import save_arrays
from pmpo_offline.runtime.errors import PmpoOfflineError
from pmpo_offline.runtime.hashing import hash_file
from pmpo_offline.training import Advantages, load_policy
from pmpo_offline.training.checkpoint import Checkpoint

ID = "test/small-v0"
RESPONSES = {"prompt": ["a", "b"] * 10, "completion": ["x", "yy", "zzz", "β"] * 5, "score": [0.5, -0.5] * 10}
RESPONSES |= {"prompt_id": [0, 1] * 10, "response_id": list(range(20)), "source": ["s"] * 20, "split": ["train"] * 20}


def _stored(folder: Path, **settings: object) -> None:
    form = settings.pop("format", "arrow")
    data.write(folder / ID, *make(LENGTHS, candidates=4, **settings), form=form)


def _stored_hdf5(folder: Path) -> None:
    _stored(folder, format="hdf5")


def _stored_in_parts(folder: Path) -> None:
    with patch.object(mapping, "PART_BYTES", 200):
        _stored(folder)


def _responses(folder: Path, form: data.Format = "arrow") -> None:
    rows = pa.table({**RESPONSES, "label": pa.nulls(20, pa.bool_())}).select(data.responses_schema().names)
    rule = data.LabelRule.parse("column")
    done = data.label_tables(rows.cast(data.responses_schema()), None, data.Labelling(rule))
    about = {"id": ID, "task": "language/tiny", "score": data.ScoreRule(name="column"), "label": rule}
    data.write(folder / ID, data.Metadata(**about, **done.described), done.tables, form=form)


def _opened(folder: Path) -> str:
    """List, open and use a dataset, and verify it; return a hash of its content and its description."""
    data.stored_ids(folder)
    wrong = data.verify(folder / ID)
    dataset = data.load_dataset(folder / ID)
    if dataset.episodes is not None:
        dataset.sample(8)
        data.Rows.of(dataset)
    repr(dataset)
    dataset.table.slice(0, 3).to_pylist()
    if wrong:
        raise PmpoOfflineError(wrong[0])
    return dataset.content_hash + dataset.metadata.model_dump_json()


def _opened_healed(folder: Path) -> None:
    """Do the same where the damage has the right hash, so that another content is no mistake."""
    _opened(folder)


def _healed(folder: Path) -> None:
    """Give the damaged files of a dataset the sizes and hashes that dataset.json records."""
    path = folder / ID

    def change(content: dict[str, dict[str, dict[str, object]]]) -> None:
        for name, info in content["files"].items():
            info.update(bytes=(path / name).stat().st_size, sha256=hash_file(path / name))

    rewrite(path, change)


def _resealed(folder: Path) -> None:
    path = folder / ID / "dataset.json"
    (folder / ID / "dataset.json.sha256").write_text(f"{hash_file(path)}  dataset.json\n")


def _exported(to: str, read: Callable[[Path], object]) -> Target:
    def write(folder: Path) -> None:
        data.write(folder / "home" / ID, *make(LENGTHS))
        export_dataset(data.open_dataset(folder / "home" / ID), to, folder / "out")
        shutil.rmtree(folder / "home")

    return Target(write, read, "out/**/*")


def _read_export(folder: Path) -> None:
    origin(folder / "out")
    file = next((path for path in folder.glob("out/*") if path.suffix in (".hdf5", ".h5", ".npz")), None)
    source = open_source(str(file or folder / "out" / ID))
    (source.exported or source).read()


def _read_exported(folder: Path) -> None:
    open_source(str(folder / "out")).read().experience.tables()


def _exported_texts(folder: Path) -> None:
    _responses(folder / "home")
    export_dataset(data.open_dataset(folder / "home" / ID), "trl", folder / "out")
    shutil.rmtree(folder / "home")


def _read_texts(folder: Path) -> None:
    import_text(folder / "out/kto", home=folder / "home", overwrite=True)
    shutil.rmtree(folder / "home")


def _notes(folder: Path) -> None:
    experience(LENGTHS).save(folder / "experience.npz")
    save_notes(folder / "notes.json", {"rewards": True, "success": False}, folder / "experience.npz")


def _read_notes(folder: Path) -> str:
    notes = load_notes(folder / "notes.json", folder / "experience.npz")
    if notes is None:
        raise PmpoOfflineError("they are as if absent")
    table, episodes = Experience.load(folder / "experience.npz").tables()
    return f"{notes} {shipped.experience_hash(table, episodes)}"


def _policy(folder: Path) -> None:
    MixturePolicy([0, 1], torch.zeros(3), torch.ones(3), 2, components=2, hidden=[8, 8]).save(folder / "p.safetensors")


def _read_policy(folder: Path) -> None:
    load_policy(folder / "p.safetensors").predict(np.zeros(3))


def _behavior(name: str, load: Callable[[Path], object]) -> Target:
    source = catalog.root("datasets") / "behaviors/mujoco/hopper" / name

    def read(folder: Path) -> None:
        load(folder / name)

    return Target(lambda folder: shutil.copy(source, folder), read)


def _checkpoint(folder: Path) -> None:
    Checkpoint(folder / "c.safetensors", "i" * 64).save({"x": torch.ones(4), "y": torch.zeros(2, 2)}, done="3")


def _resumed(folder: Path) -> str:
    found = Checkpoint(folder / "c.safetensors", "i" * 64).load()
    if found is None:
        raise PmpoOfflineError("it is of another training")
    return f"{sorted(found[0].items())} {sorted(found[1].items())}"


def _advantages(folder: Path) -> None:
    rows = np.arange(3)
    scores = rows[:, None].astype(np.float32)
    Advantages(scores[:, 0], np.float64(0.5), rows, scores[..., None], scores).save(folder / "a.npz")


def _read_advantages(folder: Path) -> str:
    return str(Advantages.load(folder / "a.npz"))


def _shipped_labels(folder: Path) -> None:
    table, episodes = experience(LENGTHS).tables()
    accepted = np.packbits(np.arange(len(table)) % 2 == 0)
    recorded = np.array(shipped.experience_hash(table, episodes))
    save_arrays(folder / "l.npz", {"accepted": accepted, "ties": np.array([1], np.int32), "experience": recorded})


def _read_labels(folder: Path) -> str:
    table, episodes = experience(LENGTHS).tables()
    content: Any = SimpleNamespace(table=table, episodes=episodes)
    found = shipped.with_shipped_labels(np.ones(len(table), np.float32), folder / "l.npz", content)
    if found is None:
        raise PmpoOfflineError("they are of other experience")
    return str(found)


TARGETS: dict[str, Target] = {
    "dataset": Target(_stored, _opened, f"{ID}/*"),
    "dataset, healed": Target(_stored, _opened_healed, f"{ID}/*.arrow", _healed),
    "dataset.json, healed": Target(_stored, _opened_healed, f"{ID}/dataset.json", _resealed),
    "dataset in parts": Target(_stored_in_parts, _opened, f"{ID}/*"),
    "dataset in parts, healed": Target(_stored_in_parts, _opened_healed, f"{ID}/*.arrow", _healed),
    "responses": Target(_responses, _opened, f"{ID}/*"),
    "responses, healed": Target(_responses, _opened_healed, f"{ID}/*.arrow", _healed),
    "dataset in HDF5": Target(_stored_hdf5, _opened, f"{ID}/**/*"),
    "dataset in HDF5, healed": Target(
        lambda folder: _stored(folder, format="hdf5"), _opened_healed, f"{ID}/**/*.hdf5", _healed
    ),
    "responses in HDF5, healed": Target(
        lambda folder: _responses(folder, "hdf5"), _opened_healed, f"{ID}/responses.hdf5", _healed
    ),
    **IMPORTS,
    "export for d4rl": _exported("d4rl", _read_export),
    "export for minari": _exported("minari", _read_export),
    "export for lerobot": _exported("lerobot", _read_exported),
    "export for parquet": _exported("parquet", _read_exported),
    "export for robomimic": _exported("robomimic", _read_export),
    "export for d3rlpy": _exported("d3rlpy", _read_export),
    "export for ogbench": _exported("ogbench", _read_export),
    "export for huggingface": _exported("huggingface", _read_exported),
    "export for trl": Target(_exported_texts, _read_texts, "out/**/*"),
    "raw experience": Target(_notes, _read_notes),
    "policy": Target(_policy, _read_policy),
    "behaviour policy": _behavior("medium.safetensors", BehaviorPolicy.load),
    "behaviour policies": _behavior("replay.safetensors", BehaviorPolicy.load_ladder),
    "advantages": Target(_advantages, _read_advantages),
    "shipped labels": Target(_shipped_labels, _read_labels),
    "checkpoint": Target(_checkpoint, _resumed),
    **DECLARATIONS,
    **LANGUAGE,
    **BENCHMARKS,
}
