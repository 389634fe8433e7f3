"""What every broker promises of bindings (aioretryq/brokers/base.py), as tests to run against each adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aioretryq.message import Binding
from aioretryq.routing import targets
from contracts.broker_world import bodies, message, take

if TYPE_CHECKING:
    from contracts.broker_world import World

ERRORS = Binding("logs", "topic", "*.error", "errors")
ALL = Binding("logs", "topic", "#", "all")
MAIL = Binding("post", "direct", "mail", "mail")


class BindingsContract:
    """Subclass it, and give it a fixture `world`. `world.pass_time(seconds)` also makes everybody sweep at once."""

    @pytest.fixture
    async def world(self) -> World:
        raise NotImplementedError("the adapter's test class says how to connect")

    async def test_others_see_what_is_bound(self, world):
        here, there = await world.connect(), await world.connect()
        await here.bind([ERRORS, ALL, MAIL])
        assert set(await there.bindings("logs")) == {ERRORS, ALL}
        assert await there.bindings("post") == [MAIL]
        assert await there.bindings("nothing") == []

    async def test_binding_again_changes_nothing(self, world):
        broker = await world.connect()
        await broker.bind([MAIL, MAIL])
        await broker.bind([MAIL])
        assert await broker.bindings("post") == [MAIL]

    async def test_one_queue_may_have_several_keys(self, world):
        broker = await world.connect()
        parcel = Binding("post", "direct", "parcel", "mail")
        await broker.bind([MAIL, parcel])
        bound = await broker.bindings("post")
        assert set(bound) == {MAIL, parcel}
        assert targets(bound, "mail") == targets(bound, "parcel") == ["mail"]
        assert targets(bound, "letter") == []

    async def test_unbinding(self, world):
        broker = await world.connect()
        await broker.bind([ERRORS, ALL])
        await broker.unbind([ERRORS, MAIL])
        await broker.unbind([])
        assert await broker.bindings("logs") == [ALL]
        await broker.unbind([ALL])
        assert await broker.bindings("logs") == []

    async def test_topics(self, world):
        broker = await world.connect()
        await broker.bind([ERRORS, ALL, Binding("logs", "topic", "app.#", "app")])
        bound = await broker.bindings("logs")
        assert targets(bound, "app.error") == ["all", "app", "errors"]
        assert targets(bound, "app.db.error") == ["all", "app"]
        assert targets(bound, "other") == ["all"]

    async def test_what_expires_goes_away_with_its_queue(self, world):
        broker = await world.connect()
        private = Binding("post", "direct", "me", "private", expires=3600)
        await broker.bind([private, MAIL])
        await broker.send([message("a", "private"), message("b", "private", due=world.now() + 9000)])
        await broker.send([message("c", "mail")])
        await world.pass_time(broker, 1800)
        assert {found.queue for found in await broker.bindings("post")} == {"mail", "private"}
        await broker.bind([private])
        await world.pass_time(broker, 3000)
        assert {found.queue for found in await broker.bindings("post")} == {"mail", "private"}
        await world.pass_time(broker, 1000)
        assert await broker.bindings("post") == [MAIL]
        assert await broker.depth(["private", "mail"]) == {"private": 0, "mail": 1}
        assert bodies(await take(broker, "private", "mail")) == ["c"]

    async def test_what_was_unbound_does_not_take_its_queue_along(self, world):
        broker = await world.connect()
        await broker.bind([private := Binding("post", "direct", "me", "private", expires=3600)])
        await broker.send([message("a", "private")])
        await broker.unbind([private])
        await world.pass_time(broker, 4000)
        assert await broker.depth(["private"]) == {"private": 1}
