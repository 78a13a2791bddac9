"""Label rules, the content of dataset.json (`Metadata`), and the Arrow schemas of a dataset's tables.

    transitions   row r │ observation action reward terminated truncated episode step score label
    episodes      row e │ start length … final_observation         rows start … start + length − 1 are episode e
    candidates    row c │ row action score label                   K consecutive rows belong to one transition

    rows of an episode of 3 steps     r          r+1        r+2
    observation                       o₀         o₁         o₂         and final_observation = o₃
    next observation                  o₁ = r+1   o₂ = r+2   o₃ = episodes.final_observation

Every field is nullable and no integer is narrower than 32 bits: Hugging Face's reader silently drops the features of a
schema that declares otherwise. Only `score` and `label` ever hold nulls.

A label rule is written `SCORE[:THRESHOLD[:MARGIN]]`:

    advantage            accept above 0, reject below, leave exactly 0 unlabelled    (advantage:sign)
    success              accept the successful episodes                              (success:0.5)
    return               accept the better half of the episodes                      (return:q0.5)
    return:q0.9          accept the best tenth
    advantage:0.1:0.05   accept above 0.15, reject below 0.05, leave what lies between unlabelled
    q_rank:top_bottom:1  of the K actions scored at each state, accept the best and reject the worst
"""

from __future__ import annotations

import json
import math
from typing import Any, Literal, get_args

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator

from pmpo_offline.runtime.errors import UserError, unknown
from pmpo_offline.runtime.notebook import html_table

SCHEMA_VERSION = 1
Kind = Literal["transitions", "candidates", "responses"]
ScoreName = Literal["return", "return_to_go", "advantage", "q_rank", "success", "reward", "column"]
Unit = Literal["step", "episode", "response"]
Balance = Literal["labels", "rows"]
"""What is dropped of the too frequent class to reach an accepted share: labels (rows stay, unlabelled), or rows."""

# All others: sign.
_DEFAULT_THRESHOLDS = {"success": "0.5", "return": "q0.5", "return_to_go": "q0.5", "q_rank": "top_bottom:2"}


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LabelRule(_Frozen):
    """A score and the threshold that splits it; `str(rule)` is the grammar that `parse` reads."""

    score: ScoreName
    """The score that is compared."""
    threshold: Literal["number", "quantile", "sign", "top_bottom"]
    """The kind of threshold."""
    value: float | None = None
    """The number, the quantile in [0, 1], or the k of `top_bottom`; None for `sign`."""
    dead_zone: float = 0.0
    """MARGIN: scores at most this far from the threshold stay unlabelled (score units, 0 or more)."""

    @classmethod
    def parse(cls, text: str) -> LabelRule:
        """Read `SCORE[:THRESHOLD[:MARGIN]]`; raises `UserError` that names the part it cannot read."""
        score, _, rest = text.strip().partition(":")
        if score not in get_args(ScoreName):
            raise unknown("score", score, get_args(ScoreName))
        head, *others = (rest or _DEFAULT_THRESHOLDS.get(score, "sign")).split(":")
        threshold = head if head in ("sign", "top_bottom") else "quantile" if head.startswith("q") else "number"
        value = None
        if threshold == "top_bottom":
            value = _number(others.pop(0) if others else "2", text)
        elif threshold != "sign":
            value = _number(head.removeprefix("q"), text)
        dead_zone = _number(others.pop(0), text) if others else 0.0
        ranks, whole = threshold == "top_bottom", value is not None and value >= 1 and value == int(value)
        mistakes = {
            "nothing may follow the margin; write SCORE:THRESHOLD:MARGIN": bool(others),
            "top_bottom:k goes with q_rank, and q_rank with nothing else": ranks != (score == "q_rank"),
            "top_bottom takes a whole number of 1 or more and no margin": ranks and (dead_zone != 0 or not whole),
            "a quantile lies between q0 and q1": threshold == "quantile" and not 0.0 <= (value or 0.0) <= 1.0,
            "a margin is 0 or more": dead_zone < 0,
        }
        if found := [mistake for mistake, is_made in mistakes.items() if is_made]:
            raise UserError(f"label {text!r}: {found[0]}")
        return cls.model_validate({"score": score, "threshold": threshold, "value": value, "dead_zone": dead_zone})

    def __str__(self) -> str:
        """Return the rule in the grammar that `parse` reads."""
        value = "" if self.value is None else _exact(self.value)
        threshold = {"number": value, "quantile": f"q{value}", "sign": "sign", "top_bottom": f"top_bottom:{value}"}
        return ":".join([self.score, threshold[self.threshold], *([_exact(self.dead_zone)] if self.dead_zone else [])])

    @property
    def by_step(self) -> bool:
        """Whether every single step gets a label that is computed, so that accepts and rejects lie side by side."""
        return self.unit != "episode" and self.score != "column"

    @property
    def unit(self) -> Unit:
        """The unit of a label in a dataset of transitions; with responses it is always a response."""
        if self.score == "q_rank":
            return "response"
        return "episode" if self.score in ("return", "success") else "step"


def _number(text: str, rule: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"label {rule!r}: {text!r} is neither a number, a quantile such as q0.5, sign nor top_bottom:k")
    return value


