"""A task behind an aiohttp server.

aioretryq worker examples.aiohttp_app:queue     in one terminal
python -m examples.aiohttp_app                  in another; then open http://localhost:8080/reverse/stressed
"""

import os
from collections.abc import AsyncIterator

from aiohttp import web

from aioretryq import PublishError, ResultTimeout, TaskQueue

queue = TaskQueue()
routes = web.RouteTableDef()


@queue.task
async def reverse(text: str) -> str:
    return text[::-1]


@routes.get("/reverse/{text}")
async def handle(request: web.Request) -> web.Response:
    try:
        result = await reverse.delay(request.match_info["text"])
        return web.json_response({"id": result.id, "text": await result.get(timeout=10)})
    except PublishError as error:
        raise web.HTTPServiceUnavailable(text=str(error)) from error
    except ResultTimeout as error:
        raise web.HTTPGatewayTimeout(text=str(error)) from error


async def open_queue(app: web.Application) -> AsyncIterator[None]:
    async with queue:
        yield


def make_app() -> web.Application:
    app = web.Application()
    app.add_routes(routes)
    app.cleanup_ctx.append(open_queue)
    return app


if __name__ == "__main__":
    web.run_app(make_app(), host="localhost", port=int(os.environ.get("PORT", "8080")))
