"""Packages that only some formats need: imported at first use, by the names that stand here."""

from __future__ import annotations

import importlib
from contextlib import suppress
from typing import Any

from aioretryq.errors import ConfigError

PACKAGES = {
    "yaml": (("yaml",), "PyYAML", "yaml"),
    "msgpack": (("msgpack",), "msgpack", "msgpack"),
    "auth": (("cryptography.x509",), "cryptography", "auth"),
    "brotli": (("brotli", "brotlicffi"), "brotli", "compression"),
    "zstd": (("compression.zstd", "backports.zstd"), "backports.zstd", "compression"),
}
"""By format: modules any of which will do, the name to install, and our extra that installs it."""


class MissingPackage(ConfigError):
    """A format is asked for whose package is not installed."""


def package(form: str) -> Any:
    """The module a format needs. Raises MissingPackage, which names the extra."""
    modules, name, extra = PACKAGES[form]
    for module in modules:
        with suppress(ImportError):
            return importlib.import_module(module)
    raise MissingPackage(
        f"{form} needs the package {name}, which is not installed: pip install 'aioretryq[{extra}]'."
    )


def is_installed(form: str) -> bool:
    """Whether what a format needs is there; true for those that need nothing."""
    if form not in PACKAGES:
        return True
    with suppress(MissingPackage):
        package(form)
        return True
    return False
