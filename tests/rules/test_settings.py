"""Settings: checked when they are set, from code, environment and objects."""

from __future__ import annotations

import sys
import types
from contextlib import suppress
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioretryq import ConfigError, Settings, TaskQueue, UnknownSettingError
from aioretryq.backends import create_backend
from aioretryq.brokers import create_broker
from aioretryq.config import HINTS, parse, table


def test_an_unknown_name_suggests_the_nearest():
    queue = TaskQueue("memory://")
    with pytest.raises(UnknownSettingError, match="task_acks_late"):
        queue.conf.task_ack_late = True
    with pytest.raises(UnknownSettingError, match="result_expires"):
        TaskQueue("memory://", result_expire=10)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("task_acks_late", 1),
        ("task_acks_late", "yes"),
        ("worker_concurrency", "10"),
        ("worker_concurrency", True),
        ("worker_concurrency", 1.5),
        ("lease", "30"),
        ("lease", None),
        ("accept_content", "json"),
        ("accept_content", [1]),
        ("broker_transport_options", "x"),
        ("task_default_queue", None),
        ("task_publish_retry_policy", 3),
    ],
)
def test_a_wrong_type_names_the_setting_and_what_it_may_be(name, value):
    settings = Settings()
    before = getattr(settings, name)
    with pytest.raises(ConfigError, match=name):
        setattr(settings, name, value)
    assert getattr(settings, name) == before


def test_values_are_stored_in_the_type_of_the_setting():
    settings = Settings()
    settings.lease = 5
    settings.accept_content = ["json", "pickle"]
    settings.result_expires = None
    assert settings.lease == 5.0
    assert isinstance(settings.lease, float)
    assert settings.accept_content == ("json", "pickle")
    assert settings.result_expires is None


def test_update_is_all_or_nothing():
    settings = Settings()
    with pytest.raises(ConfigError):
        settings.update(lease=5, worker_concurrency="many")
    with pytest.raises(UnknownSettingError):
        settings.update({"lease": 5}, nonsense=1)
    assert settings.lease == Settings().lease
    settings.update({"lease": 5}, worker_concurrency=2)
    assert (settings.lease, settings.worker_concurrency) == (5, 2)


def test_defaults_belong_to_one_object_only():
    Settings().broker_transport_options["x"] = 1
    assert Settings().broker_transport_options == {}


def test_safe_defaults():
    settings = Settings()
    assert settings.task_acks_late is True
    assert settings.accept_content == ("json",)
    assert settings.task_default_queue == "celery"
    assert settings.result_backend_always_retry is False
    assert settings.result_backend_max_retries == float("inf")
    assert settings.result_backend_base_sleep_between_retries_ms == 10
    assert settings.result_backend_max_sleep_between_retries_ms == 10000
    assert settings.result_backend_thread_safe is False
    assert settings.task_publish_retry_policy == {
        "max_retries": 3, "interval_start": 0, "interval_step": 0.2, "interval_max": 1,
    }  # fmt: skip


