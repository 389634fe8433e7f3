"""Settings as whoever asks a worker gets to see them."""

from __future__ import annotations

import json

import pytest
from control_lab import Lab

from aioretryq.worker.shown import MASK, masked
from queues import memory_url

SECRET = "S3CRET"
URLS = [
    "redis://:S3CRET@host/0",
    "redis://user:S3CRET@host:6379/0",
    "redis://:S3CRET/with/slashes@host/0",
    "redis://:S3CRET@with@at@host/0",
    "redis://host/0?password=S3CRET",
    "redis://host/0?db=1&password=S3CRET",
    "redis://host/0?PassWord=S3CRET&db=1",
    "redis://host/0?pass%77ord=S3CRET",
    "redis://user@host/0?username=user&password=S3CRET",
    "rediss://host/0?ssl_password=S3CRET",
    "unix:///run/redis.sock?password=S3CRET",
    "redis://:a@one;redis://:S3CRET@two",
    "host=db user=me password=S3CRET",
]


@pytest.mark.parametrize("url", URLS)
def test_urls(url):
    for value in (url, [url], {"url": url}, {"servers": [(url, 1)]}, {url: 1}, url.encode(), (url for _ in "1")):
        shown = json.dumps(masked("broker_url", value))
        assert SECRET not in shown
    assert MASK in masked("broker_url", url)
    assert any(host in masked("broker_url", url) for host in ("host", "redis.sock", "two"))


@pytest.mark.parametrize(
    "options",
    [
        {"security_key_password": SECRET},
        {"security_key_password": SECRET.encode()},
        {"broker_transport_options": {"password": SECRET}},
        {"broker_transport_options": {"sentinel_kwargs": {"password": SECRET, "nested": [{"auth": [SECRET]}]}}},
        {"broker_transport_options": {"credentials": {"name": SECRET}}},
        {"result_backend_transport_options": {"api_token": [SECRET]}},
        {"own": {"secret": {"a": SECRET}}},
    ],
)
def test_secrets_by_their_names(options):
    assert SECRET not in json.dumps(masked("", options))


def test_numbers_may_be_secrets():
    assert masked("", {"password": 1234}) == {"password": MASK}


@pytest.mark.parametrize(
    "value",
    [
        "redis://host:6379/0",
        "redis://user@host/0?db=1",
        "a=b&c=d",
        {"global_keyprefix": "x"},
        {"password": None},
        [1, 2.5],
    ],
)
def test_what_is_no_secret_is_shown(value):
    assert masked("broker_url", value) == value


async def test_asked_by_remote_control():
    url = f"{memory_url()}?password={SECRET}"
    conf = {"security_key_password": SECRET, "broker_transport_options": {"url": URLS[4]}, "result_backend": url}
    async with Lab(memory_url()).open() as lab:
        await lab.worker(conf=conf)
        inspect = lab.client.control.inspect(timeout=15)
        for replies in (await inspect.conf(with_defaults=True), await inspect.report(), await inspect.stats()):
            assert MASK in json.dumps(replies)
            assert SECRET not in json.dumps(replies)