def _exact(number: float) -> str:
    # Every digit, because datasets are named and hashed by this text; adding 0.0 makes 0 of -0.
    return repr(number + 0.0).removesuffix(".0")


class ScoreRule(_Frozen):
    """Source of the scores: the score's name and the settings that computed it (a critic's, say)."""

    name: ScoreName
    settings: dict[str, JsonValue] = {}

    @property
    def is_local(self) -> bool:
        """Whether a critic was trained for the labels where the dataset was built: on other processors they differ."""
        return self.name == "advantage" and self.settings.get("labels") != "shipped"


class Imbalance(_Frozen):
    """The accepted share of the labelled units: requested (None: as collected), achieved, and its cost in units."""

    asked: float | None = None
    achieved: float | None = None
    """None where nothing is labelled."""
    dropped_accepted: int = 0
    dropped_rejected: int = 0
    # Left out of dataset.json where only labels are dropped, which is all that earlier versions can read.
    balance: Balance = Field(default="labels", exclude_if=lambda balance: balance == "labels")
    """What these units lost: their labels, or their rows too (but for held-out ones)."""

    @property
    def drops_rows(self) -> bool:
        """Whether units were dropped with their rows."""
        return self.balance == "rows"

    @property
    def hidden_rejected(self) -> int:
        """Rejected units whose rows are there without their label."""
        return 0 if self.drops_rows else self.dropped_rejected


class Counts(_Frozen):
    """Rows and episodes, and the labels in units (steps, episodes or responses)."""

    rows: int
    episodes: int
    accepted: int
    rejected: int
    unlabelled: int


class CandidateLabels(_Frozen):
    """The labels of candidates.arrow: `per_state` scored actions at each of `states` transitions."""

    states: int
    per_state: int
    accepted: int
    rejected: int
    unlabelled: int
    imbalance: Imbalance
    reject_mass: float
    """Rejected candidates / all candidates before balancing."""
    labelled_reject_mass: float
    """The same after balancing."""
    reject_share: float
    """Rejected candidates / labelled candidates after balancing."""


class References(_Frozen):
    """The returns that are 0 and 100 of the normalized score, how they were measured, and on which versions."""

    min: float
    max: float
    how: str
    versions: dict[str, str] = {}


class Provenance(_Frozen):
    """Origin of the dataset: sources, their hashes, package versions, and the settings of the build."""

    sources: list[str] = []
    hashes: dict[str, str] = {}
    packages: dict[str, str] = {}
    settings: dict[str, JsonValue] = {}


class FileInfo(_Frozen):
    """Hash and size of a stored file."""

    sha256: str
    bytes: int


class Metadata(_Frozen):
    """The content of dataset.json."""

    schema_version: int = SCHEMA_VERSION
    id: str
    kind: Kind
    task: str
    unit: Unit
    """The unit of a label; in a dataset of kind "candidates" each candidate is a response to its state."""
    score: ScoreRule
    label: LabelRule
    threshold: float | None = None
    """The score at which the rule split: a quantile's value on this data, 0 for `sign`, None for `top_bottom`."""
    noise: float = Field(default=0.0, ge=0.0, le=1.0)
    """The rate at which labels were flipped."""
    imbalance: Imbalance = Imbalance()
    counts: Counts
    reject_mass: float
    """P_r: rejected rows / all rows, after noise and before balancing (of candidates in kind "candidates")."""
    labelled_reject_mass: float
    """Rejected rows / all rows after balancing, for a policy that can tell single rows apart."""
    reject_share: float
    """Rejected rows / labelled rows after balancing: `reject_share` of `objectives.stability.beta_min`."""
    candidates: CandidateLabels | None = None
    seed: int = Field(default=0, ge=0)
    references: References | None = None
    provenance: Provenance = Provenance()
    licence: str = "Apache-2.0"
    actions: int | None = Field(default=None, ge=2, exclude_if=lambda actions: actions is None)
    """Number of discrete actions, of which each step has one, counted from 0; None: actions are vectors of numbers."""
    files: dict[str, FileInfo] = {}
    """Every file but dataset.json itself; `storage.write` fills it in."""

    def __repr__(self) -> str:
        return f"Metadata({self.id}: {self.kind}, task {self.task}, label {self.label})"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        counts = self.counts
        facts = {
            "task": self.task,
            **counts.model_dump(include={"rows", "episodes"}),
            "label": f"{self.label}, one per {self.unit}",
            **counts.model_dump(include={"accepted", "rejected", "unlabelled"}),
            "accepted share": self.imbalance.achieved,
            "reject mass": self.reject_mass,
            "licence": self.licence,
        }
        return html_table(f"{self.id} ({self.kind})", facts)

    @field_validator("files")
    @classmethod
    def _inside(cls, files: dict[str, FileInfo]) -> dict[str, FileInfo]:
        if outside := [name for name in files if not _is_inside(name)]:
            raise ValueError(f"{outside[0][:80]!r} is no file of the dataset's own folder")
        return files


