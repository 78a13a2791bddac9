"""What a stopped training goes on from, as safetensors and JSON: transformers' own Trainer pickles it.

A checkpoint is the Trainer's folder, with the adapter as peft writes it. In place of `optimizer.pt`, `scheduler.pt`,
`scaler.pt` and `rng_state.pth` there are files of the same stems in safetensors: tensors by number, and beside them, as
metadata, the JSON of all the rest. An optimizer whose state FSDP or DeepSpeed has sharded is left to these.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.runtime.tensors import load_tensors, save_tensors

_OPTIMIZER, _SCALER, _RANDOM = "optimizer.safetensors", "scaler.safetensors", "rng_state_{}.safetensors"


class SafeCheckpoints(transformers.Trainer):  # type: ignore[misc]
    """A Trainer whose checkpoints hold no pickles."""

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        # Its arguments, pickled, for whoever wonders later. Ours are in the run's record.
        Path(output_dir or self.args.output_dir, "training_args.bin").unlink(missing_ok=True)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self._sharded:
            super()._save_optimizer_and_scheduler(output_dir)
        elif self.args.should_save:
            state = [self.optimizer.state_dict(), self.lr_scheduler.state_dict()]
            _write(Path(output_dir, _OPTIMIZER), state)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self._sharded:
            super()._load_optimizer_and_scheduler(checkpoint)
        elif checkpoint:
            if not Path(checkpoint, _OPTIMIZER).is_file():  # the Trainer would begin with fresh moments and say nothing
                raise UserError(f"{checkpoint} holds no {_OPTIMIZER}: training cannot go on from it, begin anew")
            optimizer, scheduler = _read(Path(checkpoint, _OPTIMIZER))
            self.optimizer.load_state_dict(optimizer)
            self.lr_scheduler.load_state_dict(scheduler)

    def _save_scaler(self, output_dir: str) -> None:
        if self._scaler is not None and self.args.should_save:
            _write(Path(output_dir, _SCALER), self._scaler.state_dict())

    def _load_scaler(self, checkpoint: str | None) -> None:
        if self._scaler is not None and checkpoint and Path(checkpoint, _SCALER).is_file():
            self._scaler.load_state_dict(_read(Path(checkpoint, _SCALER)))

    def _save_rng_state(self, output_dir: str) -> None:
        # Torch's alone (dropout): nothing in a step draws from Python or NumPy.
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        _write(Path(output_dir, _RANDOM.format(self.args.process_index)), [torch.get_rng_state(), cuda])

    def _load_rng_state(self, checkpoint: str | None) -> None:
        path = Path(checkpoint or "", _RANDOM.format(self.args.process_index))
        if checkpoint and path.is_file():  # there is none where more processes go on than were stopped
            state, cuda = _read(path)
            torch.set_rng_state(state)
            if len(cuda) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all(cuda)

    @property
    def _sharded(self) -> bool:
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)

    @property
    def _scaler(self) -> Any:
        """Of gradients in float16; None elsewhere."""
        return getattr(self.accelerator, "scaler", None)


def is_whole(checkpoint: Path) -> bool:
    """Return whether one process may go on from a checkpoint: all of it was written, and can be read."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text())  # which comes last
        for name in ("adapter_model.safetensors", _OPTIMIZER, _RANDOM.format(0)):
            load_tensors(checkpoint / name)
    except (OSError, ValueError, PmpoOfflineError):
        return False
    return True


def _write(path: Path, state: Any) -> None:
    tensors: dict[str, Tensor] = {}
    rest = json.dumps(_plain(state, tensors))
    save_tensors(path, tensors, state=rest)


def _read(path: Path) -> Any:
    tensors, facts = load_tensors(path)
    return _restored(json.loads(facts["state"]), tensors)


def _plain(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return a state as JSON that keeps what JSON forgets (keys that are numbers, tuples), its tensors put aside."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.clone()  # safetensors refuses tensors that share their memory
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[key, _plain(each, tensors)] for key, each in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_plain(each, tensors) for each in value]}
    return [_plain(each, tensors) for each in value] if isinstance(value, list) else value


def _restored(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_restored(each, tensors) for each in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    match kind:
        case "tensor":
            return tensors[content]
        case "tuple":
            return tuple(_restored(each, tensors) for each in content)
        case _:
            return {key: _restored(each, tensors) for key, each in content}
