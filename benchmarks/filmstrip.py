"""Draw one episode of the stacking task as a strip of frames, titled with the label that success gives it.

python benchmarks/filmstrip.py OUT.png --behavior near-expert
python benchmarks/filmstrip.py OUT.png --algo pmpo --dataset rgb-stacking/proxy-v0 --updates 3000
"""

from __future__ import annotations

import argparse
import os
import sys
from bisect import bisect_right
from pathlib import Path

os.environ.setdefault("MUJOCO_GL", "egl")  # MuJoCo reads it when imported; EGL needs no display

import mujoco
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from pmpo_offline.data import load_dataset
from pmpo_offline.declarations import catalog
from pmpo_offline.runtime.errors import PmpoOfflineError, unknown
from pmpo_offline.tasks.simulated import Array, Choose, Index, Step, play
from pmpo_offline.tasks.stacking.scene import Triplet, compile_scene
from pmpo_offline.tasks.stacking.script import Script, StackingBehavior, correlated_noise
from pmpo_offline.tasks.stacking.simulation import HORIZON, StackingSimulation
from pmpo_offline.tasks.stacking.task import held_out_layouts
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the PNG to write")
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--behavior", help=f"a behaviour that {RECIPE} declares")
    who.add_argument("--algo", help="an algorithm to train one seed of")
    parser.add_argument("--dataset", default=RECIPE, help="what --algo learns from, id or path (default: %(default)s)")
    parser.add_argument("--updates", type=int, default=3000, help="how long --algo learns (default: %(default)s)")
    parser.add_argument("--layout", type=int, help=f"0 to {LAYOUTS - 1} (default: the first that is accepted, else 0)")
    parser.add_argument("--frames", type=int, default=8, help="their number (default: %(default)s)")
    parser.add_argument("--until", type=int, default=HORIZON, help="only the last frame is of a later step")
    parser.add_argument("--still", type=int, metavar="STEP", help="draw this step alone, larger and without text")
    args = parser.parse_args()
    if args.frames < 2 or args.until < 1:
        parser.error("--frames must be at least 2 and --until at least 1")
    if args.layout is not None and not 0 <= args.layout < LAYOUTS:
        parser.error(f"--layout must be one of 0 to {LAYOUTS - 1}")

    torch.set_num_threads(1)
    layouts, triplets = held_out_layouts(LAYOUTS)
    films: list[list[tuple[Array, float]]] = [[] for _ in layouts]

    simulation = StackingSimulation(layouts)

    def watch(active: Index, t: int, action: Array, step: Step) -> None:
        for i, reward in zip(active, step.reward, strict=True):
            films[i].append((simulation.state[i].copy(), float(reward)))

    if args.behavior:
        choose = scripted(simulation, args.behavior)
    else:
        choose = learned(simulation, args.algo, args.dataset, args.updates)
    success = play(simulation, choose, watch).success
    shown = int(success.argmax()) if args.layout is None else args.layout
    film, triplet = films[shown], layouts[shown].triplet
    if args.still is not None:
        if not 1 <= args.still <= len(film):
            parser.error(f"--still must be one of the episode's steps, 1 to {len(film)}")
        render(triplet, [film[args.still - 1][0]], STILL, "close")[0].save(args.out, optimize=True)
        return
    early = np.linspace(0, min(args.until, len(film)) - 1, args.frames - (args.until < len(film)))
    steps = sorted({*early.round().astype(int), len(film) - 1})
    frames = render(triplet, [film[t][0] for t in steps], FRAME, "front")
    stages = [list(STAGES.values())[bisect_right(list(STAGES), film[t][1] + 1 + 1e-9) - 1] for t in steps]
    captions = [f"step {t + 1}: {stage}, reward {film[t][1]:.2f}" for t, stage in zip(steps, stages, strict=True)]
    source = f"{args.algo} learned from {args.dataset}" if args.algo else f"scripted {args.behavior}"
    title = f"{source}, held-out layout {shown} (triplet {triplets[shown]})"
    title += f"; accepted on {success.sum()} of {LAYOUTS} layouts"
    strip(frames, captions, title, bool(success[shown])).save(args.out, optimize=True)


if __name__ == "__main__":
    try:
        main()
    except PmpoOfflineError as error:
        sys.exit(f"error: {error}")
