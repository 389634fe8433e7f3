"""The pictures in docs/flower.md: `PYTHONPATH=tests:. python tests/flower/screenshots.py docs/images`."""

from __future__ import annotations

import sys
from pathlib import Path

from flower_browser import Pages, browser
from flower_fleet import OURS, QUEUES, Fleet, fleet, until

GOODS = ("tea", "rice", "salt", "honey", "flour", "olives")


def some_work(fleet: Fleet) -> None:
    """A day in the shop: much that succeeds, something that fails, and some tasks that still run."""
    for worker in QUEUES:
        ids = [
            fleet.send(worker, "shop.price", args=[goods], kwargs={"pieces": n}) for n, goods in enumerate(GOODS, 1)
        ]
        for task_id in ids:
            fleet.task_is(task_id, "SUCCESS")
        fleet.task_is(fleet.send(worker, "shop.pay", args=[21]), "FAILURE")
        fleet.task_is(fleet.send(worker, "shop.pack", args=[60]), "STARTED")
    fleet.task_is(fleet.send(OURS, "shop.ship", args=[1, 600]), "RETRY")


def overview(pages: Pages) -> None:
    pages.open("/")
    until(lambda: pages.text("#workers-active") == str(len(QUEUES)))


def worker(pages: Pages) -> None:
    pages.open_worker(OURS)


def tasks(pages: Pages) -> None:
    pages.open("/tasks")
    until(lambda: len(pages.rows("#tasks-table")) > 10)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with fleet() as shop, browser(shop) as pages:
        some_work(shop)
        for show in (overview, worker, tasks):
            show(pages)
            (folder / f"flower-{show.__name__}.png").write_bytes(pages.driver.get_screenshot_as_png())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
