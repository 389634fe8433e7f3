"""Which exchange and routing key a message goes to, by the settings and what the call says."""

from __future__ import annotations

import time

import pytest

from aioretryq import Broadcast, ConfigError, Queue, Settings, TaskQueue
from aioretryq.calling import CallOptions, compose
from aioretryq.message import Binding
from aioretryq.queues import read_queues
from aioretryq.topology import topology_of

VIDEO = Queue("video", "media", "topic", "media.video.#")
NEWS = Broadcast("news")


def sent(options, **settings):
    """(exchange, routing key, kind) of a call with these options."""
    conf = Settings()
    conf.update(settings)
    call = CallOptions.of(options, "app.task")
    message = compose("app.task", ((), {}), call, task=None, settings=conf, caller=None, now=time.time())
    return message.exchange, message.routing_key, message.exchange_type


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ("", "celery", "direct")),
        ({"queue": "other"}, ("", "other", "direct")),
        ({"queue": "plain"}, ("", "plain", "direct")),
        ({"routing_key": "other"}, ("", "other", "direct")),
        ({"queue": "video"}, ("media", "media.video.#", "topic")),
        ({"queue": "video", "routing_key": "media.video.cut"}, ("media", "media.video.cut", "topic")),
        ({"exchange": "media", "routing_key": "media.audio"}, ("media", "media.audio", "topic")),
        ({"exchange": "", "routing_key": "video"}, ("", "video", "direct")),
        ({"exchange": "x", "routing_key": "k"}, ("x", "k", "direct")),
        ({"exchange": "x", "routing_key": "k", "exchange_type": "topic"}, ("x", "k", "topic")),
        ({"exchange": "x", "exchange_type": "fanout"}, ("x", "celery", "fanout")),
        ({"queue": "news"}, ("news", "celery", "fanout")),
        ({"exchange": "news"}, ("news", "celery", "fanout")),
        ({"exchange": "news", "routing_key": "a.b"}, ("news", "a.b", "fanout")),
    ],
)
def test_addresses(options, expected):
    assert sent(options, task_queues=[Queue("plain"), VIDEO, NEWS]) == expected


@pytest.mark.parametrize(
    ("route", "options", "expected"),
    [
        ("video", {}, ("media", "media.video.#", "topic")),
        ("news", {}, ("news", "celery", "fanout")),
        ({"queue": "video", "routing_key": "media.video.cut"}, {}, ("media", "media.video.cut", "topic")),
        ({"exchange": "media", "routing_key": "media.x"}, {}, ("media", "media.x", "topic")),
        ({"exchange": "x", "exchange_type": "fanout"}, {}, ("x", "celery", "fanout")),
        ({"exchange": "media", "routing_key": "media.x"}, {"queue": "plain"}, ("", "plain", "direct")),
        ({"exchange": "media", "routing_key": "a"}, {"routing_key": "b"}, ("media", "b", "topic")),
        ({"routing_key": "other"}, {}, ("", "other", "direct")),
    ],
)
def test_routes(route, options, expected):
    assert sent(options, task_queues=[VIDEO, NEWS], task_routes={"app.*": route}) == expected


def test_defaults_of_a_topic():
    settings = {
        "task_default_exchange": "tasks",
        "task_default_exchange_type": "topic",
        "task_default_routing_key": "task.default",
        "task_queues": [Queue("celery", routing_key="task.#"), Queue("feeds", routing_key="feed.#")],
    }
    assert sent({}, **settings) == ("tasks", "task.#", "topic")
    assert sent({"routing_key": "feed.import"}, **settings) == ("tasks", "feed.import", "topic")
    assert sent({"queue": "feeds"}, **settings) == ("tasks", "feed.#", "topic")
    conf = Settings()
    conf.update(settings)
    assert topology_of(conf).bindings() == [
        Binding("tasks", "topic", "task.#", "celery"),
        Binding("tasks", "topic", "feed.#", "feeds"),
    ]


@pytest.mark.parametrize(
    ("task", "options", "expected"),
    [
        ({"exchange": "media", "routing_key": "a"}, {}, ("media", "a", "topic")),
        ({"exchange": "media", "routing_key": "a"}, {"routing_key": "b"}, ("media", "b", "topic")),
        ({"exchange": "media", "routing_key": "a"}, {"queue": "plain"}, ("", "plain", "direct")),
        ({"routing_key": "a.b", "queue": "video"}, {}, ("media", "a.b", "topic")),
        ({"exchange": "news"}, {}, ("news", "celery", "fanout")),
        ({"queue": "fan"}, {}, ("f", "loud", "fanout")),
    ],
)
def test_exchanges_of_tasks(task, options, expected):
    declared = [VIDEO, NEWS, Broadcast("fan", "f", "loud")]
    queue = TaskQueue("memory://", task_queues=declared, task_routes={"app.*": {"queue": "r", "exchange": "r"}})
    made = queue.task(**task)(lambda: None)
    call = CallOptions.of(options, "app.task")
    message = compose("app.task", ((), {}), call, task=made, settings=queue.conf, caller=None, now=time.time())
    assert (message.exchange, message.routing_key, message.exchange_type) == expected


