"""`TaskQueue.from_celery`: configurations of Celery, as mappings, modules, classes and real applications."""

from __future__ import annotations

import sys
import types
import warnings
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import kombu
import pytest
from celery import Celery
from celery.app.utils import find_app
from celery.exceptions import CPendingDeprecationWarning
from hypothesis import given
from hypothesis import strategies as st
from kombu.common import Broadcast

from aioretryq import ConfigError, TaskQueue, queues, routing
from aioretryq.celery_settings.table import CELERY_SETTINGS

URL = "redis://broker/1"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND", "AIORETRYQ_URL"):
        monkeypatch.delenv(name, raising=False)


def module(name: str = "celeryconfig_of_test", **values: Any) -> types.ModuleType:
    made = types.ModuleType(name)
    vars(made).update(values)
    return made


def conf(source: object, **options: Any) -> Any:
    return TaskQueue.from_celery(source, **options).conf


def refusal(source: object, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        TaskQueue.from_celery(source, **options)
    return str(caught.value)


def test_our_environment_decides_what_celery_leaves_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIORETRYQ_WORKER_CONCURRENCY", "7")
    monkeypatch.setenv("AIORETRYQ_LEASE", "12")
    found = conf({"broker_url": URL, "worker_concurrency": 3})
    assert (found.worker_concurrency, found.lease) == (3, 12)


class TestSources:
    def test_a_mapping_with_new_names(self) -> None:
        found = conf({"broker_url": URL, "result_backend": "redis://results/2", "task_time_limit": 300})
        assert (found.broker_url, found.result_backend, found.task_time_limit) == (URL, "redis://results/2", 300)

    def test_names_of_celery_3(self) -> None:
        found = conf(
            {
                "BROKER_URL": URL,
                "CELERY_RESULT_BACKEND": "redis://results/2",
                "CELERYD_CONCURRENCY": 3,
                "CELERY_ACKS_LATE": False,
                "CELERY_TASK_RESULT_EXPIRES": timedelta(hours=1),
                "CELERYD_TASK_TIME_LIMIT": 60,
                "CELERY_DEFAULT_QUEUE": "main",
            }
        )
        assert (found.broker_url, found.result_backend) == (URL, "redis://results/2")
        assert (found.worker_concurrency, found.task_acks_late, found.result_expires) == (3, False, 3600)
        assert (found.task_time_limit, found.task_default_queue) == (60, "main")

    def test_a_module_and_its_import_path(self, monkeypatch: pytest.MonkeyPatch) -> None:
        config = module(os=sys, helper=len, Path=type, broker_url=URL, worker_concurrency=7)
        assert conf(config).worker_concurrency == 7
        monkeypatch.setitem(sys.modules, "celeryconfig_of_test", config)
        assert conf("celeryconfig_of_test").worker_concurrency == 7

    def test_a_class(self) -> None:
        class Configuration:
            broker_url = URL
            task_track_started = True

        assert conf(Configuration).task_track_started is True
        assert conf(Configuration()).task_track_started is True

    def test_a_django_settings_module(self) -> None:
        django = module(
            DEBUG=True,
            INSTALLED_APPS=["shop"],
            TIME_ZONE="Europe/Berlin",
            timezone=types.ModuleType("timezone"),  # from django.utils import timezone
            include=len,  # from django.urls import include
            CELERY_BROKER_URL=URL,
            CELERY_TASK_DEFAULT_QUEUE="shop",
            CELERY_TIMEZONE="UTC",
        )
        with pytest.warns(UserWarning, match=r"in aioretryq: CELERY_TIMEZONE\."):
            found = conf(django)
        assert (found.broker_url, found.task_default_queue) == (URL, "shop")

    def test_another_namespace(self) -> None:
        source = module(MYAPP_BROKER_URL=URL, MYAPP_TASK_TIME_LIMIT=5, CELERY_TASK_DEFAULT_QUEUE="no")
        says = r"of Celery: CELERY_TASK_DEFAULT_QUEUE \(did you mean CELERY_DEFAULT_QUEUE\?"
        with pytest.warns(UserWarning, match=says):
            found = conf(source, namespace="MYAPP")
        assert (found.task_time_limit, found.task_default_queue) == (5, "celery")

    @pytest.mark.parametrize(
        ("source", "says"),
        [
            (None, "no Celery application"),
            (5, "no Celery application"),
            ("os", "no Celery application"),
            (object(), "no Celery application"),
            ("no_such_module_here", "no_such_module_here"),
            ("os:no_such_name", "no_such_name"),
            ("", "Cannot load"),
            ("..", "Cannot load"),
            ({1: 2}, "texts, not 1"),
            ({b"broker_url": URL}, "texts, not b'broker_url'"),
            ({}, "broker_url is not set"),
            (TaskQueue("memory://"), "cannot be read: NotOpenError"),
        ],
    )
    def test_what_is_none(self, source: object, says: str) -> None:
        assert says in refusal(source)


class TestApplications:
    def test_only_what_was_changed(self) -> None:
        app = Celery("test", broker=URL, backend="redis://results/2", set_as_current=False)
        app.conf.update(task_default_queue="main", worker_concurrency=5)
        queue = TaskQueue.from_celery(app)
        assert (queue.broker_url, queue.backend_url) == (URL, "redis://results/2")
        assert (queue.conf.task_default_queue, queue.conf.worker_concurrency) == ("main", 5)
        assert queue.conf.task_acks_late is True
        assert queue.conf.worker_deduplicate_successful_tasks is True

    def test_acks_late_is_taken_when_it_is_set(self) -> None:
        app = Celery("test", broker=URL, set_as_current=False)
        app.conf.task_acks_late = False
        assert conf(app).task_acks_late is False

    def test_configured_like_in_django(self, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = module("settings_of_test", CELERY_BROKER_URL=URL, CELERY_TASK_TIME_LIMIT=9, TIME_ZONE="Asia/Tokyo")
        monkeypatch.setitem(sys.modules, "settings_of_test", settings)
        app = Celery("test", set_as_current=False)
        app.config_from_object("settings_of_test", namespace="CELERY")
        assert conf(app).task_time_limit == 9

    def test_with_a_namespace_of_its_own(self) -> None:
        app = Celery("test", set_as_current=False)
        app.config_from_object(module(SHOP_BROKER_URL=URL, SHOP_TASK_TIME_LIMIT=9), namespace="SHOP")
        assert conf(app).task_time_limit == 9

    def test_with_the_names_of_celery_3(self) -> None:
        app = Celery("test", set_as_current=False)
        app.conf.update(BROKER_URL=URL, CELERYD_CONCURRENCY=3)
        assert conf(app).worker_concurrency == 3

    def test_found_in_its_module(self, monkeypatch: pytest.MonkeyPatch) -> None:
        app = Celery("test", broker=URL, set_as_current=False)
        monkeypatch.setitem(sys.modules, "project_of_test", module("project_of_test", app=app))
        assert conf("project_of_test").broker_url == URL
        assert conf("project_of_test:app").broker_url == URL

    @pytest.mark.parametrize(
        ("files", "paths"),
        [
            ({"__init__.py": "", "celery.py": "{made}"}, ["", ".celery", ".celery:made", ".celery.made"]),
            ({"__init__.py": "from .celery import made as celery_app", "celery.py": "{made}"}, ["", ":celery_app"]),
            ({"__init__.py": "", "tasks.py": "{made}\napp = made"}, [".tasks", ".tasks.app"]),
            ({"__init__.py": "{made}\ncelery = made"}, ["", ":celery", ".celery"]),
        ],
    )
    def test_found_where_celery_finds_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], paths: list[str]
    ) -> None:
        name = f"project_{tmp_path.name}"
        (tmp_path / name).mkdir()
        made = f"from celery import Celery\nmade = Celery('x', broker={URL!r}, set_as_current=False)"
        for file, text in files.items():
            (tmp_path / name / file).write_text(text.format(made=made))
        monkeypatch.syspath_prepend(tmp_path)
        for path in paths:
            assert find_app(f"{name}{path}").conf.broker_url == URL
            assert conf(f"{name}{path}").broker_url == URL

    def test_configured_lazily_and_later_on(self) -> None:
        app = Celery("test", set_as_current=False)

        @app.on_configure.connect
        def configure(sender: Celery, **_: Any) -> None:
            sender.conf.task_time_limit = 4

        app.add_defaults(lambda: {"broker_url": URL, "task_default_queue": "lazy"})
        found = conf(app)
        assert (found.broker_url, found.task_default_queue) == (URL, "lazy")
        app.config_from_object({"broker_url": "redis://later/0"})  # reading it has not frozen it
        assert conf(app).broker_url == "redis://later/0"

    def test_that_cannot_be_configured(self) -> None:
        app = Celery("test", broker=URL, set_as_current=False)
        app.config_from_object("no_such_module_here")
        assert "cannot be read: ModuleNotFoundError: No module named 'no_such_module_here'" in refusal(app)

    @pytest.mark.filterwarnings("ignore::celery.exceptions.CPendingDeprecationWarning")
    def test_that_mixes_names(self) -> None:
        assert issubclass(CPendingDeprecationWarning, Warning)
        app = Celery("test", set_as_current=False)
        app.config_from_object({"broker_url": URL, "task_time_limit": 1, "CELERYD_CONCURRENCY": 3})
        assert "Cannot mix new and old setting keys" in refusal(app)


