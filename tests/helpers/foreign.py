"""Aligned experience as other libraries store it, written by their own means, and what a reader must make of it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from helpers.aligned import experience
from pmpo_offline.data import Experience
from pmpo_offline.data.exchange.readers import Recorded, Source, open_source

Arrays = dict[str, np.ndarray]
LENGTHS = {
    "single steps": [1, 1, 1, 1],
    "mixed": [3, 1, 4, 1, 12],
    "long": [2, 40_000, 1],
    "many episodes": [1 + index % 3 for index in range(10_000)],
}
every = pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())


def found(path: Path | str) -> Source:
    return open_source(str(path))


def read(path: Path | str) -> Recorded:
    return found(path).read()


def assert_same(read: Experience, written: Experience, *but: str) -> None:
    """Every value stands at the (episode, step) at which it was written."""
    for name in set(vars(written)) - {"behavior", "seed", "success"} - set(but):
        mine, theirs = getattr(read, name), getattr(written, name)
        assert mine.dtype == theirs.dtype, name
        assert np.array_equal(mine, theirs), f"{name} is not where it belongs"


def episodes(written: Experience) -> Iterator[tuple[slice, np.ndarray]]:
    """The rows of each episode, and its T+1 observations."""
    stop = 0
    for length, final in zip(written.length, written.final_observation, strict=True):
        rows = slice(stop, stop := stop + int(length))
        yield rows, np.concatenate([written.observation[rows], final[None]])


def ends(written: Experience) -> tuple[np.ndarray, np.ndarray]:
    """(terminated, truncated) of every row."""
    last = np.cumsum(written.length) - 1
    terminated, truncated = np.zeros((2, len(written.reward)), bool)
    terminated[last], truncated[last] = written.terminated, ~written.terminated
    return terminated, truncated


def next_observations(written: Experience) -> np.ndarray:
    following = np.roll(written.observation, -1, axis=0)
    following[np.cumsum(written.length) - 1] = written.final_observation
    return following


def as_d4rl(written: Experience) -> Arrays:
    terminals, timeouts = ends(written)
    return {
        "observations": written.observation,
        "next_observations": next_observations(written),
        "actions": written.action,
        "rewards": written.reward,
        "terminals": terminals,
        "timeouts": timeouts,
    }


def as_states(written: Experience) -> Arrays:
    """T+1 rows an episode: the last one is its final observation, with an action and a reward that mean nothing."""
    parts = [(observed, rows) for rows, observed in episodes(written)]
    nothing = np.full((1, written.action.shape[1]), 99, np.float32)
    return {
        "observation": np.concatenate([observed for observed, _ in parts]),
        "action": np.concatenate([np.concatenate([written.action[rows], nothing]) for _, rows in parts]),
        "reward": np.concatenate([np.append(written.reward[rows], np.float32(99)) for _, rows in parts]),
        "is_first": np.concatenate([np.arange(len(observed)) == 0 for observed, _ in parts]),
        "is_last": np.concatenate([np.arange(len(observed)) == len(observed) - 1 for observed, _ in parts]),
        "is_terminal": np.concatenate(
            [
                (np.arange(len(observed)) == len(observed) - 1) & terminated
                for (observed, _), terminated in zip(parts, written.terminated, strict=True)
            ]
        ),
    }


def hdf5(path: Path, arrays: Mapping[str, Any], **attributes: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values
        file.attrs.update(attributes)
    return path


def npz(path: Path, arrays: Mapping[str, Any]) -> Path:
    np.savez_compressed(path, **arrays)
    return path


def minari_set(
    written: Experience,
    id: str = "test/aligned-v0",
    form: str = "hdf5",
    *,
    observe: Callable[[np.ndarray], Any] = lambda values: values.astype(np.float64),
    act: Callable[[np.ndarray], Any] = lambda values: values,
    observation_space: Any = None,
    action_space: Any = None,
    infos: Callable[[int, int], dict[str, Any]] | None = None,
    **about: Any,
) -> str:
    """Write a data set through Minari itself, where $MINARI_DATASETS_PATH says, and return what to import."""
    import minari
    from gymnasium.spaces import Box
    from minari.data_collector import EpisodeBuffer

    terminated, truncated = ends(written)
    buffers = [
        EpisodeBuffer(
            observations=observe(observed),
            actions=act(written.action[rows]),
            rewards=list(written.reward[rows].astype(float)),
            terminations=list(terminated[rows]),
            truncations=list(truncated[rows]),
            seed=int(written.seed[index]),
            infos=infos(index, rows.stop - rows.start) if infos else None,
        )
        for index, (rows, observed) in enumerate(episodes(written))
    ]
    if "env" not in about:
        about |= {
            "observation_space": observation_space or Box(-np.inf, np.inf, (3,), np.float64),
            "action_space": action_space or Box(-np.inf, np.inf, (2,), np.float32),
        }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of descriptions that are left out
        minari.create_dataset_from_buffers(id, buffers, data_format=form, **about)
    return f"minari:{id}"


def without(arrays: Arrays, *names: str) -> Arrays:
    return {name: values for name, values in arrays.items() if name not in names}


def two_dropped(rows: int, episodes: int, first: dict[str, str]) -> dict[str, Any]:
    """Return the report of an import that drops two rows, one of them a whole episode, for the reason in `first`."""
    counts = {"rows": rows, "episodes": episodes, "episodes_dropped": 1}
    return {**counts, "dropped": dict.fromkeys(first, 2), "first_dropped": first}


def bounded(lengths: list[int], observation_dim: int = 3, action_dim: int = 2, **changes: Any) -> Experience:
    """Aligned experience of these widths with actions within -1 and 1."""
    written = experience(lengths)
    rng = np.random.default_rng(0)
    wide = {
        "observation": np.resize(written.observation, (len(written.reward), observation_dim)),
        "final_observation": np.resize(written.final_observation, (len(lengths), observation_dim)),
        "action": rng.uniform(-1, 1, (len(written.reward), action_dim)).astype(np.float32),
    }
    return Experience(**vars(written) | wide | changes)


SPEC = {"entry_point": "nothing:Env", "max_episode_steps": 1000, "kwargs": {}, "additional_wrappers": []}


def minari_of(tmp_path: Path, environment: str | None, dims: tuple[int, int] = (3, 2), **spec: Any) -> str:
    """A Minari data set that says that it was recorded in this environment."""
    from gymnasium.spaces import Box

    written = bounded([3, 2, 4], *dims)
    name = minari_set(
        written,
        observation_space=Box(-np.inf, np.inf, (dims[0],), np.float64),
        action_space=Box(-1, 1, (dims[1],), np.float32),
    )
    path = tmp_path / "minari/test/aligned-v0/data/metadata.json"
    said = json.loads(path.read_text())
    said |= spec.pop("metadata", {})
    if environment:
        said["env_spec"] = json.dumps({"id": environment, **SPEC, **spec})
    path.write_text(json.dumps(said))
    return name
