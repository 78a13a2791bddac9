"""Check your own losses against the vectors beside this file; numpy is all that it needs.

    python check.py losses.py                    every function of the file that is named as a file of vectors
    python check.py losses.py pmpo_dreamer dpo   these alone

A function takes `inputs` (arrays by name) and `settings` (hyperparameters by name), and returns the loss, or the loss
and a dict of gradients by input. Gradients that it does not return are checked by finite differences. It may raise
NotImplementedError for a case that it does not claim to cover. docs/conformance.md explains the inputs.
"""

import argparse
import json
import runpy
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

VECTORS = Path(__file__).parent / "vectors"
STEP = 1e-3
"""Of finite differences: wide enough for losses in float32, which are then good to about 1e-3."""


class Failure(NamedTuple):
    """What is wrong in a case, and the known mistakes that give exactly that loss."""

    case: str
    what: str
    mistakes: tuple = ()

    def __str__(self):
        guess = f"; that is what you get from: {' or: '.join(self.mistakes)}" if self.mistakes else ""
        return f"{self.case}: {self.what}{guess}"


def differences(loss, inputs, name):
    """Return the gradient of `loss(inputs)` in one input by central differences."""
    gradient = np.zeros(np.shape(inputs[name]))
    for index in np.ndindex(gradient.shape):
        ends = []
        for step in (STEP, -STEP):
            moved = np.array(inputs[name], float)
            moved[index] += step
            ends.append(float(loss({**inputs, name: moved})))
        gradient[index] = (ends[0] - ends[1]) / (2 * STEP)
    return gradient


def apart(mine, expected):
    """Return the largest difference, relative to the largest expected value where that is above 1."""
    mine, expected = np.asarray(mine, float), np.asarray(expected, float)
    if mine.shape != expected.shape:
        return np.inf
    return np.max(np.abs(mine - expected), initial=0) / max(1, np.max(np.abs(expected), initial=0))


def failure(function, case, tolerance):
    """Return the failure of a function in one case, or None."""
    title = case["case"]
    inputs = {name: np.asarray(value, float) for name, value in case["inputs"].items()}

    def loss(values):
        result = function(values, case["settings"])
        return result[0] if isinstance(result, tuple) else result

    result = function(inputs, case["settings"])
    mine, gradients = result if isinstance(result, tuple) else (result, {})
    if np.shape(mine):
        return Failure(title, f"loss of shape {np.shape(mine)}, expected one number")
    if unknown := [name for name in gradients if name not in inputs]:
        return Failure(title, f"gradient in {unknown[0]}, which is no input: {', '.join(inputs)}")
    if not apart(mine, case["loss"]) <= tolerance:  # a NaN is no match either
        names = [name for name, value in case.get("mistakes", {}).items() if apart(mine, value) <= tolerance]
        return Failure(title, f"loss {float(mine):.8g}, expected {case['loss']:.8g}", tuple(names))
    for name, expected in case["gradient"].items():
        if name in gradients:
            got, allowed = gradients[name], tolerance
        elif name in case["differences"]:
            got, allowed = differences(loss, inputs, name), max(tolerance, 2e-3)
        else:
            continue
        if not apart(got, expected) <= allowed:
            return Failure(title, f"gradient in {name} {np.asarray(got).tolist()}, expected {expected}")
    return None


def check(function, path, tolerance=1e-5):
    """Return (passed, skipped, failures) of a function on a file of vectors."""
    passed, skipped, failures = 0, 0, []
    for case in json.loads(Path(path).read_text(encoding="utf-8"))["cases"]:
        try:
            wrong = failure(function, case, tolerance)
        except NotImplementedError:
            skipped += 1
            continue
        passed += wrong is None
        failures += [wrong] if wrong else []
    return passed, skipped, failures


def likely(failures):
    """Return the known mistakes that explain the most failures, at least half of them, and how many these are."""
    counts = Counter(name for failure in failures for name in failure.mistakes)
    most = max(counts.values(), default=0)
    return [name for name, count in counts.items() if count == most and 2 * most >= len(failures)], most


def main(arguments=None):
    """Check the functions of a file; return how many of them are wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="a Python file with functions of (inputs, settings)")
    parser.add_argument("names", nargs="*", help="functions to check; default: all that have vectors")
    parser.add_argument("--tolerance", type=float, default=1e-5, help="relative (default 1e-5, for float32)")
    asked = parser.parse_args(arguments)
    functions, vectors = runpy.run_path(asked.file), {path.stem: path for path in sorted(VECTORS.rglob("*.json"))}
    names = asked.names or [name for name in vectors if callable(functions.get(name))]
    unknown = [name for name in names if name not in vectors or name not in functions]
    if unknown or not names:
        parser.error(f"{asked.file} and the vectors do not share {unknown or 'a name'}; vectors: {', '.join(vectors)}")
    wrong = 0
    for name in names:
        passed, skipped, failures = check(functions[name], vectors[name], asked.tolerance)
        wrong += bool(failures)
        total = passed + skipped + len(failures)
        print(
            f"{'FAIL' if failures else 'ok':4} {name}: {passed} of {total} cases"
            + f", {skipped} skipped" * bool(skipped)
        )
        names, explained = likely(failures)
        if names:
            print(f"     {explained} of {len(failures)} failures: {' or: '.join(names)}")
        print("".join(f"     {line}\n" for line in failures), end="")
    return wrong


if __name__ == "__main__":
    raise SystemExit(min(main(), 1))
