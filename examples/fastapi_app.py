"""Jobs over HTTP: start one, look at it, wait for its result, cancel it.

aioretryq worker examples.fastapi_app:queue     in one terminal
uvicorn examples.fastapi_app:app                in another; then see http://localhost:8000/docs
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from aioretryq import PublishError, ResultTimeout, TaskQueue, TaskRevokedError, UnavailableError

queue = TaskQueue(task_track_started=True)


@queue.task(autoretry_for=(ConnectionError,), retry_backoff=True, retry_jitter=True)
async def write_report(title: str, seconds: float) -> str:
    await asyncio.sleep(seconds)
    return f"{title}: everything is fine"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with queue:
        yield


app = FastAPI(title="Jobs", lifespan=lifespan)


class Order(BaseModel):
    title: str
    seconds: float = 1.0


class Job(BaseModel):
    id: str
    status: str


class Report(BaseModel):
    id: str
    text: str


@app.post("/jobs", status_code=202)
async def start(order: Order) -> Job:
    result = await write_report.delay(order.title, order.seconds)
    return Job(id=result.id, status="PENDING")


@app.get("/jobs/{job_id}")
async def look(job_id: str) -> Job:
    """PENDING also for a job that does not exist: only what has begun leaves a trace."""
    return Job(id=job_id, status=await queue.AsyncResult(job_id).status())


@app.get("/jobs/{job_id}/result")
async def wait(job_id: str, timeout: Annotated[float, Query(ge=0, le=60)] = 10) -> Report:
    return Report(id=job_id, text=await queue.AsyncResult(job_id).get(timeout=timeout))


@app.delete("/jobs/{job_id}", status_code=204)
async def cancel(job_id: str) -> None:
    await queue.AsyncResult(job_id).revoke(terminate=True)


@app.exception_handler(PublishError)
async def not_sent(request: Request, error: PublishError) -> JSONResponse:
    # Asking a client to try again what may have been sent would run it twice.
    again = {} if error.maybe_sent else {"Retry-After": "5"}
    return JSONResponse({"detail": str(error)}, status_code=503, headers=again)


@app.exception_handler(UnavailableError)
async def not_reached(request: Request, error: UnavailableError) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, status_code=503, headers={"Retry-After": "5"})


@app.exception_handler(ResultTimeout)
async def not_done(request: Request, error: ResultTimeout) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, status_code=504)


@app.exception_handler(TaskRevokedError)
async def was_cancelled(request: Request, error: TaskRevokedError) -> JSONResponse:
    return JSONResponse({"detail": "This job was cancelled."}, status_code=410)
