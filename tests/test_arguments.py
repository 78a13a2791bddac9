"""Every public function with values of wrong types and names in place of each argument: `UserError`, one line."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pmpo_offline
from pmpo_offline import build_dataset
from pmpo_offline.runtime.arguments import fits, parameter_types
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError

QUICK = {"updates": 2, "hidden": [4], "components": 1, "batch": 8}
FOR_TYPE_CHECKERS = {("evaluate", "policy"), ("on_progress", "callback")}
"""Parameters that the function itself looks at."""
WRONG = [None, True, 0, -1, 2.5, float("nan"), "", "nonsense", "\x00", b"bytes", [], [None], {}, {"a": None}, object()]
WRONG += [Path("nowhere/at all"), np.zeros(3), (1, "x"), len, Ellipsis]


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Return arguments with which every public function succeeds, or, of the hub and language models, gets far."""
    home = tmp_path_factory.mktemp("home")
    sphere = build_dataset("bandit/sphere-v0", episodes=40, workers=1, home=home)
    (rows := home / "rows.jsonl").write_text('{"prompt": "p", "completion": "c", "label": true}\n' * 4)
    steps = {name: np.ones((6, 1), np.float32) for name in ("observations", "actions")}
    np.savez(home / "log.npz", **steps, rewards=np.ones(6, np.float32), terminals=np.array([0, 0, 1] * 2, bool))
    trained = {"dataset": sphere, "algorithm": "bc", "overrides": QUICK}
    grid = {"algos": "bc", "datasets": sphere.metadata.id, "updates": 1, "episodes": 1, "seeds": 1, "workers": 1}
    return {
        "bench": {"suite": "bandit", **grid, "imbalance": ["collected"], "output": home / "out", "home": home},
        "build_dataset": {"id": "bandit/sphere-v0", "episodes": 40, "workers": 1, "home": home},
        "doctor": {"dataset": sphere, "algorithm": "pmpo", "settings": {}},
        "evaluate": {"policy": lambda seen: np.zeros((len(seen), 10)), "task": "bandit/sphere", "episodes": 2},
        "export_dataset": {"dataset": sphere, "to": "parquet", "directory": home / "exported", "overwrite": True},
        "import_dataset": {"source": home / "log.npz", "id": "my/log-v0", "home": home, "overwrite": True},
        "import_text": {"source": rows, "id": "my/rows-v0", "home": home, "overwrite": True},
        "list_datasets": {"home": home},
        "load_dataset": {"id_or_path": sphere.metadata.id, "home": home},
        "load_policy": {"run": home / "nothing"},
        "on_progress": {"callback": None},
        "progress_bar": {},
        "pull_dataset": {"source": "hf:me/nothing", "home": home},
        "push_dataset": {"name": sphere.metadata.id, "repository": "me/nothing", "home": home},
        "show": {"dataset": sphere.metadata.id, "home": home},
        "train": {**trained, "seeds": 0, "settings": {}},
        "train_language": {**trained, "output": home / "run", "home": home},
        "verify": {"id_or_path": sphere.metadata.id, "home": home},
    }


FUNCTIONS = sorted(name for name in pmpo_offline.__all__ if inspect.isfunction(getattr(pmpo_offline, name)))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_of_any_type_end_in_one_line(
    calls: dict[str, dict[str, Any]], name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PMPO_OFFLINE_DATASETS", str(tmp_path / "home"))
    function: Callable[..., Any] = getattr(pmpo_offline, name)
    found = []
    for parameter in [*inspect.signature(function).parameters, "nonsense"]:
        for value in WRONG if name != "bench" else WRONG[7:16:4]:  # a valid one takes a second
            if parameter in ("home", "output", "workers") and (value is None or isinstance(value, str)):
                continue  # other folders, other processes
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    function(**{**calls[name], parameter: value})
            except PmpoOfflineError as error:
                if "\n" in str(error):
                    found.append(f"{parameter}={value!r}: several lines")
            except Exception as error:
                found.append(f"{parameter}={value!r}: {type(error).__name__}: {error}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("name", ["sample", "relabelled", "filter", "split", "column"])
def test_methods_of_a_dataset_do_too(calls: dict[str, dict[str, Any]], name: str) -> None:
    method = getattr(calls["train"]["dataset"], name)
    first, *others = inspect.signature(method).parameters
    valid = {"sample": 2, "filter": "return < 0", "split": {"a": 0.5, "b": 0.5}, "column": "label"}.get(name)
    for parameter in (first, *others):
        for value in WRONG if parameter != "generator" else ():
            with suppress(PmpoOfflineError):
                method(**{first: valid, parameter: value})


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_annotation_is_known_at_runtime(name: str) -> None:
    function = getattr(pmpo_offline, name)
    unknown = {(name, key) for key, kind in parameter_types(function).items() if kind is Any or isinstance(kind, str)}
    assert unknown <= FOR_TYPE_CHECKERS


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pmpo_offline.load_dataset(None), "load_dataset: expected a text or a path for id_or_path, not None"),
        (lambda: pmpo_offline.train("a/b-v0", None), "for algorithm, not None"),
        (lambda: pmpo_offline.train("a/b-v0", "pmpo", step=50), "settings={…} takes hyperparameters of the objective"),
        (lambda: pmpo_offline.train("a/b-v0", "pmpo", update=50), "did you mean updates?"),
        (
            lambda: pmpo_offline.import_text("x.jsonl", score="x"),
            "import_text: there is no argument 'score': pass options=TextOptions(score=…)",
        ),
        (
            lambda: pmpo_offline.import_text("x.jsonl", options=pmpo_offline.TextOptions(languages="English")),  # type: ignore[arg-type]
            "import: expected a sequence of texts for languages, not 'English'",
        ),
        (lambda: pmpo_offline.train(), "missing a required argument: 'dataset'"),
        (
            lambda: pmpo_offline.bench(settings={"pmpo": {"beta": 1}}),
            "expected a mapping of texts to mappings of texts to sequences of values or None for settings",
        ),
        (lambda: pmpo_offline.train("x", "pmpo", seeds="1"), "expected a sequence of integers or an integer for seeds"),
        (lambda: pmpo_offline.train("x", "pmpo", loggers=print), "expected a sequence of Loggers or functions for"),
        (lambda: pmpo_offline.build_dataset(imbalance="0.5"), "expected a number or None for imbalance, not '0.5'"),
    ],
)
def test_what_is_wrong_is_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        call()
    assert message in str(caught.value)


def test_numpy_numbers_and_arrays_are_numbers_and_sequences() -> None:
    from collections.abc import Mapping, Sequence

    assert fits(np.int64(3), int)
    assert fits(np.float32(3), float)
    assert fits(np.True_, bool)
    assert not fits(np.int64(1), bool)
    assert fits(np.arange(3), Sequence[int])
    assert not fits(True, int)
    assert not fits("ab", Sequence[str])
    assert not fits({"a": "b"}, Mapping[str, int])


def test_a_near_miss_of_a_name_is_named() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'trian': did you mean train"):
        pmpo_offline.trian  # noqa: B018
    assert not hasattr(pmpo_offline, "__wrapped__")
