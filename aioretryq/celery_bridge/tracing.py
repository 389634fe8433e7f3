"""One run of a Celery task in a thread: Celery's request and tracer, and what came of it."""

from __future__ import annotations

import logging
import math
import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from celery import signals
from celery.app.trace import LOG_RECEIVED
from celery.exceptions import Ignore, Retry, TaskRevokedError, TimeLimitExceeded
from celery.worker.state import task_ready
from kombu.exceptions import OperationalError

from aioretryq.celery_bridge.bodies import CURRENT, Abandoned, HardLimit
from aioretryq.celery_bridge.requests import Receipt, celery_request
from aioretryq.outcome import Failed, Ignored, Interrupted, Rejected, RetryAsked, Revoked, Succeeded, Traced

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioretryq.celery_bridge.bodies import Run
    from aioretryq.context import Request
    from aioretryq.message import TaskMessage
    from aioretryq.outcome import Outcome

logger = logging.getLogger("aioretryq.celery")
_received = logging.getLogger("celery.worker.strategy")  # where those who read Celery's logs expect the line


class Shown:
    """A value of which only the text is known, as Celery's tracer has shortened it."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


class PoolOfOne:
    """What Celery's request takes for its pool: runs what it is given here and now, in this thread."""

    def __init__(self, run: Run, request: Request, default_limits: tuple[float | None, float | None]) -> None:
        self._run = run
        self._request = request
        self._defaults = default_limits
        self.value: Any = None
        self.failure: ExceptionInfo | None = None

    def apply_async(self, target: Callable[..., Any], args: Any = (), **given: Any) -> None:
        """The arguments of Celery's pools: callbacks for each step, and the limits of this call."""
        run = self._run
        run.hard_limit = _limit(self._request.time_limit, given.get("timeout"), self._defaults[0])
        run.soft_limit = _limit(self._request.soft_time_limit, given.get("soft_timeout"), self._defaults[1])
        given["accept_callback"](os.getpid(), time.monotonic())
        try:
            failed, value, runtime = target(*args)
        except Abandoned:
            raise
        except HardLimit:
            self.failure = _out_of_time(run.hard_limit)
            given["timeout_callback"](False, run.hard_limit)
        except BaseException:  # SystemExit of the body, or an error around it: as if a pool's process had ended
            self.failure = ExceptionInfo()
            given["error_callback"](self.failure)
        else:
            if failed:
                self.failure = value
            else:
                self.value = value
            given["callback"]((failed, value, runtime))


def _out_of_time(limit: float | None) -> ExceptionInfo:
    try:
        raise TimeLimitExceeded(limit)
    except TimeLimitExceeded:
        return ExceptionInfo()


def _limit(of_request: float | None, of_task: float | None, default: float | None) -> float | None:
    if of_request == math.inf:  # taken away by remote control
        return None
    return of_request or of_task or default or None


def trace(
    task: Any, sender: Any, run: Run, message: TaskMessage, request: Request, started: Callable[[], bool]
) -> Outcome | None:
    """Run it here, all of it; None when nobody waits for it any more, and nothing was stored.

    `sender` stands for Celery's consumer in signals.
    """
    if not started():
        return Interrupted()
    CURRENT.set((task, run))
    receipt = Receipt()
    celerys = celery_request(task, message, request, receipt)
    pool = PoolOfOne(run, request, (task.app.conf.task_time_limit, task.app.conf.task_soft_time_limit))
    _tell_received(celerys, sender)
    try:
        celerys.execute_using_pool(pool)
    except Abandoned:
        task_ready(celerys)
        return None
    except TaskRevokedError:  # it has expired on its way here; Celery has stored that
        return Traced(Revoked("expired" if celerys.maybe_expire() else "revoked"))
    except Exception as error:
        logger.exception("Celery cannot settle task %s[%s]", message.task, message.id)
        return Traced(Rejected(error, requeue=_may_pass(error, task)))
    return Traced(_came_to(pool, receipt))


def _tell_received(celerys: Any, sender: Any) -> None:
    if _received.isEnabledFor(logging.INFO):
        context = {
            "id": celerys.id,
            "name": celerys.name,
            "args": celerys.argsrepr,
            "kwargs": celerys.kwargsrepr,
            "eta": celerys.eta,
        }
        _received.info(LOG_RECEIVED, context, extra={"data": context})
    signals.task_received.send(sender=sender, request=celerys)


def _may_pass(error: Exception, task: Any) -> bool:
    """Whether it is about a server that is gone: then the task runs again, for nobody knows what became of it."""
    return isinstance(error, OSError | OperationalError) or bool(task.backend.exception_safe_to_retry(error))


def _came_to(pool: PoolOfOne, receipt: Receipt) -> Succeeded | Failed | RetryAsked | Ignored | Rejected | Revoked:
    if pool.failure is None:
        return Succeeded(Shown(pool.value))
    error: Any = pool.failure.exception
    if isinstance(error, ExceptionWithTraceback):
        error = error.exc
    if receipt.rejected:
        return Rejected(error, requeue=receipt.requeued)
    if isinstance(error, Retry):
        return RetryAsked(error.exc or error, _due(error.when), pool.failure.traceback)
    if isinstance(error, Ignore):
        return Ignored()
    return Failed(error, pool.failure.traceback)


def _due(when: Any) -> float:
    if isinstance(when, datetime):
        aware = when if when.tzinfo else when.replace(tzinfo=UTC)
        return aware.timestamp()
    return time.time() + float(when or 0)
