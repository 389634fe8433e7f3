"""URLs of broker and backend that a Celery configuration comes to."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
from celery import Celery

from aioretryq import ConfigError, TaskQueue

URL = "redis://broker/1"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND", "AIORETRYQ_URL"):
        monkeypatch.delenv(name, raising=False)


def conf(source: object, **options: Any) -> Any:
    return TaskQueue.from_celery(source, **options).conf


def refusal(source: object, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        TaskQueue.from_celery(source, **options)
    return str(caught.value)


TLS = {"ssl_cert_reqs": ssl.CERT_NONE, "ssl_check_hostname": False}
TLS_URL = "rediss://broker/1?ssl_cert_reqs=CERT_NONE&ssl_check_hostname=false"


class TestUrls:
    @pytest.mark.parametrize(
        ("source", "url"),
        [
            ({"broker_url": "redis://"}, "redis://"),
            ({"broker_url": ["redis://one/1"]}, "redis://one/1"),
            ({"broker_url": "redis://one/1;"}, "redis://one/1"),
            ({"broker_read_url": URL, "broker_write_url": URL}, URL),
            ({"broker_url": "memory://"}, "memory://"),
            (
                {"broker_url": "redis+socket:///tmp/redis.sock?virtual_host=2"},
                "redis+socket:///tmp/redis.sock?virtual_host=2",
            ),
            ({"broker_transport": "redis", "broker_host": "broker"}, "redis://broker"),
            (
                {
                    "BROKER_TRANSPORT": "redis",
                    "BROKER_HOST": "broker",
                    "BROKER_PORT": 6380,
                    "BROKER_USER": "me",
                    "BROKER_PASSWORD": "a/b@c:d",
                    "BROKER_VHOST": "/3",
                },
                "redis://me:a%2Fb%40c%3Ad@broker:6380/3",
            ),
            (
                {"broker_url": "redis://:own@broker:1/1", "broker_password": "other", "broker_port": 2},
                "redis://:own@broker:1/1",
            ),
            ({"broker_url": "redis://[::1]/1", "broker_port": 7}, "redis://[::1]:7/1"),
            ({"broker_url": URL, "broker_use_ssl": TLS}, TLS_URL),
            (
                {"broker_url": "rediss://broker?ssl_cert_reqs=none", "broker_port": 7},
                "rediss://broker:7/?ssl_cert_reqs=none",
            ),
            (
                {"broker_url": URL, "broker_use_ssl": {"cert_reqs": 2}},
                "rediss://broker/1?ssl_cert_reqs=CERT_REQUIRED",
            ),
            ({"broker_url": "rediss://broker/1?ssl_cert_reqs=none"}, "rediss://broker/1?ssl_cert_reqs=none"),
            ({"broker_url": "rediss://broker/1", "broker_use_ssl": True}, "rediss://broker/1"),
        ],
    )
    def test_of_the_broker(self, source: dict[str, Any], url: str) -> None:
        assert conf(source).broker_url == url

    @pytest.mark.parametrize(
        ("source", "url"),
        [
            ({}, "disabled"),
            ({"result_backend": "disabled"}, "disabled"),
            ({"result_backend": "redis"}, "redis:///"),
            ({"result_backend": "redis", "redis_host": "results", "redis_db": 4}, "redis://results/4"),
            ({"result_backend": "redis://results", "redis_db": 4, "redis_port": 7}, "redis://results:7/"),
            ({"result_backend": "redis://r/1", "redis_password": "p", "redis_username": "u"}, "redis://u:p@r/1"),
            (
                {"result_backend": "redis://r/1", "redis_backend_use_ssl": {"ssl_cert_reqs": "none"}},
                "rediss://r/1?ssl_cert_reqs=none",
            ),
        ],
    )
    def test_of_the_backend(self, source: dict[str, Any], url: str) -> None:
        found = conf({"broker_url": URL, **source}).result_backend
        assert found == url or (url == "redis:///" and found in ("redis://localhost/", "redis://"))

    @pytest.mark.parametrize(
        ("source", "says"),
        [
            ({"broker_url": "redis://one;redis://two"}, "lists 2 brokers"),
            ({"broker_url": ["redis://one", "redis://two"]}, "lists 2 brokers"),
            ({"broker_url": "sentinel://one:26379;sentinel://two:26379"}, "Sentinel is not supported yet"),
            ({"broker_url": "sqs://"}, "sqs:// is not supported yet"),
            ({"broker_url": "broker:6379"}, "amqp:// is not supported yet"),
            ({"broker_url": "weird stuff://u:secret@h"}, "a URL like this is not supported yet"),
            ({"broker_url": b"redis://:secret@h"}, "must be a text, not a bytes"),
            ({"broker_url": [1]}, "must be a text, not a list"),
            ({"broker_url": "redis://:secret@h:port/1"}, "port must be a number"),
            ({"broker_url": "redis://h/x", "broker_password": "secret"}, "the database must be a number"),
            ({"broker_url": URL, "broker_read_url": "redis://replica/1"}, "one broker is used for both"),
            ({"broker_url": URL, "broker_use_ssl": {"context": 1}}, "ssl_context cannot be part"),
            ({"broker_url": URL, "broker_use_ssl": 7}, "must be a dict or true"),
            ({"broker_url": URL, "broker_use_ssl": {"ssl_ca_certs": "/no/such/file"}}, "ssl_ca_certs is no file"),
            ({"broker_url": URL, "broker_transport_options": 7}, "must be a dict, not a int"),
            ({"broker_url": URL, "broker_transport_options": {"master_name": "m"}}, "Sentinel"),
            ({"broker_url": URL, "result_backend": "db+sqlite:///r.db"}, "db+sqlite:// is not supported yet"),
            ({"broker_url": URL, "result_backend": "proj.backends:Mine"}, "is not supported yet"),
            ({"broker_url": URL, "result_backend": "sentinel://a;sentinel://b"}, "Sentinel is not supported"),
            ({"broker_url": URL, "result_backend": object}, "must be a text"),
            ({"broker_url": URL, "redis_backend_credential_provider": "x.Y"}, "user and password"),
        ],
    )
    def test_that_are_refused(self, source: dict[str, Any], says: str) -> None:
        said = refusal(source)
        assert says in said
        assert "secret" not in said

    def test_the_environment_wins_as_in_celery(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CELERY_BROKER_URL", "redis://environment/1")
        monkeypatch.setenv("CELERY_RESULT_BACKEND", "redis://environment/2")
        for source in ({"broker_url": URL}, Celery("test", broker=URL, set_as_current=False)):
            found = conf(source)
            assert (found.broker_url, found.result_backend) == ("redis://environment/1", "redis://environment/2")
        assert conf({}, url=URL).broker_url == URL
