"""Benchmarks against other task queues: `make bench`, or `python -m benchmarks drain`. See README.md."""
