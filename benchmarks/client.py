"""A contender's client process: does what the harness asks for, one JSON line each way.

`python -m benchmarks.client`, by the python of the contender's environment: only the standard library and the
contender are imported here. Whatever a library prints goes to stderr, the answers go where stdout was.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from benchmarks import place
from benchmarks.actions import ACTIONS, Session
from benchmarks.contenders import CONTENDERS, PACKAGE

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.contenders.adapter import Adapter


def new_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop's, where the environment has it."""
    try:
        found: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module("uvloop").new_event_loop
    except ModuleNotFoundError:
        return asyncio.new_event_loop
    return found


async def serve(answers: Any) -> None:
    adapter: Adapter = importlib.import_module(f"{PACKAGE}.{CONTENDERS[place.CONTENDER].module}").ADAPTER
    await adapter.open()
    session = Session(adapter)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        asked = json.loads(line)
        try:
            answer = {"done": await ACTIONS[asked.pop("do")](session, **asked)}
        except Exception as error:
            answer = {"failed": f"{type(error).__name__}: {error}"[:300]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with asyncio.Runner(loop_factory=new_loop()) as runner:
        runner.run(serve(answers))
        # What a contender leaves behind, a thread that still waits for instance, must not keep the run from ending.
        os._exit(0)


if __name__ == "__main__":
    main()
