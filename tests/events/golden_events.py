"""Messages of events as Celery publishes them, and JSON of any kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent.parent / "golden" / "events.json").read_text())

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
