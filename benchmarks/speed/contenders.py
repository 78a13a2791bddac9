"""Contenders: our trainer with R stacked runs, a plain PyTorch loop, d3rlpy's BC, and bare matrix products."""

from __future__ import annotations

import json
import os
import subprocess
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.speed import rows
from benchmarks.speed.timing import BATCH, HIDDEN, Contender, Timing, flops, timed
from pmpo_offline import data
from pmpo_offline.declarations import catalog
from pmpo_offline.training.control.fit import fit
from pmpo_offline.training.control.sampler import Sampler
from pmpo_offline.training.control.stack import Stack
from pmpo_offline.training.control.trainer import fresh_policy


def ours(dataset: data.Dataset, runs: int, device: torch.device) -> Contender:
    """Our trainer's loop as it is: drawing, forward, loss, backward, clipping, AdamW, schedule and averaged weights."""
    algorithm = catalog.algorithm("bc", "rgb-stacking")
    seeds = list(range(runs))
    sampler = Sampler(dataset, algorithm, seeds, shuffle=False, device=device)
    sizes = {"components": 1, "hidden": HIDDEN, "batch": BATCH}
    policy = fresh_policy(sampler, Stack(dataset, algorithm, seeds, overrides=sizes).hyper)

    def update(n: int) -> Timing:
        stack = Stack(dataset, algorithm, seeds, overrides={"updates": n, **sizes})
        return timed(lambda: fit(stack, sampler, policy), device)

    outputs = policy.network[-1].bias.shape[-1]  # mean, deviation and the weight of the one component
    return Contender(f"ours, {runs} run{'s'[: runs > 1]}", runs, flops([rows.OBSERVATION, *HIDDEN, outputs]), update)


def plain(device: torch.device) -> Contender:
    """A plain loop for one run: NumPy draws the rows, `.item()` reads the loss at each step, AdamW as it comes."""
    observation, action = rows.arrays()
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    widths = [rows.OBSERVATION, *HIDDEN, 2 * rows.ACTION]
    layers: list[nn.Module] = []
    for m, n in pairwise(widths):
        layers += [nn.Linear(m, n), nn.ReLU()]
    network = nn.Sequential(*layers[:-1]).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)

    def loop(n: int) -> None:
        for _ in range(n):
            index = rng.integers(len(observation), size=BATCH)
            x, a = (torch.from_numpy(array[index]).to(device) for array in (observation, action))
            mean, raw = network(x).chunk(2, dim=-1)
            normal = torch.distributions.Normal(mean, raw.clamp(-3, 1).exp())
            loss: Tensor = -normal.log_prob(a).sum(-1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()

    return Contender("plain loop, 1 run", 1, flops(widths), lambda n: timed(lambda: loop(n), device))


class D3rlpy:
    """d3rlpy's BC in a process of the peers' environment, which updates on request and waits otherwise."""

    def __init__(self, python: Path, folder: Path, device: torch.device) -> None:
        observation, action = rows.arrays()
        np.savez(folder / "rows.npz", observation=observation, action=action, length=rows.LENGTH)
        threads = str(torch.get_num_threads())
        self._child = subprocess.Popen(
            [str(python), str(Path(__file__).with_name("d3rlpy_bc.py")), str(folder / "rows.npz"), device.type],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
        )
        self.version = json.loads(self._answer())["version"]
        widths = [rows.OBSERVATION, *HIDDEN, 2 * rows.ACTION]
        self.contender = Contender("d3rlpy BC, 1 run", 1, flops(widths), self._update)

    def _answer(self) -> str:
        line = self._child.stdout.readline() if self._child.stdout else ""
        if not line:
            raise RuntimeError(f"d3rlpy ended with code {self._child.wait()}: run d3rlpy_bc.py by hand")
        return line

    def _update(self, n: int) -> Timing:
        if self._child.stdin:
            self._child.stdin.write(f"{n}\n")
            self._child.stdin.flush()
        return Timing(**json.loads(self._answer()))

    def close(self) -> None:
        """End the process."""
        if self._child.stdin:
            self._child.stdin.close()
        self._child.wait()


def square(n: int, device: torch.device) -> Contender:
    """One large product of (n, n) matrices: what the machine can do."""
    return _product(
        f"({n} × {n}) · ({n} × {n})", torch.randn(1, n, n, device=device), torch.randn(1, n, n, device=device)
    )


def products(runs: int, device: torch.device) -> list[Contender]:
    """The eight batched products of one update, laid out as the trainer calls them: they alone bound what it can do."""
    widths = [rows.OBSERVATION, *HIDDEN, 2 * rows.ACTION + 1]
    found = []
    for layer, (m, n) in enumerate(pairwise(widths)):
        x, weight, gradient = (torch.randn(runs, *shape, device=device) for shape in ((BATCH, m), (m, n), (BATCH, n)))
        narrow = n < 64  # as policies.network: a few rows are quicker than a few columns
        forward = (weight.mT, x.mT) if narrow else (x, weight)
        into_weight = (gradient.mT, x) if narrow else (x.mT, gradient)
        named = {"forward": forward, "gradient of the weights": into_weight}
        if layer:
            named["gradient of the inputs"] = (gradient, weight.mT)
        found += [_product(f"{runs} runs, layer {layer + 1}, {name}", *pair) for name, pair in named.items()]
    return found


def _product(name: str, a: Tensor, b: Tensor) -> Contender:
    out = torch.empty(len(a), a.shape[1], b.shape[2], device=a.device)

    def loop(count: int) -> None:
        for _ in range(count):
            torch.bmm(a, b, out=out)

    each = 2.0 * a.shape[1] * a.shape[2] * b.shape[2]
    return Contender(name, len(a), each, lambda n: timed(lambda: loop(n), a.device))
