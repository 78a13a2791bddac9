"""The commands train, doctor (check settings before training) and train-behavior."""

from __future__ import annotations

import shlex
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pmpo_offline.cli import names
from pmpo_offline.cli.console import (
    Algo,
    Home,
    Result,
    Watch,
    assignments,
    command,
    parse_value,
    print_lines,
    readable,
)
from pmpo_offline.cli.watch import watching
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.options import option

if TYPE_CHECKING:
    from pmpo_offline.online.behavior import BehaviorResult
    from pmpo_offline.training.doctor import Diagnosis
    from pmpo_offline.training.run import Run

SHOWN = ("loss", "kl", "rewards/margins", "rewards/accuracies", "logps/chosen", "logps/rejected", "logp", "accept_logp")
"""Metrics that are printed; run.json has all."""
ALWAYS = ("alpha", "beta", "normalize")
"""Settings that doctor prints even where they are the objective's defaults."""
COLOURS = {"bounded": "green", "ready": "green", "at the edge": "yellow", "no minimum": "yellow"}
"""Of verdicts; all others are red."""
LEGEND = {
    "pairs": "of an accept and a reject of one state or prompt",
    "w_D / w_U": "weight of an accept over that of a reject; advised is the range in which both classes count alike",
    "β ≥": "the bound, from which on the loss has a minimum, with accepts and rejects averaged together (joint) or "
    "each class by itself (set)",
    "collapse at β ≤": "training ends on a single outcome; between this and the bound on several",
    "in a tenth of states": "the same for a policy that sees the state, where labels are more one-sided: at this β a "
    "tenth of the states collapses",
    "β ≥, flipped labels": "the bound where flipped labels are known to be some and outcomes have both",
    "β >, one Gaussian": "the bound of a policy that is one Gaussian, not a mixture",
    "suggested β": "for the α above",
    "suggested α, β": "as a pair: α from what unlabelled rows are worth, and the β for it",
}
"""What the lines of `doctor` mean, as far as they do not say it themselves."""
_set = partial(
    option,
    "A setting of the objective or of the training, e.g. beta=0.5, learning_rate=1e-4; repeatable.",
    names=("--set",),
    metavar="SETTING=VALUE",
)
_seed = partial(option, "Seed of all random numbers.", 0, min=0, max=2**31 - 1)
_declared = partial(option, show_default="as declared")


@dataclass(frozen=True)
class Training:
    """The options of `train`."""

    algo: Algo = "pmpo"
    settings: list[str] | None = _set()
    model: str | None = option(
        "The language model to train: name, directory or hub id.", show_default="the one that wrote the responses"
    )
    seed: int = _seed()
    steps: int | None = option("Gradient steps.", names=("--steps", "--updates"), min=1, show_default="the algorithm's")
    shuffle_labels: bool = option("Permute the labels: the control, from which nothing can be learned.", False)
    output: Path | None = option("Directory of the run.", show_default="in runs/DATASET")
    track: str | None = option(
        "Log metrics with these libraries too: tensorboard, wandb (offline), trackio.",
        metavar="NAMES",
        show_default="metrics.csv of the run alone",
    )
    watch: Watch = False


@dataclass(frozen=True)
class Checked:
    """The settings that `doctor` checks."""

    algo: Algo = "pmpo"
    alpha: float | None = _declared("Weight of the accepts, 0 to 1.")
    beta: str | None = _declared("Weight of the divergence: a number, or a multiple of its bound such as 1.05x.")
    normalize: str | None = _declared("How PMPO averages accepts and rejects.", metavar="joint|set")
    settings: list[str] | None = _set()


@dataclass(frozen=True)
class Acting:
    """The options of `train-behavior`."""

    seed: int = _seed()
    steps: int | None = option("Control steps to train for.", min=1, show_default="the learner's")
    minutes: float | None = option("Stop after this many minutes of CPU time.", min=0, show_default="no limit")
    output: Path | None = option("Directory of the policies.", show_default="behaviors/TASK")
    fresh: bool = option("Start again, or resume an interrupted training.", False, names=("--fresh/--resume",))


