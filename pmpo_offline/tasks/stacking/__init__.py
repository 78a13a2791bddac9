"""A synthetic proxy of the RGB-stacking benchmark: stack red on blue with a Cartesian gripper, green distracts.

scene (objects and model) ── simulation (physics, observation, reward) ── task (behaviours)
"""
