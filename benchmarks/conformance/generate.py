"""Write the vectors of the conformance kit: `python -m benchmarks.conformance.generate`.

One file an objective of the registry, and one a form of PMPO (`variants`). Everything is computed in float64 by the
functions that train, at fixed inputs. docs/conformance.md is the page about them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.conformance import check, variants
from pmpo_offline.objectives import OBJECTIVES, Objective, Words
from pmpo_offline.runtime.files import atomic_file

Arrays = dict[str, NDArray[np.float64]]
Loss = Callable[[Mapping[str, Tensor], Mapping[str, Any]], Tensor]

B, K = 6, 3
"""Rows or pairs, and candidates a state."""
LEARNED = (
    *("logp", "conditional_logp", "own_logp", "divergence", "group_logp", "logp_chosen", "logp_rejected"),
    *("policy_value", "distance", "logits", "mean", "log_std"),
)
"""Inputs that depend on the policy: those of which the gradient is given."""
FROZEN = ("reference_logits", "reference_mean", "reference_log_std")
"""Inputs of a reference that is not trained: their gradient is zero."""
ROWS = {
    "pmpo_paper": ("logits", "reference_logits", "action", "label"),
    "pmpo_sampled": ("logits", "reference_logits", "action", "label"),
    "pmpo_gaussian": ("mean", "log_std", "reference_mean", "reference_log_std", "action", "label"),
    "pmpo_dreamer": ("logits", "reference_logits", "action", "advantage"),
    "pmpo_tanh": ("logits", "reference_logits", "action", "advantage"),
}
"""The inputs of each form of PMPO."""
SETTINGS: dict[str, dict[str, Any]] = {
    "pmpo_paper": {"alpha": 0.5, "beta": 0.5, "normalize": "set", "over": "all"},
    "pmpo_sampled": {"alpha": 0.5, "beta": 0.5, "normalize": "set", "over": "all"},
    "pmpo_gaussian": {"alpha": 0.5, "beta": 0.5, "normalize": "set"},
    "pmpo_dreamer": {"alpha": 0.5, "beta": 0.3},
    "pmpo_tanh": {"alpha": 0.5, "beta": 0.3},
}
"""The settings of each form of PMPO."""
NO_GRADIENT_BY_DIFFERENCES = 1e4
"""Inputs beyond this cannot be moved by a thousandth."""


def base() -> Arrays:
    """Return every input at fixed values, those of the vocabulary and those of `variants`: 2 accepts, 2 rejects."""

    def some(name: str, *shape: int) -> NDArray[np.float64]:  # whatever other inputs there are
        return np.random.default_rng(crc32(name.encode())).standard_normal(shape).round(3)

    rows = ("logp", "ref_logp", "logp_chosen", "logp_rejected", "ref_chosen", "ref_rejected", "conditional_logp")
    groups = ("group_logp", "group_score", "own_logp", "own_ref_logp", "logits", "reference_logits")
    return {
        **{name: (-np.abs(some(name, B)) - 0.1).round(3) for name in rows},
        **{name: some(name, B, K) for name in groups},
        **{name: some(name, B, 2) for name in ("mean", "log_std", "reference_mean", "reference_log_std")},
        **{name: np.ceil(np.abs(some(name, B)) * 9) for name in ("length_chosen", "length_rejected")},
        **{name: some(name, B) for name in ("advantage", "policy_value")},
        **{name: (1 / (1 + np.exp(some(name, B)))).round(3) for name in ("accept_rate", "state_value")},
        "distance": np.abs(some("distance", B)),
        "divergence": np.array(0.8),
        "policy_kl": np.array(0.4),
        "action": np.array([0.0, 2, 1, 1, 0, 2]),
        "label": np.array([1.0, 1, -1, -1, 0, 0]),
    }


def edges(inputs: Arrays) -> Iterator[tuple[str, Arrays]]:
    """Yield the inputs of each edge case with its name."""
    rows = next(value for name, value in inputs.items() if value.ndim).shape[0]
    yield "as they come", inputs
    if "label" in inputs:
        for title, label in (
            ("accepts alone", [1, 1, 0, 0, 0, 0]),
            ("rejects alone", [0, 0, -1, -1, 0, 0]),
            ("no labels", [0] * 6),
            ("every row labelled", [1, 1, -1, -1, -1, -1]),
            ("one accept, four rejects", [1, -1, -1, -1, -1, 0]),
        ):
            yield title, {**inputs, "label": np.array(label, float)}
    if "advantage" in inputs:
        yield "an advantage of zero", {**inputs, "advantage": np.r_[0.0, inputs["advantage"][1:]]}
        yield "no positive advantage", {**inputs, "advantage": -np.abs(inputs["advantage"])}
        yield "no negative advantage", {**inputs, "advantage": np.abs(inputs["advantage"])}
    far = {name: value for name, value in inputs.items() if name.split("_")[0] in ("logp", "ref") and value.ndim == 1}
    for title, values in (("far log-probabilities", [-700, -30, -1e-9, 0]), ("extreme ones", [-1e12, -1e6, -1, 0])):
        if far:
            # Halved from input to input, lest large numbers cancel: float32 has to get there, too.
            turned = {name: np.resize(np.roll(values, i), rows) / 2**i for i, name in enumerate(far)}
            yield title, {**inputs, **turned}
    if "logits" in inputs:
        yield "far logits", {**inputs, "logits": 20 * inputs["logits"]}


def weighted(inputs: Arrays) -> Iterator[tuple[str, Arrays]]:
    """Yield inputs with weights of the rows."""
    yield "weights", {**inputs, "weight": np.array([0.5, 2, 1, 0, 3, 0.25])}
    yield "weights of zero", {**inputs, "weight": np.zeros(B)}


def settings(objective: Objective) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield settings of a loss's own other than its defaults: numbers, words, declared variants, flipped labels."""
    own = {name: value for name, value in objective.settings.items() if name not in objective.caller}
    numbers = {name: round(0.7 * value + 0.2, 3) for name, value in own.items() if isinstance(value, float)}
    seen: list[dict[str, Any]] = []
    others = {
        **({"other settings": numbers} if numbers else {}),
        **{
            f"{name} = {word}": {name: word}
            for name, allowed in objective.allowed.items()
            if name in own and isinstance(allowed, Words)
            for word in allowed
            if word != own[name]
        },
        **objective.variants,
        **({"a tenth of the labels flipped": {"flip_rate": 0.1}} if objective.noise else {}),
    }
    for title, changed in others.items():
        if changed not in seen:
            seen.append(dict(changed))
            yield title, {**own, **changed}


