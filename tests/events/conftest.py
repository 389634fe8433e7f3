"""Queues on every broker."""

from queues import url

__all__ = ["url"]
