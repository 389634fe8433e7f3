"""The measurements, by the name they have on the command line."""

from __future__ import annotations

from benchmarks.measurements import drain, enqueue, roundtrip, waiters

MEASUREMENTS = {
    "drain": drain.NO_OP,
    "io": drain.IO,
    "roundtrip": roundtrip.ROUND_TRIP,
    "enqueue": enqueue.ENQUEUE,
    "waiters": waiters.WAITERS,
}
