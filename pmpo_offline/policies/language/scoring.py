"""How likely completions are to a causal language model, computed at the completions' places alone.

The backbone runs over whole rows; the head, which for a small model with a large vocabulary is a third of the work,
runs over the N completion tokens only. Nothing here keeps numbers for all N tokens and all V words at once: a head that
is not trained passes back one vector of the width H a token, which is found along with the value, chunk by chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pmpo_offline.errors import UserError
from pmpo_offline.policies.language.tokens import TokenBatch

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

