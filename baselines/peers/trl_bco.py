"""Runs the BCO trainer of an older TRL on given log-probabilities; a program of its own, since two TRLs do not mix.

    PYTHONPATH=.venv-peers/trl-1.13.0 python baselines/peers/trl_bco.py inputs.safetensors outputs.safetensors

`inputs` holds cases of minibatches, both numbered by one digit: `{case}.beta` (), and `{case}.{i}.logp`,
`{case}.{i}.ref`, `{case}.{i}.label` (B,). `outputs` gets `{case}.{i}.loss`, `{case}.{i}.gradient` (B,) in logp, and
`{case}.{i}.shift`, the trainer's running mean of beta r after that minibatch.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}

import torch
import trl
from language import arguments, llama, texts, tokenizer
from safetensors.torch import load_file, save_file
from torch import Tensor
from trl.experimental.bco import BCOConfig, BCOTrainer


def main(given: Path, wanted: Path) -> None:
    """Feed every case's minibatches to a trainer's own loss and write what comes out."""
    if trl.__version__ != "1.13.0":
        sys.exit(f"this is TRL {trl.__version__}: put trl-1.13.0 first on PYTHONPATH")
    inputs = load_file(given)
    outputs: dict[str, Tensor] = {}
    bco: dict[str, BCOTrainer] = {}
    for name in sorted(name.removesuffix(".logp") for name in inputs if name.endswith(".logp")):
        case = name.split(".")[0]
        if case not in bco:
            bco[case] = trainer(float(inputs[f"{case}.beta"]))
        logp, ref, label = (inputs[f"{name}.{kind}"] for kind in ("logp", "ref", "label"))
        logp.requires_grad_()
        chosen, rejected = label > 0, label < 0
        losses, _, _, shift = bco[case].bco_loss(
            logp[chosen], logp[rejected], ref[chosen], ref[rejected], None, None, do_train=True
        )
        loss = losses.nanmean()  # as its get_batch_loss_metrics does
        (gradient,) = torch.autograd.grad(loss, logp)
        outputs |= {f"{name}.loss": loss.detach(), f"{name}.gradient": gradient, f"{name}.shift": shift.double()}
    save_file(outputs, wanted)


def trainer(beta: float) -> BCOTrainer:
    """Return a real trainer, its running mean at its start."""
    with tempfile.TemporaryDirectory() as folder:
        return BCOTrainer(
            model=llama(0),
            ref_model=llama(1),
            args=BCOConfig(**arguments(Path(folder), 8), beta=beta),
            train_dataset=texts(8, 2, "prompt", "completion", "label"),
            processing_class=tokenizer(),
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
