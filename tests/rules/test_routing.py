"""task_routes: who goes where."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioretryq import ConfigError, Settings, TaskQueue
from aioretryq.calling import CallOptions, compose
from aioretryq.message import Binding
from aioretryq.routing import NO_ROUTE, Route, check_routes, route, targets, topic_matches


@pytest.mark.parametrize(
    ("routes", "expected"),
    [
        (None, NO_ROUTE),
        ({}, NO_ROUTE),
        ({"app.mail.send": "mail"}, Route("mail")),
        ({"app.mail.send": {"queue": "mail", "priority": 3}}, Route("mail", 3)),
        ({"app.mail.send": {"priority": 9}}, Route(None, 9)),
        ({"app.mail.send": {"routing_key": "mail"}}, Route(routing_key="mail")),
        ({"app.mail.*": "mail"}, Route("mail")),
        ({"app.*.send": "mail"}, Route("mail")),
        ({"app.pay.*": "pay", "*": "rest"}, Route("rest")),
        ({re.compile(r"app\.(mail|sms)\..*"): "out"}, Route("out")),
        ({re.compile(r"mail"): "out"}, NO_ROUTE),
        ([{"app.pay.*": "pay"}, {"app.mail.*": "mail"}], Route("mail")),
        ([("app.pay.*", "pay"), ("app.mail.*", {"queue": "mail"})], Route("mail")),
        ([(re.compile("app.*"), "first"), {"app.mail.send": "second"}], Route("first")),
    ],
)
def test_the_first_match_answers(routes, expected):
    check_routes(routes)
    assert route(routes, "app.mail.send") == expected


def test_a_callable_is_asked_with_the_call():
    calls = []

    def ask(name, args, kwargs, options, task=None):
        calls.append((name, args, kwargs))
        return {"queue": "big"} if args and args[0] > 10 else None

    routes = [ask, {"*": "small"}]
    assert route(routes, "t", (11,), {"k": 1}) == Route("big")
    assert route(routes, "t", (1,), {}) == Route("small")
    assert calls == [("t", (11,), {"k": 1}), ("t", (1,), {})]
    assert route(lambda name, args, kwargs, options, task=None: "q", "t") == Route("q")


@pytest.mark.parametrize(
    "wrong",
    [7, "queue", {"t": 7}, {"t": {"que": "q"}}, [7], [("t", 7)]]
    + [{"t": {"priority": priority}} for priority in (-1, 10, True, 1.5, "3")],
)
def test_a_wrong_table_is_refused_before_anything_is_sent(wrong):
    with pytest.raises(ConfigError):
        check_routes(wrong)


@given(st.from_regex(r"[a-z_]{1,8}(\.[a-z_]{1,8}){0,3}", fullmatch=True))
def test_a_name_always_matches_itself_and_the_star(name):
    assert route({name: "q"}, name) == Route("q")
    assert route({"*": "q"}, name) == Route("q")


def routed(settings, task=None, **options):
    made = CallOptions.of(options, "t")
    name = task.name if task is not None else "t"
    message = compose(name, ((), {}), made, task=task, settings=settings, caller=None, now=time.time())
    return message.routing_key, message.priority


def test_precedence_is_call_then_task_then_route_then_default():
    queue = TaskQueue("memory://", task_routes={"*": {"queue": "routed", "priority": 3}})

    @queue.task(queue="own", priority=6)
    async def with_own():
        return None

    @queue.task
    async def without():
        return None

    conf = queue.conf
    assert routed(conf, with_own, queue="explicit", priority=9) == ("explicit", 9)
    assert routed(conf, with_own) == ("own", 6)
    assert routed(conf, without) == ("routed", 3)
    assert routed(conf, None) == ("routed", 3)
    conf.task_routes = None
    assert routed(conf, without) == ("celery", 0)
    conf.update(task_default_queue="main", task_default_priority=5)
    assert routed(conf, without) == ("main", 5)
    assert routed(conf, with_own, priority=0) == ("own", 0), "0 is a priority like any other"


def test_each_part_of_a_route_is_taken_where_it_is_given():
    settings = Settings()
    settings.task_routes = {"t": {"priority": 9}}
    assert routed(settings, queue="explicit") == ("explicit", 9)
    assert routed(settings) == ("celery", 9)


@pytest.mark.parametrize(
    ("pattern", "key", "matches"),
    [
        ("", "", True),
        ("", "a", False),
        ("a", "", False),
        ("#", "", True),
        ("#", "a.b", True),
        ("*", "", False),
        ("*", "a", True),
        ("*", "a.b", False),
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.#", "a", True),
        ("a.#", "a.b.c", True),
        ("a.#", "ab", False),
        ("#.b", "b", True),
        ("#.b", "a.b.c", False),
        ("a.#.b.*", "a.b.b.c", True),
        ("*.#.*", "a", False),
        ("a.b", "a.b", True),
        ("#." * 30 + "x", "a." * 2000 + "b", False),
    ],
)
def test_topics(pattern, key, matches):
    assert topic_matches(pattern, key) is matches


def test_targets_are_the_queues_each_once():
    bindings = [
        Binding("x", "topic", "a.*", "q2"),
        Binding("x", "topic", "a.#", "q2"),
        Binding("x", "topic", "#", "q1"),
        Binding("x", "direct", "a.b", "q3"),
        Binding("x", "direct", "a.#", "never"),
    ]
    assert targets(bindings, "a.b") == ["q1", "q2", "q3"]
    assert targets([], "a.b") == []