def of_objective(objective: Objective) -> Iterator[dict[str, Any]]:
    """Yield the cases of an objective of the registry."""
    own = {name: value for name, value in objective.settings.items() if name not in objective.caller}
    every = base()
    if unknown := set(objective.inputs.values()) - every.keys():
        raise ValueError(f"{objective.name} takes {', '.join(sorted(unknown))}: give values of it in base()")
    inputs = {name: every[name] for name in objective.inputs.values()}

    def loss(values: Mapping[str, Tensor], given: Mapping[str, Any]) -> Tensor:
        return objective(values, values.get("weight"), **given)[0]

    cases = [(title, values, own) for each in (edges, weighted) for title, values in each(inputs)]
    cases += [(title, inputs, changed) for title, changed in settings(objective)]
    cases += [(f"{name} given", {**inputs, name: np.array(0.3)}, own) for name in objective.optional.values()]
    for title, values, given in cases:
        case = {"case": title, "inputs": values, "settings": given}
        yield computed(case, loss) | (mistaken(case, variants.pmpo) if objective.name == "pmpo" else {})


def of_variant(name: str) -> Iterator[dict[str, Any]]:
    """Yield the cases of a form of PMPO."""
    inputs, own, form = {key: base()[key] for key in ROWS[name]}, SETTINGS[name], variants.VARIANTS[name]
    if name == "pmpo_gaussian":
        inputs["action"] = np.round(inputs["mean"] + [[0.5, -0.25]] * B, 3)

    def loss(values: Mapping[str, Tensor], given: Mapping[str, Any]) -> Tensor:
        parts = form(values, given)
        return parts if isinstance(parts, Tensor) else parts.loss

    cases = [(title, values, own) for title, values in edges(inputs)]
    for changed in ({"alpha": 0.0}, {"alpha": 1.0}, {"alpha": 0.8, "beta": 2.0}, {"beta": 0.0}):
        cases.append((", ".join(f"{key} = {value}" for key, value in changed.items()), inputs, {**own, **changed}))
    if "normalize" in own:
        cases.append(("normalize = joint", inputs, {**own, "normalize": "joint"}))
        cases.append(("a floor under the rejects", inputs, {**own, "floor": 1e-9}))
        cases.append(("a high floor", inputs, {**own, "floor": 0.1}))
    if "over" in own:
        cases.append(("the divergence over labelled rows", inputs, {**own, "over": "labelled"}))
    for title, values, given in cases:
        case = {"case": title, "inputs": values, "settings": given}
        yield computed(case, loss) | (mistaken(case, form) if name != "pmpo_tanh" else {})


