"""What everything else is built on: errors, atomic files, locks, hashing, progress, registries, processes."""
