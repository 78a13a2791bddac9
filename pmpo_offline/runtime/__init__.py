"""The base of all else: errors, options, atomic files, locks, hashing, progress, registries, processes, random words.

Not here: anything that knows about datasets, policies or training.
"""
