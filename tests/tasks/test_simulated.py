"""Recording: an episode is a function of its seed; workers and chunks change nothing; chunks are kept and reused."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers.experiences import assert_equal, part

from pmpo_offline.declarations import catalog
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.runtime.progress import on_progress
from pmpo_offline.tasks import CollectionSpec, Experience, get
from pmpo_offline.tasks.simulated import SEEDS_APART, collect
from pmpo_offline.tasks.stacking.scene import random_layout, random_triplet
from pmpo_offline.tasks.stacking.simulation import StackingSimulation
from pmpo_offline.tasks.stacking.task import StackingBehavior, record

DECLARED = catalog.dataset("rgb-stacking/proxy-v0").behavior
BEHAVIORS = tuple(StackingBehavior.model_validate(each) for each in DECLARED)
RECORD = partial(record, BEHAVIORS)
EPISODES = 6
SPEC = CollectionSpec(DECLARED, EPISODES, 0)


@pytest.fixture(scope="module")
def recorded() -> Experience:
    return record(BEHAVIORS, range(EPISODES))


def test_an_episode_is_a_function_of_its_seed(recorded: Experience) -> None:
    for seed in (4, 2):
        assert_equal(record(BEHAVIORS, [seed]), part(recorded, seed))
    shuffled = record(BEHAVIORS, [5, 0, 3])
    for place, seed in enumerate([5, 0, 3]):
        assert_equal(part(shuffled, place), part(recorded, seed))
    other = record(BEHAVIORS, [EPISODES])
    assert not np.array_equal(other.observation[0], recorded.observation[0])


def test_workers_and_chunks_change_nothing(recorded: Experience, tmp_path: Path) -> None:
    reported: list[tuple[str, int, int]] = []
    with on_progress(lambda *each: reported.append(each)):
        whole = collect(RECORD, SPEC, tmp_path / "one", 1)
    assert_equal(whole, recorded)
    assert reported == [("collect episodes", EPISODES, EPISODES)]
    assert_equal(collect(RECORD, SPEC, tmp_path / "two", 2, chunk=2), recorded)
    chunks = sorted(path.name for path in (tmp_path / "two").iterdir())
    assert chunks == [f"chunk-{start:07d}.npz" for start in (0, 2, 4)], "three whole chunks and nothing else"


def test_finished_chunks_are_kept_and_missing_ones_recorded(recorded: Experience, tmp_path: Path) -> None:
    first, second = tmp_path / "chunk-0000000.npz", tmp_path / "chunk-0000003.npz"
    RECORD(SPEC.seeds[:3].tolist()).save(first)
    stamp = first.stat().st_mtime_ns
    assert_equal(collect(RECORD, SPEC, tmp_path, 1, chunk=3), recorded)
    assert first.stat().st_mtime_ns == stamp
    assert sorted(tmp_path.iterdir()) == [first, second]


def test_a_chunk_of_other_episodes_is_refused(recorded: Experience, tmp_path: Path) -> None:
    recorded.save(tmp_path / "chunk-0000000.npz")
    assert_equal(collect(RECORD, SPEC, tmp_path, 1), recorded)
    for other in (CollectionSpec(DECLARED, EPISODES, 1), CollectionSpec(DECLARED, EPISODES - 1, 0)):
        with pytest.raises(PmpoOfflineError, match=r"chunk-0000000\.npz holds other episodes: delete it"):
            collect(RECORD, other, tmp_path, 1)


def test_more_episodes_than_a_seed_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1,000,001 episodes are more than the 1,000,000 that a seed has"):
        collect(RECORD, CollectionSpec(DECLARED, 1_000_001, 0), tmp_path, 1)


def test_recorded_actions_played_again_give_the_recorded_observations(recorded: Experience) -> None:
    for episode in (0, 2, 3):
        one = part(recorded, episode)
        rng = np.random.default_rng(episode)
        rng.random()  # the stream's first number chose the behaviour
        simulation = StackingSimulation([random_layout(rng, random_triplet(rng))])
        for t in range(len(one.reward)):
            np.testing.assert_array_equal(simulation.observation[0], one.observation[t])
            step = simulation.step(one.action[t : t + 1].astype(np.float64))
            assert np.float32(step.reward[0]) == one.reward[t]
        np.testing.assert_array_equal(simulation.observation[0], one.final_observation[0])
        assert step.terminated[0] == one.success[0]
        assert step.done[0]


def test_what_is_recorded(recorded: Experience) -> None:
    assert recorded.observation.shape == (recorded.length.sum(), 80)
    assert recorded.action.shape == (recorded.length.sum(), 5)
    assert np.abs(recorded.action).max() == 1
    np.testing.assert_array_equal(recorded.terminated, recorded.success)
    assert (recorded.length[~recorded.terminated] == 200).all()
    assert recorded.terminated.any()
    assert not recorded.terminated.all()
    assert recorded.seed.tolist() == list(range(EPISODES))
    assert set(recorded.behavior) <= {behavior.name for behavior in BEHAVIORS}


def test_seeds_of_a_dataset_do_not_meet_those_of_another() -> None:
    seeds = [CollectionSpec(DECLARED, SEEDS_APART, seed).seeds.tolist() for seed in (0, 1)]
    assert not set(seeds[0]) & set(seeds[1])
    one, other = (RECORD(own[:1]) for own in seeds)
    assert not np.array_equal(one.observation[0], other.observation[0])


def test_tables(recorded: Experience) -> None:
    transitions, episodes = recorded.tables()
    rows = transitions.to_pydict()
    ends = episodes.to_pydict()
    assert ends["length"] == recorded.length.tolist()
    assert ends["start"] == [int(recorded.length[:i].sum()) for i in range(EPISODES)]
    for i in range(EPISODES):
        own = slice(ends["start"][i], ends["start"][i] + ends["length"][i])
        assert rows["step"][own] == list(range(ends["length"][i]))
        assert set(rows["episode"][own]) == {i}
        assert ends["return"][i] == pytest.approx(sum(rows["reward"][own]), rel=1e-12)
        # Exactly the last step ends the episode, in exactly one way.
        assert rows["terminated"][own] == [False] * (ends["length"][i] - 1) + [ends["success"][i]]
        assert rows["truncated"][own] == [False] * (ends["length"][i] - 1) + [not ends["success"][i]]
    np.testing.assert_array_equal(np.array(ends["final_observation"], np.float32), recorded.final_observation)
    assert set(rows["label"]) == set(rows["score"]) == set(ends["label"]) == set(ends["score"]) == {None}
    assert set(ends["split"]) == {"train"}


def test_saved_and_loaded(recorded: Experience, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    recorded.save(path)
    assert_equal(Experience.load(path), recorded)
    assert_equal(Experience.concatenate([part(recorded, i) for i in range(EPISODES)]), recorded)


@pytest.mark.parametrize("damage", ["truncated", "edited", "empty", "other"])
def test_damaged_recording_is_said_in_one_line(recorded: Experience, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "x.npz"
    recorded.save(path)
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        content = content[: len(content) // 2]
    elif damage == "edited":
        content[len(content) // 2] ^= 1
    elif damage == "empty":
        content = bytearray()
    path.write_bytes(content)
    if damage == "other":
        np.savez(path, observation=np.zeros(3))
    with pytest.raises(PmpoOfflineError, match=r"x\.npz is damaged") as caught:
        Experience.load(path)
    assert "\n" not in str(caught.value)
    assert "delete it" in str(caught.value)


def test_no_flipped_bit_of_a_recording_is_read(recorded: Experience, tmp_path: Path) -> None:
    path, one = tmp_path / "x.npz", part(recorded, 0)
    short = replace(one, observation=one.observation[:2, :3], action=one.action[:2], reward=one.reward[:2])
    short.save(path)
    content = path.read_bytes()
    refused = 0
    for place in range(0, len(content), 7):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            assert_equal(Experience.load(path), short)  # bits that mean nothing, such as those of a time stamp
        except PmpoOfflineError:
            refused += 1
    assert refused > 0.5 * len(content) / 7


@pytest.mark.parametrize(
    ("behaviors", "message"),
    [
        ([], "at least one"),
        ([{"name": "x"}], "behavior: weight: field required"),
        ([{"name": "x", "weight": 1, "targett": "green"}], "behavior: unknown key 'targett': did you mean target"),
        ([{"name": "x", "weight": 0}], "behavior: weight"),
        ([{"name": "x", "weight": 1, "target": "red"}], "behavior: target"),
    ],
)
def test_malformed_behaviour_is_the_users_mistake(behaviors: list, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        get("rgb-stacking/proxy").collect(CollectionSpec(behaviors, 1, 0), tmp_path / "raw", 1)
    assert not (tmp_path / "raw").exists()


def test_unknown_task_names_the_near_miss() -> None:
    with pytest.raises(UserError, match="unknown task 'rgb-stacking/proxi': did you mean rgb-stacking/proxy"):
        get("rgb-stacking/proxi")