@command(Training)
def train(
    name: Annotated[
        str,
        typer.Option(
            "--dataset",
            metavar="ID",
            help="Id or path of a dataset; a declared one is built first.",
            autocompletion=names.datasets,
        ),
    ],
    *,
    options: Training,
    home: Home = None,
) -> Result[Any]:
    """Train one algorithm on one dataset; the same command again resumes where it was stopped."""
    chosen = assignments(options.settings, "beta=0.5")
    from pmpo_offline.data.storage import stored_at
    from pmpo_offline.declarations import catalog

    stored = stored_at(name, home)
    if not stored:
        from pmpo_offline.build.known import check_declared

        check_declared(name, home)
    catalog.check_algorithm(options.algo)
    tracked_by = [word.strip() for word in options.track.split(",")] if options.track else []
    from pmpo_offline.build import build_dataset
    from pmpo_offline.data import load_dataset
    from pmpo_offline.tasks import TASKS
    from pmpo_offline.training.loggers import check_loggers, tracked
    from pmpo_offline.training.run import Run, read_record, train_run

    if tracked_by:
        check_loggers(tracked_by)
    if stored:
        dataset = load_dataset(name, verify=True, home=home)
    else:
        _check_settings(name, options.algo, chosen)
        dataset = build_dataset(name, home=home)
    run = Run(
        *(dataset, options.algo, chosen, options.seed),
        *(options.steps, options.model, options.shuffle_labels),
    )
    place = options.output or _place(run)
    finished = read_record(place) is not None  # of another run `train_run` refuses
    config = {"dataset": dataset.metadata.id, "algorithm": options.algo, "seed": options.seed, **chosen}
    logging: AbstractContextManager[Any] = tracked(tracked_by, place, config) if tracked_by else nullcontext([])
    with watching(place) if options.watch else nullcontext(), logging as loggers:
        record = train_run(run, place, home, loggers)
    about = {"output": str(place), "trained": not finished, **_own_model(record, home)}
    meta = dataset.metadata
    simulated = meta.kind == "responses" or meta.task in TASKS
    following = f"pmpo-offline evaluate {shlex.quote(str(place))}" + " --environment MODULE:ID" * (not simulated)
    content = {key: value for key, value in record.items() if key != "history"} | about
    return Result(content, partial(_print_run, following=following))


def _own_model(record: dict[str, Any], home: Path | None) -> dict[str, str]:
    """Return where the base model of an adapter is, if it is one that was made here."""
    if "model" not in record:
        return {}
    from pmpo_offline.tasks.language.models import OWN, own_directory

    name = record["model"]
    return {"model_path": str(own_directory(name, home))} if name in OWN else {}


def _check_settings(dataset: str, algorithm: str, settings: dict[str, Any]) -> None:
    """Raise `UserError` for settings that an algorithm cannot have on a declared dataset, before that is built."""
    from pmpo_offline.data import LabelRule
    from pmpo_offline.declarations import catalog
    from pmpo_offline.training.config import divide

    recipe = catalog.dataset(dataset)
    family = catalog.family(recipe.task, by_step=LabelRule.parse(recipe.label).by_step)
    declared = catalog.algorithm(algorithm, family)
    if recipe.kind == "responses":
        from pmpo_offline.training.language import LanguageSettings  # with transformers, for seconds

        divide(declared, settings, LanguageSettings)
    else:
        from pmpo_offline.training.control.config import TrainingSettings

        divide(declared, settings, TrainingSettings)


def _place(run: Run) -> Path:
    """Return the default directory of a run, named by its settings."""
    parts = [Path(str(run.algorithm)).stem, *(f"{name}={run.settings[name]}" for name in sorted(run.settings))]
    parts += [f"steps={run.steps}"] * (run.steps is not None) + ["shuffled"] * run.shuffle_labels + [f"seed{run.seed}"]
    return Path("runs") / run.dataset.metadata.id.replace("/", "-") / "-".join(parts)


def _print_run(record: dict[str, Any], following: str) -> None:
    if not record["trained"]:
        print(f"nothing was trained: {record['output']} holds this run, finished before")
    beta, bound, training = record["settings"].get("beta"), record["bound"], record["training"]
    lines = {
        "dataset": record["dataset"],
        "algorithm": record["algorithm"] + (" (shuffled labels)" if record["shuffle_labels"] else ""),
        "settings": readable(record["settings"]) or "–",
        **({"model": record["model"]} if "model" in record else {}),
        **({"made here": record["model_path"]} if "model_path" in record else {}),
        "seed": str(record["seed"]),
        "steps": training.get("steps", training.get("updates")),
    }
    if bound is not None:
        lines["β ≥ bound"] = f"{readable(beta)} {'≥' if beta >= float(bound) else '<'} {readable(float(bound))}"
    lines |= {metric: readable(record["metrics"][metric]) for metric in SHOWN if metric in record["metrics"]}
    if record.get("diverged"):
        metrics = record["metrics"]
        left = (
            f"mean actions up to {readable(metrics['reach'])} times the recorded ones, loss {readable(metrics['loss'])}"
        )
        lines["diverged"] = typer.style(f"{left}: this policy is unusable", fg="red")
    lines["learned"] = str(Path(record["output"]) / record.get("adapter", record.get("policy", "")))
    if not record.get("diverged"):
        lines["next"] = following
    print_lines(lines)


