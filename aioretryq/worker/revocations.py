"""What is not to run: the ids, groups and stamps that were revoked, as this worker has heard."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import anyio

from aioretryq.message import parse_revocation
from aioretryq.outcome import Revoked

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from aioretryq.message import TaskMessage
    from aioretryq.worker.jobs import Job, Jobs

logger = logging.getLogger("aioretryq.worker")

KEPT = 50_000
LONGEST_ID = 300


class Revocations:
    """The oldest are dropped first: by then their messages are long gone."""

    def __init__(self, limit: int = KEPT) -> None:
        self._ids: dict[str, None] = {}
        self._groups: dict[str, None] = {}
        self._stamps: dict[tuple[str, str], None] = {}
        self._limit = limit
        self.keeping = anyio.Lock()
        """Held while ids are written to the servers: by one request at a time, or many would take all connections."""

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._ids

    def ids(self) -> list[str]:
        """Oldest first."""
        return list(self._ids)

    def unwanted(self, message: TaskMessage) -> bool:
        if message.id in self._ids or message.group in self._groups:
            return True
        return bool(self._stamps) and self._stamped(message.stamps)

    def _stamped(self, stamps: Mapping[str, Any]) -> bool:
        return any((name, text) in self._stamps for name, value in stamps.items() for text in texts(value))

    def add(self, task_id: str) -> None:
        self._ids[task_id] = None
        if len(self._ids) > self._limit:
            del self._ids[next(iter(self._ids))]

    def add_group(self, group_id: str) -> None:
        """All tasks of a group: workers would not remember the ids of a large one."""
        self._groups[group_id] = None
        if len(self._groups) > self._limit:
            del self._groups[next(iter(self._groups))]

    def merge(self, found: Any) -> None:
        """Ids that another worker knows: a list of them, or of older ones an object with the ids as keys."""
        for task_id in list(found)[-self._limit :] if isinstance(found, list | tuple | dict) else ():
            if isinstance(task_id, str) and len(task_id) <= LONGEST_ID:
                self.add(task_id)

    def add_stamps(self, stamps: Mapping[str, Sequence[str]]) -> None:
        for name, values in stamps.items():
            for value in values:
                self._stamps[name, value] = None
        while len(self._stamps) > self._limit:
            del self._stamps[next(iter(self._stamps))]

    def note(self, notices: Iterable[str], jobs: Jobs) -> None:
        """Take in what a claim has brought, and cancel what is to be stopped."""
        ending: set[str] = set()
        groups: set[str] = set()
        for text in notices:
            notice = parse_revocation(text)
            if notice.task_id is not None:
                self.add(notice.task_id)
                if notice.terminate:
                    ending.add(notice.task_id)
                continue
            if notice.group is not None:
                self.add_group(notice.group)
                if notice.terminate:
                    groups.add(notice.group)
                continue
            self.add_stamps(notice.stamps)
            for job in stamped(jobs, notice.stamps) if notice.terminate else []:
                stop(job)
        # Once for all: there may be thousands of ids.
        if ending or groups:
            for job in [job for job in jobs.all() if job.task_id in ending or in_group(job, groups)]:
                stop(job)


def in_group(job: Job, groups: Collection[str]) -> bool:
    return job.request is not None and job.request.group in groups


def stamped(jobs: Jobs, stamps: Mapping[str, Sequence[str]]) -> list[Job]:
    """The jobs that have one of these stamps."""
    return [job for job in jobs.all() if job.request is not None and matching(job.request.stamps, stamps)]


def matching(found: Mapping[str, Any], stamps: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Those of the stamps that were found."""
    common = {name: [text for text in texts(found.get(name)) if text in values] for name, values in stamps.items()}
    return {name: values for name, values in common.items() if values}


def texts(value: Any) -> list[str]:
    """A stamp's values: it may be one, or a list of them."""
    if value is None:
        return []
    return [str(each) for each in value] if isinstance(value, list | tuple | set) else [str(value)]


def stop(job: Job) -> bool:
    """Cancel a job because it was revoked; False if that does not stop what it does, because a thread does it."""
    thread = job.in_thread
    if job.cancelled_as is None:  # the same news may come twice, by the broker and by remote control
        logger.warning(
            "Task %s is cancelled: it was revoked%s",
            job.name,
            "; it is a plain function, so nobody waits for it any more, but its thread runs on" if thread else "",
        )
        job.cancel(Revoked("terminated"))
    return not thread
