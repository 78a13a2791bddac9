"""TRL's DPO and KTO on the tiny language, as rows of a table: the leaderboard's entry `trl`.

    python -m baselines.peers.trl_language OUTPUT              # after `make peers`; ten minutes of CPU time
    pmpo-offline submit OUTPUT --name trl

Its trainers learn from what `export --to trl` writes of the suite's condition, with the LoRA, updates, minibatch, rate,
schedule and β of our `dpo` and `kto`; the classes of KTO weigh alike, as its documentation advises. Rows "as it comes"
have TRL's own rate, schedule and weights. The adapters are evaluated as ours are. `recipes/kto-shares.toml` is our KTO
with minibatches as TRL draws them. Finished runs are not repeated.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from baselines.peers import environment

DATASET, SHARE, RUNS = "language/tiny-v0", 0.1, range(5)
SHARES = str(Path(__file__).with_name("recipes") / "kto-shares.toml")
ROWS = {
    "dpo (TRL)": ("dpo", True),
    "kto (TRL)": ("kto", True),
    "dpo (TRL as it comes)": ("dpo", False),
    "kto (TRL as it comes)": ("kto", False),
}
"""Our algorithm of the same objective, and whether the training is set as ours."""


def learn(export: str, model: str, request: str, target: str) -> None:
    """Train one run in the peers' environment and write its adapter.

    Args:
        export: what `export --to trl` wrote.
        model: the directory of the model.
        request: JSON: objective, seed, batch, steps, LoRA, and fields of TRL's configuration.
        target: the adapter's directory.
    """
    import torch
    import trl
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

    from baselines.peers.language import arguments
    from datasets import load_dataset

    torch.set_num_threads(1)
    asked = json.loads(request)
    Trainer, Config = {"dpo": (trl.DPOTrainer, trl.DPOConfig), "kto": (trl.KTOTrainer, trl.KTOConfig)}[asked["form"]]
    set_seed(asked["seed"])
    with tempfile.TemporaryDirectory() as scratch:
        args = Config(
            **arguments(Path(scratch), asked["batch"]),
            **asked["config"],
            seed=asked["seed"],
            max_steps=asked["steps"],
            save_strategy="no",
        )
        trainer = Trainer(
            model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
            args=args,
            train_dataset=load_dataset(export, asked["form"], split="train", cache_dir=scratch),
            processing_class=AutoTokenizer.from_pretrained(model),
            peft_config=LoraConfig(task_type="CAUSAL_LM", **asked["lora"]),
        )
        trainer.train()
        partial = Path(target).with_suffix(".partial")
        trainer.save_model(str(partial))
        partial.rename(target)


def main(output: Path) -> None:
    """Bench the suite's own rows, then add TRL's."""
    from baselines.peers.rows import add_row
    from pmpo_offline import bench, build_dataset
    from pmpo_offline.benchmark.language_cells import raw_scores
    from pmpo_offline.benchmark.results import Results
    from pmpo_offline.data.exchange import export_dataset
    from pmpo_offline.policies.language import load_adapter, open_model
    from pmpo_offline.tasks.language import model_directory

    bench("quick", datasets=DATASET, algos=["pmpo", "dpo", "kto", SHARES], output=output, workers=1)
    dataset, results, folder = build_dataset(DATASET, imbalance=SHARE), Results(output), output / "trl"
    if not (folder / "export").exists():
        export_dataset(dataset, "trl", folder / "export")
    model, counts, library = model_directory("tiny"), dataset.metadata.counts, f"TRL {environment.version('trl')}"
    results.record("python -m baselines.peers.trl_language OUTPUT")
    reference = open_model(model)
    for name, (algorithm, equal) in ROWS.items():
        ours = results.read().filter(algo=algorithm, shuffled=False)
        how = settings(algorithm, equal, counts.rejected / counts.accepted)
        policies = (load_adapter(reference, each) for each in adapters(folder, name, model, how))
        runs = (raw_scores(policy, reference, dataset, ours["episode"].n_unique()) for policy in policies)
        add_row(results, name, ours, runs, {"library": library, **how})


def adapters(folder: Path, name: str, model: Path, how: dict[str, Any]) -> Iterator[Path]:
    """Yield the adapter of each run of a row; those that are missing are trained."""
    for seed in RUNS:
        adapter = folder / f"{name}-{seed}"
        if not adapter.exists():
            request = json.dumps({**how, "seed": seed})
            environment.run("-m", "baselines.peers.trl_language", "learn", folder / "export", model, request, adapter)
        yield adapter


def settings(algorithm: str, equal: bool, rejected: float) -> dict[str, Any]:
    """Return what a run of TRL's is trained with: as ours, or with its own rate, schedule and weights.

    Args:
        algorithm: ours, whose declaration is read.
        equal: whether rate, schedule and the weights of classes are ours too.
        rejected: rejected responses to an accepted one.
    """
    from pmpo_offline.declarations import catalog
    from pmpo_offline.training.config import hyperparameters
    from pmpo_offline.training.language.config import LanguageSettings

    declared = catalog.algorithm(algorithm, "language")
    hyper = hyperparameters(declared, {}, LanguageSettings)
    lora = {"r": hyper.lora_rank, "lora_alpha": hyper.lora_alpha, "target_modules": list(hyper.lora_targets)}
    config: dict[str, Any] = {"beta": declared.settings["beta"]}
    if equal:
        config |= {"learning_rate": hyper.learning_rate, "lr_scheduler_type": "cosine"}
        config |= {"warmup_steps": hyper.steps // 10, "max_grad_norm": hyper.clip}
        config |= {"desirable_weight": rejected} if algorithm == "kto" else {}
    return {"form": algorithm, "batch": hyper.batch, "steps": hyper.steps, "lora": lora, "config": config}


if __name__ == "__main__":
    if sys.argv[1] == "learn":
        learn(*sys.argv[2:])
    else:
        main(Path(sys.argv[1]))
