"""Benchmarks against other task queues: `python -m benchmarks all`. README.md says how to read them."""
