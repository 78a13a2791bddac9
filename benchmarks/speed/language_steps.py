"""One contender of `language.py`: trains a few steps in the peers' environment and prints their figures.

    PYTHONPATH=. .venv-peers/bin/python -m benchmarks.speed.language_steps dpo MODEL FOLDER --steps 4

Both sides are the whole loop that users run, `Trainer.train()`: batches, forward and backward pass, clipping, AdamW,
metrics. The adapter is moved away from zero first, by the same numbers for everyone, so that losses can be compared.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import sys
import time
from pathlib import Path
from typing import Any

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
}

import torch
from peft import LoraConfig
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from benchmarks.speed.language import CONTENDERS, Contender

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]
RANK, ROWS, BETA = 8, 8, 0.1
PAIRS = 16
"""Four steps of four pairs, or of eight single rows."""
WORDS = """
    time people water house world day year way man thing woman life child school state family student group country
    problem hand part place case week company system program question work number night point home room mother area
    money story fact month lot right study book eye job word business issue side kind head service friend father power
    hour game line end member law car city community name president team minute idea body information back parent face
    others level office door health person art war history party result change morning reason research
"""


class Clock(TrainerCallback):
    """Seconds of each step, from the end of the one before; the first is a warm-up."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if not self.wall:
            reset_peak()
        self.wall.append(time.perf_counter())
        self.cpu.append(time.process_time())


def reset_peak() -> None:
    """Forget the most memory that the process has had: loading and preparing are not what a step needs."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif os.access("/proc/self/clear_refs", os.W_OK):
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> float:
    """Return the most memory since, in MB: of the GPU if there is one, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    found = [int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmHWM")]
    return found[0] if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def texts(paired: bool) -> list[dict[str, Any]]:
    """Return the rows: prompts and completions of about 32 words each, every word a token."""
    rng = random.Random(0)

    def some() -> str:
        return " ".join(rng.choices(WORDS.split(), k=rng.randint(28, 36)))

    pairs = [{"prompt": some(), "chosen": f" {some()}", "rejected": f" {some()}"} for _ in range(PAIRS)]
    if paired:
        return pairs
    sides = [("chosen", True), ("rejected", False)]
    return [{"prompt": p["prompt"], "completion": p[side], "label": label} for p in pairs for side, label in sides]


def perturb(model: torch.nn.Module) -> None:
    """Move the adapter away from zero, by the same numbers for every trainer."""
    generator = torch.Generator().manual_seed(0)
    for name, weight in sorted(model.named_parameters()):
        if "lora_" in name:
            weight.data = (0.02 * torch.randn(weight.shape, generator=generator)).to(weight)


def build(contender: Contender, model: Path, folder: Path, steps: int) -> Any:
    """Return a trainer of ours or of TRL's."""
    device: dict[str, Any] = {"bf16": False} if torch.cuda.is_available() else {"bf16": False, "use_cpu": True}
    batch = ROWS // 2 if contender.algorithm == "dpo" else ROWS
    common = {
        "output_dir": str(folder / "out"),
        "per_device_train_batch_size": batch,
        "max_steps": steps,
        "learning_rate": 1e-4,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "gradient_checkpointing": False,
        "dataloader_pin_memory": False,
        "logging_steps": 10,
        **device,
    }
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    layers = network.config.num_hidden_layers
    cut = layers - contender.top if contender.top else 0
    lora = LoraConfig(
        r=RANK,
        lora_alpha=2 * RANK,
        target_modules=TARGETS,
        layers_to_transform=list(range(cut, layers)),
        task_type="CAUSAL_LM",
    )
    clock = Clock()
    given: dict[str, Any] = {
        "model": network,
        "processing_class": AutoTokenizer.from_pretrained(model),
        "peft_config": lora,
        "callbacks": [clock],
    }
    data = texts(contender.algorithm == "dpo")
    if contender.theirs:
        import trl

        from datasets import Dataset

        Trainer, Config = {
            "dpo": (trl.DPOTrainer, trl.DPOConfig),
            "kto": (trl.KTOTrainer, trl.KTOConfig),
        }[contender.algorithm]
        args = Config(**common, beta=BETA, precompute_ref_log_probs=contender.precomputed)
        trainer = Trainer(args=args, train_dataset=Dataset.from_list(data), **given)
    else:
        from pmpo_offline.training.language import PMPOConfig, PMPOTrainer, ResponseConfig, ResponseTrainer

        common |= {"reference_cache": str(folder / "reference"), "cut": cut}
        if contender.algorithm == "pmpo":
            trainer = PMPOTrainer(args=PMPOConfig(**common), train_dataset=data, **given)
        else:
            common |= {"objective": contender.algorithm, "settings": {"beta": BETA}}
            common |= {"rows": "pairs"} if contender.algorithm == "dpo" else {}
            common |= {"policy_kl": "mismatched"} if contender.mismatched else {}
            trainer = ResponseTrainer(args=ResponseConfig(**common), train_dataset=data, **given)
    perturb(trainer.model)
    return trainer, clock


def first_loss(trainer: Any, theirs: bool, batch: int) -> float:
    """Return the loss of the first rows of the data, in their order."""
    trainer.model.train()
    if theirs:
        inputs: Any = trainer.data_collator([trainer.train_dataset[i] for i in range(batch)])
        inputs = {name: value.to(trainer.args.device) for name, value in inputs.items()}
    else:
        device = trainer.args.device
        inputs = {"index": torch.arange(batch), "weight": torch.ones(batch, device=device)}
        inputs["entries"] = trainer.train_dataset
    with torch.no_grad():
        loss: Tensor = trainer.compute_loss(trainer.model.to(trainer.args.device), inputs)
    return float(loss)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contender", choices=list(CONTENDERS))
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=4)
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the trainers print is no answer

    contender = CONTENDERS[arguments.contender]
    start = time.process_time()
    trainer, clock = build(contender, arguments.model, arguments.folder, arguments.steps)
    loss = first_loss(trainer, contender.theirs, ROWS // 2 if contender.algorithm == "dpo" else ROWS)
    trainer.train()
    found = {
        "loss": loss,
        "cpu": [b - a for a, b in zip(clock.cpu, clock.cpu[1:], strict=False)],
        "wall": [b - a for a, b in zip(clock.wall, clock.wall[1:], strict=False)],
        "before": clock.cpu[0] - start,
        "peak": peak(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    sys.exit(main())