def computed(case: Mapping[str, Any], loss: Loss) -> dict[str, Any]:
    """Return a case with its loss, its gradients, and the inputs whose gradient finite differences find.

    They do not where a part of the loss is held fixed, at a kink, and far from zero.
    """
    values, learned = case["inputs"], [name for name in case["inputs"] if name in LEARNED]
    leaves = {name: torch.tensor(value, requires_grad=name in (*LEARNED, *FROZEN)) for name, value in values.items()}
    result = loss(leaves, case["settings"])
    gradient = {name: np.zeros(np.shape(value)) for name, value in values.items() if name in (*LEARNED, *FROZEN)}
    if result.requires_grad:
        found = torch.autograd.grad(result, [leaves[name] for name in gradient], allow_unused=True)
        gradient |= {name: each.numpy() for name, each in zip(gradient, found, strict=True) if each is not None}

    def plain(moved: Arrays) -> float:
        return float(loss({name: torch.as_tensor(value) for name, value in moved.items()}, case["settings"]).detach())

    near = all(np.max(np.abs(value), initial=0) < NO_GRADIENT_BY_DIFFERENCES for value in values.values())
    by_differences = [
        name
        for name in (learned if near else [])
        if check.apart(check.differences(plain, values, name), gradient[name]) < 1e-4
    ]
    return {**case, "loss": float(result.detach()), "gradient": gradient, "differences": by_differences}


def mistaken(case: Mapping[str, Any], form: Callable[[variants.Inputs, Mapping[str, Any]], Any]) -> dict[str, Any]:
    """Return the losses of known mistakes, those that differ from the right one."""
    parts = form({name: torch.as_tensor(value) for name, value in case["inputs"].items()}, case["settings"])
    losses = {title: float(mistake(parts).loss) for title, mistake in variants.MISTAKES.items()}
    return {"mistakes": {name: loss for name, loss in losses.items() if check.apart(loss, float(parts.loss)) > 1e-4}}


def vectors() -> Iterator[tuple[str, Callable[[], Iterator[dict[str, Any]]]]]:
    """Yield the path of every file below `check.VECTORS`, with the function that makes its cases."""
    for name, objective in OBJECTIVES.items():
        feedback = objective.loss.__module__.split(".")[2]
        folder = feedback if feedback in ("labels", "pairs", "rewards") else "none"
        yield f"{folder}/{name}.json", lambda objective=objective: of_objective(objective)  # type: ignore[misc]
    for name in variants.VARIANTS:
        yield f"pmpo/{name}.json", lambda name=name: of_variant(name)  # type: ignore[misc]


def write(folder: Path) -> None:
    """Write all files, a case a line, and delete those of objectives that are gone."""
    made = {folder / path: make for path, make in vectors()}
    for path, make in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = ",\n".join(json.dumps(case, default=np.ndarray.tolist, allow_nan=False) for case in make())
        with atomic_file(path) as file:
            file.write_text(f'{{"name": "{path.stem}", "cases": [\n{lines}\n]}}\n', encoding="utf-8")
    for path in set(folder.rglob("*.json")) - set(made):
        path.unlink()


if __name__ == "__main__":
    write(check.VECTORS)
