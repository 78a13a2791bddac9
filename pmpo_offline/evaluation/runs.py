"""Evaluate a finished training run, found by its directory: the command `evaluate`."""

from __future__ import annotations

import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from pmpo_offline import data
from pmpo_offline.data import Dataset, load_dataset
from pmpo_offline.evaluation.options import EvaluationOptions
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.training.run import AGAIN, NAME, check_artefact, read_record

FACTS = ("kind", "dataset", "task", "algorithm", "settings", "seed")
"""What the record of a run says that its evaluation repeats."""


def evaluate_run(
    directory: Path, options: EvaluationOptions | None = None, home: str | Path | None = None
) -> dict[str, Any]:
    """Evaluate a finished run.

    Args:
        directory: the output of a training, with a run.json.
        options: how much is measured; those that do not apply to the run are a warning.
        home: where datasets and models are.

    Returns:
        What the run is (`run`, `kind`, `dataset`, `task`, `algorithm`, `settings`, `seed`), whether its training
        `diverged` (there is a warning, too), and for a language model
        `language.report.report`, for control the means of return, success and length, and `normalized`.

    Raises:
        UserError: no finished run, or a dataset or model that is missing or has changed.
        PmpoOfflineError: what was trained is damaged, or its returns are not numbers.
    """
    options, record = options or EvaluationOptions(), read_record(directory)
    if record is None:
        what = "no such directory" if not directory.is_dir() else f"no finished run: there is no {NAME} in it"
        raise UserError(f"{directory}: {what}; name the output directory of a `pmpo-offline train`")
    texts = record.get("kind") == "responses"
    # In an environment a policy of control is scored without its dataset, which may be gone.
    alone = not texts and options.environment is not None
    needed = [*FACTS, *([] if alone else ["dataset_path"]), *(["model", "adapter"] if texts else ["policy"])]
    if missing := [name for name in needed if name not in record]:
        raise PmpoOfflineError(f"{directory / NAME} is damaged: it has no {missing[0]}: {AGAIN}")
    if "sha256" in record:  # runs of earlier versions do not record it
        check_artefact(directory, record)
    if not texts and options.judge is not None:
        raise UserError(f"{directory} holds a control policy, which has no texts to judge: leave --judge out")
    if diverged := bool(record.get("diverged")):  # runs of earlier versions do not record it
        warnings.warn(f"{directory} diverged in training: its scores mean little ({NAME} has how far)", stacklevel=2)
    for name in _without_effect(options, texts):
        warnings.warn(f"{name} has no effect on {directory}", stacklevel=2)
    if texts:
        measured = _language(directory, record, _dataset(directory, record, home), options, home)
    else:
        measured = _control(directory, record, None if alone else _dataset(directory, record, home), options)
    facts = {name: record[name] for name in FACTS}
    return {"run": str(directory), **facts, "diverged": diverged, **measured}


def _without_effect(options: EvaluationOptions, texts: bool) -> list[str]:
    """Return the options that are given and do nothing for a language model or else control, as commands spell them."""
    idle = ["episodes", "environment", "workers"] if texts else ["samples", "prompts", "seed"]
    idle += [] if options.judge else ["judge_model", "judge_questions"]
    return [f"--{name.replace('_', '-')}" for name in idle if getattr(options, name) is not None]


def _dataset(directory: Path, record: dict[str, Any], home: str | Path | None) -> Dataset:
    path, name = Path(record["dataset_path"]), record["dataset"]
    try:
        dataset = load_dataset(path if path.is_dir() else name, verify=True, home=home)
    except UserError:
        free = "" if record["kind"] == "responses" else "; scores in an --environment need no dataset"
        raise UserError(
            f"{directory} was trained on {name}, which is neither at {path} nor in the home: build, import, copy or "
            f"pull it again, or name its --home (what was in memory alone is stored first, by data.write){free}"
        ) from None
    # Rows that are held out now may have been trained on then. Runs of earlier versions do not record a hash.
    digest = record.get("dataset_digest")
    if digest in (None, dataset.content_hash):
        return dataset
    with suppress(UserError):  # a dataset that was built again may lack the score
        relabelled = dataset.relabelled(**record.get("labels", {}))
        if digest == relabelled.content_hash:
            return relabelled
    raise UserError(
        f"{directory} was trained on other rows than {name} holds now ({dataset.path}), whatever their labels: "
        "train it again, and on rows that are stored if they were changed in memory"
    )


def _language(
    directory: Path, record: dict[str, Any], dataset: Dataset, options: EvaluationOptions, home: str | Path | None
) -> dict[str, Any]:
    from pmpo_offline.evaluation.language.judges import open_judge
    from pmpo_offline.evaluation.language.questions import SHIPPED, templates
    from pmpo_offline.evaluation.language.report import ReportRequest, Sampling, report
    from pmpo_offline.policies.language.model import load_adapter, open_model
    from pmpo_offline.tasks.language import model_directory

    judge = None
    if options.judge is not None:  # first, because an unknown judge should be reported before minutes of sampling
        questions = templates(options.judge_questions or SHIPPED)
        judge = open_judge(options.judge, options.judge_model, questions.request, home), questions
    name = record["model"]
    place = model_directory(name, home)
    reference = open_model(place, name=name)
    if reference.digest != record.get("model_digest", reference.digest):
        raise UserError(f"{directory} was trained on another model than {name} is now ({place}): train it again")
    policy = load_adapter(reference, directory / record["adapter"])
    prompts = 100 if options.prompts is None else options.prompts or None
    sampling = Sampling(options.samples or 1, prompts, options.seed or 0)
    cache = data.home(home) / ".reference"
    request = ReportRequest(directory / "evaluation", sampling, judge, cache)
    return {"model": name, "output": str(request.output), **report(policy, reference, dataset, request)}


def _environment(dataset: Dataset) -> str | None:
    """Return the registered environment that an import was recorded in, where its task is none of those here."""
    import gymnasium

    from pmpo_offline import tasks

    recorded = dataset.metadata.provenance.settings.get("environment")
    if dataset.metadata.task in tasks.TASKS or recorded not in gymnasium.registry:
        return None
    warnings.warn(
        f"scored in {recorded} as Gymnasium registers it, which {dataset.metadata.id} names: arguments that it was "
        "recorded with are not known (--environment takes another)",
        stacklevel=2,
    )
    return str(recorded)


def _control(
    directory: Path, record: dict[str, Any], dataset: Dataset | None, options: EvaluationOptions
) -> dict[str, Any]:
    from pmpo_offline.evaluation.rollouts import check_scorable, evaluate
    from pmpo_offline.evaluation.statistics import normalized
    from pmpo_offline.policies import MixturePolicy

    environment, references = options.environment, None
    if dataset is not None and (environment := _environment(dataset)) is None:
        check_scorable(dataset.metadata)
        references = dataset.metadata.references
    policy = MixturePolicy.load(directory / record["policy"])
    episodes = options.episodes or 100
    scores = evaluate(policy, environment or record["task"], episodes=episodes, workers=options.workers)
    returns, success, length = (scores[column].to_numpy() for column in ("return", "success", "length"))
    if lost := int((~np.isfinite(returns)).sum()):
        raise PmpoOfflineError(f"{directory}: {lost} of {episodes} returns are not numbers: the policy is unusable")
    reward = float(returns.mean())
    return {
        "episodes": episodes,
        "return": reward,
        "return_error": float(returns.std() / max(1, episodes - 1) ** 0.5),
        "success": float(success.mean()),
        "length": float(length.mean()),
        "normalized": None if references is None else normalized(reward, references.min, references.max),
    }
