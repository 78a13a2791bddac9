"""Objectives that learn from single outcomes, each accepted or rejected; one function a file."""
