"""Making tasks: the decorator, options, names, bases."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta

import pytest

from aioretryq import ConfigError, NotRegistered, Task, TaskQueue, UnknownSettingError, shared_task
from aioretryq.task_options import FROM_SETTINGS, OPTIONS, TaskOptions


@pytest.fixture
def queue():
    return TaskQueue("memory://")


def test_with_and_without_arguments(queue):
    @queue.task
    async def one():
        """Docs."""

    @queue.task()
    async def two():
        pass

    @queue.task(name="three")
    def three():
        pass

    assert isinstance(one, Task)
    assert one.name == f"{__name__}.one"
    assert one.__doc__ == "Docs."
    assert two.name == f"{__name__}.two"
    assert three.name == "three"
    assert {"three", one.name, two.name} <= set(queue.tasks)
    assert queue.find_task("three") is three


def test_a_type_checker_knows_every_option():
    made_of = {"name", "base"}
    assert set(TaskOptions.__annotations__) == {*OPTIONS, *FROM_SETTINGS, *made_of}


def test_options_are_read_back_as_attributes(queue):
    @queue.task(
        bind=True,
        autoretry_for=(ConnectionError, TimeoutError),
        retry_backoff=2,
        retry_backoff_max=600,
        retry_jitter=True,
        max_retries=8,
    )
    def sync_to_crm(self, record_id):
        pass

    assert sync_to_crm.max_retries == 8
    assert sync_to_crm.retry_backoff == 2
    assert sync_to_crm.retry_jitter is True
    assert sync_to_crm.autoretry_for == (ConnectionError, TimeoutError)
    assert sync_to_crm.retry_backoff_max == 600
    assert [row.maximum for row in sync_to_crm.retry_policy.preview()] == [2, 4, 8, 16, 32, 64, 128, 256]


def test_defaults(queue):
    @queue.task
    async def plain():
        pass

    assert plain.max_retries == 3
    assert plain.default_retry_delay == 180
    assert plain.autoretry_for == ()
    assert plain.retry_backoff is False
    assert plain.acks_late is True
    assert plain.ignore_result is False
    queue.conf.update(task_acks_late=False, task_ignore_result=True, task_track_started=True, task_time_limit=9)
    assert (plain.acks_late, plain.ignore_result, plain.track_started, plain.time_limit) == (False, True, True, 9)


def test_one_exception_class_is_as_good_as_a_tuple(queue):
    @queue.task(autoretry_for=ValueError, dont_autoretry_for=[KeyError], throws=KeyError)
    async def made():
        pass

    assert (made.autoretry_for, made.dont_autoretry_for, made.throws) == ((ValueError,), (KeyError,), (KeyError,))


def test_durations_may_be_timedeltas(queue):
    @queue.task(default_retry_delay=timedelta(minutes=2), expires=timedelta(hours=1))
    async def made():
        pass

    assert (made.default_retry_delay, made.expires) == (120, 3600)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_retrys": 3}, "max_retries"),
        ({"retry_back_off": True}, "retry_backoff"),
        ({"reject_on_worker_lost": True}, "reject_on_worker_lost"),
        ({"zzz": 1}, "zzz"),
        ({"retry_kwargs": {"max_retrys": 3}}, "max_retries"),
    ],
)
def test_unknown_options_are_errors(queue, options, text):
    with pytest.raises(UnknownSettingError, match=text):
        queue.task(**options)(lambda: None)


@pytest.mark.parametrize(
    "options",
    [
        {"autoretry_for": (ValueError, "KeyError")},
        {"autoretry_for": 3},
        {"max_retries": -1},
        {"max_retries": "3"},
        {"max_retries": 1.5},
        {"retry_backoff": -1},
        {"retry_backoff": "yes"},
        {"default_retry_delay": -1},
        {"retry_kwargs": {"max_retries": "3"}},
        {"retry_kwargs": {"countdown": "3"}},
        {"retry_kwargs": 3},
        {"base": int},
        {"base": "Task"},
    ],
)
def test_wrong_values_are_errors_that_name_the_task(queue, options):
    def function():
        pass

    with pytest.raises(ConfigError, match=r"test_task_definition.*function"):
        queue.task(**options)(function)


def test_what_cannot_be_a_task(queue):
    with pytest.raises(ConfigError, match="function"):
        queue.task()(3)

    @queue.task
    async def made():
        pass

    with pytest.raises(ConfigError, match="function"):
        queue.task(made)
    with pytest.raises(ConfigError, match="generator"):

        @queue.task
        async def generator():
            yield 1


def test_misspelt_attributes_suggest_the_right_one(queue):
    @queue.task
    async def made():
        pass

    with pytest.raises(AttributeError, match="max_retries"):
        _ = made.max_retry


def test_an_unknown_task_suggests_the_nearest(queue):
    @queue.task(name="app.send_mail")
    async def send_mail():
        pass

    with pytest.raises(NotRegistered, match=r"app\.send_mail"):
        queue.find_task("app.sendmail")
    with pytest.raises(KeyError):
        queue.find_task("zzz")


def test_class_attributes_are_options_and_the_decorator_wins(queue):
    class Base(Task):
        max_retries = 7
        autoretry_for = ValueError
        retry_backoff = 3
        queue = "slow"

    class Derived(Base):
        retry_backoff = 5

    @queue.task(base=Derived, max_retries=1)
    async def made():
        pass

    assert isinstance(made, Derived)
    assert (made.max_retries, made.retry_backoff, made.queue) == (1, 5, "slow")
    assert made.autoretry_for == (ValueError,)


def test_wrong_class_attributes_are_errors_too(queue):
    class Base(Task):
        max_retries = "many"

    with pytest.raises(ConfigError, match="max_retries"):
        queue.task(base=Base)(lambda: None)


def test_shared_tasks_belong_to_the_newest_queue():
    first = TaskQueue("memory://", task_acks_late=False)

    @shared_task(name="library.shared", max_retries=5)
    async def shared():
        pass

    @shared_task
    def bare():
        pass

    assert shared.max_retries == 5
    assert shared.app is first
    assert shared.acks_late is False
    second = TaskQueue("memory://")
    assert shared.app is second
    assert shared.acks_late is True
    for queue in (first, second):
        assert queue.find_task("library.shared") is shared
        assert queue.find_task(bare.name) is bare


def test_a_name_taken_by_another_function_is_logged(queue, caplog):
    @queue.task(name="same")
    async def one():
        pass

    @queue.task(name="same")
    async def two():
        pass

    assert queue.find_task("same") is two
    assert "same" in caplog.text


PROGRAM = """
from aioretryq import TaskQueue
queue = TaskQueue("memory://")
@queue.task
async def work(): ...
print(work.name)
"""


@pytest.mark.parametrize(("arguments", "name"), [(["jobs.py"], "jobs.work"), (["-m", "box.jobs"], "box.jobs.work")])
def test_a_program_names_its_tasks_as_its_importers_do(tmp_path, arguments, name):
    (tmp_path / "box").mkdir()
    for path in (tmp_path / "jobs.py", tmp_path / "box" / "jobs.py"):
        path.write_text(PROGRAM)
    done = subprocess.run([sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == name
