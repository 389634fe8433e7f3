"""A Celery application in the life of our worker: loaded, initialised, told what happens, with Celery's signals.

In the order of `celery worker`: the loader and `celeryd_init`, `worker_init`, logging, `celeryd_after_setup`,
`worker_process_init` (every process of ours is one), `worker_ready`; at the end `worker_shutting_down`,
`worker_process_shutdown`, `worker_shutdown`.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Any

from celery import _state, signals
from celery.app.trace import setup_worker_optimizations

from aioretryq.celery_bridge.queue import CeleryQueue
from aioretryq.celery_bridge.settings import queue_settings, without_effect
from aioretryq.errors import ConfigError
from aioretryq.worker.names import node_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aioretryq.worker import Worker

logger = logging.getLogger("aioretryq.celery")


class CeleryApplication:
    """Stands for Celery's worker and its consumer where signals want a sender."""

    pool_cls = "celery.concurrency.thread:TaskPool"
    pool = None

    queue: CeleryQueue

    def __init__(self, app: Any, options: Mapping[str, Any]) -> None:
        self.app = app
        self.hostname = node_name(options["name"])
        self.loglevel = logging.getLevelNamesMapping()[options["loglevel"].upper()]
        self.options = dict(options)
        self.concurrency = 0
        self._shutting_down = False

    def start(self) -> None:
        """Initialise application and process, in the main thread, before any task."""
        app = self.app
        settings = queue_settings(app)
        app.loader.init_worker()
        setup_worker_optimizations(app, self.hostname)
        signals.celeryd_init.send(sender=self.hostname, instance=self, conf=app.conf, options=self.options)
        _select(app, self.options["queues"])
        signals.worker_init.send(sender=self)
        custom = app.log.setup(self.loglevel, redirect_stdouts=False, hostname=self.hostname)
        setup_worker_optimizations(app, self.hostname)
        signals.celeryd_after_setup.send(sender=self.hostname, instance=self, conf=app.conf)
        if not custom and app.conf.worker_redirect_stdouts:
            app.log.redirect_stdouts(app.conf.worker_redirect_stdouts_level)
        app.loader.init_worker_process()
        _state._set_task_join_will_block(True)
        settings["task_queues"] = tuple(app.amqp.queues.consume_from.values())  # handlers may have added some
        self.queue = CeleryQueue(app, hostname=self.hostname, sender=self, **settings)
        for task in self.queue.tasks.values():  # each gets its tracer
            logger.debug("Task %s of Celery application %s", task.name, app.main)
        signals.worker_process_init.send(sender=self.hostname)
        self._warn()

    def worker_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options of our worker. `-c` is how many tasks run at once, of whatever kind.

        A prefetch multiplier that was set is honoured: so many messages are held for each thread, most of them wait.
        """
        given, queue, conf = dict(options), self.queue, self.app.conf
        del given["loglevel"]
        threads = given.pop("concurrency") or _number(conf.worker_concurrency) or queue.conf.worker_threads
        held = threads * (conf.worker_prefetch_multiplier if conf.value_set_for("worker_prefetch_multiplier") else 1)
        coroutines = any(task.is_coroutine for task in queue.tasks.values())
        at_once = queue.conf.worker_concurrency if coroutines and options["concurrency"] is None else 0
        return {
            **given,
            "name": self.hostname,
            "queues": None,  # all that are selected
            "threads": threads,
            "concurrency": max(threads, held, at_once),
        }

    def _warn(self) -> None:
        if settings := without_effect(self.app):
            logger.warning("Settings of Celery's own worker, without effect here: %s", ", ".join(settings))
        if self.app.conf.task_time_limit or self.app.conf.task_soft_time_limit:
            logger.warning("task_time_limit and task_soft_time_limit are for coroutines: threads cannot be stopped")
        if any(self.app.steps.values()):
            logger.warning("Bootsteps of Celery's own worker are not started here")

    # -- around the event loop

    async def follow(self, worker: Worker) -> None:
        """Tell the application when the worker is ready, and when it begins to stop."""
        self.concurrency = worker.threads
        await worker.ready.wait()
        await asyncio.to_thread(self._ready)
        await worker.wait_stopping()
        await asyncio.to_thread(self._stopping)

    def _ready(self) -> None:
        signals.worker_ready.send(sender=self)

    def _stopping(self) -> None:
        if not self._shutting_down:
            self._shutting_down = True
            signals.worker_shutting_down.send(sender=self.hostname, sig="SIGTERM", how="Warm", exitcode=0)

    def stop(self) -> None:
        """After the last task."""
        self._stopping()
        signals.worker_process_shutdown.send(sender=self.hostname, pid=os.getpid(), exitcode=0)
        self.app.loader.shutdown_worker()
        signals.worker_shutdown.send(sender=self)


def start(app: Any, *, url: str | None, **options: Any) -> CeleryApplication:
    """Start it with the options of `aioretryq worker`."""
    if url is not None:
        app.conf.broker_url = os.environ["CELERY_BROKER_URL"] = url  # which would win, as it does in `celery -b`
    started = CeleryApplication(app, options)
    started.start()
    return started


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _select(app: Any, names: Sequence[str] | None) -> None:
    try:
        app.amqp.queues.select(names)
    except KeyError as error:
        raise ConfigError(
            f"-Q: the application declares no queue {error}, and task_create_missing_queues is off."
        ) from error
