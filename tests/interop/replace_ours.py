"""Our half of the replace tests, for `aioretryq worker replace_ours:queue`."""

from __future__ import annotations

from links_ours import queue
from replace_parts import instead

from aioretryq import canvas


@queue.task(name="l.instead", bind=True)
async def takes_the_place(self, value, way):
    return self.replace(instead(way, value, sign, canvas))


def sign(name, *args):
    return queue.signature(f"l.{name}", args=args)
