"""What `aioretryq worker --celery APP` says of each APP that it is given, as JSON."""

from __future__ import annotations

import json
import sys

from click.testing import CliRunner

from aioretryq.cli import main

said = {}
for app in sys.argv[1:]:
    done = CliRunner().invoke(main, ["worker", "--celery", app])
    said[app] = [done.exit_code, done.output]
sys.stdout.write(json.dumps(said))
