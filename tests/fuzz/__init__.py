"""Mutated files for every reader: what is read or refused in one line is right, anything else is a failure.

`make fuzz` runs 50,000 of them in worker processes with limits of time and memory, `test_short` a few in each test run.
"""
