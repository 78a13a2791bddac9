"""The conformance kit: its vectors are what our functions compute, and its checker finds mistakes."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.conformance import check, generate, variants
from pmpo_offline.objectives import OBJECTIVES

ROOT = Path(__file__).parents[2]
MADE = dict(generate.vectors())
COMMAND = "python -m benchmarks.conformance.generate"
PAGE = (ROOT / "docs/conformance.md").read_text(encoding="utf-8")

Given = Mapping[str, Any]


def committed(path: str) -> list[dict[str, Any]]:
    file = check.VECTORS / path
    if not file.exists():
        pytest.fail(f"{path.split('/')[-1].removesuffix('.json')} has no vectors: run {COMMAND}")
    return json.loads(file.read_text(encoding="utf-8"))["cases"]


def ours(name: str, dtype: torch.dtype = torch.float64):
    """Our function of a name as the kit wants it, with gradients of automatic differentiation."""

    def function(inputs: Given, settings: Given):
        leaves = {key: torch.tensor(value, dtype=dtype, requires_grad=True) for key, value in inputs.items()}
        if name in OBJECTIVES:
            loss, _ = OBJECTIVES[name](leaves, leaves.get("weight"), **settings)
        else:
            made = variants.VARIANTS[name](leaves, settings)
            loss = made if isinstance(made, torch.Tensor) else made.loss
        return loss.item(), gradients(loss, leaves)

    return function


def gradients(loss: torch.Tensor, leaves: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Return the gradients of automatic differentiation by name, without those of inputs that are not used."""
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True) if loss.requires_grad else ()
    named = zip(leaves, found, strict=False)
    return {name: each.numpy() for name, each in named if each is not None}


@pytest.mark.parametrize("path", MADE)
def test_the_vectors_are_generated_identically(path: str):
    made = json.loads(json.dumps(list(MADE[path]()), default=np.ndarray.tolist))
    found = committed(path)
    assert [case["case"] for case in found] == [case["case"] for case in made], f"changed: run {COMMAND}"
    for case, again in zip(found, made, strict=True):
        numbers = ("inputs", "gradient", "mistakes")
        assert {**case, **dict.fromkeys((*numbers, "loss"))} == {**again, **dict.fromkeys((*numbers, "loss"))}
        assert check.apart(case["loss"], again["loss"]) <= 1e-12, f"{case['case']}: run {COMMAND}"
        for kind in numbers:
            assert case.get(kind, {}).keys() == again.get(kind, {}).keys()
            for key, value in case.get(kind, {}).items():
                assert check.apart(value, again[kind][key]) <= 1e-12, f"{case['case']}, {key}: run {COMMAND}"


def test_every_file_belongs_to_an_objective_or_a_form():
    assert {path.relative_to(check.VECTORS).as_posix() for path in check.VECTORS.rglob("*.json")} <= MADE.keys()
    assert {Path(path).stem for path in MADE} == {*OBJECTIVES, *variants.VARIANTS}


@pytest.mark.parametrize("path", MADE)
def test_float32_is_within_the_tolerance(path: str):
    cases = committed(path)
    passed, skipped, failures = check.check(ours(Path(path).stem, torch.float32), check.VECTORS / path)
    assert (passed, skipped, failures) == (len(cases), 0, [])


@pytest.mark.parametrize("path", MADE)
def test_the_edge_cases_are_there(path: str):
    cases = committed(path)
    titles = {case["case"] for case in cases}
    assert all(np.isfinite(case["loss"]) for case in cases)
    if "label" in cases[0]["inputs"]:
        assert titles >= {"accepts alone", "rejects alone", "no labels", "one accept, four rejects"}
    if "pmpo/" not in path:
        assert titles >= {"weights", "weights of zero"}
    assert any(np.any(value) for value in cases[0]["gradient"].values())


# planted mistakes


def wrong(form: Any, mistake: str):
    """A form of PMPO with a mistake in it."""

    def function(inputs: Given, settings: Given):
        leaves = {name: torch.tensor(value, requires_grad=True) for name, value in inputs.items()}
        loss = variants.MISTAKES[mistake](form(leaves, settings)).loss
        return loss.item(), gradients(loss, leaves)

    return function


