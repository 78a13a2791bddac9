"""Everything that is read: sound files of each kind, and the call that reads them."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa
import torch
from helpers import small_language
from helpers.aligned import experience
from helpers.encoded import make, rewrite
from helpers.raw_scores import raw_scores

from fuzz.imports import IMPORTS, LENGTHS, Target
from pmpo_offline import data
from pmpo_offline.benchmark.leaderboard import Leaderboard, listed
from pmpo_offline.benchmark.results import Results
from pmpo_offline.benchmark.table import table
from pmpo_offline.build.pipeline import load_notes, save_notes
from pmpo_offline.data import Experience, parts
from pmpo_offline.data.exchange import export_dataset
from pmpo_offline.data.exchange.origin import origin
from pmpo_offline.data.exchange.readers import open_source
from pmpo_offline.declarations import catalog
from pmpo_offline.evaluation.language.questions import templates
from pmpo_offline.evaluation.runs import evaluate_run
from pmpo_offline.policies import MixturePolicy
from pmpo_offline.policies.behavior import BehaviorPolicy
from pmpo_offline.policies.language import model as language
from pmpo_offline.runtime.hashing import hash_file
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
    with patch.object(parts, "PART_BYTES", 200):
        _stored(folder)


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


def _submissions(folder: Path) -> None:
    entry = {
        "name": "one",
        "date": "2026-01-01",
        "algorithms": ["pmpo"],
        "commands": ["bench"],
        "hardware": ["a machine"],
        "by": "",
        "link": "",
    }
    for name in ("2026-01-01-one", "2026-01-02-two"):
        Results(folder / name).write(name, raw_scores(name, [[1.0, 2.0]] * 5), "m" * 64)
        scores = (folder / name / "raw" / f"{name}.parquet").rename(folder / name / "scores.parquet")
        shutil.rmtree(folder / name / "raw")
        (folder / name / "entry.json").write_text(json.dumps(entry | {"sha256": hash_file(scores)}))


def _submitted(folder: Path) -> None:
    board = Leaderboard(folder)
    table(board.read())
    board.commands(), board.machines(), listed(board)


@cache
def _base() -> language.LanguageModel:
    folder = Path(tempfile.mkdtemp())
    small_language.random_model().save_pretrained(folder)
    small_language.tokenizer().save_pretrained(folder)
    return language.open_model(folder)


def _adapter(folder: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(small_language.random_model(), LoraConfig(r=2, target_modules=["q_proj"]))
    language.save_adapter(model, folder / "adapter")


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
        elif kind == "benchmarks":
            catalog.suite(path)
        elif name == "tuning":
            with patch.object(catalog, "root", lambda _: folder):
                catalog.tuning()
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


TARGETS: dict[str, Target] = {
    "dataset": Target(_stored, _opened, f"{ID}/*"),
    "dataset, healed": Target(_stored, _opened, f"{ID}/*.arrow", _healed),
    "dataset.json, healed": Target(_stored, _opened, f"{ID}/dataset.json", _resealed),
    "dataset in parts": Target(_stored_in_parts, _opened, f"{ID}/*"),
    "dataset in parts, healed": Target(_stored_in_parts, _opened, f"{ID}/*.arrow", _healed),
    "responses": Target(_responses, _opened, f"{ID}/*"),
    "responses, healed": Target(_responses, _opened, f"{ID}/*.arrow", _healed),
    "dataset in HDF5": Target(_stored_hdf5, _opened, f"{ID}/**/*"),
    "dataset in HDF5, healed": Target(
        lambda folder: _stored(folder, format="hdf5"), _opened, f"{ID}/**/*.hdf5", _healed
    ),
    "responses in HDF5, healed": Target(
        lambda folder: _responses(folder, "hdf5"), _opened, f"{ID}/responses.hdf5", _healed
    ),
    **IMPORTS,
    "export for d4rl": _exported("d4rl", _read_export),
    "export for minari": _exported("minari", _read_export),
    "export for lerobot": _exported("lerobot", _read_exported),
    "export for parquet": _exported("parquet", _read_exported),
    "export for robomimic": _exported("robomimic", _read_export),
    "export for d3rlpy": _exported("d3rlpy", _read_export),
    "raw experience": Target(_notes, _read_notes),
    "policy": Target(_policy, lambda folder: MixturePolicy.load(folder / "p.safetensors")),
    "behaviour policy": Target(_behavior, lambda folder: BehaviorPolicy.load(folder / "medium.safetensors")),
    "run": Target(_run, _evaluated, "run/*"),
    "raw scores": Target(_scores, lambda folder: table(Results(folder).read()), "raw/*"),
    "leaderboard": Target(_submissions, _submitted, "*/*"),
    "adapter": Target(_adapter, lambda folder: language.load_adapter(_base(), folder / "adapter"), "adapter/*"),
    "checkpoint": Target(_checkpoint, lambda folder: Checkpoint(folder / "c.safetensors", "i" * 64).load()),
    "language checkpoint": Target(_language_checkpoint, _resumed, "checkpoint-3/*"),
    "recipe": _declared("datasets", "sphere-v0"),
    "suite": _declared("benchmarks", "quick"),
    "suite with all keys": _declared("benchmarks", "map"),
    "algorithm": _declared("baselines", "pmpo"),
    "tuning": _declared("baselines", "tuning"),
    "questions": Target(_questions, lambda folder: templates(folder / "q.toml")),
}