def test_environment():
    settings = Settings.from_environment(
        {
            "AIORETRYQ_URL": "redis://h/1",
            "AIORETRYQ_WORKER_CONCURRENCY": "7",
            "AIORETRYQ_LEASE": "2.5",
            "AIORETRYQ_TASK_ACKS_LATE": "off",
            "AIORETRYQ_ACCEPT_CONTENT": "json, pickle",
            "AIORETRYQ_RESULT_BACKEND_MAX_RETRIES": "inf",
            "AIORETRYQ_RESULT_EXPIRES": "null",
            "AIORETRYQ_TASK_ROUTES": '{"a.*": "q"}',
            "AIORETRYQ_TASK_DEFAULT_QUEUE": "main",
            "PATH": "/bin",
        }
    )
    assert settings.broker_url == "redis://h/1"
    assert settings.worker_concurrency == 7
    assert settings.lease == 2.5
    assert settings.task_acks_late is False
    assert settings.accept_content == ("json", "pickle")
    assert settings.result_backend_max_retries == float("inf")
    assert settings.result_expires is None
    assert settings.task_routes == {"a.*": "q"}
    assert settings.task_default_queue == "main"


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("AIORETRYQ_WORKER_CONCURRENCY", "many"),
        ("AIORETRYQ_WORKER_CONCURRENCY", "1.5"),
        ("AIORETRYQ_TASK_ACKS_LATE", "perhaps"),
        ("AIORETRYQ_LEASE", ""),
    ],
)
def test_wrong_environment_is_refused(variable, text):
    with pytest.raises(ConfigError, match=variable.removeprefix("AIORETRYQ_").lower()):
        Settings.from_environment({variable: text})


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        *(("task_dead_letter", text, True) for text in ("1", "yes", "true", "True", "on")),
        *(("task_dead_letter", text, False) for text in ("0", "no", "false", "off")),
        ("task_dead_letter", "mail", ("mail",)),
        ("task_dead_letter", "mail, billing", ("mail", "billing")),
        ("task_dead_letter", '["mail"]', ("mail",)),
        ("accept_content", '["json", "pickle"]', ("json", "pickle")),
        ("task_time_limit", "", None),
        ("task_time_limit", "none", None),
        ("task_time_limit", "null", None),
        ("task_time_limit", "2.5", 2.5),
        ("task_time_limit", "inf", float("inf")),
        ("worker_grace", "inf", float("inf")),
        ("result_expires", "3600", 3600.0),
    ],
)
def test_what_a_text_in_the_environment_means(name, text, value):
    settings = Settings.from_environment({f"AIORETRYQ_{name.upper()}": text})
    assert getattr(settings, name) == value
    assert type(getattr(settings, name)) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "takes"),
    [
        ("task_time_limit", "soon", "a number or nothing, not 'soon'"),
        ("worker_concurrency", "1.5", "a whole number, not '1.5'"),
        ("task_acks_late", "perhaps", "yes or no, not 'perhaps'"),
        ("task_dead_letter", "[1", r"yes or no or names with commas, not '\[1'"),
        ("broker_transport_options", "{", "JSON, not '{'"),
    ],
)
def test_an_error_says_what_a_setting_takes(name, text, takes):
    with pytest.raises(ConfigError, match=f"Setting '{name}' takes {takes}"):
        parse(name, text)


@pytest.mark.parametrize("name", ["broker_url", "result_backend"])
def test_an_empty_url_is_refused(name):
    with pytest.raises(ConfigError, match=f"'{name}' is an empty text; give a URL"):
        Settings(**{name: ""})
    with pytest.raises(ConfigError, match=name):
        Settings.from_environment({f"AIORETRYQ_{name.upper()}": ""})
    assert getattr(Settings(**{name: None}), name) is None


def test_an_empty_url_argument_is_refused_but_an_empty_variable_is_none(monkeypatch):
    monkeypatch.setenv("AIORETRYQ_URL", "")
    assert TaskQueue().broker_url == "sqlite:///aioretryq.sqlite3"
    with pytest.raises(ConfigError, match="broker_url"):
        TaskQueue("")
    with pytest.raises(ConfigError, match="result_backend"):
        TaskQueue("memory://", backend="")


def test_the_url_argument_wins_over_the_environment(monkeypatch):
    monkeypatch.setenv("AIORETRYQ_URL", "redis://from-environment/0")
    monkeypatch.setenv("AIORETRYQ_LEASE", "9")
    assert TaskQueue().broker_url == "redis://from-environment/0"
    assert TaskQueue().backend_url == "redis://from-environment/0"
    assert TaskQueue("memory://").broker_url == "memory://"
    assert TaskQueue("memory://", backend="memory://b").backend_url == "memory://b"
    assert TaskQueue("memory://", lease=3).conf.lease == 3


def test_without_anything_it_is_a_file_here(monkeypatch):
    monkeypatch.delenv("AIORETRYQ_URL", raising=False)
    assert TaskQueue().broker_url == "sqlite:///aioretryq.sqlite3"


@given(st.sampled_from(sorted(HINTS)), st.text(max_size=20))
def test_no_text_makes_parsing_fail_otherwise_than_with_config_error(name, text):
    with suppress(ConfigError):
        setattr(Settings(), name, parse(name, text))


def test_every_setting_is_documented():
    rows = table()
    assert len(rows) == len(HINTS)
    assert all(doc.endswith((".", ")")) for _, _, _, doc in rows)


