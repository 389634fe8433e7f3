"""A virtual environment for each contender: they do not agree on versions of what they share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.contenders import ENVIRONMENTS, Contender

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".venv-bench"
STAMP = "installed"


class NotInstalled(Exception):
    """A contender that cannot be measured here, and why."""


class Environments:
    """Makes them when they are first asked for; what failed once is not tried again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._failed: dict[str, str] = {}

    def bin(self, contender: Contender) -> Path:
        """The folder of its programs; raises NotInstalled."""
        name = contender.environment
        if name is None:
            return Path(sys.executable).parent
        if name in self._failed:
            raise NotInstalled(self._failed[name])
        place = self._folder / name
        try:
            self._install(name, place)
        except subprocess.CalledProcessError as error:
            said = (error.stderr or error.stdout or "").strip().splitlines()
            self._failed[name] = f"not installed: {said[-1] if said else error}"[:200]
            raise NotInstalled(self._failed[name]) from error
        return place / "bin"

    def _install(self, name: str, place: Path) -> None:
        """With the stamp as the last step, so that what was interrupted is done again."""
        wanted = "\n".join(ENVIRONMENTS[name])
        stamp = place / STAMP
        if stamp.exists() and stamp.read_text() == wanted:
            return
        print(f"installing {', '.join(ENVIRONMENTS[name])} into {place}", file=sys.stderr, flush=True)
        run([sys.executable, "-m", "venv", "--clear", str(place)])
        pip = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        run([*pip, *ENVIRONMENTS[name]])
        stamp.write_text(wanted)


def run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