@pytest.mark.parametrize(
    ("path", "form", "mistakes"),
    [
        ("labels/pmpo.json", variants.pmpo, variants.MISTAKES.keys() - {"the divergence in the other direction"}),
        ("pmpo/pmpo_paper.json", variants.paper, variants.MISTAKES.keys() - {"no weights"}),
        ("pmpo/pmpo_sampled.json", variants.sampled, variants.MISTAKES.keys() - {"no weights"}),
        ("pmpo/pmpo_gaussian.json", variants.gaussian, variants.MISTAKES.keys() - {"no weights"}),
        (  # every row is labelled, and each class divided by its own
            "pmpo/pmpo_dreamer.json",
            variants.dreamer,
            variants.MISTAKES.keys()
            - {"no weights", "no floor", "each class divided by its own rows, not both by all labelled rows"}
            - {"unlabelled rows taken for rejects", "unlabelled rows taken for accepts"},
        ),
    ],
)
def test_every_mistake_is_found_and_named(path: str, form: Any, mistakes: set[str]):
    for mistake in mistakes:
        _, _, failures = check.check(wrong(form, mistake), check.VECTORS / path)
        assert failures, mistake
        assert mistake in check.likely(failures)[0], mistake


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_a_gradient_of_the_wrong_sign_is_found(name: str):
    path = next(path for path in MADE if Path(path).stem == name)
    assert committed(path)

    def turned(inputs: Given, settings: Given):
        loss, found = ours(name)(inputs, settings)
        return loss, {key: -value for key, value in found.items()}

    assert check.check(turned, check.VECTORS / path)[2]


def test_finite_differences_find_a_loss_that_agrees_by_chance():
    case = {"case": "x", "inputs": {"x": [1.0, 2.0]}, "settings": {}, "loss": 3.0}
    case |= {"gradient": {"x": [1.0, 1.0]}, "differences": ["x"]}
    assert check.failure(lambda inputs, settings: inputs["x"].sum(), case, 1e-5) is None
    assert "gradient in x" in str(check.failure(lambda inputs, settings: 3 * inputs["x"][0], case, 1e-5))


def test_what_is_no_loss_or_no_input_is_said_in_one_line():
    case = {"case": "c", "inputs": {"x": [1.0, 2.0]}, "settings": {}, "loss": 3.0, "gradient": {}, "differences": []}
    several = check.failure(lambda inputs, settings: inputs["x"], case, 1e-5)
    assert str(several) == "c: loss of shape (2,), expected one number"
    misspelt = check.failure(lambda inputs, settings: (3.0, {"xs": inputs["x"]}), case, 1e-5)
    assert str(misspelt) == "c: gradient in xs, which is no input: x"


def test_nan_fails_and_what_is_not_implemented_is_skipped():
    path = check.VECTORS / "labels/pmpo.json"
    count = len(committed("labels/pmpo.json"))

    def partly(inputs: Given, settings: Given) -> float:
        if settings["normalize"] == "set":
            raise NotImplementedError
        return float("nan")

    passed, skipped, failures = check.check(partly, path)
    assert passed == 0
    assert skipped == sum(case["settings"]["normalize"] == "set" for case in committed("labels/pmpo.json")) > 0
    assert len(failures) == count - skipped


# the page and the command


def test_the_checker_needs_only_numpy():
    tree = ast.parse(Path(check.__file__).read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported - set(sys.stdlib_module_names) == {"numpy"}


def test_the_code_and_the_output_on_the_page(tmp_path: Path):
    code, shown, failing = (
        re.search(pattern, PAGE, re.DOTALL).group(1)
        for pattern in (
            r"```python\n(.*?)```",
            r"check.py losses.py\n(.*?)```",
            r"check.py losses.py pmpo_dreamer\n(.*?)\n…",
        )
    )
    file = tmp_path / "losses.py"
    for text, expected, status in (
        (code, shown, 0),
        (code.replace("np.exp(policy) * (policy - reference)", "np.exp(reference) * (reference - policy)"), failing, 1),
    ):
        file.write_text(text, encoding="utf-8")
        names = ["pmpo_dreamer"] if status else []
        done = subprocess.run([sys.executable, check.__file__, str(file), *names], capture_output=True, text=True)
        assert (done.returncode, done.stdout[: len(expected)], done.stderr) == (status, expected, "")


def test_a_name_without_vectors_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "losses.py"
    file.write_text("def margin(inputs, settings): return 0\n", encoding="utf-8")
    with pytest.raises(SystemExit):
        check.main([str(file), "margin"])
    assert "do not share" in capsys.readouterr().err


def test_the_page_names_every_form_and_its_links_exist():
    assert all(f"`{name}`" in PAGE for name in variants.VARIANTS)
    for link in re.findall(r"\]\((?!https:|#)([^)#]+)", PAGE):
        assert (ROOT / "docs" / link).exists(), link


def test_the_mean_log_ratio_at_samples_of_the_policy_holds_nothing():
    """The page's first mistake: the value is the divergence, the expected gradient is zero."""
    logits = torch.tensor([0.3, -1.0, 0.8], dtype=torch.float64, requires_grad=True)
    policy, reference = logits.log_softmax(-1), torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64).log()
    estimate = (policy.exp().detach() * (policy - reference)).sum()
    exact = (policy.exp() * (policy - reference)).sum()
    torch.testing.assert_close(estimate, exact)
    torch.testing.assert_close(torch.autograd.grad(estimate, logits, retain_graph=True)[0], torch.zeros(3).double())
    assert torch.autograd.grad(exact, logits)[0].abs().max() > 0.1
