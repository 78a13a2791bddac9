"""Objectives that learn from advantages, scored candidates or learned values, and the duals of MPO."""

from . import duals as duals