class TestWhatHasNoEffect:
    def test_is_listed_in_one_warning(self) -> None:
        source = {
            "broker_url": URL,
            "worker_prefetch_multiplier": 1,
            "worker_pool": "gevent",
            "broker_pool_limit": 50,
            "broker_transport_options": {"visibility_timeout": 600, "max_retries": 3, "polling_intervall": 1},
            "task_annotations": {"*": {"rate_limit": "1/s"}},
            "worker_direct": True,
            "brokr_url": "redis://other/0",
            "task_dead_letter": True,
            "task_publich_retry": True,
            "CELERYD_HOUSEKEEPING": 1,
            "mongodb_backend_settings": {"database": "x"},
        }
        with pytest.warns(UserWarning, match="without effect") as caught:
            found = conf(source)
        assert [str(warning.message) for warning in caught] == [
            "Celery settings without effect in aioretryq: broker_pool_limit, "
            "broker_transport_options['max_retries'], mongodb_backend_settings, "
            "task_annotations (tasks of yours do not get these options), "
            "worker_direct (workers take queues of their own name from -Q alone), worker_pool, "
            "worker_prefetch_multiplier. `aioretryq settings --celery` says why; ignore=[names] leaves them out. "
            "No settings of Celery: CELERYD_HOUSEKEEPING, broker_transport_options['polling_intervall'] "
            "(Did you mean 'polling_interval'?), brokr_url (did you mean broker_url?), "
            "task_dead_letter (it is one of aioretryq: give task_dead_letter= to from_celery()), "
            "task_publich_retry (did you mean task_publish_retry?)."
        ]
        assert caught[0].filename.endswith("test_from_celery.py")
        assert found.broker_transport_options == {"visibility_timeout": 600}

    def test_may_be_ignored_by_name(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            TaskQueue.from_celery(
                {"broker_url": URL, "worker_pool": "gevent", "task_reject_on_worker_lost": False, "task_thing": 1},
                ignore=["worker_pool", "task_reject_on_worker_lost", "task_thing"],
            )

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("task_reject_on_worker_lost", True),
            ("task_protocol", 2),
            ("enable_utc", True),
            ("worker_concurrency", None),
            ("include", []),
            ("beat_schedule", {}),
            ("task_annotations", None),
            ("worker_disable_prefetch", True),
            ("result_backend", None),
            ("task_acks_on_failure_or_timeout", True),
        ],
    )
    def test_is_not_what_happens_anyway(self, name: str, value: object) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            TaskQueue.from_celery({"broker_url": URL, name: value})


