"""What each of several processes runs: short trainings whose logs the first one writes down."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from peft import LoraConfig

from helpers.small_language import labelled_rows, random_model
from pmpo_offline.policies.language import quiet
from pmpo_offline.tasks.language.tiny import tokenizer
from pmpo_offline.training.language import ResponseConfig, ResponseTrainer

LEARNERS = (("pmpo", "all"), ("kto", "balanced"), ("bco", "balanced"))
"""Objectives, and the rows that they draw."""


def history(folder: Path, objective: str, rows: str, batch: int, accumulation: int) -> list[dict[str, float]]:
    """Train on twelve rows an update, evaluate, and return the log with the evaluation in each line."""
    torch.set_num_threads(1)
    args = ResponseConfig(
        output_dir=str(folder / "out"),
        reference_cache=str(folder / "cache"),
        objective=objective,
        rows=rows,  # type: ignore[arg-type]
        settings={"divergence": "forward"} if objective == "pmpo" else {},
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        learning_rate=1e-2,
        max_steps=5,
        logging_steps=1,
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = ResponseTrainer(
        random_model(),
        args=args,
        train_dataset=labelled_rows(),
        eval_dataset=labelled_rows(5),
        processing_class=tokenizer(),
        peft_config=LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
    )
    with quiet():
        trainer.train()
        evaluated = trainer.evaluate()
    ranks = trainer.args.world_size
    return [{**line, **evaluated, "ranks": ranks} for line in trainer.state.log_history if "loss" in line]


def write_history(folder: Path) -> None:
    """Train with each objective as one process of several; the first writes the logs down."""
    for name, drawn in LEARNERS:
        logged = history(folder, name, drawn, 6, 1)
        if torch.distributed.get_rank() == 0:
            (folder / f"{name}.json").write_text(json.dumps(logged))
    # Together and by name: a process that simply ends may still have threads of gloo's, and is then aborted.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