@command(Checked)
def doctor(
    name: Annotated[
        str, typer.Argument(metavar="DATASET", help="Id or path of a dataset.", autocompletion=names.datasets)
    ],
    *,
    options: Checked,
    home: Home = None,
) -> Result[Any]:
    """Check an algorithm's settings against a dataset before training: class counts, the bound on β, a verdict."""
    from pmpo_offline.build import require_built
    from pmpo_offline.data import load_dataset
    from pmpo_offline.declarations import catalog

    require_built(name, home)
    catalog.check_algorithm(options.algo)
    chosen = assignments(options.settings, "divergence=reverse")
    beta = None if options.beta is None else parse_value(options.beta)
    shortcuts = {"alpha": options.alpha, "beta": beta, "normalize": options.normalize}
    given = {name: value for name, value in shortcuts.items() if value is not None}
    for twice in given.keys() & chosen.keys():
        raise UserError(f"{twice} is given by --{twice} and by --set: leave one of them out")
    from pmpo_offline.training.config import algorithm_for
    from pmpo_offline.training.doctor import doctor as diagnose

    dataset = load_dataset(name, home=home)
    return Result(diagnose(dataset, algorithm_for(options.algo, dataset), chosen | given), _print_diagnosis)


def _print_diagnosis(found: Diagnosis) -> None:
    from pmpo_offline.declarations import OBJECTIVES

    def known(value: Any, text: str = "{}") -> str | None:
        return None if value is None else text.format(readable(value))

    usual = OBJECTIVES[found.objective].settings
    shown = {name: value for name, value in found.settings.items() if name in ALWAYS or value != usual.get(name)}
    factor = known(found.factor, ": β is {} times its bound") or ""
    counts = {"accepted": found.accepted, "rejected": found.rejected, "unlabelled": found.unlabelled}
    counts |= {"held out": found.held_out} if found.held_out else {}
    lines = {
        "dataset": found.dataset,
        "algorithm": f"{found.algorithm} ({readable(shown)})" if shown else found.algorithm,
        "trains on": f"{found.trains_on}: " + ", ".join(f"{count:,} {name}" for name, count in counts.items()),
        "accepted share": readable(found.accepted_share),
        "reject mass": f"{readable(found.reject_mass)} of all before balancing, "
        f"{readable(found.labelled_reject_mass)} after",
        "reject share": known(found.reject_share, "{} of the labelled"),
        "pairs": known(found.pairs),
        "w_D / w_U": known(found.weight_ratio, f"{{}}, advised {' to '.join(map(readable, found.weight_range or ()))}"),
        "β ≥": readable(found.bounds) if found.bounds else None,
        "collapse at β ≤": known(found.collapse),
        "in a tenth of states": known(found.collapse_by_state),
        "β ≥, flipped labels": known(found.noise_bound),
        "β >, one Gaussian": known(found.gaussian_bound),
        "verdict": typer.style(found.verdict + factor, fg=COLOURS.get(found.verdict, "red")),
        "suggested β": known(found.suggested_beta),
        "suggested α, β": known(found.suggested),
        "notes": "\n".join(found.notes) or None,
    }
    shown = {name: value for name, value in lines.items() if value is not None}
    print_lines(shown)
    if legend := {name: meaning for name, meaning in LEGEND.items() if name in shown}:
        print()
        print_lines(legend)


@command(Acting)
def train_behavior(
    task: Annotated[
        str,
        typer.Argument(metavar="TASK", help="A control task, e.g. cheetah-run.", autocompletion=names.control_tasks),
    ],
    algo: Annotated[
        str | None, typer.Option(help="Name of a learner.", show_default="ppo; clone where a script solves the task")
    ] = None,
    *,
    options: Acting,
) -> Result[Any]:
    """Train the policies that collect a control task's datasets: medium, replay (those on the way to it) and expert."""
    names.check_control_task(task)
    from pmpo_offline.online import behavior

    return Result(behavior.train_behavior(task, algo, **vars(options)), _print_behavior)


def _print_behavior(done: BehaviorResult) -> None:
    medium = "not reached" if done.medium is None else f"{done.medium:.1f}"
    expert = "not measured" if done.expert is None else f"{done.expert:.1f} ± {done.expert_std:.1f}"
    print(f"{done.task} by {done.algo}, seed {done.seed}: {done.steps:,} of {done.planned:,} control steps")
    print(f"return: random {done.random:.1f}, medium {medium}, expert {expert}", end="")
    print(f" (target {done.target:g}), {done.cpu_seconds / 60:.1f} minutes of CPU time")
    if not done.finished:
        print("stopped early: run the same command again to resume")
    elif done.medium is None:
        print(f"no policy reached medium, so nothing was written: use --fresh and more --steps than {done.planned:,}")
    if done.medium is not None:
        print(f"medium, replay and expert.safetensors are in {done.path}")
