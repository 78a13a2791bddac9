"""A finished training run, found by its directory and evaluated: what the command `evaluate` does."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pmpo_offline import data
from pmpo_offline.data import Dataset, load_dataset
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.training.run import AGAIN, NAME, read_record


@dataclass(frozen=True)
class JudgeChoice:
    """Which judge is asked, and how."""

    name: str
    """A URL, the name of a model, or its directory."""
    model: str | None = None
    """Which of the models behind a URL."""
    questions: Path | None = None
    """Templates in place of the shipped ones."""


def evaluate_run(
    directory: Path,
    *,
    samples: int = 1,
    prompts: int | None = 100,
    episodes: int = 100,
    seed: int = 0,
    judge: JudgeChoice | None = None,
    workers: int | None = None,
    home: Path | None = None,
) -> dict[str, Any]:
    """Evaluate what `train` left in a directory.

    Args:
        directory: with a run.json.
        samples: of a language model: completions a prompt.
        prompts: of a language model: held-out prompts, None for all.
        episodes: of a control policy.
        seed: of a language model's sampling.
        judge: of a language model: who is asked about its samples.
        workers: threads that simulate.
        home: where datasets and models are.

    Returns:
        What the run is (`run`, `kind`, `dataset`, `task`, `algorithm`, `settings`, `seed`), and for a language model
        `language.report.report`, for control the means of return, success and length, and `normalized`.

    Raises:
        UserError: no finished run, a dataset or model that is gone or another one now.
    """
    record = read_record(directory)
    if record is None:
        what = "no such directory" if not directory.is_dir() else f"no finished run: there is no {NAME} in it"
        raise UserError(f"{directory}: {what}; name the output directory of a `pmpo-offline train`")
    try:
        facts = {name: record[name] for name in ("kind", "dataset", "task", "algorithm", "settings", "seed")}
        dataset = _dataset(directory, record, home)
        if record["kind"] == "responses":
            measured = _language(directory, record, dataset, samples, prompts, seed, judge, home)
        elif judge is not None:
            raise UserError(f"{directory} holds a control policy, which has no texts to judge: leave --judge out")
        else:
            measured = _control(directory, record, dataset, episodes, workers)
    except KeyError as error:
        raise PmpoOfflineError(f"{directory / NAME} is damaged: it has no {error}: {AGAIN}") from None
    return {"run": str(directory), **facts, **measured}


def _dataset(directory: Path, record: dict[str, Any], home: Path | None) -> Dataset:
    path, name = Path(record["dataset_path"]), record["dataset"]
    try:
        dataset = load_dataset(path if path.is_dir() else name, home=home)
    except UserError as error:
        raise UserError(
            f"{directory} was trained on {name}, which is not at {path} ({error}); a dataset that is nowhere on disk "
            "has to be stored (data.write) and trained on from there"
        ) from None
    # What is held out now may have been trained on then. Runs of earlier versions do not say.
    digest = record.get("dataset_digest")
    if digest in (None, dataset.content_hash):
        return dataset
    with suppress(UserError):  # a dataset built anew may lack the score
        relabelled = dataset.relabelled(**record.get("labels", {}))
        if digest == relabelled.content_hash:
            return relabelled
    raise UserError(
        f"{directory} was trained on other rows than {name} holds now ({dataset.path}), whatever their labels: "
        "train it again, and on rows that are stored if they were changed in memory"
    )


def _language(
    directory: Path,
    record: dict[str, Any],
    dataset: Dataset,
    samples: int,
    prompts: int | None,
    seed: int,
    judge: JudgeChoice | None,
    home: Path | None,
) -> dict[str, Any]:
    from pmpo_offline.evaluation.language.judging import open_judge
    from pmpo_offline.evaluation.language.questions import SHIPPED, templates
    from pmpo_offline.evaluation.language.report import report
    from pmpo_offline.policies.language.model import load_adapter, open_model
    from pmpo_offline.tasks.language import model_directory

    asked = None
    if judge is not None:  # first, because a judge that is not there should not be missed after minutes of sampling
        questions = templates(judge.questions or SHIPPED)
        asked = open_judge(judge.name, questions, model=judge.model, home=home), questions
    name = record["model"]
    place = model_directory(name, home)
    reference = open_model(place, name=name)
    if reference.digest != record.get("model_digest", reference.digest):
        raise UserError(f"{directory} was trained on another model than {name} is now ({place}): train it again")
    policy = load_adapter(reference, directory / record["adapter"])
    output = directory / "evaluation"
    found = report(
        policy,
        reference,
        dataset,
        output=output,
        samples=samples,
        prompts=prompts,
        seed=seed,
        judge=asked,
        cache=(data.home() if home is None else home) / ".reference",
    )
    return {"model": name, "output": str(output), **found}


def _control(
    directory: Path,
    record: dict[str, Any],
    dataset: Dataset,
    episodes: int,
    workers: int | None,
) -> dict[str, Any]:
    from pmpo_offline.evaluation.rollouts import check_simulated, check_versions, evaluate, normalized
    from pmpo_offline.policies import MixturePolicy

    references = dataset.metadata.references
    check_versions(dataset.metadata.id, references)
    check_simulated(dataset.metadata.id, record["task"])
    policy = MixturePolicy.load(directory / record["policy"])
    scores = evaluate(policy, record["task"], episodes=episodes, workers=workers)
    reward = float(scores["return"].to_numpy().mean())
    return {
        "episodes": episodes,
        "return": reward,
        "return_error": float(scores["return"].to_numpy().std() / max(1, episodes - 1) ** 0.5),
        "success": float(scores["success"].to_numpy().mean()),
        "length": float(scores["length"].to_numpy().mean()),
        "normalized": None if references is None else normalized(reward, references.min, references.max),
    }
