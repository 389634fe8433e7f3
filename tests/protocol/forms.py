"""Values and names for tests of serializers and compressions."""

from __future__ import annotations

import sys

from hypothesis import strategies as st

COMPRESSIONS = ("gzip", "bzip2", "lzma", "brotli", "zstd")

# What every serializer can hold: JSON has no other keys, msgpack no larger integers.
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def without_package(monkeypatch, *modules: str) -> None:
    """As if it were not installed."""
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
