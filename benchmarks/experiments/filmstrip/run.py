"""Draw one episode of the stacking task as a strip of frames, titled with the label that success gives it.

python -m benchmarks.experiments.filmstrip.run OUT.png --behavior near-expert
python -m benchmarks.experiments.filmstrip.run OUT.png --algo pmpo --dataset rgb-stacking/proxy-v0 --updates 3000
"""

from __future__ import annotations

import os
from bisect import bisect_right
from pathlib import Path
from typing import Annotated

os.environ.setdefault("MUJOCO_GL", "egl")  # MuJoCo reads it when imported; EGL needs no display

import mujoco
import numpy as np
import torch
import typer
from PIL import Image, ImageDraw, ImageFont

from benchmarks.experiments import shared
from pmpo_offline.data import load_dataset
from pmpo_offline.declarations import catalog
from pmpo_offline.runtime.errors import unknown
from pmpo_offline.tasks.simulated import Array, Choose, Index, Step, play
from pmpo_offline.tasks.stacking.scene import Triplet, compile_scene
from pmpo_offline.tasks.stacking.simulation import HORIZON, StackingSimulation
from pmpo_offline.tasks.stacking.task import Script, StackingBehavior, correlated_noise, held_out_layouts
from pmpo_offline.training import train

RECIPE = "rgb-stacking/proxy-v0"  # declares the behaviours
LAYOUTS = 20  # held-out layouts that are played, one of which is shown
FRAME, STILL = (280, 290), (640, 480)  # pixels
ROW = 4  # frames side by side before the next row begins: wider pictures are unreadable on a page
TITLE, CAPTION, GAP = 68, 26, 4  # heights of the lines of text and the space between frames, pixels
INK, PAPER = "#222222", "#ffffff"
VERDICT = {
    True: ("ACCEPTED: red stands on blue and is let go", "#1a7f37"),
    False: ("REJECTED: red was not left standing on blue", "#b42318"),
}
# Stages of the reward by the least value that each is worth, see `stacking.simulation.stage`.
STAGES = {0: "not held", 0.2: "held", 0.35: "lifted", 0.5: "near blue", 0.75: "stacked", 0.9: "let go", 1: "success"}


def scripted(simulation: StackingSimulation, name: str) -> Choose:
    """Act like a declared behaviour, with its action noise."""
    declared = {each["name"]: StackingBehavior.model_validate(each) for each in catalog.dataset(RECIPE).behavior}
    if name not in declared:
        raise unknown("behavior", name, declared)
    script = Script.of([declared[name]] * LAYOUTS)
    noise = correlated_noise(script.noise, HORIZON, np.random.default_rng(0))
    return lambda active, t: script.take(active).act(simulation.scene(active)) + noise[active, t]


def learned(simulation: StackingSimulation, algorithm: str, dataset: str, updates: int) -> Choose:
    """Train one seed and act like it does where it is scored: a component is drawn and its mean played."""
    policy = train(load_dataset(dataset), algorithm, overrides={"updates": updates}, device="cpu").policy
    generator = torch.Generator().manual_seed(0)

    def choose(active: Index, t: int) -> Array:
        uniform = torch.rand(LAYOUTS, generator=generator)[torch.from_numpy(active)]
        with torch.no_grad():
            seen = torch.from_numpy(simulation.observation[active])[None]
            action: Array = policy(seen).component(uniform)[0].double().numpy()
        return action

    return choose


def render(triplet: Triplet, states: list[Array], size: tuple[int, int], camera: str) -> list[Image.Image]:
    """Draw simulation states, (58,) each, at `size` (width, height)."""
    model = compile_scene(triplet)
    data = mujoco.MjData(model)
    pictures = []
    with mujoco.Renderer(model, height=2 * size[1], width=2 * size[0]) as renderer:
        for state in states:
            mujoco.mj_setState(model, data, state, mujoco.mjtState.mjSTATE_FULLPHYSICS)
            mujoco.mj_forward(model, data)
            renderer.update_scene(data, camera)
            pictures.append(Image.fromarray(renderer.render()).resize(size, Image.Resampling.LANCZOS))
    return pictures