@pytest.mark.parametrize("option", ["exchange", "routing_key"])
def test_exchanges_of_tasks_are_texts(option):
    with pytest.raises(ConfigError, match=f"{option} is a text, not 5"):
        TaskQueue("memory://").task(**{option: 5})(lambda: None)


@pytest.mark.parametrize("broadcast", [{"exchange": 5}, {"routing_key": 5}])
def test_broadcasts_of_a_wrong_type(broadcast):
    with pytest.raises(ConfigError, match="is a text, not 5"):
        Broadcast("b", **broadcast)


def test_an_exchange_wants_a_routing_key():
    with pytest.raises(ConfigError, match="routing_key"):
        sent({"exchange": "media"}, task_queues=[VIDEO])
    assert sent({"exchange": "media", "queue": "video"}, task_queues=[VIDEO]) == ("media", "media.video.#", "topic")


@pytest.mark.parametrize("options", [{"exchange": 5}, {"routing_key": 5}, {"exchange_type": ["topic"]}])
def test_options_of_a_wrong_type(options):
    with pytest.raises(ConfigError):
        sent(options)


def test_an_unknown_kind_of_exchange():
    with pytest.raises(ConfigError, match="direct, topic, fanout"):
        sent({"exchange": "x", "routing_key": "k", "exchange_type": "headers"})


def test_missing_queues():
    settings = {"task_queues": ["plain", "video"], "task_create_missing_queues": False}
    assert sent({"queue": "video"}, **settings)[1] == "video"
    with pytest.raises(ConfigError, match=r"no queue 'vidoe'.*'video'"):
        sent({"queue": "vidoe"}, **settings)
    with pytest.raises(ConfigError, match="no queue 'celery'"):
        sent({}, **settings)
    assert sent({"queue": "any"}, task_create_missing_queues=False)[1] == "any"


def test_which_queues_a_worker_takes():
    conf = Settings()
    assert topology_of(conf).names == ["celery"]
    conf.task_queues = [VIDEO, NEWS]
    assert topology_of(conf).names == ["video", "news"]


class KombuExchange:
    def __init__(self, name, type):
        self.name, self.type = name, type


class KombuQueue:
    alias = None

    def __init__(self, name, exchange=None, routing_key="", expires=None):
        self.name, self.exchange, self.routing_key, self.expires = name, exchange, routing_key, expires


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ()),
        (["a", "b"], (Queue("a"), Queue("b"))),
        (
            [{"name": "a", "exchange": "x", "exchange_type": "topic", "routing_key": "k"}],
            (Queue("a", "x", "topic", "k"),),
        ),
        ({"a": {"exchange": "x", "binding_key": "k", "durable": True}}, (Queue("a", "x", "direct", "k"),)),
        ({"a": {"exchange": "x", "exchange_type": "fanout"}}, (Broadcast("a", "x"),)),
        ([KombuQueue("a")], (Queue("a"),)),
        ([KombuQueue("a", KombuExchange("x", "topic"), "k.#", 5)], (Queue("a", "x", "topic", "k.#", 5),)),
        ([KombuQueue("b", KombuExchange("news", "fanout"))], (Broadcast("b", "news"),)),
        ([KombuQueue("b", KombuExchange(None, "fanout"), "k")], (Broadcast("b", "b", "k"),)),
        ((VIDEO, NEWS), (VIDEO, NEWS)),
    ],
)
def test_ways_to_declare_queues(value, expected):
    assert read_queues(value) == expected
    conf = Settings()
    conf.update({"task_queues": value})
    assert conf.task_queues == expected


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("celery", "a list of names"),
        (5, "a list of names"),
        ([5], "holds names"),
        (["a", Queue("a")], "a twice"),
        ([{"name": "a", "exchnge": "x"}], "no option exchnge"),
        ([{"exchange": "x"}], "a name"),
        ([{"name": "a", "exchange_type": "headers"}], "no exchange_type 'headers'"),
        ([{"name": "a", "routing_key": 5}], "routing_key is a text"),
        ([{"name": "a", "expires": "soon"}], "expires is a number"),
    ],
)
def test_declarations_that_cannot_be(value, words):
    conf = Settings()
    with pytest.raises(ConfigError, match=words):
        conf.task_queues = value


def test_a_fanout_queue_is_a_broadcast():
    with pytest.raises(ConfigError, match="Broadcast"):
        Queue("a", "x", "fanout")
