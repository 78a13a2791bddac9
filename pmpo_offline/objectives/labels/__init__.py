"""Objectives that learn from single outcomes, each accepted or rejected; a loss and its variants a file."""
