"""Faults on purpose, and the accounting of what they did: `python -m faults --help`, from the folder `tests`."""
