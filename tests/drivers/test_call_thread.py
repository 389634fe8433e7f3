"""The thread that runs calls for coroutines: in order, for several loops, and without being waited for at the end."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading

import pytest

from aioretryq.drivers.call_thread import CallThread


@pytest.fixture
def calls():
    thread = CallThread("calls")
    yield thread
    thread.close()


async def test_calls_run_in_order_in_one_thread(calls):
    seen = []

    def note(number: int) -> int:
        seen.append((number, threading.get_ident()))
        return number

    assert await asyncio.gather(*(calls.submit(lambda n=n: note(n)) for n in range(100))) == list(range(100))
    assert [number for number, _ in seen] == list(range(100))
    assert len({thread for _, thread in seen}) == 1
    assert threading.get_ident() not in {thread for _, thread in seen}


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3)], ids=["an error", "an exit"])
async def test_an_error_is_told_and_ends_nothing(calls, error):
    def fail() -> None:
        raise error

    with pytest.raises(type(error)):
        await calls.submit(fail)
    assert await calls.submit(lambda: "next") == "next"


async def test_a_call_that_is_cancelled_before_it_begins_is_left_out(calls):
    going_on, ran = threading.Event(), []
    first = calls.submit(going_on.wait)
    second = calls.submit(lambda: ran.append("second"))
    second.cancel()
    third = calls.submit(lambda: ran.append("third"))
    going_on.set()
    await asyncio.gather(first, third)
    assert ran == ["third"]


async def test_a_call_that_is_cancelled_later_is_run_to_its_end(calls):
    begun, going_on, ran = threading.Event(), threading.Event(), []

    def run() -> None:
        begun.set()
        going_on.wait()
        ran.append("first")

    first = calls.submit(run)
    await asyncio.to_thread(begun.wait)
    first.cancel()
    going_on.set()
    await calls.submit(lambda: None)
    assert ran == ["first"]


async def test_another_loop_is_served_and_one_that_has_gone_is_not_waited_for(calls):
    going_on = threading.Event()

    async def leave() -> None:
        calls.submit(going_on.wait)

    async def stay() -> int:
        return await calls.submit(lambda: 7)

    await asyncio.to_thread(asyncio.run, leave())
    going_on.set()
    assert await asyncio.to_thread(asyncio.run, stay()) == 7


async def test_what_was_submitted_before_the_end_is_run(calls):
    submitted = [calls.submit(lambda n=n: n) for n in range(10)]
    calls.close()
    assert await asyncio.gather(*submitted) == list(range(10))


async def test_the_thread_ends_with_the_last_reference():
    thread = CallThread("forgotten")
    (running,) = [await thread.submit(threading.current_thread)]
    del thread
    gc.collect()
    await asyncio.to_thread(running.join, 10)
    assert not running.is_alive()


async def test_nothing_of_a_call_is_kept_alive(calls):
    class Heavy:
        pass

    def count() -> int:
        return sum(isinstance(each, Heavy) for each in gc.get_objects())

    assert isinstance(await calls.submit(Heavy), Heavy)
    await calls.submit(lambda: None)
    assert count() == 0


def test_a_program_that_forgets_to_close_ends():
    program = """
import asyncio
from aioretryq.drivers.call_thread import CallThread
async def main():
    global calls
    calls = CallThread("forgotten")
    print(await calls.submit(lambda: "done"))
asyncio.run(main())
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")