class TestWhatIsRefused:
    def test_all_at_once_each_with_what_to_do(self) -> None:
        said = refusal(
            {
                "broker_url": "amqp://user:secret@rabbit//",
                "result_backend": "rpc://",
                "enable_utc": False,
                "task_acks_on_failure": False,
                "task_protocol": 1,
                "task_time_limit": "soon",
                "broker_transport_options": {"sep": ":"},
            }
        )
        lines = [line for line in said.splitlines() if line.startswith("- ")]
        for start in (
            "broker_url: amqp:// is not supported yet",
            "result_backend: rpc:// is not supported yet. Set a Redis URL, or pass backend=",
            "broker_transport_options['sep'] (different): ",
            "enable_utc (different): ",
            "task_acks_on_failure (different): A failed task is settled",
            "task_protocol: messages are written in protocol 2",
            "Setting 'task_time_limit' must be float",
        ):
            assert any(line.startswith(f"- {start}") for line in lines), f"{start} is missing in {said}"
        assert len(lines) == 7
        assert "secret" not in said

    def test_may_be_decided_here(self) -> None:
        found = conf(
            {"broker_url": "amqp://rabbit", "result_backend": "rpc://", "enable_utc": False, "lease": 1},
            url=URL,
            backend="disabled",
            worker_concurrency=9,
            ignore=["enable_utc"],
        )
        assert (found.broker_url, found.result_backend, found.worker_concurrency) == (URL, "disabled", 9)

    @pytest.mark.parametrize(
        ("source", "says"),
        [
            ({"broker_url": URL, "CELERYD_CONCURRENCY": 2}, "CELERYD_CONCURRENCY -> worker_concurrency"),
            ({"broker_url": URL, "CELERY_TASK_TIME_LIMIT": 2}, "CELERY_TASK_TIME_LIMIT -> task_time_limit"),
            (
                {"BROKER_URL": URL, "CELERY_ACKS_LATE": True, "CELERY_TASK_ACKS_LATE": False},
                "task_acks_late is set twice, by CELERY_ACKS_LATE and CELERY_TASK_ACKS_LATE",
            ),
        ],
    )
    def test_contradictions(self, source: dict[str, Any], says: str) -> None:
        assert says in refusal(source)

    @pytest.mark.parametrize(
        ("setting", "says"),
        [
            ({"BROKER_URL": "amqp://h"}, "- BROKER_URL: amqp:// is not supported yet"),
            ({"CELERYD_TASK_TIME_LIMIT": "soon"}, "Setting 'CELERYD_TASK_TIME_LIMIT' must be float"),
            ({"CELERY_ENABLE_UTC": False}, "- CELERY_ENABLE_UTC (different): "),
            ({"CELERY_RESULT_BACKEND": "django-db"}, "- CELERY_RESULT_BACKEND: 'django-db' is not supported yet."),
            ({"CELERY_RESULT_BACKEND": "redsi://h"}, "redsi:// is not supported yet. Did you mean 'redis'?"),
        ],
    )
    def test_names_are_those_that_were_given(self, setting: dict[str, Any], says: str) -> None:
        assert says in refusal({"BROKER_URL": URL, **setting})

    def test_names_in_warnings_too(self) -> None:
        with pytest.warns(UserWarning, match="in aioretryq: CELERYD_PREFETCH_MULTIPLIER"):
            conf({"BROKER_URL": URL, "CELERYD_PREFETCH_MULTIPLIER": 1})
        app = Celery("test", set_as_current=False)
        app.config_from_object(module(BROKER_URL=URL, CELERYD_PREFETCH_MULTIPLIER=1))
        with pytest.warns(UserWarning, match="in aioretryq: CELERYD_PREFETCH_MULTIPLIER"):
            conf(app)

    @pytest.mark.parametrize(
        ("ignored", "says"),
        [
            (["nope"], "ignore: 'nope' is no setting of Celery."),
            (["worker_pol"], "'worker_pol' is no setting of Celery (did you mean worker_pool?)."),
            ("worker_pool", "ignore is a list of names: ignore=['worker_pool']"),
            ([7], "ignore: 7 is no"),
        ],
    )
    def test_ignoring_what_does_not_exist(self, ignored: Any, says: str) -> None:
        assert says in refusal({"broker_url": URL}, ignore=ignored)

    def test_a_tls_file_that_is_not_there(self) -> None:
        said = refusal({"broker_url": "rediss://h", "broker_use_ssl": {"ssl_ca_certs": "/no/file"}})
        assert "ssl_ca_certs is no file: '/no/file'.\n" in said
        assert ".. " not in refusal({"broker_url": "redis://h?timeout=3"})

    def test_a_name_may_be_given_twice_for_two_versions_of_celery(self) -> None:
        source = {"broker_url": URL, "BROKER_URL": URL, "task_acks_late": False, "CELERY_ACKS_LATE": False}
        assert conf(source).task_acks_late is False


