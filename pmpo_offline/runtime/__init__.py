"""The base of all else: errors, options, atomic files and locks, arrays in files, hashing, progress, registries, processes.

Not here: anything that knows about datasets, policies or training.
"""
