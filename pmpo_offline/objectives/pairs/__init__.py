"""Objectives that learn from pairs of a chosen and a rejected outcome; `ratios` holds what they share."""