class TestTranslations:
    def test_queues_of_kombu(self) -> None:
        mail = kombu.Queue("mail", kombu.Exchange("post", type="topic"), routing_key="mail.#", max_priority=10)
        app = Celery("test", broker=URL, set_as_current=False)
        app.conf.task_queues = [kombu.Queue("plain"), mail, Broadcast("everybody")]
        app.conf.task_default_queue = "plain"
        app.conf.task_routes = {"shop.*": {"queue": "mail", "routing_key": "mail.fast"}}
        assert conf(app).task_queues == (
            queues.Queue("plain"),
            queues.Queue("mail", "post", "topic", "mail.#"),
            queues.Broadcast("everybody"),
        )

    def test_queues_as_a_dictionary(self) -> None:
        source = {"task_queues": {"mail": {"exchange": "post", "exchange_type": "topic", "binding_key": "mail.#"}}}
        assert conf({"broker_url": URL, **source}).task_queues == (queues.Queue("mail", "post", "topic", "mail.#"),)

    @pytest.mark.parametrize(
        ("setting", "value"),
        [
            ("task_queues", 7),
            ("task_queues", [kombu.Queue("several", [kombu.binding(kombu.Exchange("e"), "k")])]),
            ("task_queues", [kombu.Queue("h", kombu.Exchange("h", type="headers"))]),
            ("task_default_exchange_type", "headers"),
            ("task_routes", "proj.routers:Router"),
            ("task_routes", ["os.path", {"a": "b"}]),
            ("task_queues", {"several": kombu.Queue("several", [kombu.binding(kombu.Exchange("e"), "k")])}),
        ],
    )
    def test_what_redis_has_no_exchange_for(self, setting: str, value: object) -> None:
        said = refusal({"broker_url": URL, setting: value})
        assert setting in said or "headers" in said

    def test_queues_of_a_fanout_exchange_keep_their_names(self) -> None:
        fanout = kombu.Exchange("f", type="fanout")
        source = {"task_queues": (kombu.Queue("celery"), kombu.Queue("b", fanout, routing_key="k"))}
        assert conf({"broker_url": URL, **source}).task_queues[1] == queues.Broadcast("b", "f", "k")
        as_options = {"task_queues": {"b": {"exchange": "f", "exchange_type": "fanout"}}}
        assert conf({"broker_url": URL, **as_options}).task_queues == (queues.Broadcast("b", "f"),)

    @pytest.mark.parametrize("path", ["routers_of_test.route", "routers_of_test:route", "routers_of_test.Old"])
    @pytest.mark.parametrize("listed", [False, True])
    def test_routers_by_their_path(self, monkeypatch: pytest.MonkeyPatch, path: str, listed: bool) -> None:
        class Old:
            def route_for_task(self, task: str, args: object = None, kwargs: object = None) -> str | None:
                return "video" if task == "cut" else None

        def route(name: str, args: object, kwargs: object, options: object, task: object = None) -> str | None:
            return Old().route_for_task(name)

        monkeypatch.setitem(sys.modules, "routers_of_test", module("routers_of_test", route=route, Old=Old))
        found = conf({"broker_url": URL, "task_routes": [path, {"*": "rest"}] if listed else path}).task_routes
        assert routing.route(found, "cut").queue == "video"
        assert routing.route(found, "mail").queue == ("rest" if listed else None)

    @pytest.mark.parametrize(("value", "taken"), [(5, 5), (None, 100), (0, 100)])
    def test_concurrency(self, value: object, taken: int) -> None:
        assert conf({"broker_url": URL, "worker_concurrency": value}).worker_concurrency == taken

    def test_concurrency_of_the_machine_is_of_no_use_here(self) -> None:
        with pytest.warns(UserWarning, match="worker_concurrency"):
            assert conf({"broker_url": URL, "worker_concurrency": "auto"}).worker_concurrency == 100

    def test_soft_shutdown_is_the_grace(self) -> None:
        assert conf({"broker_url": URL, "worker_soft_shutdown_timeout": 60}).worker_grace == 60

    def test_content_types_are_names(self) -> None:
        source = {"broker_url": URL, "accept_content": ["application/json", "pickle"]}
        assert conf(source).accept_content == ("json", "pickle")

    def test_a_server_that_does_not_answer_is_noticed_before_the_lease_ends(self) -> None:
        assert conf({"broker_url": URL, "redis_socket_timeout": 2}).answer_within == 2
        with pytest.warns(UserWarning, match="redis_socket_timeout"):
            assert conf({"broker_url": URL, "redis_socket_timeout": 60}).answer_within == 4

    def test_results_kept_for_ever(self) -> None:
        assert conf({"broker_url": URL, "result_expires": None}).result_expires is None


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from(sorted(CELERY_SETTINGS)), json_like, max_size=4))
def test_hostile_values_are_config_errors_at_worst(values: dict[str, Any]) -> None:
    with suppress(ConfigError), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        TaskQueue.from_celery({"broker_url": URL, **values})