# -- config_from_object


def test_from_a_mapping_an_object_and_a_class():
    class Configuration:
        task_default_queue = "from-class"
        worker_concurrency = 3

    for source in ({"task_default_queue": "from-class", "worker_concurrency": 3}, Configuration, Configuration()):
        queue = TaskQueue("memory://")
        queue.config_from_object(source)
        assert queue.conf.task_default_queue == "from-class"
        assert queue.conf.worker_concurrency == 3


def module(**values):
    made = types.ModuleType("celeryconfig_of_test")
    vars(made).update(values)
    return made


def test_from_a_module_and_from_its_import_path(monkeypatch):
    config = module(os=sys, helper=len, Constant=1, broker_url="redis://h/2", task_acks_late=False)
    queue = TaskQueue("memory://")
    queue.config_from_object(config)
    assert (queue.conf.broker_url, queue.conf.task_acks_late) == ("redis://h/2", False)

    monkeypatch.setitem(sys.modules, "celeryconfig_of_test", config)
    queue = TaskQueue("memory://")
    queue.config_from_object("celeryconfig_of_test")
    assert queue.conf.broker_url == "redis://h/2"

    config.nested = types.SimpleNamespace(lease=4)
    queue.config_from_object("celeryconfig_of_test:nested")
    assert queue.conf.lease == 4


def test_a_misspelt_setting_in_a_module_is_noticed():
    queue = TaskQueue("memory://")
    with pytest.raises(UnknownSettingError, match="task_default_queue"):
        queue.config_from_object(module(task_defualt_queue="x"))
    assert queue.conf.task_default_queue == "celery"


def test_settings_only_celery_has_are_skipped_with_a_warning():
    queue = TaskQueue("memory://")
    with pytest.warns(UserWarning, match="task_reject_on_worker_lost, worker_prefetch_multiplier"):
        queue.config_from_object(
            module(task_acks_late=True, task_reject_on_worker_lost=True, worker_prefetch_multiplier=1)
        )
    assert queue.conf.task_acks_late is True


def test_setting_such_a_name_directly_says_whose_it_is():
    with pytest.raises(UnknownSettingError, match="Celery"):
        Settings().worker_prefetch_multiplier = 1


def test_a_wrong_import_path_is_a_config_error():
    queue = TaskQueue("memory://")
    with pytest.raises(ConfigError, match="no_such_module_here"):
        queue.config_from_object("no_such_module_here")
    with pytest.raises(ConfigError, match="no_such_name"):
        queue.config_from_object("os:no_such_name")


def test_the_baseline_of_the_failure_guide_loads():
    queue = TaskQueue("memory://")
    queue.conf.update(task_track_started=True, task_acks_late=True, task_time_limit=330, result_expires=3600)
    queue.conf.result_backend_always_retry = True
    queue.conf.result_backend_max_retries = 10
    queue.conf.result_backend_base_sleep_between_retries_ms = 50
    queue.conf.result_backend_max_sleep_between_retries_ms = 5000
    assert queue.conf.as_dict()["result_backend_max_retries"] == 10


@pytest.mark.parametrize(
    ("name", "value"), [("lease", 0), ("worker_concurrency", 0), ("worker_grace", -1), ("max_payload_bytes", 0)]
)
def test_numbers_out_of_range_are_refused(name, value):
    with pytest.raises(ConfigError, match=f"{name}.*at least"):
        setattr(Settings(), name, value)


def test_durations_may_be_timedeltas():
    assert Settings(result_expires=timedelta(minutes=5)).result_expires == 300


def test_priorities_end_at_nine():
    with pytest.raises(ConfigError, match=r"task_default_priority.*at most 9"):
        Settings(task_default_priority=10)


@pytest.mark.parametrize("create", [create_broker, create_backend])
@pytest.mark.parametrize(
    "url", ["foo://user:secret@h/1?password=secret", "user:secret@h", "foo?password=secret", "foo://:s@secret@h"]
)
def test_an_unknown_scheme_is_shown_without_the_password(create, url):
    with pytest.raises(ConfigError) as caught:
        create(url, Settings())
    assert "secret" not in str(caught.value)
