"""Everything that is read: sound files of each kind, and the call that reads them."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from helpers import foreign, texts
from helpers.aligned import experience
from helpers.encoded import make, rewrite
from helpers.raw_scores import raw_scores

from pmpo_offline import data
from pmpo_offline.benchmark.results import Results
from pmpo_offline.benchmark.table import table
from pmpo_offline.build.pipeline import load_notes, save_notes
from pmpo_offline.build.read_text import import_text
from pmpo_offline.data import Experience
from pmpo_offline.data.exchange import export_dataset
from pmpo_offline.data.exchange.origin import origin
from pmpo_offline.data.exchange.readers import open_source
from pmpo_offline.declarations import catalog
from pmpo_offline.evaluation.language.questions import templates
from pmpo_offline.evaluation.runs import evaluate_run
from pmpo_offline.policies import MixturePolicy
from pmpo_offline.policies.behavior import BehaviorPolicy
from pmpo_offline.runtime.hashing import hash_file
from pmpo_offline.training.checkpoint import Checkpoint

ID = "test/small-v0"
LENGTHS = [3, 1, 4, 2, 5, 2]
RESPONSES = {"prompt": ["a", "b"] * 10, "completion": ["x", "yy", "zzz", "β"] * 5, "score": [0.5, -0.5] * 10}
RESPONSES |= {"prompt_id": [0, 1] * 10, "response_id": list(range(20)), "source": ["s"] * 20, "split": ["train"] * 20}


@dataclass(frozen=True)
class Target:
    """Files of one kind."""

    make: Callable[[Path], object]
    """Writes sound files into an empty folder."""
    read: Callable[[Path], object]
    """Reads all of them, given the folder; `PmpoOfflineError` is the only exception that is right."""
    files: str = "*"
    """Pattern of the files that are damaged."""
    heal: Callable[[Path], object] = lambda folder: None
    """Corrects sizes and hashes after the damage, as somebody who knows of them would."""


def _stored(folder: Path, **settings: object) -> None:
    form = settings.pop("format", "arrow")
    data.write(folder / ID, *make(LENGTHS, candidates=4, **settings), form=form)


def _stored_hdf5(folder: Path) -> None:
    _stored(folder, format="hdf5")


def _responses(folder: Path, form: data.Format = "arrow") -> None:
    rows = pa.table({**RESPONSES, "label": pa.nulls(20, pa.bool_())}).select(data.responses_schema().names)
    rule = data.LabelRule.parse("column")
    done = data.label_tables(rows.cast(data.responses_schema()), None, data.Labelling(rule))
    about = {"id": ID, "task": "language/tiny", "score": data.ScoreRule(name="column"), "label": rule}
    data.write(folder / ID, data.Metadata(**about, **done.described), done.tables, form=form)


def _opened(folder: Path) -> None:
    """List, open and use a dataset, and verify it."""
    data.stored_ids(folder)
    data.verify(folder / ID)
    dataset = data.load_dataset(folder / ID)
    assert len(dataset.content_hash) == len(dataset.fingerprint) == 64
    if dataset.episodes is not None:
        dataset.sample(8)
        data.Rows.of(dataset)
    repr(dataset)
    dataset.table.slice(0, 3).to_pylist()


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


def _imported(folder: Path) -> None:
    path = next(path for path in folder.iterdir() if not path.name.startswith("home"))
    open_source(str(path)).read().experience.tables()


def _text(folder: Path) -> None:
    path = next(path for path in folder.iterdir() if not path.name.startswith("home"))
    import_text(path, home=folder / "home", overwrite=True)
    shutil.rmtree(folder / "home", ignore_errors=True)


@contextmanager
def _minari_home(folder: Path) -> Iterator[None]:
    before = os.environ.get("MINARI_DATASETS_PATH")
    os.environ["MINARI_DATASETS_PATH"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("MINARI_DATASETS_PATH")
        if before is not None:
            os.environ["MINARI_DATASETS_PATH"] = before


def _minari(form: str) -> Target:
    def write(folder: Path) -> None:
        with _minari_home(folder):
            foreign.minari_set(experience(LENGTHS), form=form)

    def read(folder: Path) -> None:
        open_source(str(folder / "test/aligned-v0")).read().experience.tables()

    return Target(write, read, "test/aligned-v0/**/*")


def _exported(to: str, read: Callable[[Path], object]) -> Target:
    def write(folder: Path) -> None:
        data.write(folder / "home" / ID, *make(LENGTHS))
        export_dataset(data.open_dataset(folder / "home" / ID), to, folder / "out")
        shutil.rmtree(folder / "home")

    return Target(write, read, "out/**/*")


def _read_export(folder: Path) -> None:
    origin(folder / "out")
    file = next((path for path in folder.glob("out/*.hdf5")), None)
    open_source(str(file or folder / "out" / ID)).read()


def _notes(folder: Path) -> None:
    experience(LENGTHS).save(folder / "experience.npz")
    save_notes(folder / "notes.json", {"rewards": True, "success": False}, folder / "experience.npz")


def _read_notes(folder: Path) -> None:
    load_notes(folder / "notes.json", folder / "experience.npz")
    Experience.load(folder / "experience.npz").tables()


def _policy(folder: Path) -> None:
    MixturePolicy([0, 1], torch.zeros(3), torch.ones(3), 2, components=2, hidden=[8, 8]).save(folder / "p.safetensors")


def _behavior(folder: Path) -> None:
    shutil.copy(
        next((catalog.root("datasets") / "behaviors").glob("**/medium.safetensors")), folder / "medium.safetensors"
    )


def _run(folder: Path) -> None:
    """A finished run on a bandit, as `train` leaves it."""
    from pmpo_offline.build import build_dataset
    from pmpo_offline.training.run import Run, train_run

    dataset = build_dataset("bandit/sphere-v0", episodes=60, workers=1, home=folder / "home")
    train_run(Run(dataset, "bc", steps=1), folder / "run", folder / "home")


def _evaluated(folder: Path) -> None:
    from pmpo_offline.evaluation.options import EvaluationOptions

    evaluate_run(folder / "run", EvaluationOptions(episodes=2, workers=1), folder / "home")


def _scores(folder: Path) -> None:
    Results(folder).write("a" * 16, raw_scores("a" * 16, [[1.0, 2.0], [3.0, 4.0]]), "m" * 64)


def _checkpoint(folder: Path) -> None:
    Checkpoint(folder / "c.safetensors", "i" * 64).save({"x": torch.ones(4), "y": torch.zeros(2, 2)}, done="3")


def _language_checkpoint(folder: Path) -> None:
    from pmpo_offline.training.language import checkpoints

    path = folder / "checkpoint-3"
    path.mkdir()
    state = {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}
    checkpoints._write(path / "optimizer.safetensors", [state, {"last_epoch": 3}])
    checkpoints._write(path / "rng_state_0.safetensors", [torch.get_rng_state(), []])
    checkpoints._write(path / "adapter_model.safetensors", [torch.ones(2)])
    (path / "trainer_state.json").write_text(json.dumps({"global_step": 3, "log_history": []}))
    checkpoints.seal(path)


def _resumed(folder: Path) -> None:
    from pmpo_offline.training.language.checkpoints import last_complete

    last_complete(folder)


def _declared(kind: str, name: str) -> Target:
    def write(folder: Path) -> None:
        shutil.copy(next(path for path in catalog.root(kind).glob(f"**/{name}.toml")), folder / f"{name}.toml")

    def read(folder: Path) -> None:
        path = str(folder / f"{name}.toml")
        if kind == "datasets":
            from pmpo_offline.build.collect import Recipe

            Recipe.of(catalog.dataset(path)).spec(folder / "home")
        elif name == "quick":
            catalog.suite(path)
        else:
            from pmpo_offline.training.config import complete, hyperparameters
            from pmpo_offline.training.control.config import TrainingSettings

            algorithm = catalog.algorithm(path)
            complete(algorithm, {})
            hyperparameters(algorithm, {}, TrainingSettings)

    return Target(write, read)


def _questions(folder: Path) -> None:
    from pmpo_offline.evaluation.language import questions

    shutil.copy(questions.SHIPPED, folder / "q.toml")


def _rows(name: str) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        if name.endswith(".gz"):
            plain = texts.jsonl(folder / "a.jsonl", texts.unpaired(6))
            (folder / name).write_bytes(gzip.compress(plain.read_bytes(), mtime=0))
            plain.unlink()
        else:
            texts.save(folder / name, texts.unpaired(6) if "csv" in name else texts.paired(6))

    return write


def _flat(name: str) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        written = experience(LENGTHS)
        arrays = foreign.as_states(written) if name.startswith("rlds") else foreign.as_d4rl(written)
        if name.endswith(".hdf5"):
            foreign.hdf5(folder / name, arrays)
        elif name.endswith(".npz"):
            foreign.npz(folder / name, arrays)
        else:
            import pyarrow.parquet as pq

            pq.write_table(pa.table({key: list(values) for key, values in arrays.items()}), folder / name)

    return write


def _ogbench(folder: Path) -> None:
    arrays = foreign.as_states(experience(LENGTHS))
    named = {"observations": arrays["observation"], "actions": arrays["action"], "terminals": arrays["is_last"]}
    foreign.npz(folder / "cube-single-play-v0.npz", {name: np.asarray(values) for name, values in named.items()})


TARGETS: dict[str, Target] = {
    "dataset": Target(_stored, _opened, f"{ID}/*"),
    "dataset, healed": Target(_stored, _opened, f"{ID}/*.arrow", _healed),
    "dataset.json, healed": Target(_stored, _opened, f"{ID}/dataset.json", _resealed),
    "responses": Target(_responses, _opened, f"{ID}/*"),
    "responses, healed": Target(_responses, _opened, f"{ID}/*.arrow", _healed),
    "dataset in HDF5": Target(_stored_hdf5, _opened, f"{ID}/**/*"),
    "dataset in HDF5, healed": Target(
        lambda folder: _stored(folder, format="hdf5"), _opened, f"{ID}/**/*.hdf5", _healed
    ),
    "responses in HDF5, healed": Target(
        lambda folder: _responses(folder, "hdf5"), _opened, f"{ID}/responses.hdf5", _healed
    ),
    "d4rl": Target(_flat("hopper.hdf5"), _imported),
    "ogbench": Target(_ogbench, _imported),
    "rlds npz": Target(_flat("rlds.npz"), _imported),
    "rlds hdf5": Target(_flat("rlds.hdf5"), _imported),
    "rlds parquet": Target(_flat("rlds.parquet"), _imported),
    "minari hdf5": _minari("hdf5"),
    "minari arrow": _minari("arrow"),
    "jsonl": Target(_rows("a.jsonl"), _text),
    "jsonl.gz": Target(_rows("a.jsonl.gz"), _text),
    "json": Target(_rows("a.json"), _text),
    "csv": Target(_rows("a.csv"), _text),
    "parquet": Target(_rows("a.parquet"), _text),
    "arrow": Target(_rows("a.arrow"), _text),
    "export for d4rl": _exported("d4rl", _read_export),
    "export for minari": _exported("minari", _read_export),
    "raw experience": Target(_notes, _read_notes),
    "policy": Target(_policy, lambda folder: MixturePolicy.load(folder / "p.safetensors")),
    "behaviour policy": Target(_behavior, lambda folder: BehaviorPolicy.load(folder / "medium.safetensors")),
    "run": Target(_run, _evaluated, "run/*"),
    "raw scores": Target(_scores, lambda folder: table(Results(folder).read()), "raw/*"),
    "checkpoint": Target(_checkpoint, lambda folder: Checkpoint(folder / "c.safetensors", "i" * 64).load()),
    "language checkpoint": Target(_language_checkpoint, _resumed, "checkpoint-3/*"),
    "recipe": _declared("datasets", "sphere-v0"),
    "suite": _declared("benchmarks", "quick"),
    "algorithm": _declared("baselines", "pmpo"),
    "questions": Target(_questions, lambda folder: templates(folder / "q.toml")),
}
