"""Options of a workflow reach every step of it that does not say otherwise."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from canvas.composing import s, si, written
from canvas.planning import NOW, calls, node_of, planned, sender
from celery import chain, chord, group
from celery.canvas import xmap

from aioretryq import TaskQueue
from aioretryq.config import Settings
from aioretryq.errors import ConfigError, UnknownSettingError
from aioretryq.protocol.task import format_moment
from aioretryq.workflows.compile import compile
from aioretryq.workflows.sending import start
from queues import soon

WORKFLOW = chain(s("first"), group(s("left"), s("right")), s("joined"), s("last"))


def test_they_reach_every_step():
    found = calls(planned(WORKFLOW, priority=7, queue="slow", time_limit=5, serializer="json"))
    first = found.pop("w.first")
    assert (first.priority, first.routing_key, first.time_limit) == (7, "slow", 5)
    assert set(found) == {"w.left", "w.right", "w.joined", "w.last"}
    for options in found.values():
        assert options["priority"] == 7
        assert (options["queue"], options["time_limit"], options["serializer"]) == ("slow", 5, "json")


def test_a_step_says_so_itself_then_what_it_is_in_then_the_call():
    inner = group(s("own", priority=1), s("its")).set(priority=2)
    found = calls(planned(chain(s("first"), s("second"), inner), priority=3))
    assert found["w.own"]["priority"] == 1
    assert found["w.its"]["priority"] == 2
    assert (found["w.first"].priority, found["w.second"]["priority"]) == (3, 3)


def test_options_set_on_a_chord_are_for_header_and_body():
    plan = planned(chord([s("a"), s("b")], s("c")).set(queue="q", priority=4))
    found = calls(plan)
    assert [(m.routing_key, m.priority) for m in plan.messages] == [("q", 4), ("q", 4)]
    assert (found["w.c"]["queue"], found["w.c"]["priority"]) == ("q", 4)


def test_they_do_not_reach_what_is_linked():
    callback = si("after")
    plan = planned(chain(s("a"), s("b", link=[written(callback)])), priority=5)
    assert "priority" not in calls(plan)["w.b"]["link"][0]["options"]


def test_an_address_is_one_thing():
    plan = planned(group(s("a", routing_key="mine", exchange="x"), s("b")), queue="q")
    assert [(m.exchange, m.routing_key) for m in plan.messages] == [("x", "mine"), ("", "q")]


@pytest.mark.parametrize("expires", [60, 60.0, timedelta(minutes=1)])
def test_expiry_is_one_moment_for_all(expires):
    found = calls(planned(WORKFLOW, expires=expires))
    moment = format_moment(NOW + 60)
    assert {each["expires"] for name, each in found.items() if name != "w.first"} == {moment}
    assert datetime.fromisoformat(found["w.first"].expires) == datetime.fromisoformat(moment)
    assert found["w.first"].expiration == "60000"


def test_expiry_at_a_moment():
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    assert calls(planned(WORKFLOW, expires=moment))["w.last"]["expires"] == moment.isoformat()


def test_delays_are_for_the_first_steps():
    found = calls(planned(WORKFLOW, countdown=30))
    assert found.pop("w.first").eta == format_moment(NOW + 30)
    assert not [each for each in found.values() if "countdown" in each]
    header = planned(chord([s("a"), s("b", countdown=5)], s("c")), countdown=30)
    assert [m.eta for m in header.messages] == [format_moment(NOW + 30), format_moment(NOW + 5)]
    assert "countdown" not in calls(header)["w.c"]
    assert planned(group(s("a"), s("b")).skew(1, 9)).messages[1].eta == format_moment(NOW + 2)


def test_headers_are_merged_and_stamps_too():
    step = s("b", headers={"mine": 1, "both": "step"}, stamped_headers=["who"], who="step")
    call = {"headers": {"both": "call", "its": 2}, "stamped_headers": ["who", "when"], "who": "call", "when": "now"}
    plan = planned(chain(s("a"), step), **call)
    found = calls(plan)
    assert found["w.b"]["headers"] == {"mine": 1, "both": "step", "its": 2}
    assert (found["w.b"]["who"], found["w.b"]["when"]) == ("step", "now")
    assert sorted(found["w.b"]["stamped_headers"]) == ["when", "who"]
    assert (plan.messages[0].headers, plan.messages[0].stamps) == (call["headers"], {"who": "call", "when": "now"})
    spelled = calls(planned(chain(s("a"), s("b")), stamped_headers=["who"], stamps={"who": "me"}))
    assert spelled["w.b"]["who"] == "me"


def test_a_call_wins_over_its_signature():
    (message,) = planned(s("a", priority=1, queue="q"), priority=2).messages
    assert (message.priority, message.routing_key) == (2, "q")


def test_the_id_is_that_of_the_last_step_and_links_are_its():
    plan = planned(chain(s("a"), s("b")), task_id="LAST", link=[written(si("after"))])
    assert calls(plan)["w.b"]["task_id"] == "LAST"
    assert calls(plan)["w.b"]["link"] == [written(si("after"))]
    assert plan.result.id == "LAST"


def test_errbacks_of_a_call_are_those_of_all_steps():
    plan = planned(chain(s("a"), s("b")), link_error=[written(s("told"))])
    assert plan.messages[0].errbacks == calls(plan)["w.b"]["link_error"] == [written(s("told"))]


@pytest.mark.parametrize("name", ["link", "link_error"])
def test_nothing_follows_from_a_group(name):
    with pytest.raises(TypeError, match="chord"):
        planned(group(s("a"), s("b")), **{name: [written(s("c"))]})


def test_how_the_sender_sends_is_no_option_of_a_step():
    plan = planned(chain(s("a"), s("b")), retry=False, timeout=3.0)
    assert (plan.call.retry, plan.call.timeout) == (False, 3.0)
    assert "timeout" not in calls(plan)["w.b"]


async def test_options_that_no_call_has(queue):
    with pytest.raises(UnknownSettingError, match="priority"):
        await start(queue, node_of(WORKFLOW), (), {}, {"prioritee": 1})
    with pytest.raises(ConfigError, match="priority"):
        await start(queue, node_of(WORKFLOW), (), {}, {"priority": 11})
    with pytest.raises(ConfigError, match="priority"):
        await start(queue, node_of(chain(s("add"), s("add", priority=44))))


def test_maps_are_routed_as_the_task_that_does_the_work():
    by = sender(Settings(task_routes={"w.add": "adding"}))
    plan = compile(node_of(group(xmap(s("add"), [1]), s("add"), s("other"))), sender=by)
    assert [m.routing_key for m in plan.messages] == ["adding", "adding", "celery"]


class TestPrioritiesOfATasksOwnCalls:
    @pytest.fixture
    async def queue(self, url):
        async with TaskQueue(url, task_inherit_parent_priority=True, result_expires=60.0) as queue:

            @queue.task(name="w.seen", bind=True)
            async def seen(self, *args):
                return self.request.delivery_info["priority"]

            @queue.task(name="w.calls", bind=True)
            async def calls(self):
                made = [await seen.delay(), await seen.apply_async(priority=1)]
                made.append(await start(self.app, node_of(group(s("seen"), s("seen", priority=2)))))
                made += await seen.delay_many([()])
                return [each.as_tuple() for each in made]

            yield queue

    async def test_they_inherit_its_priority(self, queue, worker):
        made = await soon((await queue.send_task("w.calls", priority=6)).get())
        values = [await soon(queue.result_from_tuple(each).get()) for each in made]
        assert values == [6, 1, [6, 2], 6]

    async def test_others_do_not(self, queue, worker):
        assert await soon((await queue.send_task("w.seen")).get()) == queue.conf.task_default_priority
