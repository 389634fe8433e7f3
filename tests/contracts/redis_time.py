"""Lets time pass for what Redis keeps of chords, and of whatever else expires."""

from __future__ import annotations

import redis


def let_pass(url: str, seconds: float) -> None:
    """All has so much less to live, and moments that were noted are so much earlier."""
    with redis.Redis.from_url(url) as client:
        for key in client.scan_iter():
            if (left := client.pttl(key)) >= 0:
                client.pexpire(key, max(0, left - int(seconds * 1000)))
            if key.endswith(b"aioretryq.chords"):
                for group_id in client.zrange(key, 0, -1):
                    client.zincrby(key, -seconds, group_id)
            if key.endswith(b".r"):
                for name in {b"opened", b"until"} & set(client.hkeys(key)):
                    client.hincrbyfloat(key, name, -seconds)
