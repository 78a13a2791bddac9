"""The base of all else: errors, options, atomic files, arrays, locks, hashing, progress, registries, processes.

Not here: anything that knows about datasets, policies or training.
"""
