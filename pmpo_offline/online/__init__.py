"""Policies that learn by acting: PPO, the paper's online PMPO, MPO and DPO, and cloning of a script.

They make the behaviours that ship with the package; what learns from stored datasets is in `training`.
"""
