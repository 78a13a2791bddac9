"""Checkpoints of transformers' Trainer without pickles, and the folder that a run keeps them in.

A checkpoint is the Trainer's folder, with the adapter as peft writes it. In place of `optimizer.pt`, `scheduler.pt`,
`scaler.pt` and `rng_state.pth` there are safetensors files of the same stems: tensors by number, and all the rest as
JSON in their metadata. checksums.json, written last, has the hash of every file. Optimizer state that FSDP or
DeepSpeed has sharded is left to these.
"""

from __future__ import annotations

import json
import re
import shutil
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten, treespec_dumps, treespec_loads

from pmpo_offline.runtime.arrays import load_tensors, save_tensors
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError, reason_of
from pmpo_offline.runtime.files import read_json, write_json
from pmpo_offline.runtime.hashing import hash_file

_OPTIMIZER, _SCALER, _RANDOM = "optimizer.safetensors", "scaler.safetensors", "rng_state_{}.safetensors"
_SEAL = "checksums.json"
_FOLDER = re.compile(r"checkpoint-(\d+)")


class SafeCheckpoints(transformers.Trainer):  # type: ignore[misc]
    """A Trainer whose checkpoints hold no pickles."""

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        # The Trainer's arguments, pickled; ours are in the run's record.
        Path(output_dir or self.args.output_dir, "training_args.bin").unlink(missing_ok=True)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.args.should_save:
            seal(Path(self.args.output_dir, f"checkpoint-{self.state.global_step}"))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self._sharded:
            super()._save_optimizer_and_scheduler(output_dir)
        elif self.args.should_save:
            _write(Path(output_dir, _OPTIMIZER), [self.optimizer.state_dict(), self.lr_scheduler.state_dict()])

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self._sharded:
            super()._load_optimizer_and_scheduler(checkpoint)
        elif checkpoint:
            if not Path(checkpoint, _OPTIMIZER).is_file():  # the Trainer would start with fresh moments, silently
                raise UserError(f"{checkpoint} holds no {_OPTIMIZER}: training cannot be resumed from it, start again")
            optimizer, scheduler = _read(Path(checkpoint, _OPTIMIZER))
            self.optimizer.load_state_dict(optimizer)
            self.lr_scheduler.load_state_dict(scheduler)

    def _save_scaler(self, output_dir: str) -> None:
        if self.accelerator.scaler is not None and self.args.should_save:  # of float16 gradients
            _write(Path(output_dir, _SCALER), self.accelerator.scaler.state_dict())

    def _load_scaler(self, checkpoint: str | None) -> None:
        if self.accelerator.scaler is not None and checkpoint and Path(checkpoint, _SCALER).is_file():
            self.accelerator.scaler.load_state_dict(_read(Path(checkpoint, _SCALER)))

    def _save_rng_state(self, output_dir: str) -> None:
        # Torch's alone (dropout): nothing in a step draws from Python or NumPy.
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        _write(Path(output_dir, _RANDOM.format(self.args.process_index)), [torch.get_rng_state(), cuda])

    def _load_rng_state(self, checkpoint: str | None) -> None:
        path = Path(checkpoint or "", _RANDOM.format(self.args.process_index))
        if checkpoint and path.is_file():  # absent if more processes resume than were stopped
            state, cuda = _read(path)
            torch.set_rng_state(state)
            if len(cuda) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all(cuda)

    @property
    def _sharded(self) -> bool:
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)


def checkpoints_in(folder: Path) -> list[Path]:
    """Return the Trainer's checkpoints in a folder, the oldest first."""
    found = {int(name[1]): path for path in folder.glob("*") if (name := _FOLDER.fullmatch(path.name))}
    return [found[step] for step in sorted(found) if found[step].is_dir()]


def last_complete(folder: Path) -> Path | None:
    """Return the last checkpoint that one process can resume from, None if there is none; incomplete ones are removed.

    A complete one was written to its end, and its files are as they were written; a warning says which were not.
    """
    complete = None
    for path in checkpoints_in(folder):
        if not (path / _SEAL).is_file():
            shutil.rmtree(path, ignore_errors=True)
            continue
        try:
            checksums = read_json(path / _SEAL)
            if not checksums.keys() >= {_OPTIMIZER, _RANDOM.format(0), "adapter_model.safetensors"}:
                raise OSError("its list of checksums is damaged")
            if changed := [name for name, value in checksums.items() if hash_file(path / Path(name).name) != value]:
                raise OSError(f"the checksum of {changed[0]} differs")
            complete = path
        except (OSError, PmpoOfflineError) as error:
            warnings.warn(f"{path} is damaged ({reason_of(error)}): removed, not resumed from", stacklevel=2)
            shutil.rmtree(path, ignore_errors=True)
    return complete


def remove_checkpoints(folder: Path) -> None:
    """Remove the Trainer's checkpoints in a folder, and the folder itself unless other files are in it."""
    for path in checkpoints_in(folder):
        shutil.rmtree(path)
    with suppress(OSError):
        folder.rmdir()


def seal(checkpoint: Path) -> None:
    """Write the checksums of a checkpoint's files: the last file of a complete checkpoint."""
    files = sorted(path for path in checkpoint.iterdir() if path.is_file() and path.name != _SEAL)
    write_json(checkpoint / _SEAL, {path.name: hash_file(path) for path in files})


def _write(path: Path, state: Any) -> None:
    leaves, structure = tree_flatten(state)
    tensors = {str(n): leaf.clone() for n, leaf in enumerate(leaves) if isinstance(leaf, Tensor)}  # none share memory
    rest = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    save_tensors(path, tensors, structure=treespec_dumps(structure), leaves=json.dumps(rest))


def _read(path: Path) -> Any:
    tensors, facts = load_tensors(path)
    leaves = [tensors.get(str(n), leaf) for n, leaf in enumerate(json.loads(facts["leaves"]))]
    return tree_unflatten(leaves, treespec_loads(facts["structure"]))
