"""What everything else is built on: errors, atomic files, locks, hashing, progress, processes. Nothing here knows of datasets."""
