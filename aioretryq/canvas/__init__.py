"""What users compose workflows with. Workers do not know it: they follow what is in their messages (`workflows/`)."""

from aioretryq.canvas.compose import chain, chord, group, signature
from aioretryq.canvas.kinds import Chain, Chord, Group
from aioretryq.canvas.maps import Chunks, chunks, xmap, xstarmap
from aioretryq.canvas.signature import Signature, of_node
from aioretryq.canvas.stamping import StampingVisitor

__all__ = [
    "Chain",
    "Chord",
    "Chunks",
    "Group",
    "Signature",
    "StampingVisitor",
    "chain",
    "chord",
    "chunks",
    "group",
    "of_node",
    "signature",
    "xmap",
    "xstarmap",
]