def _is_inside(name: str) -> bool:
    """Return whether a name is a file's in the folder or below, on any file system."""
    encoded = name.encode("utf-8", "replace")
    is_plain = encoded.decode() == name and name.isprintable()
    return is_plain and all(0 < len(part) < 256 and part != b".." for part in encoded.split(b"/"))


_TABLES: dict[Kind, tuple[set[str], set[str]]] = {
    "transitions": ({"transitions", "episodes"}, {"candidates"}),
    "candidates": ({"transitions", "episodes", "candidates"}, set()),
    "responses": ({"responses"}, set()),
}
"""Tables that a dataset of each kind must have, and may have."""


def transitions_schema(observation_dim: int, action_dim: int, *, discrete: bool = False) -> pa.Schema:
    """Return the schema of transitions: one row a step, episodes one after the other; discrete actions are integers."""
    fields = {
        "observation": pa.list_(pa.float32(), observation_dim),
        "action": pa.list_(pa.int32() if discrete else pa.float32(), action_dim),
        "reward": pa.float32(),
        "terminated": pa.bool_(),
        "truncated": pa.bool_(),
        "episode": pa.int32(),
        "step": pa.int32(),
        "score": pa.float32(),
        "label": pa.bool_(),
    }
    return _with_features(fields)


def episodes_schema(observation_dim: int) -> pa.Schema:
    """Return the schema of episodes: `start` and `length` are in rows of transitions."""
    fields = {
        "start": pa.int64(),
        "length": pa.int32(),
        "return": pa.float64(),
        "success": pa.bool_(),
        "terminated": pa.bool_(),
        "final_observation": pa.list_(pa.float32(), observation_dim),
        "behavior": pa.string(),
        "seed": pa.int64(),
        "score": pa.float64(),
        "label": pa.bool_(),
        "split": pa.string(),
    }
    return _with_features(fields)


def candidates_schema(action_dim: int) -> pa.Schema:
    """Return the schema of candidates: sorted by `row`, K consecutive rows a state."""
    fields = {
        "row": pa.int64(),
        "action": pa.list_(pa.float32(), action_dim),
        "score": pa.float32(),
        "label": pa.bool_(),
    }
    return _with_features(fields)


def responses_schema() -> pa.Schema:
    """Return the schema of responses: one row a completion."""
    fields = {
        "prompt": pa.string(),
        "completion": pa.string(),
        "score": pa.float32(),
        "label": pa.bool_(),
        "prompt_id": pa.int32(),
        "response_id": pa.int32(),
        "source": pa.string(),
        "split": pa.string(),
    }
    return _with_features(fields)


def schemas(tables: dict[str, pa.Table]) -> dict[str, pa.Schema]:
    """Return the schema that each of these tables must have, given the widths of their lists.

    Raises `KeyError` for a missing column, `AttributeError` where a fixed-size list is none.
    """
    if "responses" in tables:
        return {"responses": responses_schema()}
    steps = tables["transitions"].schema
    observation, action = steps.field("observation").type.list_size, steps.field("action").type.list_size
    discrete = pa.types.is_integer(steps.field("action").type.value_type)
    found = {
        "transitions": transitions_schema(observation, action, discrete=discrete),
        "episodes": episodes_schema(observation),
    }
    return found | ({"candidates": candidates_schema(action)} if "candidates" in tables else {})


def schema_problems(metadata: Metadata, tables: dict[str, pa.Table]) -> list[str]:
    """Return one line for every table that is missing, too many, empty or of another schema, without reading rows."""
    required, optional = _TABLES[metadata.kind]
    if missing := required - set(tables):
        return [f"kind {metadata.kind!r} lacks the table {', '.join(sorted(missing))}"]
    if excess := set(tables) - required - optional:
        return [f"kind {metadata.kind!r} has no table {', '.join(sorted(excess))}"]
    try:
        expected = schemas(tables)
    except (KeyError, AttributeError):
        return ["transitions: observation and action must be fixed-size lists of float32"]
    found = []
    for name, schema in expected.items():
        if not tables[name].schema.equals(schema):
            types = {field.name: field.type for field in tables[name].schema}
            wrong = [field.name for field in schema if types.get(field.name) != field.type]
            found.append(f"{name}: columns {', '.join(wrong) or 'are out of order or too many'} differ from the schema")
        elif not tables[name].num_rows:
            found.append(f"{name}: no rows")
        else:
            filled = [field.name for field in schema if field.name not in ("score", "label")]
            found += [f"{name}.{column}: holds nulls" for column in filled if tables[name][column].null_count]
    return found


def _with_features(fields: dict[str, pa.DataType]) -> pa.Schema:
    features = json.dumps({"info": {"features": {name: _feature(kind) for name, kind in fields.items()}}})
    return pa.schema(list(fields.items()), metadata={"huggingface": features})


def _feature(kind: pa.DataType) -> dict[str, Any]:
    """Return Hugging Face's description of a column; its readers of every version know `Sequence`."""
    if pa.types.is_fixed_size_list(kind):
        return {"feature": _feature(kind.value_type), "length": kind.list_size, "_type": "Sequence"}
    names = {"float": "float32", "double": "float64"}
    return {"dtype": names.get(str(kind), str(kind)), "_type": "Value"}
