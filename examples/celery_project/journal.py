"""Celery's signals, each with a line in the journal."""

from __future__ import annotations

from typing import Any

from celery import signals

from examples.celery_project.store import note


@signals.task_received.connect
def received(request: Any = None, **_: Any) -> None:
    note(request.id, f"task_received {request.name.rpartition('.')[2]} {request.args!r}")


@signals.task_prerun.connect
def prerun(task_id: str = "", task: Any = None, **_: Any) -> None:
    note(task_id, f"task_prerun retries={task.request.retries}")


@signals.task_postrun.connect
def postrun(task_id: str = "", state: str = "", **_: Any) -> None:
    note(task_id, f"task_postrun {state}")


@signals.task_success.connect
def success(sender: Any = None, result: Any = None, **_: Any) -> None:
    note(sender.request.id, f"task_success {result!r}")


@signals.task_failure.connect
def failure(task_id: str = "", exception: Any = None, **_: Any) -> None:
    note(task_id, f"task_failure {exception!r}")


@signals.task_retry.connect
def retry(request: Any = None, reason: Any = None, **_: Any) -> None:
    note(request.id, f"task_retry {reason.exc!r}")


@signals.task_revoked.connect
def revoked(request: Any = None, terminated: bool = False, expired: bool = False, **_: Any) -> None:
    note(request.id, f"task_revoked terminated={terminated} expired={expired}")


def _of_worker(name: str) -> Any:
    def tell(**_: Any) -> None:
        note("worker", name)

    return tell


for _signal in (
    signals.celeryd_init,
    signals.celeryd_after_setup,
    signals.worker_init,
    signals.worker_process_init,
    signals.worker_ready,
    signals.worker_shutting_down,
    signals.worker_process_shutdown,
    signals.worker_shutdown,
):
    _signal.connect(_of_worker(_signal.name), weak=False)
