"""HDF5 files in D4RL's layout: flat arrays, one row a step, episodes one after the other.

observations (M, O), actions (M, A), terminals (M,): the task ended the episode
rewards (M,)              where given
timeouts (M,)             time ran out
next_observations (M, O)  where given, it decides: each episode's final observation comes from it, and a row whose
                          successor is not the row after it ends an episode, marked or not (as IQL's reader has it);
                          where all that ran out of time have the next episode's first observation there, as a vector
                          environment that resets itself records it, or only padding (zeros, or the same row once
                          more), what followed is lost as without them
infos/success (M,)        where given, an episode that was solved at any step is a success; or is_success

terminations and truncations, as Gymnasium calls them, are terminals and timeouts. timeouts may be missing where there
are next_observations. Without those, the last row of an episode that ran out of time is dropped, because what followed
it is lost (see `episodes`). Files whose rows are shuffled are refused. All other infos and metadata are ignored.

A file that is called as one of D4RL's data sets has its environment and D4RL's own reference scores. The environments
of these names that Gymnasium has today (Hopper-v5) are others: no data set of theirs is ever given these numbers.
"""

from __future__ import annotations

import re

from pmpo_offline.data.exchange.exported import Tables, tables
from pmpo_offline.data.exchange.readers.flat import Flat
from pmpo_offline.data.exchange.readers.source import Candidate, Environment, Reader, Source, exported_in
from pmpo_offline.data.exchange.readers.steps import holds_any, read_steps
from pmpo_offline.data.schema import References
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.files import from_json

_LICENCE = "CC-BY-4.0"  # of D4RL's data sets
_OURS = {"id", "task", "label", "licence"}
"""Attributes that all exports of this package have."""
SCORES = {
    "halfcheetah": (-280.178953, 12135.0),
    "hopper": (-20.272305, 3234.3),
    "walker2d": (1.629008, 4592.3),
    "ant": (-325.6, 3879.7),
    "pen": (96.262799, 3076.8331017826877),
    "door": (-56.512833, 2880.5693087298737),
    "hammer": (-274.856578, 12794.134825156867),
    "relocate": (-6.425911, 4233.877797728884),
    "antmaze": (0.0, 1.0),
    "kitchen": (0.0, 4.0),
}
"""Return of a random policy and of an expert, as in D4RL's `get_normalized_score` (arXiv 2004.07219, infos.py); the
same in every version."""
_NAME = re.compile(rf"(?P<environment>{'|'.join(SCORES)})-[a-z-]+-(?P<version>v[0-2])")


def _is_d4rl(given: Candidate) -> bool:
    single = len(given.files) == 1 and not given.path.is_dir() and given.path.suffix != ".parquet"
    return single and holds_any(given.flat)


def _source(given: Candidate) -> Source:
    """Return the file as a source; a name that D4RL knows brings its environment and reference scores.

    Exports of this package say in attributes what they are of: whatever they are called, they are none of D4RL's.
    """
    flat, said = given.flat, given.flat.attributes
    name, ours = _name(flat), said.keys() >= _OURS
    known = None if ours else _NAME.fullmatch(name)
    return Source(
        format="d4rl",
        name=name,
        files={flat.path.name: flat.path},
        read=lambda column=None: read_steps(flat, name, column),
        packages=("h5py",),
        takes_column=True,
        exported=exported_in(flat, _tables),
        task=str(said["task"]) if ours else None,
        environment=Environment(f"d4rl/{known['environment']}-{known['version']}") if known else None,
        references=_recorded_references(flat) if ours else known and _references(known),
        licence=_LICENCE if known else str(said.get("licence", "unknown")),
        author="D4RL (arXiv 2004.07219)" if known else "unknown",
    )


def _references(known: re.Match[str]) -> References:
    low, high = SCORES[known["environment"]]
    how = f"D4RL's own constants for {known['environment']}: a random policy and an expert (arXiv 2004.07219)"
    return References(min=low, max=high, how=how, versions={"d4rl": known["version"]})


def _recorded_references(flat: Flat) -> References | None:
    said = flat.attributes
    if "ref_min_score" not in said or "ref_max_score" not in said:
        return None
    how = f"of {said.get('id', 'the dataset')}, from which {flat.path.name} was exported"
    try:
        versions = from_json(said.get("ref_versions", "{}"))
        return References(
            min=float(said["ref_min_score"]), max=float(said["ref_max_score"]), how=how, versions=versions
        )
    except (TypeError, ValueError):
        raise UserError(
            f"{flat.path}: its attributes ref_min_score, ref_max_score or ref_versions make no sense"
        ) from None


def _tables(flat: Flat) -> Tables:
    return tables(flat, read_steps(flat, _name(flat), None).experience, flat["scores"], flat["labels"])


def _name(flat: Flat) -> str:
    """Return what D4RL calls a file's data set: hopper-medium-v2, and the file hopper_medium-v2.hdf5."""
    return flat.path.stem.replace("_", "-")


D4RL = Reader(
    name="d4rl",
    reads="D4RL's .hdf5 (observations, actions, rewards, terminals, timeouts or next_observations)",
    recognises=_is_d4rl,
    open=_source,
    example="hopper_medium-v2.hdf5",
)
