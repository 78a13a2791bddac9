"""The MuJoCo model: a Cartesian gripper (x, y, z, yaw, two fingers) over a basket with three free objects."""

from __future__ import annotations

from functools import lru_cache

import mujoco

from pmpo_offline.tasks.stacking.shapes import Shape, Triplet

OBJECTS = ("red", "green", "blue")
COLOURS = ("0.85 0.18 0.15 1", "0.20 0.62 0.25 1", "0.18 0.32 0.85 1")
# What the reward and the policy know of contacts: pairs whose touch is reported by the simulator.
TOUCHES = (
    ("red", "left_pad"),
    ("red", "right_pad"),
    ("red", "blue"),
    ("red", "green"),
    ("red", "floor"),
)
TIMESTEP = 0.005
"""Seconds; implicitfast is needed at this step (explicit Euler loses the grasp)."""

_FINGER = """
<body name="{side}_finger" pos="0 {y} 0" gravcomp="1">
  <joint name="{side}" type="slide" axis="0 {sign} 0" range="0 .045" damping="2" armature=".05"/>
  <geom name="{side}_pad" class="pad" type="box" size=".011 .005 .016"/>
  <geom class="steel" type="box" size=".008 .004 .025" pos="0 0 .04" mass=".02"/>
  <site name="{side}_touch" type="box" size=".012 .006 .017" rgba="0 0 0 0"/>
</body>"""

_SCENE = """
<mujoco model="rgb_stacking_proxy">
  <compiler angle="radian"/>
  <option timestep="{timestep}" integrator="implicitfast" cone="elliptic" impratio="10"/>
  <size memory="4M"/>
  <visual>
    <global offwidth="1280" offheight="960"/>
    <quality shadowsize="4096" offsamples="8"/>
    <headlight ambient=".5 .5 .5" diffuse=".25 .25 .25" specular="0 0 0"/>
  </visual>
  <default>
    <default class="object">
      <geom type="mesh" density="400" condim="4" friction="1 .01 .001" solref=".01 1" solimp=".95 .99 .001"/>
    </default>
    <default class="pad">
      <geom density="2000" condim="4" friction="1.5 .02 .001" solref=".01 1" solimp=".95 .99 .001" rgba=".2 .2 .2 1"/>
    </default>
    <default class="finger">
      <intvelocity kp="600" dampratio="1" actrange="0 .045" ctrlrange="-.15 .15" forcerange="-12 12"/>
    </default>
    <default class="steel"><geom rgba=".58 .59 .62 1"/></default>
    <default class="wall"><geom type="box" rgba=".45 .5 .55 .22"/></default>
  </default>
  <asset>{meshes}</asset>
  <worldbody>
    <light pos="-.3 -.5 1.4" dir=".25 .5 -1" directional="true" diffuse=".4 .4 .4" specular=".1 .1 .1"/>
    <camera name="front" pos="0 -.78 .59" xyaxes="1 0 0 0 .52 .85" fovy="28"/>
    <camera name="close" pos=".265 -.59 .458" xyaxes=".894 .447 0 -.23 .46 .857" fovy="31"/>
    <geom name="floor" type="plane" size="2 2 .01" condim="4" friction="1 .01 .001" rgba=".86 .86 .84 1"/>
    <geom class="wall" size=".16 .005 .03" pos="0 .155 .03"/><geom class="wall" size=".16 .005 .03" pos="0 -.155 .03"/>
    <geom class="wall" size=".005 .16 .03" pos=".155 0 .03"/><geom class="wall" size=".005 .16 .03" pos="-.155 0 .03"/>
    <body name="carriage_x" pos="0 0 .02" gravcomp="1">
      <joint name="x" type="slide" axis="1 0 0" range="-.14 .14" damping="5"/>
      <inertial pos="0 0 .4" mass=".5" diaginertia=".001 .001 .001"/>
      <body name="carriage_y" gravcomp="1">
        <joint name="y" type="slide" axis="0 1 0" range="-.14 .14" damping="5"/>
        <inertial pos="0 0 .4" mass=".5" diaginertia=".001 .001 .001"/>
        <body name="carriage_z" gravcomp="1">
          <joint name="z" type="slide" axis="0 0 1" range="0 .3" damping="5"/>
          <inertial pos="0 0 .4" mass=".3" diaginertia=".001 .001 .001"/>
          <body name="hand" gravcomp="1">
            <joint name="yaw" type="hinge" axis="0 0 1" range="-1.7 1.7" damping=".05"/>
            <geom class="steel" type="box" size=".02 .06 .012" pos="0 0 .075" mass=".3"/>
            <geom class="steel" type="cylinder" size=".012 .12" pos="0 0 .2" mass=".1" contype="0" conaffinity="0"/>
            {left_finger}{right_finger}
          </body>
        </body>
      </body>
    </body>
    {bodies}
  </worldbody>
  <contact>
    <exclude body1="left_finger" body2="right_finger"/>
    <exclude body1="hand" body2="left_finger"/><exclude body1="hand" body2="right_finger"/>
  </contact>
  <actuator>
    <intvelocity name="x" joint="x" kp="3000" dampratio="1" actrange="-.14 .14" ctrlrange="-.3 .3"/>
    <intvelocity name="y" joint="y" kp="3000" dampratio="1" actrange="-.14 .14" ctrlrange="-.3 .3"/>
    <intvelocity name="z" joint="z" kp="3000" dampratio="1" actrange="0 .3" ctrlrange="-.3 .3"/>
    <intvelocity name="yaw" joint="yaw" kp="20" dampratio="1" actrange="-1.7 1.7" ctrlrange="-2 2"/>
    <intvelocity name="left" joint="left" class="finger"/><intvelocity name="right" joint="right" class="finger"/>
  </actuator>
  <sensor>
    <touch name="left_touch" site="left_touch"/><touch name="right_touch" site="right_touch"/>
    {contacts}
  </sensor>
</mujoco>"""


def _numbers(values: object) -> str:
    return " ".join(f"{v:.6f}" for v in values)  # type: ignore[attr-defined]


def scene_xml(triplet: Triplet) -> str:
    """Write the MJCF of a scene with the three objects of `triplet`."""

    def mesh(name: str, shape: Shape) -> str:
        return f'<mesh name="{name}" vertex="{_numbers(shape.vertices().ravel())}"/>'

    # Ten micrometres off centre keep the compiler from storing symmetric bodies in a smaller form: all scenes then have
    # mass matrices of one size, and one scratch structure serves them all (see `Simulation`).
    def body(name: str, colour: str) -> str:
        return (
            f'<body name="{name}"><freejoint name="{name}"/>'
            f'<geom name="{name}" class="object" mesh="{name}" pos="1e-5 1e-5 1e-5" rgba="{colour}"/></body>'
        )

    return _SCENE.format(
        timestep=TIMESTEP,
        meshes="".join(mesh(n, s) for n, s in zip(OBJECTS, triplet, strict=True)),
        bodies="".join(body(n, c) for n, c in zip(OBJECTS, COLOURS, strict=True)),
        left_finger=_FINGER.format(side="left", y=0.005, sign=1),
        right_finger=_FINGER.format(side="right", y=-0.005, sign=-1),
        contacts="".join(f'<contact name="{a}_{b}" geom1="{a}" geom2="{b}" data="found" num="1"/>' for a, b in TOUCHES),
    )


@lru_cache(maxsize=1024)
def compile_scene(triplet: Triplet) -> mujoco.MjModel:
    """Compile a scene; equal triplets share one model, which nobody may change."""
    return mujoco.MjModel.from_xml_string(scene_xml(triplet))