def strip(frames: list[Image.Image], captions: list[str], title: str, accepted: bool) -> Image.Image:
    """Set captioned frames side by side under the label and a title."""
    width, height = FRAME[0] + GAP, FRAME[1] + CAPTION
    rows = -(-len(frames) // ROW)
    sheet = Image.new("RGB", (min(len(frames), ROW) * width - GAP, TITLE + rows * height), PAPER)
    draw = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(24), ImageFont.load_default(17)
    verdict, colour = VERDICT[accepted]
    draw.text((6, 22), verdict, colour, large, anchor="lm")
    draw.text((6, 50), title, INK, small, anchor="lm")
    for i, (frame, caption) in enumerate(zip(frames, captions, strict=True)):
        left, top = i % ROW * width, TITLE + i // ROW * height
        sheet.paste(frame, (left, top))
        draw.text((left + FRAME[0] // 2, top + FRAME[1] + CAPTION // 2), caption, INK, small, anchor="mm")
    return sheet


def main(
    out: Annotated[Path, typer.Argument(help="The PNG to write.")],
    behavior: Annotated[str | None, typer.Option(help=f"A behaviour that {RECIPE} declares.")] = None,
    algo: Annotated[str | None, typer.Option(help="Or an algorithm to train one seed of.")] = None,
    dataset: Annotated[str, typer.Option(help="What --algo learns from, id or path.")] = RECIPE,
    updates: Annotated[int, typer.Option(help="Updates of --algo.")] = 3000,
    layout: Annotated[
        int | None, typer.Option(min=0, max=LAYOUTS - 1, help="Default: the first that is accepted, else 0.")
    ] = None,
    frames: Annotated[int, typer.Option(min=2, help="Their number.")] = 8,
    until: Annotated[int, typer.Option(min=1, help="Only the last frame is of a later step.")] = HORIZON,
    still: Annotated[int | None, typer.Option(min=1, help="Draw this step alone, larger and without text.")] = None,
) -> None:
    """Draw one episode of the stacking task as a strip of frames."""
    if (behavior is None) == (algo is None):
        raise typer.BadParameter("give either --behavior or --algo")
    layouts, triplets = held_out_layouts(LAYOUTS)
    films: list[list[tuple[Array, float]]] = [[] for _ in layouts]

    simulation = StackingSimulation(layouts)

    def watch(active: Index, t: int, action: Array, step: Step) -> None:
        for i, reward in zip(active, step.reward, strict=True):
            films[i].append((simulation.state[i].copy(), float(reward)))

    choose = learned(simulation, algo, dataset, updates) if algo else scripted(simulation, str(behavior))
    success = play(simulation, choose, watch).success
    shown = int(success.argmax()) if layout is None else layout
    film, triplet = films[shown], layouts[shown].triplet
    if still is not None:
        if still > len(film):
            raise typer.BadParameter(f"the episode has {len(film)} steps", param_hint="--still")
        render(triplet, [film[still - 1][0]], STILL, "close")[0].save(out, optimize=True)
        return
    early = np.linspace(0, min(until, len(film)) - 1, frames - (until < len(film)))
    steps = sorted({*early.round().astype(int), len(film) - 1})
    pictures = render(triplet, [film[t][0] for t in steps], FRAME, "front")
    stages = [list(STAGES.values())[bisect_right(list(STAGES), film[t][1] + 1 + 1e-9) - 1] for t in steps]
    captions = [f"step {t + 1}: {stage}, reward {film[t][1]:.2f}" for t, stage in zip(steps, stages, strict=True)]
    source = f"{algo} learned from {dataset}" if algo else f"scripted {behavior}"
    title = f"{source}, held-out layout {shown} (triplet {triplets[shown]})"
    title += f"; accepted on {success.sum()} of {LAYOUTS} layouts"
    strip(pictures, captions, title, bool(success[shown])).save(out, optimize=True)


if __name__ == "__main__":
    shared.script(main)
