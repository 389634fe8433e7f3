"""The tasks of a Celery application on our worker: Celery's own tracer, signals, canvas and result backends inside,
our consumer, leases, recovery, stop and dead letters around them.

Nothing of aioretryq imports this package, or Celery, unless `aioretryq worker --celery` is used.
"""
