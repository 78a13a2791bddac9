"""Shared test setup: one torch thread, because two threads on a busy two-core machine are slower than one."""

import torch

torch.set_num_threads(1)
