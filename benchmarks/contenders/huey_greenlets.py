"""huey's consumer with everything patched first, as its documentation wants it for greenlets."""

from __future__ import annotations

import importlib

importlib.import_module("gevent.monkey").patch_all()
importlib.import_module("huey.bin.huey_consumer").consumer_main()
